/** A view of the list: what is asked, in which order, shown how. The URL is its only home. */

import { filterParameter, formatFilter, parseFilter, type Filter } from "./filter";

export interface View {
  readonly filters: readonly Filter[];
  readonly search: string;
  readonly isDeleted: boolean;
  readonly sortBy: string;
  readonly isDescending: boolean;
  /** Visible columns in order; undefined = the usual ones. */
  readonly columns: readonly string[] | undefined;
  readonly isCompact: boolean;
  /** The workload whose panel is open. */
  readonly openId: string | undefined;
}

export const DEFAULT_VIEW: View = {
  filters: [],
  search: "",
  isDeleted: false,
  sortBy: "createdAt",
  isDescending: true,
  columns: undefined,
  isCompact: false,
  openId: undefined,
};

function defaultSort(isDeleted: boolean): string {
  return isDeleted ? "deletedAt" : "createdAt";
}

export function readView(query: URLSearchParams): View {
  const isDeleted = query.get("deleted") === "true";
  const columns = query.get("columns");
  return {
    filters: query
      .getAll("filterBy")
      .map(parseFilter)
      .filter((filter) => filter !== undefined),
    search: query.get("search") ?? "",
    isDeleted,
    sortBy: query.get("sortBy") ?? defaultSort(isDeleted),
    isDescending: query.has("sortBy") ? query.get("sortOrder") === "desc" : true,
    columns: columns === null ? undefined : columns.split(",").filter((name) => name !== ""),
    isCompact: query.get("density") === "compact",
    openId: query.get("open") ?? undefined,
  };
}

/** The view as a path with a query; what is usual is left out, so that short views have short URLs. */
export function viewUrl(view: View): string {
  const query = new URLSearchParams();
  if (view.isDeleted) query.set("deleted", "true");
  for (const filter of view.filters) query.append("filterBy", formatFilter(filter));
  if (view.search !== "") query.set("search", view.search);
  if (view.sortBy !== defaultSort(view.isDeleted) || !view.isDescending) {
    query.set("sortBy", view.sortBy);
    query.set("sortOrder", view.isDescending ? "desc" : "asc");
  }
  if (view.columns !== undefined) query.set("columns", view.columns.join(","));
  if (view.isCompact) query.set("density", "compact");
  if (view.openId !== undefined) query.set("open", view.openId);
  const text = query.toString();
  return text === "" ? "/" : `/?${text}`;
}

/** A door: the list filtered by one or more items, everything else as usual. */
export function listUrl(items: readonly (readonly [string, string, string])[], more?: Partial<View>): string {
  const filters = items.map(([field, operator, value]) => ({ field, operator, value }));
  return viewUrl({ ...DEFAULT_VIEW, ...more, filters });
}

/** What the API is asked for this view, without order and page. */
export function askedOf(view: View, more: readonly Filter[] = []): URLSearchParams {
  const query = new URLSearchParams();
  const filters = [...view.filters, ...more];
  if (filters.length > 0) query.set("filterBy", filterParameter(filters));
  if (view.search !== "") query.set("search", view.search);
  if (view.isDeleted) query.set("deleted", "true");
  return query;
}

/** Two views with the same key show the same rows in the same order. */
export function rowsKey(view: View): string {
  return `${askedOf(view).toString()} ${view.sortBy} ${view.isDescending}`;
}
