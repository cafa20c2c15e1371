/** The state of a cluster as colour and shape; the word stands beside it or in its label. */
export function StateMark({ state }: { readonly state: string }) {
  return <span class={`state state-${state}`} aria-hidden="true" />;
}
