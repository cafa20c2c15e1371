/** One filter item, read from and written to `FIELD OPERATOR VALUE`; and the `filterBy` parameter. */

import { FIELDS, fieldNamed, OPERATORS } from "./fields";

export interface Filter {
  readonly field: string;
  readonly operator: string;
  readonly value: string;
}

/** The server accepts ten; one is reserved for the bound of the snapshot. */
export const MAX_FILTERS = 9;

const NAMES = FIELDS.map((field) => field.name).sort((a, b) => b.length - a.length);
const OPERATOR_LIST = Object.keys(OPERATORS);

export function parseFilter(text: string): Filter | undefined {
  const field = NAMES.find((name) => text.startsWith(name));
  if (field === undefined) return undefined;
  const rest = text.slice(field.length);
  const operator = OPERATOR_LIST.find((candidate) => rest.startsWith(candidate));
  if (operator === undefined) return undefined;
  const value = rest.slice(operator.length);
  return value === "" ? undefined : { field, operator, value };
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
