/** The fleet at a glance: numbers that matter, who holds the GPUs, how long things wait. */

import { countWorkloads, listWorkloads, telemetry } from "../api/routes";
import type { Cluster, TelemetryValue, Workload } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { ConnectCluster } from "../clusters/connect";
import { useLive } from "../hooks/live";
import { count, decimal, duration, secondsBetween } from "../model/format";
import { lookOf, phaseRank } from "../model/phases";
import { DEFAULT_VIEW, listUrl, type View } from "../model/view";
import { Bars, type BarRow } from "../parts/bars";
import { PhaseBadge } from "../parts/phase";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { Link } from "../router";

const EVERY_MS = 10_000;
const PROJECTS_SHOWN = 12;
const PENDING: View = {
  ...DEFAULT_VIEW,
  filters: [{ field: "phase", operator: "==", value: "Pending" }],
  sortBy: "phaseUpdatedAt",
  isDescending: false,
};

const IDLE: View = {
  ...DEFAULT_VIEW,
  filters: [{ field: "idleAllocatedGpus", operator: ">=", value: "0.01" }],
  sortBy: "idleAllocatedGpus",
};

function dayAgo(): string {
  return `${new Date(Date.now() - 86_400_000).toISOString().slice(0, 19)}Z`;
}

function failedView(isDeleted: boolean, since: string): View {
  const filters = [
    { field: "phase", operator: "==", value: "Failed" },
    { field: "phaseUpdatedAt", operator: ">=", value: since },
  ];
  return { ...DEFAULT_VIEW, filters, isDeleted };
}

async function askFleet(signal: AbortSignal) {
  const since = dayAgo();
  const [gpus, idle, phases, byProject, byCluster, waiting, failed, failedGone] = await Promise.all([
    telemetry("GPU_ALLOCATION", {}, signal),
    telemetry("IDLE_ALLOCATED_GPUS", {}, signal),
    telemetry("WORKLOADS_COUNT", { groupBy: "Phase" }, signal),
    telemetry("GPU_ALLOCATION", { groupBy: "ProjectId" }, signal),
    telemetry("GPU_ALLOCATION", { groupBy: "ClusterId" }, signal),
    telemetry("PENDING_TIME_DISTRIBUTION", {}, signal),
    countWorkloads(failedView(false, since), [], signal),
    countWorkloads(failedView(true, since), [], signal),
  ]);
  const pending = sumOf(phases.filter((value) => groupOf(value) === "Pending"));
  const middle =
    pending === 0
      ? []
      : await listWorkloads(PENDING, [], { offset: Math.floor((pending - 1) / 2), limit: 1 }, signal);
  const idlest = sumOf(idle) > 0 ? await listWorkloads(IDLE, [], { offset: 0, limit: 6 }, signal) : [];
  return { idlest, gpus, idle, phases, byProject, byCluster, waiting, failed, failedGone, since, pending, middle };
}

function sumOf(values: readonly TelemetryValue[]): number {
  return values.reduce((sum, { value }) => sum + Number(value), 0);
}

function groupOf(value: TelemetryValue): string {
  return value.groups?.[0]?.value ?? "";
}

function sorted(values: readonly TelemetryValue[]): TelemetryValue[] {
  return [...values].filter(({ value }) => Number(value) > 0).sort((a, b) => Number(b.value) - Number(a.value));
}

function capacity(clusters: readonly Cluster[]): number {
  return clusters.reduce((sum, cluster) => sum + capacityOf(cluster), 0);
}

function capacityOf(cluster: Cluster | undefined): number {
  return (cluster?.nodePools ?? []).reduce((sum, pool) => sum + pool.gpus, 0);
}

