/** All devices of a workload over time: a row for each, a cell for each sample. */

import { useEffect, useRef, useState } from "preact/hooks";
import { localInstant } from "../model/format";
import { columnSpans, heatRows, shadeOf, summaryOf, type ColumnSpan, type HeatRow } from "../model/heatmap";
import { formatValue, type Line, type Unit } from "../model/metrics";
import { resolved } from "../theme";

const HEIGHT = 360;
const MIN_ROW = 3;
const MAX_ROW = 12;

interface HeatmapProps {
  readonly title: string;
  readonly unit: Unit;
  readonly lines: readonly Line[];
  /** The instants of the columns, in seconds. */
  readonly at: readonly number[];
  /** The time range of the chart above, in seconds. */
  readonly start: number;
  readonly end: number;
}

export function Heatmap({ title, unit, lines, at, start, end }: HeatmapProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cell, setCell] = useState<readonly [number, number] | undefined>(undefined);
  const rows = heatRows(lines, at, unit);
  const columns = columnSpans(at, start, end);
  const rowHeight = Math.max(MIN_ROW, Math.min(MAX_ROW, Math.floor(HEIGHT / rows.length)));
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return undefined;
    const redraw = (): void => draw(element, rows, columns, rowHeight);
    redraw();
    const observer = new ResizeObserver(redraw);
    observer.observe(element);
    return () => observer.disconnect();
  }, [lines, at, start, end, rowHeight]);
  const shown = cell === undefined ? undefined : rows[cell[0]];
  const value = shown?.values[cell![1]];
  const label = `${title} of ${rows.length} devices. ${summaryOf(rows, (number) => formatValue(unit, number))}`;
  return (
    <div class="heatmap">
      <canvas
        ref={canvas}
        role="img"
        aria-label={label}
        style={{ height: `${rows.length * rowHeight}px` }}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const x = (event.clientX - box.left) / box.width;
          const row = Math.floor(((event.clientY - box.top) / box.height) * rows.length);
          const column = columns.findIndex(({ left, right }) => left <= x && x < right);
          setCell(row in rows && column >= 0 ? [row, column] : undefined);
        }}
        onPointerLeave={() => setCell(undefined)}
      />
      <p class="muted">
        {shown === undefined
          ? label
          : `${shown.label} · ${localInstant(new Date(at[cell![1]]! * 1000).toISOString())} · ${
              value == null ? "no data" : formatValue(unit, value)
            }`}
      </p>
    </div>
  );
}

/** Nothing is drawn where there is no sample; 0 has a colour of its own, so that idle devices stand out. */
function draw(canvas: HTMLCanvasElement, rows: readonly HeatRow[], columns: readonly ColumnSpan[], rowHeight: number): void {
  const context = canvas.getContext("2d");
  const ratio = window.devicePixelRatio;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(rows.length * rowHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  if (context === null) return;
  context.clearRect(0, 0, width, height);
  const box = canvas.parentElement!;
  const [zero, filled] = [resolved(box, "--pending"), resolved(box, "--line-1")];
  rows.forEach((row, index) => {
    const top = Math.round((index * height) / rows.length);
    const bottom = Math.round(((index + 1) * height) / rows.length) - (rowHeight > MIN_ROW ? 1 : 0);
    row.values.forEach((value, column) => {
      if (value === null) return;
      const left = Math.round(columns[column]!.left * width);
      const right = Math.max(left + 1, Math.round(columns[column]!.right * width));
      context.fillStyle = value === 0 ? zero : filled;
      context.globalAlpha = value === 0 ? 0.6 : shadeOf(value, row.most);
      context.fillRect(left, top, right - left, bottom - top);
    });
  });
  context.globalAlpha = 1;
}
