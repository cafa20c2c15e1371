/** The four headline numbers with their last 24 hours; each links to its workloads. */

import type { FleetFigures, FleetMoment } from "../api/shapes";
import { count, decimal, duration } from "../model/format";
import { listUrl } from "../model/view";
import { Spark } from "../components/spark";
import { Link } from "../router";

const DAY_MS = 86_400_000;

interface StatSpec {
  readonly label: string;
  readonly to: () => string;
  readonly value: (now: FleetMoment) => string;
  readonly note: (now: FleetMoment) => string;
  /** The value at a moment of the sparkline; null = unknown. */
  readonly at: (moment: FleetMoment) => number | null;
}

const STATS: readonly StatSpec[] = [
  {
    label: "Allocated GPUs",
    to: () => listUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }),
    value: ({ gpus }) => decimal(gpus.allocated),
    note: ({ gpus }) =>
      gpus.total === null || gpus.total === 0
        ? "capacity unknown"
        : `of ${decimal(gpus.total)} · ${Math.floor((100 * gpus.allocated) / gpus.total)} %`,
    at: ({ gpus }) => gpus.allocated,
  },
  {
    label: "Idle GPUs",
    to: () => "/idle",
    value: ({ gpus }) => (gpus.idle === null ? "not measured" : decimal(gpus.idle)),
    note: ({ gpus }) => {
      if (gpus.idle === null) return "no cluster measures GPU use";
      const unknown = gpus.allocated - gpus.measured;
      return unknown > 0.005 ? `of ${decimal(gpus.measured)} measured` : "allocated, but not used";
    },
    at: ({ gpus }) => gpus.idle,
  },
  {
    label: "Pending",
    to: () => listUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false }),
    value: ({ pending }) => count(pending.count),
    note: ({ pending }) =>
      pending.medianWaitSeconds === null ? "none pending" : `median wait ${duration(pending.medianWaitSeconds)}`,
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

export function Summary({ fleet }: { readonly fleet: FleetFigures }) {
  const { now, series, stepSeconds } = fleet;
  const moments = [...series, now];
  return (
    <div class="stats">
      {STATS.map((stat) => (
        <Link key={stat.label} class="stat" to={stat.to()}>
          <span class="stat-label">{stat.label}</span>
          <span class={stat.at(now) === null ? "stat-value is-quiet" : "stat-value"}>{stat.value(now)}</span>
          <span class="stat-note">{stat.note(now)}</span>
          <Spark
            points={moments.map((moment) => ({ at: Date.parse(moment.at), value: stat.at(moment) }))}
            stepMs={stepSeconds * 1000}
            label={`${stat.label}, the last 24 hours`}
          />
        </Link>
      ))}
    </div>
  );
}
