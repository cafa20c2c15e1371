/** What a usage report is about: whole UTC days, a group, what it is narrowed to, and the same number of days before. */

import type { UsageQuery } from "../api/routes";
import type { UsageReport, UsageRow } from "../api/shapes";

const DAY_MS = 86_400_000;

export interface Period {
  readonly word: string;
  readonly label: string;
  /** Midnights in UTC; the second is not part of the period. */
  readonly bounds: (nowMs: number) => readonly [number, number];
  readonly isMonth?: boolean;
}

function midnight(ms: number): number {
  return Math.floor(ms / DAY_MS) * DAY_MS;
}

function month(ms: number, offset: number): number {
  const at = new Date(ms);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + offset, 1);
}

function lastDays(days: number): Period["bounds"] {
  return (now) => [midnight(now) - (days - 1) * DAY_MS, midnight(now) + DAY_MS];
}

export const PERIODS: readonly Period[] = [
  { word: "7d", label: "7 days", bounds: lastDays(7) },
  { word: "30d", label: "30 days", bounds: lastDays(30) },
  { word: "90d", label: "90 days", bounds: lastDays(90) },
  { word: "month", label: "this month", bounds: (now) => [month(now, 0), midnight(now) + DAY_MS], isMonth: true },
  { word: "last-month", label: "last month", bounds: (now) => [month(now, -1), month(now, 0)], isMonth: true },
];

export interface UsageGroup {
  readonly word: string;
  readonly label: string;
  /** The filter field of the workloads that are of it now; "" = there is none. */
  readonly field: string;
}

/** A group and its value, "" for what has none: a report can be narrowed to several. */
export type Narrowing = readonly (readonly [string, string])[];

export const USAGE_GROUPS: readonly UsageGroup[] = [
  { word: "project", label: "project", field: "projectName" },
  { word: "department", label: "department", field: "departmentName" },
  { word: "owner", label: "owner", field: "submittedBy" },
  { word: "cluster", label: "cluster", field: "clusterId" },
  { word: "namespace", label: "namespace", field: "" },
  { word: "nodePool", label: "node pool", field: "nodepool" },
  { word: "gpuModel", label: "GPU type", field: "gpuModel" },
  { word: "type", label: "type", field: "type" },
  { word: "category", label: "category", field: "category" },
  { word: "priorityClass", label: "priority class", field: "priorityClassName" },
  { word: "workload", label: "workload", field: "" },
];

/** What the report is about: its days are drawn, and its rows sorted by it. */
export interface Measure {
  readonly word: string;
  readonly label: string;
  /** The API's name of the figure. */
  readonly sortBy: NonNullable<UsageQuery["sortBy"]>;
  readonly of: (row: Omit<UsageRow, "group">) => number;
}

export const MEASURES: readonly Measure[] = [
  { word: "allocated", label: "allocated", sortBy: "allocatedGpuHours", of: (row) => row.allocatedGpuHours },
  { word: "idle", label: "idle", sortBy: "idleGpuHours", of: (row) => row.idleGpuHours ?? 0 },
  { word: "pending", label: "pending", sortBy: "pendingGpuHours", of: (row) => row.pendingGpuHours },
];

const DEFAULT_MEASURE = MEASURES[0]!;
const DEFAULT_PERIOD = PERIODS[1]!;
const DEFAULT_GROUP = USAGE_GROUPS[0]!;

/** What an address asks for; undefined where it names none that there is. */
export function periodOf(word: string | null): Period | undefined {
  return word === null ? DEFAULT_PERIOD : PERIODS.find((period) => period.word === word);
}

export function usageGroupOf(word: string | null): UsageGroup | undefined {
  return word === null ? DEFAULT_GROUP : USAGE_GROUPS.find((group) => group.word === word);
}

export function measureOf(word: string | null): Measure | undefined {
  return word === null ? DEFAULT_MEASURE : MEASURES.find((measure) => measure.word === word);
}

/** Parameters of an address, beside the groups that it may narrow its report to. */
const CHOICES: readonly string[] = ["show", "period", "by"];

/** What an address may say. */
export const PARAMETERS: readonly string[] = [...CHOICES, ...USAGE_GROUPS.map(({ word }) => word)];

/** Parameters of an address that there are not, or that it says twice. */
export function unknownParameters(query: URLSearchParams): readonly string[] {
  const names = [...query.keys()];
  return [...new Set(names.filter((name, index) => !PARAMETERS.includes(name) || names.indexOf(name) < index))];
}

/** What an address narrows its report to. */
export function narrowing(query: URLSearchParams): Narrowing {
  return USAGE_GROUPS.flatMap(({ word }) => (query.has(word) ? [[word, query.get(word)!] as const] : []));
}

/** As people say it: "project vision", "no owner". */
export function narrowed([word, value]: Narrowing[number]): string {
  const label = USAGE_GROUPS.find((group) => group.word === word)?.label ?? word;
  return value === "" ? `no ${label}` : `${label} ${value}`;
}

const TITLES: Readonly<Record<string, string>> = { idle: "Idle GPU-hours", pending: "Pending GPU-hours" };

/** What a report is named, in the browser's tab too. */
export function usageTitle(query: URLSearchParams): string {
  const title = TITLES[query.get("show") ?? ""] ?? "Usage";
  const names = narrowing(query).map((each) => (each[0] === "project" && each[1] !== "" ? each[1] : narrowed(each)));
  return names.length === 0 ? title : `${title} of ${names.join(", ")}`;
}

/**
 * The filters of the workloads that are of these groups now. `clusterId`: of a cluster's name. Undefined where
 * no filter says it: workloads are not filtered by a namespace, nor by having no value.
 */
