/** The owner of a workload: the name before the @, the whole address on hover. */

export function ownerName(owner: string): string {
  const at = owner.indexOf("@");
  return at > 0 ? owner.slice(0, at) : owner;
}

export function Owner({ owner }: { readonly owner: string | null | undefined }) {
  if (owner === null || owner === undefined || owner === "") return <span class="none">no owner</span>;
  return <span title={owner}>{ownerName(owner)}</span>;
}
