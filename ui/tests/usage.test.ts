import { expect, test } from "vitest";
import type { UsageRow } from "../src/api/shapes";
import {
  before,
  beginWithin,
  changeOf,
  compared,
  idleShare,
  measureOf,
  narrowing,
  unknownParameters,
  periodOf,
  usageDays,
  usageGroupOf,
  usageTitle,
  wholeDays,
  workloadFilters,
} from "../src/usage/periods";

const NOW = Date.UTC(2026, 10, 29, 6, 30);

function row(project: string | null, day: string, allocatedGpuHours: number): UsageRow {
  return { group: { project, day }, allocatedGpuHours } as unknown as UsageRow;
}

test("periods are whole UTC days, and the one before is as long", () => {
  const iso = (at: number): string => new Date(at).toISOString();
  expect(periodOf("7d")!.bounds(NOW).map(iso)).toEqual(["2026-11-23T00:00:00.000Z", "2026-11-30T00:00:00.000Z"]);
  expect(before(periodOf("7d")!.bounds(NOW), periodOf("7d")!).map(iso)).toEqual(["2026-11-16T00:00:00.000Z", "2026-11-23T00:00:00.000Z"]);
  const month = periodOf("last-month")!;
  expect(month.bounds(NOW).map(iso)).toEqual(["2026-10-01T00:00:00.000Z", "2026-11-01T00:00:00.000Z"]);
  expect(before(month.bounds(NOW), month).map(iso)).toEqual(["2026-09-01T00:00:00.000Z", "2026-10-01T00:00:00.000Z"]);
  const toDate = periodOf("month")!;
  const days = (from: string, to: string): [number, number] => [Date.parse(from), Date.parse(to)];
  expect(before(days("2026-11-01", "2026-11-29"), toDate).map(iso)).toEqual(["2026-10-01T00:00:00.000Z", "2026-10-29T00:00:00.000Z"]);
  expect(before(days("2026-03-01", "2026-03-31"), toDate).map(iso)).toEqual(["2026-02-01T00:00:00.000Z", "2026-03-01T00:00:00.000Z"]);
});

test("a day that is not over, or not counted to its end, is compared with none", () => {
  const [start, end] = periodOf("7d")!.bounds(NOW);
  const today = Date.UTC(2026, 10, 29);
  const until = "2026-11-29T06:20:00Z";
  expect(wholeDays([start, end], until)).toEqual([start, today]);
  expect(wholeDays([start, end], "2026-11-28T23:59:59Z")).toEqual([start, today - 86_400_000]);
  expect(wholeDays([start, today], until)).toEqual([start, today]);
  expect(wholeDays([today, end], until)).toBeUndefined();
  expect(wholeDays([start, end], null)).toBeUndefined();
});

test("a month that is not counted to its end is compared with the same days of the month before", () => {
  const lastMonth = periodOf("last-month")!;
  const days = lastMonth.bounds(Date.UTC(2026, 11, 1, 0, 5));
  const counted = wholeDays(days, "2026-11-30T23:55:00Z")!;
  expect(before(counted, lastMonth).map((at) => new Date(at).toISOString().slice(0, 10))).toEqual(["2026-10-01", "2026-10-30"]);
  expect(before(days, lastMonth).map((at) => new Date(at).toISOString().slice(0, 10))).toEqual(["2026-10-01", "2026-11-01"]);
});

test("days without use are there, and groups beyond the named ones are one part", () => {
  const bounds = [Date.UTC(2026, 10, 27), Date.UTC(2026, 10, 30)] as const;
  const rows = [row("vision", "2026-11-27", 8), row("nlp", "2026-11-27", 2), row(null, "2026-11-27", 1), row("vision", "2026-11-29", 4)];
  const days = usageDays(rows, usageGroupOf("project")!, measureOf(null)!, ["vision"], bounds);
  expect(days.map(({ day, total }) => [day, total])).toEqual([["2026-11-27", 11], ["2026-11-28", 0], ["2026-11-29", 4]]);
  expect([...days[0]!.parts]).toEqual([["vision", 8], ["", 3]]);
  const pending = rows.map((each) => ({ ...each, pendingGpuHours: 2 }) as UsageRow);
  const pendingDays = usageDays(pending, usageGroupOf("project")!, measureOf("pending")!, [], bounds);
  expect(pendingDays.map(({ total }) => total)).toEqual([6, 0, 2]);
});

