/** Small multiples over one shared time range. A brush on any of them zooms all. */

import { serverNow } from "../api/server_clock";
import { lazy, Suspense } from "preact/compat";
import { getMetrics, getWorkload } from "../api/routes";
import type { Cluster, Measurement, Workload } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { FindingText } from "../components/finding";
import { gpuMeasurement } from "../model/cluster_health";
import { localInstant } from "../model/format";
import {
  CHARTS,
  INFERENCE_CHARTS,
  chartState,
  comparedState,
  type ChartSpec,
  type ChartState,
  type ComparedMeasurements,
} from "../model/metrics";
import { RANGES, type Span } from "../model/detail_view";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useClusters } from "../clusters/context";
import { useMe } from "../session";
import { useIsDark } from "../theme";
import { Compare } from "./compare";
import { useDetailView } from "./use_detail_view";

const Chart = lazy(() => import("./chart"));

const DAY = 24 * 3_600_000;
const LONGEST = 89 * DAY;
const SAMPLES = 240;
/** With many GPUs, each has fewer samples: an answer holds about so many for all of them. */
const DEVICE_SAMPLES = 8_000;
const LEAST_SAMPLES = 48;
/** Agents report larger workloads as a whole only. */
const MAX_DEVICES = 512;

function samplesFor(allocatedGpus: number | null | undefined): number {
  const gpus = Math.max(1, allocatedGpus ?? 1);
  return Math.round(Math.max(LEAST_SAMPLES, Math.min(SAMPLES, DEVICE_SAMPLES / gpus)));
}
const TYPES_PER_REQUEST = 10;

/** `lastKnown` = the last contact with the cluster; there are no samples after it. */
function rangeOf(workload: Workload, length: number | undefined, lastKnown: number): Span {
  const end = workload.deletedAt === null ? lastKnown : Date.parse(workload.deletedAt);
  const createdAt = Date.parse(workload.createdAt);
  const start = length === undefined ? createdAt : end - length;
  return { start: Math.min(end - 60_000, Math.max(start, end - LONGEST)), end };
}

export function Metrics({ workload }: { readonly workload: Workload }) {
  const [{ range: word, zoom, compared }, setDetailView] = useDetailView();
  const defaultRange = workload.deletedAt === null ? "1h" : "life";
  const chosen = RANGES.find((range) => range.word === (word ?? defaultRange))!;
  const isDark = useIsDark();
  const cluster = useClusters().byId.get(workload.clusterId);
  const charts = workload.category === "Deploy" ? [...CHARTS, ...INFERENCE_CHARTS] : CHARTS;
  const key = `metrics ${workload.id} ${chosen.word} ${zoom?.start} ${zoom?.end} ${compared}`;
  const { data, error, at, refresh } = useLiveQuery(
    key,
    async (signal) => {
      const lastKnown = Math.min(serverNow(), Date.parse(cluster?.lastContactAt ?? "") || serverNow());
      const range = zoom ?? rangeOf(workload, chosen.length, lastKnown);
      const others = await Promise.all(compared.map((id) => getWorkload(id, signal)));
      const all = await Promise.all(
        [workload, ...others].map(async ({ id, name, allocatedResources }) => ({
          id,
          name,
          measurements: await fetchMeasurements(id, charts, range, samplesFor(allocatedResources?.gpu), signal),
        })),
      );
      return { range, others, all };
    },
    zoom === undefined ? 15_000 : undefined,
  );
  return (
    <>
      <div class="metrics-head">
        <div class="ranges" role="group" aria-label="Time range">
          {RANGES.map((range) => (
            <button
              key={range.word}
              type="button"
              class="button"
              aria-pressed={zoom === undefined && range === chosen}
              onClick={() => setDetailView({ range: range.word, zoom: undefined })}
            >
              {range.label}
            </button>
          ))}
          {zoom !== undefined && (
            <button type="button" class="button is-primary" onClick={() => setDetailView({ zoom: undefined })}>
              {localInstant(new Date(zoom.start).toISOString())} … · reset
            </button>
          )}
        </div>
        <Compare
          workload={workload}
          others={data?.others ?? []}
          ids={compared}
          onIds={(ids) => setDetailView({ compared: ids })}
        />
      </div>
      <StaleBar error={data === undefined ? undefined : error} at={at} retry={refresh} />
      {data === undefined ? (
        error === undefined ? (
          <Skeleton />
        ) : (
          <ErrorState error={error} retry={refresh} />
        )
      ) : (
        <Charts
          key={String(isDark)}
          charts={charts}
          workloads={data.all}
          range={data.range}
          cluster={cluster}
          gpus={workload.allocatedResources?.gpu ?? 0}
          onZoom={(start, end) => setDetailView({ zoom: { start: start * 1000, end: Math.max(end * 1000, start * 1000 + 60_000) } })}
        />
      )}
    </>
  );
}

