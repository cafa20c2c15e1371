/** One chart (uPlot). The legend is ours: labels are text nodes, never markup. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { localInstant } from "../model/format";
import { columnsOf, formatValue, type Line, type Unit } from "../model/metrics";
import { resolved } from "../theme";
import { Heatmap } from "./heatmap";

const HEIGHT = 130;
const COLORS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5"];
/** Left and right of the plot, in pixels; the style sheet has them for the heat map below it. */
const AXIS = 64;
const EDGE = 16;
const SYNC = "metrics";

interface ChartProps {
  readonly title: string;
  readonly unit: Unit;
  readonly lines: readonly Line[];
  readonly start: number;
  readonly end: number;
  readonly onZoom: (start: number, end: number) => void;
}

/** More devices than this are a heat map; so many lines could not be distinguished. */
const MOST_DEVICE_LINES = 8;

export default function Chart({ lines: all, ...props }: ChartProps) {
  const devices = all.filter(({ isThin }) => isThin);
  if (devices.length <= MOST_DEVICE_LINES) return <LineChart {...props} lines={all} />;
  const { at } = columnsOf(devices);
  return (
    <div class="chart-with-heatmap">
      <LineChart {...props} lines={all.filter(({ isThin }) => !isThin)} />
      <Heatmap title={props.title} unit={props.unit} lines={devices} at={at} start={props.start} end={props.end} />
    </div>
  );
}

function LineChart({ title, unit, lines, start, end, onZoom }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const zoom = useRef(onZoom);
  zoom.current = onZoom;
  const [hover, setHover] = useState<number | undefined>(undefined);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const { at, values } = useMemo(() => columnsOf(lines), [lines]);
  const data = useMemo<uPlot.AlignedData>(() => [at, ...values] as uPlot.AlignedData, [at, values]);
  const optionsKey = `${lines.map((line) => line.id).join("|")} ${[...hidden].join("|")} ${start} ${end}`;

  useEffect(() => {
    if (box.current === null) return undefined;
    const element = box.current;
    const chart = new uPlot(
      optionsOf({ element, unit, lines, hidden, start, end, setHover, zoom: (a, b) => zoom.current(a, b) }),
      data,
      element,
    );
    plot.current = chart;
    const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = undefined;
    };
  }, [optionsKey]);
  useEffect(() => plot.current?.setData(data, false), [data]);

  const index = hover ?? at.length - 1;
  const instant = at[index];
  const items = lines.map((line, number) => ({ line, number }));
  const thin = items.filter(({ line }) => line.isThin);
  const itemOf = ({ line, number }: { readonly line: Line; readonly number: number }) => {
    const value = values[number]?.[index];
    return (
      <button
        key={line.id}
        type="button"
        class="legend-item"
        aria-pressed={!hidden.has(line.id)}
        title={`${line.id}: show or hide this line`}
        onClick={() => setHidden(toggled(hidden, line.id))}
      >
        <span class="legend-line" style={{ background: `var(${COLORS[number % COLORS.length]!})` }} />
        {line.label} <b>{value === null || value === undefined ? "no data" : formatValue(unit, value)}</b>
      </button>
    );
  };
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong>
        <span class="muted">
          {hover !== undefined && instant !== undefined ? localInstant(new Date(instant * 1000).toISOString()) : ""}
        </span>
      </figcaption>
      <div class="plot" ref={box} />
      <div class="legend">{items.filter(({ line }) => !line.isThin).map(itemOf)}</div>
      {thin.length > 0 && (
        <details class="legend-devices">
          <summary>{thin.length === 1 ? "1 device" : `${thin.length} devices`}</summary>
          <div class="legend">{thin.map(itemOf)}</div>
        </details>
      )}
    </figure>
  );
}

function toggled(set: ReadonlySet<string>, item: string): ReadonlySet<string> {
  const next = new Set(set);
  if (!next.delete(item)) next.add(item);
  return next;
}

interface OptionsInput {
  readonly element: HTMLElement;
  readonly unit: Unit;
  readonly lines: readonly Line[];
  readonly hidden: ReadonlySet<string>;
  readonly start: number;
  readonly end: number;
  readonly setHover: (index: number | undefined) => void;
  readonly zoom: (start: number, end: number) => void;
}

const BINARY_STEPS = Array.from({ length: 60 }, (_, power) => 2 ** power);
const DECIMAL_STEPS = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 2.5, 5].map((n) => n * 10 ** power));
const WHOLE_STEPS = DECIMAL_STEPS.filter(Number.isInteger);

function clockFor(seconds: number): Intl.DateTimeFormat {
  return seconds > 2 * 86_400
    ? new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" })
    : new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function optionsOf(input: OptionsInput): uPlot.Options {
  const color = (name: string): string => resolved(input.element, name);
  const axis = {
    stroke: color("--muted"),
    grid: { stroke: color("--chart-grid"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const clock = clockFor(input.end - input.start);
  return {
    width: input.element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    padding: [null, EDGE, null, null],
    cursor: { sync: { key: SYNC }, drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: [input.start, input.end] },
      y: { range: (_plot, _min, max) => (input.unit === "percent" ? [0, 100] : [0, max > 0 ? max * 1.1 : 1]) },
    },
    axes: [
      { ...axis, size: 24, space: 64, values: (_plot, splits) => splits.map((at) => clock.format(at * 1000)) },
      {
        ...axis,
        size: AXIS,
        space: 30,
        incrs: input.unit.startsWith("bytes") ? BINARY_STEPS : input.unit === "count" ? WHOLE_STEPS : DECIMAL_STEPS,
        values: (_plot, splits) => splits.map((split) => formatValue(input.unit, split)),
      },
    ],
    series: [
      {},
      ...input.lines.map((line, index) => ({
        label: line.label,
        show: !input.hidden.has(line.id),
        stroke: color(COLORS[index % COLORS.length]!),
        width: line.isThin ? 1 : 2,
        spanGaps: false,
        points: { show: line.points.size < 3, size: 5 },
        paths: uPlot.paths.stepped!({ align: -1 }),
      })),
    ],
    hooks: {
      setCursor: [(plot) => input.setHover(plot.cursor.idx ?? undefined)],
      setSelect: [
        (plot) => {
          if (plot.select.width < 8) return;
          const from = plot.posToVal(plot.select.left, "x");
          const to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          input.zoom(from, to);
        },
      ],
    },
  };
}
