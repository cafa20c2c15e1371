/** What is looked at of one workload: which tab, and over which time. The URL is its only home, as a view's. */

export const TABS = ["Overview", "Metrics", "Structure", "JSON"] as const;
export type Tab = (typeof TABS)[number];

/** Milliseconds. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

const HOUR = 3_600_000;
/** By their words in the URL; `length` undefined = the whole life of the workload. */
export const RANGES: readonly { readonly word: string; readonly label: string; readonly length: number | undefined }[] = [
  { word: "1h", label: "1 h", length: HOUR },
  { word: "6h", label: "6 h", length: 6 * HOUR },
  { word: "24h", label: "24 h", length: 24 * HOUR },
  { word: "7d", label: "7 d", length: 7 * 24 * HOUR },
  { word: "life", label: "whole life", length: undefined },
];

export interface Sight {
  readonly tab: Tab;
  /** A word of `RANGES`, or undefined = the usual one. */
  readonly range: string | undefined;
  /** A stretch that was chosen by hand; it goes before `range`. */
  readonly zoom: Span | undefined;
}

export function readSight(query: URLSearchParams): Sight {
  const word = query.get("tab");
  const range = query.get("range");
  const start = Date.parse(query.get("from") ?? "");
  const end = Date.parse(query.get("to") ?? "");
  return {
    tab: TABS.find((tab) => tab.toLowerCase() === word) ?? "Overview",
    range: RANGES.find((one) => one.word === range)?.word,
    zoom: start < end ? { start, end } : undefined,
  };
}

/** `url`, an address of this page, with this sight in the place of its own. */
export function sightUrl(url: string, sight: Sight): string {
  const [path = "", asked = ""] = url.split("?", 2);
  const query = new URLSearchParams(asked);
  const words = {
    tab: sight.tab === "Overview" ? undefined : sight.tab.toLowerCase(),
    range: sight.range,
    from: sight.zoom && new Date(sight.zoom.start).toISOString(),
    to: sight.zoom && new Date(sight.zoom.end).toISOString(),
  };
  for (const [name, value] of Object.entries(words)) {
    if (value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}
