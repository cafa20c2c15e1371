import type { Workload } from "../api/shapes";
import { CopyButton } from "../components/copy";

/** The record exactly as the API gives it. */
export function Json({ workload }: { readonly workload: Workload }) {
  const text = JSON.stringify(workload, null, 2);
  return (
    <div class="json">
      <CopyButton text={text} label="Copy the JSON">
        copy
      </CopyButton>
      <pre>{text}</pre>
    </div>
  );
}
