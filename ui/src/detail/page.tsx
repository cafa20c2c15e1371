import { useKeys } from "../hooks/keys";
import { back } from "../router";
import { Detail } from "./detail";

/** One workload on a page of its own. Escape leads back to where one came from. */
export function WorkloadPage({ id }: { readonly id: string }) {
  useKeys({ Escape: back });
  return (
    <div class="page detail-page">
      <Detail key={id} id={id} />
    </div>
  );
}
