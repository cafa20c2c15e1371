/** Who submitted something: the name as colleagues say it, the whole address on hover. */

export function ownerName(owner: string): string {
  const at = owner.indexOf("@");
  return at > 0 ? owner.slice(0, at) : owner;
}

export function Owner({ owner }: { readonly owner: string | null | undefined }) {
  if (owner === null || owner === undefined || owner === "") return <span class="none">nobody named</span>;
  return <span title={owner}>{ownerName(owner)}</span>;
}
