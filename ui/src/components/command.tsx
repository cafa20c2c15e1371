import { CopyButton } from "./copy";

/** A command line and a button that copies it. It scrolls, also by the keyboard: broken after a hyphen it would read as two. */
export function Command({ text }: { readonly text: string }) {
  return (
    <div class="command">
      <code tabIndex={0}>{text}</code>
      <CopyButton text={text} label="Copy the command" />
    </div>
  );
}