test("the idle share is of what was measured, and unknown where nothing was", () => {
  expect(idleShare({ allocatedGpuHours: 10, unmeasuredGpuHours: 2, idleGpuHours: 4 })).toBe(0.5);
  expect(idleShare({ allocatedGpuHours: 10, unmeasuredGpuHours: 10, idleGpuHours: null })).toBeUndefined();
});

test("an address that names no period or group asks for none", () => {
  expect([periodOf("7days"), usageGroupOf("team"), measureOf("wasted")]).toEqual([undefined, undefined, undefined]);
  expect([periodOf(null)?.word, usageGroupOf(null)?.word]).toEqual(["30d", "project"]);
});

test("every row stands beside the period before, and what ended there is still named", () => {
  const rows = [row("vision", "", 12), row("nlp", "", 5)];
  const previous = [row("speech", "", 3), row("vision", "", 8), row("idle", "", 0)];
  const result = compared(rows, [row("vision", "", 9)], previous, measureOf(null)!);
  expect(result.map((each) => [each.row.group["project"], each.row.allocatedGpuHours, each.now, each.before])).toEqual([
    ["vision", 12, 9, 8],
    ["nlp", 5, 0, 0],
    ["speech", 0, 0, 3],
  ]);
  const ofMany = compared(rows, rows, previous, measureOf(null)!, false);
  expect(ofMany.map((each) => each.row.group["project"])).toEqual(["vision", "nlp"]);
  expect([changeOf(12, 8), changeOf(6, 8), changeOf(8, 8), changeOf(5, 0), changeOf(120, 8), changeOf(800, 8)]).toEqual(["+50 %", "−25 %", "±0 %", undefined, "15 times", undefined]);
});

test("a period is recorded in part where usage began to be recorded within it", () => {
  const october = { start: "2026-10-01T00:00:00Z", end: "2026-11-01T00:00:00Z" };
  const begin = (recordedSince?: string): string | undefined => beginWithin({ ...october, recordedSince });
  expect([begin("2026-10-31T00:00:00Z"), begin("2026-10-01T00:00:00Z")]).toEqual(["2026-10-31T00:00:00Z", "2026-10-01T00:00:00Z"]);
  expect([begin("2026-09-30T00:00:00Z"), begin("2026-11-01T00:00:00Z"), begin()]).toEqual([undefined, undefined, undefined]);
});

test("an address narrows a report by any group, and leads to the workloads where a filter says the same", () => {
  const query = new URLSearchParams("by=workload&project=vision&owner=&cluster=west");
  expect(narrowing(query)).toEqual([["project", "vision"], ["owner", ""], ["cluster", "west"]]);
  expect(usageTitle(query)).toBe("Usage of vision, no owner, cluster west");
  const idOf = (name: string): string | undefined => (name === "west" ? "c-1" : undefined);
  expect(workloadFilters([["cluster", "west"], ["gpuModel", "H100"]], idOf)).toEqual([["clusterId", "==", "c-1"], ["gpuModel", "==", "H100"]]);
  expect([workloadFilters(narrowing(query), idOf), workloadFilters([["cluster", "east"]], idOf), workloadFilters([["namespace", "a"]], idOf)]).toEqual([undefined, undefined, undefined]);
});

test("an address says nothing that is passed over", () => {
  const unknown = (query: string): readonly string[] => unknownParameters(new URLSearchParams(query));
  expect(unknown("period=7d&by=owner&show=pending&project=vision&nodePool=")).toEqual([]);
  expect(unknown("perod=7d&by=owner")).toEqual(["perod"]);
  expect(unknown("nodepool=a100&team=x")).toEqual(["nodepool", "team"]);
  expect(unknown("project=vision&project=speech")).toEqual(["project"]);
});
