/** The four headline numbers with their last 24 hours; each links to its workloads. */

import type { FleetFigures, FleetMoment } from "../api/shapes";
import { Spark } from "../components/spark";
import { count, decimal, duration } from "../model/format";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { useState } from "preact/hooks";
import { saveFile } from "../components/save_file";
import { CSV_DAYS, failedCsv, failedView, type FailedCounts } from "./failed";

interface StatSpec {
  readonly label: string;
  readonly to: string;
  readonly value: (now: FleetMoment) => string;
  readonly note: (now: FleetMoment) => string;
  /** The value at a moment of the sparkline; null = unknown. */
  readonly at: (moment: FleetMoment) => number | null;
}

const STATS: readonly StatSpec[] = [
  {
    label: "Allocated GPUs",
    to: listUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }),
    value: ({ gpus }) => decimal(gpus.allocated),
    note: ({ gpus }) =>
      gpus.total === null || gpus.total === 0
        ? "capacity unknown"
        : `of ${decimal(gpus.total)} · ${Math.floor((100 * gpus.allocated) / gpus.total)} %`,
    at: ({ gpus }) => gpus.allocated,
  },
  {
    label: "Idle GPUs",
    to: "/idle",
    value: ({ gpus }) => (gpus.idle === null ? "not measured" : decimal(gpus.idle)),
    note: ({ gpus }) => {
      if (gpus.idle === null) return gpus.allocated === 0 ? "no GPU is allocated" : "no cluster measures GPU use";
      const unknown = gpus.allocated - gpus.measured;
      return unknown > 0.005 ? `of ${decimal(gpus.measured)} measured` : "allocated, but not used";
    },
    at: ({ gpus }) => gpus.idle,
  },
  {
    label: "Pending",
    to: listUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false }),
    value: ({ pending }) => count(pending.count),
    note: ({ pending }) =>
      pending.medianWaitSeconds === null ? "none pending" : `median pending time ${duration(pending.medianWaitSeconds)}`,
    at: ({ pending }) => pending.count,
  },
];

interface SummaryProps {
  readonly fleet: FleetFigures;
  readonly failed: FailedCounts;
}

export function Summary({ fleet, failed }: SummaryProps) {
  const { now } = fleet;
  return (
    <div class="stats">
      {STATS.map((stat) => (
        <Link key={stat.label} class="stat" to={stat.to}>
          <span class="stat-label">{stat.label}</span>
          <span class={stat.at(now) === null ? "stat-value is-quiet" : "stat-value"}>{stat.value(now)}</span>
          <span class="stat-note">{stat.note(now)}</span>
          <History fleet={fleet} label={stat.label} at={stat.at} />
        </Link>
      ))}
      <FailedStat fleet={fleet} failed={failed} />
    </div>
  );
}

/** Live and deleted workloads are two lists, so that each number has the link that shows exactly its workloads. */
function FailedStat({ fleet, failed }: SummaryProps) {
  const { since, live, deleted } = failed;
  return (
    <div class="stat">
      <span class="stat-label">Failed in 24 h</span>
      <span class="stat-value">{count(live + deleted)}</span>
      <span class="stat-note">
        <Link to={failedView(since, false)}>{count(live)} live</Link> ·{" "}
        <Link to={failedView(since, true)}>{count(deleted)} deleted</Link> · <FailedCsv />
      </span>
      <History fleet={fleet} label="Failed in 24 h" at={({ failedInLastDay }) => failedInLastDay} />
    </div>
  );
}

/** Both lists in one file, of a week. */
function FailedCsv() {
  const [state, setState] = useState<"ready" | "busy" | "failed">("ready");
  const save = async (): Promise<void> => {
    setState("busy");
    try {
      saveFile(await failedCsv(), "failed-workloads.csv", "text/csv");
      setState("ready");
    } catch {
      setState("failed"); // The button says so, and can be pressed again.
    }
  };
  return (
    <button
      type="button"
      class="link-button"
      disabled={state === "busy"}
      title={`Download all that failed in the last ${CSV_DAYS} days, live or deleted, as one CSV`}
      onClick={() => void save()}
    >
      {state === "failed" ? "CSV failed, try again" : `CSV, ${CSV_DAYS} days`}
    </button>
  );
}

interface HistoryProps {
  readonly fleet: FleetFigures;
  readonly label: string;
  readonly at: (moment: FleetMoment) => number | null;
}

function History({ fleet: { now, series, stepSeconds }, label, at }: HistoryProps) {
  return (
    <Spark
      points={[...series, now].map((moment) => ({ at: Date.parse(moment.at), value: at(moment) }))}
      stepMs={stepSeconds * 1000}
      label={`${label}, the last 24 hours`}
    />
  );
}
