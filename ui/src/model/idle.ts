/** What idle GPUs have cost, from what a workload's document tells. */

import type { Workload } from "../api/shapes";

const HOUR_MS = 3_600_000;

/** GPU-hours of spells that are over and of those that last; undefined where nothing measures them. */
export function idleGpuHours(workload: Workload, now: number): number | undefined {
  const fields = workload.additionalFields ?? {};
  const over = fields["idleGpuHours"];
  const since = fields["idleMeanSince"];
  if (typeof over !== "number") return undefined;
  const lasting = typeof since === "string" ? Math.max(0, now - Date.parse(since)) / HOUR_MS : 0;
  return over + (workload.idleAllocatedGpus ?? 0) * lasting;
}