async function fetchMeasurements(
  id: string,
  charts: readonly ChartSpec[],
  range: Span,
  samples: number,
  signal: AbortSignal,
): Promise<readonly Measurement[]> {
  const types = charts.flatMap((chart) => Object.keys(chart.lines));
  const query = { start: new Date(range.start), end: new Date(range.end), samples };
  const batches: string[][] = [];
  for (let from = 0; from < types.length; from += TYPES_PER_REQUEST)
    batches.push(types.slice(from, from + TYPES_PER_REQUEST));
  const answers = await Promise.all(batches.map((batch) => getMetrics(id, batch, query, signal)));
  return answers.flat();
}

interface ChartsProps {
  readonly charts: readonly ChartSpec[];
  /** The workload, and those that it is compared with. */
  readonly workloads: readonly ComparedMeasurements[];
  readonly range: Span;
  readonly cluster: Cluster | undefined;
  readonly gpus: number;
  readonly onZoom: (start: number, end: number) => void;
}

function Charts({ charts, workloads, range, cluster, gpus, onZoom }: ChartsProps) {
  const [first] = workloads as [ComparedMeasurements];
  const all = charts.map((spec) => ({
    spec,
    state: workloads.length > 1 ? comparedState(spec, workloads) : chartState(spec, first.measurements),
  }));
  const drawn = all.filter(({ state }) => state.kind === "lines");
  const empty = all.filter(({ state }) => state.kind !== "lines");
  return (
    <>
      <Suspense fallback={<Skeleton />}>
        <div class="charts">
          {drawn.map(
            ({ spec, state }) =>
              state.kind === "lines" && (
                <Chart
                  key={spec.title}
                  title={spec.title}
                  unit={spec.unit}
                  lines={state.lines}
                  start={range.start / 1000}
                  end={range.end / 1000}
                  onZoom={onZoom}
                />
              ),
          )}
        </div>
      </Suspense>
      {gpus > MAX_DEVICES && (
        <p class="muted">Single GPUs are reported for workloads with up to {MAX_DEVICES} of them.</p>
      )}
      {empty.length > 0 && (
        <ul class="plain charts-empty">
          {empty.map(({ spec, state }) => (
            <li key={spec.title} class={`chart-${state.kind}`}>
              <strong>{spec.title}</strong> <EmptyReason spec={spec} state={state} cluster={cluster} />
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

interface EmptyReasonProps {
  readonly spec: ChartSpec;
  readonly state: ChartState;
  readonly cluster: Cluster | undefined;
}

/** Why a chart has no lines. For GPU metrics, the state of the cluster's exporter says more than the answer. */
function EmptyReason({ spec, state, cluster }: EmptyReasonProps) {
  const me = useMe();
  if (state.kind === "unreachable")
    return <>{state.reason === "timeout" ? "the metrics source timed out" : "the metrics source does not respond"}</>;
  if (state.kind === "empty") return <>no samples in this time range</>;
  if (spec.isFromGpuExporter === true && cluster !== undefined) {
    const measurement = gpuMeasurement(cluster, me);
    if (!measurement.isMeasured) return <FindingText finding={measurement} />;
  }
  return <>not available: no metrics source in this cluster provides it</>;
}
