import { describe, expect, it } from "vitest";
import { columnSpans, heatRows, shadeOf, summaryOf } from "../src/model/heatmap";
import type { Line } from "../src/model/metrics";

function device(label: string, points: readonly (readonly [number, number])[]): Line {
  return { id: label, label, isThin: true, points: new Map(points) };
}

const LINES = [device("GPU a", [[0, 100], [60, 0]]), device("GPU b", [[60, 40]]), device("GPU c", [])];

describe("a heat map", () => {
  it("has a row for each device, with gaps where there is no sample", () => {
    expect(heatRows(LINES, [0, 60], "percent").map(({ values }) => values)).toEqual([
      [100, 0],
      [null, 40],
      [null, null],
    ]);
  });

  it("has a fixed scale for percentages, and else reaches to the largest value", () => {
    const low = [device("GPU a", [[0, 20]])];
    expect(heatRows(low, [0], "percent")[0]!.most).toBe(100);
    expect(heatRows(low, [0], "bytes")[0]!.most).toBe(20);
    expect(shadeOf(0, 0)).toBeGreaterThan(0);
    expect(shadeOf(50, 100)).toBeLessThan(shadeOf(100, 100));
  });

  it("says in words what it shows", () => {
    const summary = summaryOf(heatRows(LINES, [0, 60], "percent"), (value) => `${value} %`);
    expect(summary).toBe("Last: 0 % to 40 %, median 0 %, 1 at 0.");
    expect(summaryOf(heatRows([LINES[2]!], [0, 60], "percent"), String)).toBe("No samples.");
  });

  it("has the time range of its chart", () => {
    expect(columnSpans([60, 120, 300], 0, 600)).toEqual([
      { left: 0, right: 0.1 },
      { left: 0.1, right: 0.2 },
      { left: 0.4, right: 0.5 },
    ]);
    expect(columnSpans([60], 0, 60)).toEqual([{ left: 59 / 60, right: 1 }]);
    expect(columnSpans([], 0, 60)).toEqual([]);
  });
});
