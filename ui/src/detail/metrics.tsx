/** Small multiples over one shared time range. A brush on any of them zooms all. */

import { lazy, Suspense } from "preact/compat";
import { getMetrics } from "../api/routes";
import type { Measurement, Workload } from "../api/shapes";
import { useLive } from "../hooks/live";
import { localInstant } from "../model/format";
import { CHARTS, INFERENCE_CHARTS, shownOf, type ChartSpec, type Shown } from "../model/metrics";
import { RANGES, type Span } from "../model/sight";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { useClusters } from "../clusters/context";
import { useIsDark } from "../theme";
import { useSight } from "./sight";

const Chart = lazy(() => import("./chart"));

const DAY = 24 * 3_600_000;
const LONGEST = 89 * DAY;
const SAMPLES = 240;
const TYPES_PER_REQUEST = 10;

/** `known` = until when the cluster has told: its last contact. After it there is nothing to draw. */
function rangeOf(workload: Workload, length: number | undefined, known: number): Span {
  const end = workload.deletedAt === null ? known : Date.parse(workload.deletedAt);
  const born = Date.parse(workload.createdAt);
  const start = length === undefined ? born : end - length;
  return { start: Math.min(end - 60_000, Math.max(start, end - LONGEST)), end };
}


export function Metrics({ workload }: { readonly workload: Workload }) {
  const [{ range: word, zoom: zoomed }, look] = useSight();
  const usual = workload.deletedAt === null ? "1h" : "life";
  const chosen = RANGES.find((range) => range.word === (word ?? usual))!;
  const isDark = useIsDark();
  const lastContactAt = useClusters().byId.get(workload.clusterId)?.lastContactAt;
  const charts = workload.category === "Deploy" ? [...CHARTS, ...INFERENCE_CHARTS] : CHARTS;
  const key = `metrics ${workload.id} ${chosen.word} ${zoomed?.start} ${zoomed?.end}`;
  const { data, error, at, refresh } = useLive(
    key,
    async (signal) => {
      const known = Math.min(Date.now(), Date.parse(lastContactAt ?? "") || Date.now());
      const range = zoomed ?? rangeOf(workload, chosen.length, known);
      return { range, measurements: await measure(workload.id, charts, range, signal) };
    },
    zoomed === undefined ? 15_000 : undefined,
  );
  return (
    <>
      <div class="ranges" role="group" aria-label="Time range">
        {RANGES.map((range) => (
          <button
            key={range.word}
            type="button"
            class="button"
            aria-pressed={zoomed === undefined && range === chosen}
            onClick={() => look({ range: range.word, zoom: undefined })}
          >
            {range.label}
          </button>
        ))}
        {zoomed !== undefined && (
          <button type="button" class="button is-primary" onClick={() => look({ zoom: undefined })}>
            {localInstant(new Date(zoomed.start).toISOString())} … · reset
          </button>
        )}
      </div>
      <StaleBar error={data === undefined ? undefined : error} at={at} retry={refresh} />
      {data === undefined ? (
        error === undefined ? (
          <Skeleton />
        ) : (
          <Failure error={error} retry={refresh} />
        )
      ) : (
        <Charts
          key={String(isDark)}
          charts={charts}
          measurements={data.measurements}
          range={data.range}
          onZoom={(start, end) => look({ zoom: { start: start * 1000, end: Math.max(end * 1000, start * 1000 + 60_000) } })}
        />
      )}
    </>
  );
}

async function measure(
  id: string,
  charts: readonly ChartSpec[],
  range: Span,
  signal: AbortSignal,
): Promise<readonly Measurement[]> {
  const types = charts.flatMap((chart) => Object.keys(chart.lines));
  const asked = { start: new Date(range.start), end: new Date(range.end), samples: SAMPLES };
  const parts: string[][] = [];
  for (let from = 0; from < types.length; from += TYPES_PER_REQUEST)
    parts.push(types.slice(from, from + TYPES_PER_REQUEST));
  const answers = await Promise.all(parts.map((part) => getMetrics(id, part, asked, signal)));
  return answers.flat();
}

interface ChartsProps {
  readonly charts: readonly ChartSpec[];
  readonly measurements: readonly Measurement[];
  readonly range: Span;
  readonly onZoom: (start: number, end: number) => void;
}

function Charts({ charts, measurements, range, onZoom }: ChartsProps) {
  const all = charts.map((spec) => ({ spec, shown: shownOf(spec, measurements) }));
  const drawn = all.filter(({ shown }) => shown.kind === "lines");
  const silent = all.filter(({ shown }) => shown.kind !== "lines");
  return (
    <>
      <Suspense fallback={<Skeleton />}>
        <div class="charts">
          {drawn.map(
            ({ spec, shown }) =>
              shown.kind === "lines" && (
                <Chart
                  key={spec.title}
                  title={spec.title}
                  unit={spec.unit}
                  lines={shown.lines}
                  start={range.start / 1000}
                  end={range.end / 1000}
                  onZoom={onZoom}
                />
              ),
          )}
        </div>
      </Suspense>
      {silent.length > 0 && (
        <ul class="plain silent">
          {silent.map(({ spec, shown }) => (
            <li key={spec.title} class={`silent-${shown.kind}`}>
              <strong>{spec.title}</strong> {silenceWords(shown)}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function silenceWords(shown: Shown): string {
  if (shown.kind === "unsupported") return "not measured: no source in this cluster offers it";
  if (shown.kind === "empty") return "no samples in this time range";
  if (shown.kind === "down")
    return shown.reason === "timeout" ? "the source took too long to answer" : "the source does not answer";
  return "";
}
