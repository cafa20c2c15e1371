/** Which metrics share a chart, and what an answer of the API holds for each chart. */

import type { Measurement } from "../api/shapes";
import { bytes, decimal, duration } from "./format";

export type Unit = "count" | "gpus" | "cores" | "bytes" | "percent" | "bytesPerSecond" | "seconds";

export interface ChartSpec {
  readonly title: string;
  readonly unit: Unit;
  readonly isFromGpuExporter?: boolean;
  /** Metric type → label of its line. */
  readonly lines: Readonly<Record<string, string>>;
}

export const CHARTS: readonly ChartSpec[] = [
  { title: "Allocated GPUs", unit: "gpus", lines: { GPU_ALLOCATION: "allocated" } },
  { title: "GPU utilization", unit: "percent", isFromGpuExporter: true, lines: { GPU_UTILIZATION: "used" } },
  {
    title: "GPU memory",
    unit: "bytes",
    isFromGpuExporter: true,
    lines: { GPU_MEMORY_USAGE_BYTES: "used", GPU_MEMORY_REQUEST_BYTES: "requested" },
  },
  { title: "Pods", unit: "count", lines: { POD_COUNT: "all", RUNNING_POD_COUNT: "running" } },
  {
    title: "CPU",
    unit: "cores",
    lines: { CPU_USAGE_CORES: "used", CPU_REQUEST_CORES: "requested", CPU_LIMIT_CORES: "limit" },
  },
  {
    title: "Memory",
    unit: "bytes",
    lines: {
      CPU_MEMORY_USAGE_BYTES: "used",
      CPU_MEMORY_REQUEST_BYTES: "requested",
      CPU_MEMORY_LIMIT_BYTES: "limit",
    },
  },
  { title: "NVLink", unit: "bytesPerSecond", isFromGpuExporter: true, lines: { NVLINK_BANDWIDTH_TOTAL: "both directions" } },
];

export const INFERENCE_CHARTS: readonly ChartSpec[] = [
  {
    title: "Requests",
    unit: "count",
    lines: {
      NIM_NUM_REQUESTS_RUNNING: "running",
      NIM_NUM_REQUESTS_WAITING: "waiting",
      NIM_NUM_REQUEST_MAX: "limit",
    },
  },
  {
    title: "Time to first token",
    unit: "seconds",
    lines: { NIM_TIME_TO_FIRST_TOKEN_SECONDS_PERCENTILES: "" },
  },
  {
    title: "Request latency",
    unit: "seconds",
    lines: { NIM_E2E_REQUEST_LATENCY_SECONDS_PERCENTILES: "" },
  },
];

export interface Line {
  /** Unique within the chart. */
  readonly id: string;
  readonly label: string;
  /** One device of several. */
  readonly isThin: boolean;
  /** Instant in seconds → value. */
  readonly points: ReadonlyMap<number, number>;
}

/** What one chart can show: lines, no samples in the range, no source for them, or a source that does not respond. */
export type ChartState =
  | { readonly kind: "lines"; readonly lines: readonly Line[] }
  | { readonly kind: "empty" }
  | { readonly kind: "unsupported" }
  | { readonly kind: "unreachable"; readonly reason: string };

export function chartState(spec: ChartSpec, measurements: readonly Measurement[]): ChartState {
  const matching = Object.keys(spec.lines).flatMap((type) =>
    measurements.filter((measurement) => measurement.type === type),
  );
  const answered = matching.filter((measurement) => measurement.values !== null);
  const lines = answered.map((measurement) => lineOf(spec, measurement)).filter((line) => line.points.size > 0);
  if (lines.length > 0) return { kind: "lines", lines };
  const reasons = matching.map((measurement) => measurement.labels?.["reason"]).filter((reason) => reason !== undefined);
  const failure = reasons.find((reason) => reason !== "unsupported");
  if (failure !== undefined) return { kind: "unreachable", reason: failure };
  if (answered.length === 0) return { kind: "unsupported" };
  return { kind: "empty" };
}

export interface ComparedMeasurements {
  readonly id: string;
  readonly name: string;
  readonly measurements: readonly Measurement[];
}

/** One line for each workload: of the chart's first metric, and of the workload as a whole. */
export function comparedState(spec: ChartSpec, workloads: readonly ComparedMeasurements[]): ChartState {
  const [type] = Object.keys(spec.lines) as [string];
  const first: ChartSpec = { ...spec, lines: { [type]: spec.lines[type] ?? "" } };
  const states = workloads.map(({ measurements }) => chartState(first, measurements));
  const lines = states.flatMap((state, index) => {
    const whole = state.kind === "lines" ? state.lines.find(({ isThin }) => !isThin) : undefined;
    return whole === undefined ? [] : [{ ...whole, id: workloads[index]!.id, label: workloads[index]!.name }];
  });
  return lines.length > 0 ? { kind: "lines", lines } : (states.find(({ kind }) => kind !== "lines") ?? { kind: "empty" });
}

function lineOf(spec: ChartSpec, measurement: Measurement): Line {
  const gpu = measurement.labels?.["gpu"];
  const quantile = measurement.labels?.["quantile"];
  const base = spec.lines[measurement.type] ?? measurement.type;
  const points = new Map<number, number>();
  for (const { value, timestamp } of measurement.values ?? []) {
    const at = Date.parse(timestamp ?? "") / 1000;
    const number = Number(value);
    if (Number.isFinite(at) && Number.isFinite(number)) points.set(at, number);
  }
  if (gpu !== undefined) return { id: `${base} ${gpu}`, label: shortDevice(gpu), isThin: true, points };
  const label = [base, quantile === undefined ? "" : `p${Number(quantile) * 100}`].filter(Boolean).join(" ");
  return { id: label, label, isThin: false, points };
}

/** `GPU 1fd85434` for a device UUID, followed by the number of a MIG instance; anything else unchanged. */
export function shortDevice(gpu: string): string {
  const match = /^(GPU|MIG)-([0-9a-f]{8})-[0-9a-f-]+(\/\d+)?$/u.exec(gpu);
  return match === null ? `GPU ${gpu}` : `${match[1]} ${match[2]}${match[3] ?? ""}`;
}

/** Columns for the chart: shared instants, one array of values per line, null where a line has a gap. */
export function columnsOf(lines: readonly Line[]): { at: number[]; values: (number | null)[][] } {
  const at = [...new Set(lines.flatMap((line) => [...line.points.keys()]))].sort((a, b) => a - b);
  return { at, values: lines.map((line) => at.map((instant) => line.points.get(instant) ?? null)) };
}

export function formatValue(unit: Unit, value: number): string {
  if (unit === "bytes") return bytes(value);
  if (unit === "bytesPerSecond") return `${bytes(value)}/s`;
  if (unit === "percent") return `${decimal(value)} %`;
  if (unit === "seconds") return value < 10 ? `${decimal(value)} s` : duration(value);
  return decimal(value);
}
