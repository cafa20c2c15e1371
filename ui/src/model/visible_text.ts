/** Text from clusters with everything visible: what would hide or reorder characters is shown as an escape. */

/** As the command line has it: controls, formats (bidi, zero width, tags), unassigned, lone surrogates, breaks. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cn}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]/gu;
/** Ordinary parts of a text of several lines. */
const KEPT = new Set(["\n", "\t"]);

function escape(character: string): string {
  if (KEPT.has(character)) return character;
  const code = character.codePointAt(0)!;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\U${code.toString(16).padStart(8, "0")}`;
}

export function visible(text: string): string {
  return text.replace(HIDDEN, escape);
}
