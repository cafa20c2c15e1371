/** What every part of the page shares: a table, and the command that does something about a row. */

import type { ComponentChildren } from "preact";
import { CopyButton } from "../components/copy";
import { shellQuoted } from "../model/commands";

export function Table(props: {
  readonly label: string;
  readonly columns: readonly string[];
  readonly empty: string;
  readonly children: readonly ComponentChildren[];
}) {
  if (props.children.length === 0) return <p class="muted">{props.empty}</p>;
  return (
    <div class="scroll-x" role="region" aria-label={props.label} tabIndex={0}>
      <table class="small-table wide" aria-label={props.label}>
        <thead>
          <tr>
            {props.columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

/** Copies a command line; `words` after `watchbill admin`, quoted where a shell would split them. */
export function CopyCommand({ label, words }: { readonly label: string; readonly words: readonly string[] }) {
  const text = ["watchbill", ...words.map(shellQuoted)].join(" ");
  return (
    <CopyButton text={text} label={`Copy: ${text}`}>
      {label}
    </CopyButton>
  );
}

export function Reading() {
  return (
    <p class="muted">
      The page only reads. What changes something is a command: the buttons copy it, ready for a terminal where you have
      logged in.
    </p>
  );
}
