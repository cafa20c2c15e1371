/** The idle GPU-hours of a workload. */

import type { Workload } from "../api/shapes";

const HOUR_MS = 3_600_000;

/** GPU-hours of past and current idle periods; undefined if they are not measured. */
export function idleGpuHours(workload: Workload, now: number): number | undefined {
  const fields = workload.additionalFields ?? {};
  const past = fields["idleGpuHours"];
  const since = fields["idleMeanSince"];
  if (typeof past !== "number") return undefined;
  const currentHours = typeof since === "string" ? Math.max(0, now - Date.parse(since)) / HOUR_MS : 0;
  return past + (workload.idleAllocatedGpus ?? 0) * currentHours;
}
