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

/** Where a column lies in the time range, from 0 to 1. A sample stands for the time since the one before. */
export interface ColumnSpan {
  readonly left: number;
  readonly right: number;
}

/** If there is only one sample, it stands for this part of the range. */
const LONE_SAMPLE = 1 / 60;

export function columnSpans(at: readonly number[], start: number, end: number): ColumnSpan[] {
  const gaps = at.slice(1).map((instant, index) => instant - at[index]!);
  const step = gaps.length === 0 ? (end - start) * LONE_SAMPLE : Math.min(...gaps);
  const place = (instant: number): number => Math.min(1, Math.max(0, (instant - start) / (end - start)));
  return at.map((instant) => ({ left: place(instant - step), right: place(instant) }));
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
