import { describe, expect, it } from "vitest";
import { cellAt, heatRows, shadeOf, summaryOf } from "../src/model/heatmap";
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

  it("finds the cell under the pointer", () => {
    expect(cellAt(0, 0, 100, 30, 3, 10)).toEqual([0, 0]);
    expect(cellAt(99.9, 29.9, 100, 30, 3, 10)).toEqual([2, 9]);
    expect(cellAt(100, 0, 100, 30, 3, 10)).toBeUndefined();
    expect(cellAt(-1, 5, 100, 30, 3, 10)).toBeUndefined();
  });
});
