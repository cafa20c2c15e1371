import { describe, expect, it } from "vitest";
import { readSight, sightUrl, type Sight } from "../src/model/sight";

const USUAL: Sight = { tab: "Overview", range: undefined, zoom: undefined };

describe("the sight of a workload in the URL", () => {
  it.each<[string, Sight, string]>([
    ["/workloads/1", USUAL, "/workloads/1"],
    ["/workloads/1?tab=json&range=7d", USUAL, "/workloads/1"],
    ["/?open=1&search=a%26b", { ...USUAL, tab: "Metrics", range: "6h" }, "/?open=1&search=a%26b&tab=metrics&range=6h"],
    [
      "/workloads/1",
      { tab: "Metrics", range: undefined, zoom: { start: 0, end: 60_000 } },
      "/workloads/1?tab=metrics&from=1970-01-01T00%3A00%3A00.000Z&to=1970-01-01T00%3A01%3A00.000Z",
    ],
  ])("writes %s", (url, sight, written) => {
    expect(sightUrl(url, sight)).toBe(written);
    expect(readSight(new URLSearchParams(written.split("?")[1]))).toEqual(sight);
  });

  it.each(["", "tab=<img>&range=9y", "from=x&to=y", "from=2026-01-02&to=2026-01-01", "from=2026-01-01"])(
    "reads %s as the usual",
    (query) => expect(readSight(new URLSearchParams(query))).toEqual(USUAL),
  );
});