export function FleetPage() {
  const { data, error, at, refresh } = useLive("fleet", askFleet, EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <ConnectCluster />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <Failure error={error} retry={refresh} />;
  const held = sumOf(data.gpus);
  const total = capacity(clusters.data ?? []);
  return (
    <div class="page fleet">
      <h1 class="off-screen">Fleet</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <div class="figures">
        <Figure
          to={listUrl([["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" })}
          label="GPUs allocated"
          value={decimal(held)}
          note={total > 0 ? `of ${decimal(total)} · ${Math.round((100 * held) / total)} %` : "capacity not known"}
        />
        <Figure
          to="/idle"
          label="GPUs idle"
          value={data.idle.length === 0 ? "not measured" : decimal(sumOf(data.idle))}
          isQuiet={data.idle.length === 0}
          note={data.idle.length === 0 ? "no cluster reports GPU use" : "allocated, and not used for 5 minutes"}
        />
        <Figure
          to={listUrl([["phase", "==", "Pending"]], { sortBy: "phaseUpdatedAt", isDescending: false })}
          label="Pending"
          value={count(data.pending)}
          note={
            data.middle[0] === undefined
              ? "nothing waits"
              : `median wait ${duration(secondsBetween(data.middle[0].phaseUpdatedAt, Date.now()))}`
          }
        />
        <Figure
          to={listUrl([["phase", "==", "Failed"], ["phaseUpdatedAt", ">=", data.since]], { sortBy: "phaseUpdatedAt" })}
          label="Failed in 24 h"
          value={count(data.failed + data.failedGone)}
          note={data.failedGone > 0 ? `${count(data.failedGone)} of them deleted since` : "all still there"}
        />
      </div>
      <div class="columns-2">
        {data.idlest.length > 0 && (
          <Block title="Allocated and not used, by whom">
            <Bars label="Idle GPUs by workload" rows={data.idlest.map(idleRow)} />
          </Block>
        )}
        <Block title="GPUs allocated by project">
          <Bars label="GPUs allocated by project" rows={projectRows(data.byProject)} />
        </Block>
        <Block title="GPUs allocated by cluster">
          <Bars
            label="GPUs allocated by cluster"
            rows={sorted(data.byCluster).map((value) => clusterRow(value, clusters.byId.get(groupOf(value)), clusterName(clusters, groupOf(value))))}
          />
        </Block>
        <Block title="Pending now, by waiting time">
          <Bars label="Pending by waiting time" rows={data.waiting.map(waitingRow)} />
        </Block>
        <Block title="Workloads by phase">
          <Bars
            label="Workloads by phase"
            rows={[...data.phases].sort((a, b) => phaseRank(groupOf(a)) - phaseRank(groupOf(b))).map(phaseRow)}
          />
        </Block>
      </div>
    </div>
  );
}

function idleRow(workload: Workload): BarRow {
  const idle = workload.idleAllocatedGpus ?? 0;
  const held = workload.allocatedResources?.gpu ?? 0;
  return {
    key: workload.id,
    label: (
      <span title={`${workload.submittedBy ?? "unknown"} · ${workload.name}`}>
        {workload.submittedBy ?? "unknown"} <span class="muted">{workload.name}</span>
      </span>
    ),
    value: idle,
    whole: held,
    shown: `${decimal(idle)} of ${decimal(held)}`,
    tone: "pending",
    to: `/workloads/${encodeURIComponent(workload.id)}`,
  };
}

/** A project belongs to one cluster; to people those of the same name are one. */
function projectRows(values: readonly TelemetryValue[]): BarRow[] {
  const sums = new Map<string, number>();
  for (const value of values) {
    const name = value.groups?.[0]?.name ?? "";
    sums.set(name, (sums.get(name) ?? 0) + Number(value.value));
  }
  const rows = [...sums].filter(([, gpus]) => gpus > 0).sort((a, b) => b[1] - a[1]);
  const shown = rows.slice(0, PROJECTS_SHOWN).map(([name, gpus]) => ({
    key: name,
    label: name === "" ? "no project" : name,
    value: gpus,
    shown: decimal(gpus),
    ...(name === ""
      ? {}
      : { to: listUrl([["projectName", "==", name], ["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }) }),
  }));
  const rest = rows.slice(PROJECTS_SHOWN);
  if (rest.length === 0) return shown;
  const gpus = rest.reduce((sum, [, more]) => sum + more, 0);
  return [...shown, { key: "…", label: `${count(rest.length)} more projects`, value: gpus, shown: decimal(gpus), tone: "unknown" }];
}

function clusterRow(value: TelemetryValue, cluster: Cluster | undefined, name: string): BarRow {
  const total = capacityOf(cluster);
  const held = Number(value.value);
  return {
    key: groupOf(value),
    label: value.groups?.[0]?.name ?? name,
    value: held,
    shown: total > 0 ? `${decimal(held)} of ${decimal(total)}` : decimal(held),
    ...(total > 0 ? { whole: total } : {}),
    to: listUrl([["clusterId", "==", groupOf(value)], ["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }),
  };
}

const BOUNDS: Readonly<Record<string, readonly [number, number | undefined]>> = {
  "0-5m": [0, 300],
  "5m-1h": [300, 3_600],
  "1h-24h": [3_600, 86_400],
  "24h+": [86_400, undefined],
};

function waitingRow(value: TelemetryValue): BarRow {
  const bucket = groupOf(value);
  const bounds = BOUNDS[bucket];
  const ago = (seconds: number): string => `${new Date(Date.now() - seconds * 1000).toISOString().slice(0, 19)}Z`;
  const items: (readonly [string, string, string])[] = [["phase", "==", "Pending"]];
  if (bounds?.[1] !== undefined) items.push(["phaseUpdatedAt", ">=", ago(bounds[1])]);
  if (bounds !== undefined && bounds[0] > 0) items.push(["phaseUpdatedAt", "<=", ago(bounds[0])]);
  return {
    key: bucket,
    label: bucket.replace("-", " – "),
    value: Number(value.value),
    shown: count(Number(value.value)),
    tone: "pending",
    to: listUrl(items, { sortBy: "phaseUpdatedAt", isDescending: false }),
  };
}

function phaseRow(value: TelemetryValue): BarRow {
  const phase = groupOf(value);
  return {
    key: phase,
    label: <PhaseBadge phase={phase} />,
    value: Number(value.value),
    shown: count(Number(value.value)),
    tone: lookOf(phase).tone,
    to: listUrl([["phase", "==", phase]]),
  };
}

interface FigureProps {
  readonly to: string;
  readonly label: string;
  readonly value: string;
  readonly note: string;
  readonly isQuiet?: boolean;
}

function Figure({ to, label, value, note, isQuiet }: FigureProps) {
  return (
    <Link class="figure" to={to}>
      <span class="figure-label">{label}</span>
      <span class={isQuiet ? "figure-value is-quiet" : "figure-value"}>{value}</span>
      <span class="figure-note">{note}</span>
    </Link>
  );
}

function Block(props: { readonly title: string; readonly children: preact.ComponentChildren }) {
  return (
    <section class="block">
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}
