/** Which tab of a workload is shown, over which time range. Like the list's view, it lives in the URL alone. */

export const TABS = ["Overview", "Metrics", "Pods", "Events", "Structure", "JSON"] as const;
export type Tab = (typeof TABS)[number];

/** Milliseconds. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

const HOUR = 3_600_000;
/** `word` is the value in the URL; `length` in milliseconds, undefined = the whole life of the workload. */
export const RANGES: readonly { readonly word: string; readonly label: string; readonly length: number | undefined }[] = [
  { word: "1h", label: "1 h", length: HOUR },
  { word: "6h", label: "6 h", length: 6 * HOUR },
  { word: "24h", label: "24 h", length: 24 * HOUR },
  { word: "7d", label: "7 d", length: 7 * 24 * HOUR },
  { word: "life", label: "whole life", length: undefined },
];

export interface DetailView {
  readonly tab: Tab;
  /** A `word` of `RANGES`; undefined = the default range. */
  readonly range: string | undefined;
  /** A range selected on a chart; it takes precedence over `range`. */
  readonly zoom: Span | undefined;
  /** Ids of the workloads whose charts are drawn into this one's. */
  readonly compared: readonly string[];
}

/** What an address says of it. */
export const DETAIL_PARAMETERS: readonly string[] = ["tab", "range", "from", "to", "compare"];

/** With this one, as many as there are colours of lines. */
export const MOST_COMPARED = 4;

export function readDetailView(query: URLSearchParams): DetailView {
  const word = query.get("tab");
  const range = query.get("range");
  const start = Date.parse(query.get("from") ?? "");
  const end = Date.parse(query.get("to") ?? "");
  return {
    tab: TABS.find((tab) => tab.toLowerCase() === word) ?? "Overview",
    range: RANGES.find(({ word }) => word === range)?.word,
    zoom: start < end ? { start, end } : undefined,
    compared: [...new Set((query.get("compare") ?? "").split(",").filter(Boolean))].slice(0, MOST_COMPARED),
  };
}

/** `url`, an address of this page, with its detail view replaced by this one. */
export function detailViewUrl(url: string, detailView: DetailView): string {
  const [path = "", search = ""] = url.split("?", 2);
  const query = new URLSearchParams(search);
  const parameters = {
    tab: detailView.tab === "Overview" ? undefined : detailView.tab.toLowerCase(),
    range: detailView.range,
    from: detailView.zoom && new Date(detailView.zoom.start).toISOString(),
    to: detailView.zoom && new Date(detailView.zoom.end).toISOString(),
    compare: detailView.compared.length === 0 ? undefined : detailView.compared.join(","),
  };
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}
