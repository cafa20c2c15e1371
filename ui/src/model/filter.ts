/** One filter item, read from and written to `FIELD OPERATOR VALUE`; and the `filterBy` parameter. */

import { FIELDS, fieldNamed, OPERATORS, operatorsOf } from "./fields";
import { PHASES } from "./phases";
import { nearest } from "./suggest";

export interface Filter {
  readonly field: string;
  readonly operator: string;
  readonly value: string;
}

/** The server accepts ten; one is reserved for the bound of the snapshot, one for AI work alone. */
export const MAX_FILTERS = 8;

const ANY_OPERATOR = Object.keys(OPERATORS)
  .map((operator) => operator.replace(/[$^]/gu, "\\$&"))
  .join("|");
const PATTERN = new RegExp(`^([^=!<>]+?)(${ANY_OPERATOR})(.*)$`, "su");

/** A filter of a URL that cannot be applied. */
export interface InvalidFilter {
  readonly text: string;
  readonly problem: string;
  /** What was probably meant. */
  readonly suggestion?: Filter;
}

export function isInvalid(result: Filter | InvalidFilter): result is InvalidFilter {
  return "problem" in result;
}

/** Reads `FIELD OPERATOR VALUE`. */
export function parseFilter(text: string): Filter | InvalidFilter {
  const match = PATTERN.exec(text);
  if (match === null) return { text, problem: `'${text}' is not a filter. Write FIELD OPERATOR VALUE, as in phase==Pending.` };
  const [, field, operator, value] = match as unknown as [string, string, string, string];
  const filter = { field, operator, value };
  const known = fieldNamed(field);
  if (known === undefined) {
    const meant = nearest(field, FIELDS.map(({ name }) => name));
    return invalid(text, `There is no field '${field}'.`, meant === undefined ? undefined : { ...filter, field: meant });
  }
  if (!operatorsOf(known).includes(operator))
    return { text, problem: `${known.label} cannot be compared with ${operator}. Use one of ${operatorsOf(known).join(" ")}` };
  if (field === "phase" && ["==", "!="].includes(operator) && !PHASES.includes(value)) {
    const meant = nearest(value, PHASES);
    return invalid(text, `There is no phase '${value}'.`, meant === undefined ? undefined : { ...filter, value: meant });
  }
  const problem = problemOf(filter);
  return problem === undefined ? filter : { text, problem };
}

function invalid(text: string, problem: string, suggestion: Filter | undefined): InvalidFilter {
  return suggestion === undefined ? { text, problem } : { text, problem, suggestion };
}

export function formatFilter(filter: Filter): string {
  return filter.field + filter.operator + filter.value;
}

export function isSameFilter(a: Filter, b: Filter): boolean {
  return a.field === b.field && a.operator === b.operator && a.value === b.value;
}

/**
 * The value of one `filterBy` parameter. A list joined by commas reads best; where a value holds a comma
 * itself, a JSON array leaves no doubt about where an item ends.
 */
export function filterParameter(filters: readonly Filter[]): string {
  const items = filters.map(formatFilter);
  return items.some((item) => item.includes(",") || item.startsWith("["))
    ? JSON.stringify(items)
    : items.join(",");
}

export function without(filters: readonly Filter[], removed: Filter): Filter[] {
  return filters.filter((filter) => !isSameFilter(filter, removed));
}

/** With `field == value` in place of other values that the field must equal. */
export function narrowed(filters: readonly Filter[], field: string, value: string): Filter[] {
  return [...filters.filter((filter) => filter.field !== field || filter.operator !== "=="), { field, operator: "==", value }];
}

/** Adds `field == value`, or takes it away where it is already there. */
export function toggled(filters: readonly Filter[], field: string, value: string): Filter[] {
  const wanted: Filter = { field, operator: "==", value };
  return filters.some((filter) => isSameFilter(filter, wanted))
    ? without(filters, wanted)
    : [...filters, wanted];
}

/** Why a value does not fit its field, or undefined. */
export function problemOf(filter: Filter): string | undefined {
  const field = fieldNamed(filter.field);
  if (field === undefined) return "Unknown field.";
  if (filter.value.trim() === "") return "Enter a value.";
  if (field.kind === "number" && !Number.isFinite(Number(filter.value)))
    return `${field.label} must be a number, got '${filter.value}'.`;
  if (field.kind === "date" && Number.isNaN(Date.parse(filter.value)))
    return `${field.label} must be a date such as 2026-11-23 or 2026-11-23T20:00:00Z.`;
  return undefined;
}
