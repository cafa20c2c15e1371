import { describe, expect, it } from "vitest";
import { readDetailView, detailViewUrl, type DetailView } from "../src/model/detail_view";

const USUAL: DetailView = { tab: "Overview", range: undefined, zoom: undefined, compared: [] };

describe("the detailView of a workload in the URL", () => {
  it.each<[string, DetailView, string]>([
    ["/workloads/1", USUAL, "/workloads/1"],
    ["/workloads/1?tab=json&range=7d", USUAL, "/workloads/1"],
    ["/?open=1&search=a%26b", { ...USUAL, tab: "Metrics", range: "6h" }, "/?open=1&search=a%26b&tab=metrics&range=6h"],
    [
      "/workloads/1",
      { ...USUAL, tab: "Metrics", zoom: { start: 0, end: 60_000 } },
      "/workloads/1?tab=metrics&from=1970-01-01T00%3A00%3A00.000Z&to=1970-01-01T00%3A01%3A00.000Z",
    ],
    ["/workloads/1", { ...USUAL, tab: "Metrics", compared: ["a", "b"] }, "/workloads/1?tab=metrics&compare=a%2Cb"],
  ])("writes %s", (url, detailView, written) => {
    expect(detailViewUrl(url, detailView)).toBe(written);
    expect(readDetailView(new URLSearchParams(written.split("?")[1]))).toEqual(detailView);
  });

  it.each(["", "tab=<img>&range=9y", "from=x&to=y", "from=2026-01-02&to=2026-01-01", "from=2026-01-01"])(
    "reads %s as the usual",
    (query) => expect(readDetailView(new URLSearchParams(query))).toEqual(USUAL),
  );
});
