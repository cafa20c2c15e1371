/** A view of the list: filters, order and display. It lives in the URL alone. */

import { fieldNamed } from "./fields";
import { filterParameter, formatFilter, isInvalid, parseFilter, type Filter, type InvalidFilter } from "./filter";

/** Column id → width in pixels, for the columns that were resized. */
export type Widths = Readonly<Record<string, number>>;

export interface View {
  readonly filters: readonly Filter[];
  /** Filters of the URL that cannot be applied; the list is shown once they are corrected or removed. */
  readonly invalidFilters: readonly InvalidFilter[];
  readonly search: string;
  readonly isDeleted: boolean;
  /** Also what is not AI work: operators, services and whatever else the clusters run. */
  readonly isAll: boolean;
  readonly sortBy: string;
  readonly isDescending: boolean;
  /** Visible columns in order; undefined = the default columns. */
  readonly columns: readonly string[] | undefined;
  readonly widths: Widths;
  /** Columns that stay beside the name while the others move, in their order. */
  readonly pinned: readonly string[];
  readonly isCompact: boolean;
  /** The workload whose panel is open. */
  readonly openId: string | undefined;
}

/** What an address of the list says of its view. */
export const VIEW_PARAMETERS: readonly string[] = [
  ...["filterBy", "search", "deleted", "all", "sortBy", "sortOrder"],
  ...["columns", "widths", "pinned", "density", "open"],
];

export const DEFAULT_VIEW: View = {
  filters: [],
  invalidFilters: [],
  search: "",
  isDeleted: false,
  isAll: false,
  sortBy: "createdAt",
  isDescending: true,
  columns: undefined,
  widths: {},
  pinned: [],
  isCompact: false,
  openId: undefined,
};

function defaultSort(isDeleted: boolean): string {
  return isDeleted ? "deletedAt" : "createdAt";
}

export function readView(query: URLSearchParams): View {
  const isDeleted = query.get("deleted") === "true";
  const columns = names(query.get("columns"));
  const filters = query.getAll("filterBy").map(parseFilter);
  return {
    filters: filters.filter((filter): filter is Filter => !isInvalid(filter)),
    invalidFilters: filters.filter(isInvalid),
    search: query.get("search") ?? "",
    isDeleted,
    isAll: query.get("all") === "true",
    sortBy: query.get("sortBy") ?? defaultSort(isDeleted),
    isDescending: query.has("sortBy") ? query.get("sortOrder") === "desc" : true,
    columns,
    widths: readWidths(query.get("widths")),
    pinned: names(query.get("pinned")) ?? [],
    isCompact: query.get("density") === "compact",
    openId: query.get("open") ?? undefined,
  };
}

function names(text: string | null): readonly string[] | undefined {
  return text === null ? undefined : text.split(",").filter((name) => name !== "");
}

function readWidths(text: string | null): Widths {
  const pairs = (text ?? "").split(",").map((part) => /^([A-Za-z]+):(\d{1,4})$/u.exec(part));
  return Object.fromEntries(pairs.filter((match) => match !== null).map(([, id, width]) => [id, Number(width)]));
}

/** The view as a path with a query. Defaults are left out, so that simple views have short URLs. */
export function viewUrl(view: View): string {
  const query = new URLSearchParams();
  if (view.isDeleted) query.set("deleted", "true");
  if (view.isAll) query.set("all", "true");
  for (const filter of view.filters) query.append("filterBy", formatFilter(filter));
  for (const { text } of view.invalidFilters) query.append("filterBy", text);
  if (view.search !== "") query.set("search", view.search);
  if (view.sortBy !== defaultSort(view.isDeleted) || !view.isDescending) {
    query.set("sortBy", view.sortBy);
    query.set("sortOrder", view.isDescending ? "desc" : "asc");
  }
  if (view.columns !== undefined) query.set("columns", view.columns.join(","));
  const widths = Object.entries(view.widths);
  if (widths.length > 0) query.set("widths", widths.map(([id, width]) => `${id}:${width}`).join(","));
  if (view.pinned.length > 0) query.set("pinned", view.pinned.join(","));
  if (view.isCompact) query.set("density", "compact");
  if (view.openId !== undefined) query.set("open", view.openId);
  const text = query.toString();
  return text === "" ? "/" : `/?${text}`;
}

/** A link to the list of all workloads with these filters, as the figures that lead there count them. */
export function listUrl(items: readonly (readonly [string, string, string])[], more?: Partial<View>): string {
  const filters = items.map(([field, operator, value]) => ({ field, operator, value }));
  return viewUrl({ ...DEFAULT_VIEW, isAll: true, ...more, filters });
}

/** Sorted by another field, or by the same one in reverse. Numbers and dates start with the largest and the newest. */
export function sortedBy(view: View, field: string): View {
  const kind = fieldNamed(field)?.kind;
  const isLargeFirst = kind === "number" || kind === "date";
  return { ...view, sortBy: field, isDescending: view.sortBy === field ? !view.isDescending : isLargeFirst };
}

const CLASS_FIELD = "workloadClass";
/** What an older agent has not classified is shown too. */
const AI_WORK: Filter = { field: CLASS_FIELD, operator: "!=", value: "General" };

/** Whether the view shows AI work alone; a filter on the class says itself what is shown. */
export function isAiWorkOnly(view: View): boolean {
  return !view.isAll && view.filters.every(({ field }) => field !== CLASS_FIELD);
}

/** The query of the API for this view, without order and page. */
export function filterQuery(view: View, more: readonly Filter[] = []): URLSearchParams {
  const query = new URLSearchParams();
  const filters = [...view.filters, ...(isAiWorkOnly(view) ? [AI_WORK] : []), ...more];
  if (filters.length > 0) query.set("filterBy", filterParameter(filters));
  if (view.search !== "") query.set("search", view.search);
  if (view.isDeleted) query.set("deleted", "true");
  return query;
}

/** Two views with the same key show the same rows in the same order. */
export function rowsKey(view: View): string {
  return `${filterQuery(view).toString()} ${view.sortBy} ${view.isDescending}`;
}
