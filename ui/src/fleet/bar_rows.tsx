/** The rows of the fleet's bar charts, each with a link to its workloads. */

import { serverNow } from "../api/server_clock";
import type { Cluster, TelemetryValue } from "../api/shapes";
import { clusterName, type Clusters } from "../clusters/context";
import { count, decimal } from "../model/format";
import { phaseStyle } from "../model/phases";
import { listUrl } from "../model/view";
import type { BarRow } from "../components/bars";
import { PhaseBadge } from "../components/phase";
import type { Grouping } from "./groupings";

const SHOWN = 12;

export function allocationRows(grouping: Grouping, values: readonly TelemetryValue[], clusters: Clusters): BarRow[] {
  const sums = new Map<string, number>();
  for (const value of values) {
    const group = value.groups?.[0];
    const key = (grouping.isByName ? group?.name : group?.value) ?? "";
    sums.set(key, (sums.get(key) ?? 0) + Number(value.value));
  }
  const rows = [...sums].filter(([, gpus]) => gpus > 0).sort((a, b) => b[1] - a[1]);
  const shown = rows.slice(0, SHOWN).map(([key, gpus]) => allocationRow(grouping, key, gpus, clusters));
  const rest = rows.slice(SHOWN);
  if (rest.length === 0) return shown;
  const gpus = rest.reduce((sum, [, more]) => sum + more, 0);
  return [...shown, { key: "…", label: `${count(rest.length)} more`, value: gpus, shown: decimal(gpus), tone: "unknown" }];
}

function allocationRow(grouping: Grouping, key: string, gpus: number, clusters: Clusters): BarRow {
  const isCluster = grouping.key === "ClusterId";
  const total = isCluster ? capacityOf(clusters.byId.get(key)) : 0;
  const row: BarRow = {
    key,
    label: key === "" ? `no ${grouping.label}` : isCluster ? clusterName(clusters, key) : key,
    value: gpus,
    shown: total > 0 ? `${decimal(gpus)} of ${decimal(total)}` : decimal(gpus),
    ...(total > 0 ? { whole: total } : {}),
  };
  if (key === "") return row;
  return {
    ...row,
    to: listUrl([[grouping.field, "==", key], ["allocatedGPU", ">=", "0.001"]], { sortBy: "allocatedGPU" }),
  };
}

/** GPUs that new pods can have; 0 where that is not known. */
export function capacityOf(cluster: Cluster | undefined): number {
  const pools = cluster?.nodePools ?? [];
  return pools.some((pool) => pool.gpus === null) ? 0 : pools.reduce((sum, pool) => sum + (pool.gpus ?? 0), 0);
}

const BOUNDS: Readonly<Record<string, readonly [number, number | undefined]>> = {
  "0-5m": [0, 300],
  "5m-1h": [300, 3_600],
  "1h-24h": [3_600, 86_400],
  "24h+": [86_400, undefined],
};

export function waitingRow(value: TelemetryValue): BarRow {
  const bucket = value.groups?.[0]?.value ?? "";
  const bounds = BOUNDS[bucket];
  const ago = (seconds: number): string => `${new Date(serverNow() - seconds * 1000).toISOString().slice(0, 19)}Z`;
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

export function phaseRow(phase: string, number: number): BarRow {
  return {
    key: phase,
    label: <PhaseBadge phase={phase} />,
    value: number,
    shown: count(number),
    tone: phaseStyle(phase).tone,
    to: listUrl([["phase", "==", phase]]),
  };
}
