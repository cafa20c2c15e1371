/** What a heat map of devices shows. */

import type { Line, Unit } from "./metrics";

export interface HeatRow {
  readonly label: string;
  /** One for each instant; null = no sample. */
  readonly values: readonly (number | null)[];
  /** The value of the darkest shade, the same for all rows. */
  readonly most: number;
}

/** A percentage has a fixed scale; everything else reaches to the largest value. */
export function heatRows(lines: readonly Line[], at: readonly number[], unit: Unit): HeatRow[] {
  const largest = lines.reduce((most, { points }) => Math.max(most, ...points.values()), 0);
  const most = unit === "percent" ? 100 : largest;
  return lines.map(({ label, points }) => ({ label, values: at.map((instant) => points.get(instant) ?? null), most }));
}

/** How dark a value is drawn, from 0.15 to 1. */
export function shadeOf(value: number, most: number): number {
  return most <= 0 ? 0.15 : 0.15 + 0.85 * Math.min(1, Math.max(0, value / most));
}

/** The row and the column at a position, or undefined outside. */
export function cellAt(
  x: number,
  y: number,
  width: number,
  height: number,
  rows: number,
  columns: number,
): readonly [number, number] | undefined {
  if (x < 0 || y < 0 || x >= width || y >= height) return undefined;
  return [Math.floor((y / height) * rows), Math.floor((x / width) * columns)];
}

/** The last values in words, for those who do not see the picture. */
export function summaryOf(rows: readonly HeatRow[], format: (value: number) => string): string {
  const last = rows.map(({ values }) => values.findLast((value) => value !== null)).filter((value) => value != null);
  if (last.length === 0) return "No samples.";
  const sorted = [...last].sort((a, b) => a - b);
  const zero = sorted.filter((value) => value === 0).length;
  const middle = sorted[Math.floor((sorted.length - 1) / 2)]!;
  return `Last: ${format(sorted[0]!)} to ${format(sorted[sorted.length - 1]!)}, median ${format(middle)}, ${zero} at 0.`;
}
