/** The fields to filter and sort by, with the API's names. The server validates them again. */

import rows from "./workload_fields.json";

/** `names`: several names at once; its operators are those of a text. */
export type FieldKind = "text" | "number" | "date" | "names";

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly kind: FieldKind;
  readonly isSortable: boolean;
}

/** Made at build time from the server's own table (`generate_fields.py`). */
export const FIELDS = rows as readonly Field[];

const BY_NAME = new Map(FIELDS.map((field) => [field.name, field]));

export function fieldNamed(name: string): Field | undefined {
  return BY_NAME.get(name);
}

export const OPERATORS: Readonly<Record<string, string>> = {
  "==": "is",
  "!=": "is not",
  "=@": "contains",
  "!@": "does not contain",
  "=^": "starts with",
  "=$": "ends with",
  ">=": "≥",
  "<=": "≤",
};

const ORDERED = ["==", "!=", ">=", "<="];

/** The operators that the server accepts for a field; numbers and dates have no partial matches. */
export function operatorsOf(field: Field): readonly string[] {
  return field.kind === "number" || field.kind === "date" ? ORDERED : Object.keys(OPERATORS);
}
