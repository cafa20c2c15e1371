import type { Finding } from "../model/cluster_health";

/** What is wrong or missing, and the next step. */
export function FindingText({ finding }: { readonly finding: Finding }) {
  return (
    <>
      {finding.text}
      {finding.advice !== undefined && <span class="advice"> {finding.advice}</span>}
    </>
  );
}
