import { useEffect, useRef } from "preact/hooks";

const KEYS: readonly (readonly [string, string])[] = [
  ["/", "search"],
  ["1  …  7", "Workloads, Fleet, Idle GPUs, Usage, Nodes, Projects, Clusters"],
  ["p", "pending workloads alone, or all again"],
  ["j  k  ↓  ↑", "next or previous workload"],
  ["o", "open in the side panel"],
  ["Enter", "open as a page"],
  ["n", "show pending changes"],
  ["f", "add a filter"],
  ["c", "columns"],
  ["Esc", "close, clear or go back"],
  ["?", "this list"],
];

export function Help({ onClose }: { readonly onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="help" aria-label="Keyboard" onClose={onClose}>
      <h2>Keyboard</h2>
      <dl>
        {KEYS.map(([keys, meaning]) => (
          <div key={meaning}>
            <dt>
              {keys.split("  ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <button type="button" class="button" onClick={() => dialog.current?.close()}>
        Close
      </button>
    </dialog>
  );
}
