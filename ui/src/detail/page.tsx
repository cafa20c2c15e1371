import { useKeys } from "../hooks/keyboard";
import { goBack } from "../router";
import { Detail } from "./detail";

/** One workload on a page of its own. Escape goes back. */
export function WorkloadPage({ id }: { readonly id: string }) {
  useKeys({ Escape: goBack });
  return (
    <div class="page detail-page">
      <Detail key={id} id={id} />
    </div>
  );
}
