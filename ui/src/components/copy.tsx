import { useEffect, useState } from "preact/hooks";

/** Copies text to the clipboard, through a temporary field where the browser forbids direct access. */
export async function copyText(text: string): Promise<void> {
  if (navigator.clipboard !== undefined) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // Not permitted here; the fallback below needs no permission.
    }
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "off-screen";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

export function CopyButton(props: {
  readonly text: string;
  readonly label: string;
  readonly children?: string;
}) {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return undefined;
    const timer = setTimeout(() => setDone(false), 1_500);
    return () => clearTimeout(timer);
  }, [isDone]);
  return (
    <button
      type="button"
      class={props.children === undefined ? "copy" : "button"}
      aria-label={props.label}
      title={props.label}
      onClick={(event) => {
        event.stopPropagation();
        void copyText(props.text).then(() => setDone(true));
      }}
    >
      {isDone ? "copied" : (props.children ?? "copy")}
    </button>
  );
}
