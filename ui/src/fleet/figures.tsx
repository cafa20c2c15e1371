/** The four numbers that matter, each with how it went over the last day; each is a door. */

import type { FleetFigures, FleetMoment } from "../api/shapes";
import { count, decimal, duration } from "../model/format";
import { listUrl } from "../model/view";
import { Spark } from "../parts/spark";
import { Link } from "../router";

const DAY_MS = 86_400_000;

interface FigureSpec {
  readonly label: string;
  readonly to: () => string;
  readonly value: (now: FleetMoment) => string;
  readonly note: (now: FleetMoment) => string;
  /** What the line is made of; null = not known then. */
  readonly at: (moment: FleetMoment) => number | null;
}

const FIGURES: readonly FigureSpec[] = [
  {
    label: "GPUs allocated",
    to: () => listUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }),
    value: ({ gpus }) => decimal(gpus.allocated),
    note: ({ gpus }) =>
      gpus.total === null || gpus.total === 0
        ? "capacity not known"
        : `of ${decimal(gpus.total)} · ${Math.floor((100 * gpus.allocated) / gpus.total)} %`,
    at: ({ gpus }) => gpus.allocated,
  },
  {
    label: "GPUs idle",
    to: () => "/idle",
    value: ({ gpus }) => (gpus.idle === null ? "not measured" : decimal(gpus.idle)),
    note: ({ gpus }) => {
      if (gpus.idle === null) return "no cluster reports GPU use";
      const unknown = gpus.allocated - gpus.measured;
      return unknown > 0.005 ? `of ${decimal(gpus.measured)} measured` : "allocated, and not used";
    },
    at: ({ gpus }) => gpus.idle,
  },
  {
    label: "Pending",
    to: () => listUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false }),
    value: ({ pending }) => count(pending.count),
    note: ({ pending }) =>
      pending.medianWaitSeconds === null ? "nothing waits" : `median wait ${duration(pending.medianWaitSeconds)}`,
    at: ({ pending }) => pending.count,
  },
  {
    label: "Failed in 24 h",
    to: () => {
      const since = `${new Date(Date.now() - DAY_MS).toISOString().slice(0, 19)}Z`;
      return listUrl([["phase", "==", "Failed"], ["phaseUpdatedAt", ">=", since]], { sortBy: "phaseUpdatedAt" });
    },
    value: ({ failedInLastDay }) => count(failedInLastDay),
    note: () => "those deleted since included",
    at: ({ failedInLastDay }) => failedInLastDay,
  },
];

export function Figures({ figures }: { readonly figures: FleetFigures }) {
  const { now, series, stepSeconds } = figures;
  const moments = [...series, now];
  return (
    <div class="figures">
      {FIGURES.map((figure) => (
        <Link key={figure.label} class="figure" to={figure.to()}>
          <span class="figure-label">{figure.label}</span>
          <span class={figure.at(now) === null ? "figure-value is-quiet" : "figure-value"}>{figure.value(now)}</span>
          <span class="figure-note">{figure.note(now)}</span>
          <Spark
            points={moments.map((moment) => ({ at: Date.parse(moment.at), value: figure.at(moment) }))}
            stepMs={stepSeconds * 1000}
            label={`${figure.label}, the last 24 hours`}
          />
        </Link>
      ))}
    </div>
  );
}
