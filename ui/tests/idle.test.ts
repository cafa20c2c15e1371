import { describe, expect, it } from "vitest";
import type { Workload } from "../src/api/shapes";
import { idleGpuHours } from "../src/model/idle";

const NOW = Date.parse("2026-11-27T12:00:00Z");

function workload(idle: number | null, fields: Record<string, unknown>): Workload {
  return { idleAllocatedGpus: idle, additionalFields: fields } as unknown as Workload;
}

describe("GPU-hours idle", () => {
  it("adds what is over to what lasts", () => {
    const fields = { idleGpuHours: 3, idleMeanSince: "2026-11-27T10:00:00Z" };
    expect(idleGpuHours(workload(0.5, fields), NOW)).toBe(4);
  });
  it("knows nothing where nothing is measured", () => {
    expect(idleGpuHours(workload(null, {}), NOW)).toBeUndefined();
  });
  it("is never less for a clock that is behind", () => {
    const fields = { idleGpuHours: 1, idleMeanSince: "2026-11-27T13:00:00Z" };
    expect(idleGpuHours(workload(8, fields), NOW)).toBe(1);
  });
});