export function workloadFilters(
  only: Narrowing,
  clusterId: (name: string) => string | undefined,
): (readonly [string, string, string])[] | undefined {
  const filters = only.map(([word, value]) => {
    const field = word === "workload" ? "name" : (USAGE_GROUPS.find((group) => group.word === word)?.field ?? "");
    const wanted = word === "cluster" ? clusterId(value) : value;
    return field === "" || wanted === undefined || wanted === "" ? undefined : ([field, "==", wanted] as const);
  });
  return filters.every((filter) => filter !== undefined) ? filters : undefined;
}

/** The pending GPU-hours of one project, day by day and workload by workload, in the last week. */
export function pendingHoursUrl(project: string): string {
  return `/usage?${new URLSearchParams({ period: "7d", show: "pending", by: "workload", project })}`;
}

/** The days of a period that are counted to their end, however late that is done; undefined where there is none. */
export function wholeDays(
  [start, end]: readonly [number, number],
  accountedUntil: string | null,
): readonly [number, number] | undefined {
  const over = accountedUntil === null ? start : Math.min(end, midnight(Date.parse(accountedUntil)));
  return over > start ? [start, over] : undefined;
}

/** What days of a period are compared with: of a month with the same days of the month before, else as many just before. */
export function before([start, end]: readonly [number, number], period: Period): readonly [number, number] {
  if (!period.isMonth) return [start - (end - start), start];
  const first = month(start, -1);
  return [first, end === month(start, 1) ? start : Math.min(start, first + (end - start))];
}

export interface Compared {
  readonly row: UsageRow;
  /** GPU-hours of the same group in the days that are over. */
  readonly now: number;
  /** GPU-hours of the same group in the period before. */
  readonly before: number;
}

const NOTHING = { allocatedGpuHours: 0, idleGpuHours: 0, unmeasuredGpuHours: 0, pendingGpuHours: 0, cpuCoreHours: 0, cost: null };

/**
 * Each row beside the period before, which is compared with the days that are `over`; what is of that one alone
 * follows, with zeros. Where the rows are not all that there are, nobody knows what is.
 */
export function compared(
  rows: readonly UsageRow[],
  over: readonly UsageRow[],
  previous: readonly UsageRow[],
  measure: Measure,
  areAll = true,
): Compared[] {
  const [now, before] = [over, previous].map((all) => new Map(all.map((row) => [groupKey(row), measure.of(row)])));
  const beside = (row: UsageRow): Compared => ({ row, now: now!.get(groupKey(row)) ?? 0, before: before!.get(groupKey(row)) ?? 0 });
  const listed = new Set(rows.map(groupKey));
  const gone = areAll ? previous.filter((was) => !listed.has(groupKey(was))) : [];
  const ended = gone.map((was) => beside({ ...was, ...NOTHING })).filter((each) => each.before > 0);
  return [...rows.map(beside), ...ended.sort((a, b) => b.before - a.before)];
}

function groupKey(row: UsageRow): string {
  return JSON.stringify(Object.entries(row.group).sort());
}

/** Whether anything was used or requested; where nothing was at all, nothing is known to be recorded. */
export function hasUsage(totals: Omit<UsageRow, "group">): boolean {
  return totals.allocatedGpuHours + totals.pendingGpuHours + totals.cpuCoreHours > 0;
}

/** The day from which on usage is recorded, where that lies within a report's days: it tells a part of them. */
export function beginWithin({ recordedSince, start, end }: Pick<UsageReport, "recordedSince" | "start" | "end">): string | undefined {
  if (recordedSince === undefined) return undefined;
  const [since, first, over] = [recordedSince, start, end].map((instant) => Date.parse(instant));
  return since! >= first! && since! < over! ? recordedSince : undefined;
}

/** "+25 %", as people write a change; undefined where there was nothing before, or so little that it tells nothing. */
export function changeOf(now: number, previous: number): string | undefined {
  if (previous <= 0 || now >= 100 * previous) return undefined;
  const by = Math.round(100 * (now / previous - 1));
  if (by >= 1000) return `${Math.round(now / previous)} times`;
  return by === 0 ? "±0 %" : `${by > 0 ? "+" : "−"}${Math.abs(by)} %`;
}

export interface UsageDay {
  readonly day: string;
  readonly parts: ReadonlyMap<string, number>;
  readonly total: number;
}

/** GPU-hours of every day of a period, by the named groups; all others are one part, "". */
export function usageDays(
  rows: readonly UsageRow[],
  group: UsageGroup,
  measure: Measure,
  named: readonly string[],
  [start, end]: readonly [number, number],
): UsageDay[] {
  const days = new Map<string, Map<string, number>>();
  for (let at = start; at < end; at += DAY_MS) days.set(new Date(at).toISOString().slice(0, 10), new Map());
  const names = new Set(named);
  for (const row of rows) {
    const parts = days.get(row.group["day"] ?? "");
    const value = row.group[group.word] ?? "–";
    const key = names.has(value) ? value : "";
    parts?.set(key, (parts.get(key) ?? 0) + measure.of(row));
  }
  return [...days].map(([day, parts]) => ({ day, parts, total: [...parts.values()].reduce((a, b) => a + b, 0) }));
}

/** The share of the measured GPU-hours that were idle, from 0 to 1; undefined where nothing was measured. */
export function idleShare(row: Pick<UsageRow, "allocatedGpuHours" | "unmeasuredGpuHours" | "idleGpuHours">): number | undefined {
  const measured = row.allocatedGpuHours - row.unmeasuredGpuHours;
  if (row.idleGpuHours === null || row.idleGpuHours === undefined || measured <= 0) return undefined;
  return row.idleGpuHours / measured;
}
