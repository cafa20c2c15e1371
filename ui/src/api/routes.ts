/** Every request of the page to the API; no other module knows its paths. */

import { BASE_PATH } from "../base_path";
import { filterQuery, type View } from "../model/view";
import type { Filter } from "../model/filter";
import { getJson, send, type Answer } from "./http";
import type {
  Cluster,
  ClusterNode,
  Department,
  Element,
  Facets,
  FleetFigures,
  IdleGpus,
  Measurement,
  Me,
  HistoryRecord,
  PhaseInterval,
  Pod,
  Project,
  TelemetryValue,
  UsageReport,
  Utilization,
  UtilizationList,
  Workload,
} from "./shapes";

const WORKLOADS = "/api/v1/workloads";

export interface Page {
  readonly offset: number;
  readonly limit: number;
}

export function listQuery(view: View, bound: readonly Filter[], page?: Page): URLSearchParams {
  const query = filterQuery(view, bound);
  query.set("sortBy", view.sortBy);
  query.set("sortOrder", view.isDescending ? "desc" : "asc");
  if (page !== undefined) {
    query.set("offset", String(page.offset));
    query.set("limit", String(page.limit));
  }
  return query;
}

export async function listWorkloads(
  view: View,
  bound: readonly Filter[],
  page: Page,
  signal?: AbortSignal,
): Promise<readonly Workload[]> {
  const query = listQuery(view, bound, page);
  const answer = await getJson<{ workloads: readonly Workload[] }>(`${WORKLOADS}?${query}`, signal);
  return answer.body.workloads;
}

export async function countWorkloads(
  view: View,
  more: readonly Filter[] = [],
  signal?: AbortSignal,
): Promise<number> {
  const query = filterQuery(view, more);
  return (await getJson<{ count: number }>(`${WORKLOADS}/count?${query}`, signal)).body.count;
}

export function getFacets(
  view: View,
  fields: readonly string[],
  signal?: AbortSignal,
): Promise<Answer<Facets>> {
  const query = filterQuery(view);
  query.set("fields", fields.join(","));
  return getJson<Facets>(`${WORKLOADS}/facets?${query}`, signal);
}

export async function getUtilization(ids: readonly string[], signal?: AbortSignal): Promise<ReadonlyMap<string, Utilization>> {
  const { body } = await getJson<UtilizationList>(`${WORKLOADS}/utilization?ids=${ids.join(",")}`, signal);
  return new Map(body.workloads.map((series) => [series.id, series]));
}

export function exportUrl(view: View, format: "csv" | "ndjson"): string {
  const query = filterQuery(view);
  query.set("format", format);
  return `${BASE_PATH}${WORKLOADS}/export?${query}`;
}

/** Raises ApiError. */
export async function exportCsv(view: View): Promise<string> {
  const query = filterQuery(view);
  query.set("format", "csv");
  const answer = await send(`${WORKLOADS}/export?${query}`, { method: "GET", headers: { Accept: "text/csv" } });
  return answer.text();
}

export async function getWorkload(id: string, signal?: AbortSignal): Promise<Workload> {
  return (await getJson<Workload>(`${WORKLOADS}/${encodeURIComponent(id)}`, signal)).body;
}

const PHASES_SHOWN = 5_000;

export async function getHistory(id: string, signal?: AbortSignal): Promise<readonly PhaseInterval[]> {
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/phases`;
  const intervals: PhaseInterval[] = [];
  let offset: number | undefined = 0;
  while (offset !== undefined && intervals.length < PHASES_SHOWN) {
    const page: Answer<{ history: readonly PhaseInterval[]; next?: number }> = await getJson(
      `${path}?offset=${offset}`,
      signal,
    );
    intervals.push(...page.body.history);
    offset = page.body.next;
  }
  return intervals;
}

export const PODS_SHOWN = 500;

export interface Pods {
  readonly pods: readonly Pod[];
  readonly next?: number;
}

/** The pods of a workload from `offset` on, `PODS_SHOWN` at most. */
export async function getPods(id: string, isDeleted: boolean, offset: number, signal?: AbortSignal): Promise<Pods> {
  const query = new URLSearchParams({ limit: String(PODS_SHOWN), offset: String(offset), deleted: String(isDeleted) });
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/pods?${query}`;
  return (await getJson<Pods>(path, signal)).body;
}

const NODES_SHOWN = 500;

export interface Nodes {
  readonly nodes: readonly ClusterNode[];
  /** There are more. */
  readonly next?: number;
}

/** By pool, then by name. */
export async function getNodes(signal?: AbortSignal): Promise<Nodes> {
  return (await getJson<Nodes>(`/api/v1/nodes?limit=${NODES_SHOWN}&sortBy=nodePool`, signal)).body;
}

const UNITS_PAGE = 500;
const UNITS_SHOWN = 2_000;

export interface Organisation {
  /** By name. */
  readonly projects: readonly Project[];
  readonly departments: readonly Department[];
  /** There are more projects. */
  readonly hasMore: boolean;
}

/** The projects whose own or whose department's name has the text, and all departments. */
export async function getOrganisation(search: string, signal?: AbortSignal): Promise<Organisation> {
  const query: Readonly<Record<string, string>> = search === "" ? {} : { search };
  const [projects, departments] = await Promise.all([
    getUnits<Project>("projects", query, signal),
    getUnits<Department>("departments", { verbosity: "verbose" }, signal),
  ]);
  return { projects: projects.units, departments: departments.units, hasMore: projects.hasMore };
}

type UnitPage<T> = Readonly<Partial<Record<"projects" | "departments", readonly T[]>>> & { readonly next?: number };

async function getUnits<T>(
  word: "projects" | "departments",
  more: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<{ readonly units: readonly T[]; readonly hasMore: boolean }> {
  const units: T[] = [];
  let offset: number | undefined = 0;
  while (offset !== undefined && units.length < UNITS_SHOWN) {
    const query: URLSearchParams = new URLSearchParams({ ...more, offset: String(offset), limit: String(UNITS_PAGE) });
    const page: Answer<UnitPage<T>> = await getJson(`/api/v1/org-unit/${word}?${query}`, signal);
    units.push(...(page.body[word] ?? []));
    offset = page.body.next;
  }
  return { units, hasMore: offset !== undefined };
}

const RECORDS_SHOWN = 200;

export async function getEventHistory(id: string, signal?: AbortSignal): Promise<readonly HistoryRecord[]> {
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/history?limit=${RECORDS_SHOWN}`;
  return (await getJson<{ records: readonly HistoryRecord[] }>(path, signal)).body.records;
}

export interface Elements {
  readonly elements: readonly Element[];
  readonly total: number;
  readonly stored: number;
}

const ELEMENTS_PAGE = 500;
const ELEMENTS_SHOWN = 2_000;

export async function getElements(id: string, signal?: AbortSignal): Promise<Elements> {
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/elements`;
  const counted = getJson<{ totalElementsCount: number; storedElementsCount: number }>(
    `${path}/count`,
    signal,
  );
  const elements: Element[] = [];
  let offset: number | undefined = 0;
  while (offset !== undefined && elements.length < ELEMENTS_SHOWN) {
    const page: Answer<{ elements: readonly Element[]; next?: number }> = await getJson(
      `${path}?offset=${offset}&limit=${ELEMENTS_PAGE}`,
      signal,
    );
    elements.push(...page.body.elements);
    offset = page.body.next;
  }
  const { totalElementsCount, storedElementsCount } = (await counted).body;
  return { elements, total: totalElementsCount, stored: storedElementsCount };
}

export async function getMetrics(
  id: string,
  types: readonly string[],
  range: { start: Date; end: Date; samples: number },
  signal?: AbortSignal,
): Promise<readonly Measurement[]> {
  const query = new URLSearchParams({
    metricType: types.join(","),
    start: range.start.toISOString(),
    end: range.end.toISOString(),
    numberOfSamples: String(range.samples),
  });
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/metrics?${query}`;
  return (await getJson<{ measurements: readonly Measurement[] }>(path, signal)).body.measurements;
}

export async function getTelemetry(
  type: string,
  more: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<readonly TelemetryValue[]> {
  const query = new URLSearchParams({ telemetryType: type, ...more });
  const path = `${WORKLOADS}/telemetry?${query}`;
  return (await getJson<{ values: readonly TelemetryValue[] }>(path, signal)).body.values;
}

/** Workloads with idle GPUs, the most GPU-hours first. */
export async function getIdleWorkloads(limit: number, signal?: AbortSignal): Promise<IdleGpus> {
  return (await getJson<IdleGpus>(`${WORKLOADS}/idle?limit=${limit}`, signal)).body;
}

export interface UsageQuery {
  /** Midnights in UTC; the second is not part of the report. */
  readonly bounds: readonly [number, number];
  readonly groups: readonly string[];
  /** Only what has these values: a group and its value, "" for what has none. */
  readonly only?: readonly (readonly [string, string])[];
  readonly sortBy?: "allocatedGpuHours" | "idleGpuHours" | "pendingGpuHours";
}

function usageUrl({ bounds, groups, only = [], sortBy }: UsageQuery, format: "json" | "csv"): string {
  const [start, end] = bounds.map((at) => new Date(at).toISOString()) as [string, string];
  const query = new URLSearchParams({ start, end, format, limit: "10000" });
  if (groups.length > 0) query.set("groupBy", groups.join(","));
  if (sortBy !== undefined) query.set("sortBy", sortBy);
  for (const [group, value] of only) query.append("filterBy", `${group}==${value}`);
  return `/api/v1/usage?${query}`;
}

/** Usage of whole UTC days. */
export async function getUsage(query: UsageQuery, signal?: AbortSignal): Promise<UsageReport> {
  return (await getJson<UsageReport>(usageUrl(query, "json"), signal)).body;
}

export function usageCsvUrl(query: UsageQuery): string {
  return BASE_PATH + usageUrl(query, "csv");
}

/** The headline numbers now, and every five minutes of the last 24 hours. */
export async function getFleet(signal?: AbortSignal): Promise<FleetFigures> {
  return (await getJson<FleetFigures>("/api/v1/fleet", signal)).body;
}

export async function listClusters(signal?: AbortSignal): Promise<readonly Cluster[]> {
  return (await getJson<readonly Cluster[]>("/api/v1/clusters", signal)).body;
}

export async function getMe(signal?: AbortSignal): Promise<Me> {
  return (await getJson<Me>("/api/v1/me", signal)).body;
}

export async function logIn(clientId: string, clientSecret: string): Promise<Me> {
  const response = await send("/api/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ clientId, clientSecret }),
  });
  return (await response.json()) as Me;
}

export interface IdentityProvider {
  readonly name: string;
  readonly title: string;
}

/** The identity providers that people can log in with. */
export async function listIdentityProviders(signal?: AbortSignal): Promise<readonly IdentityProvider[]> {
  return (await getJson<{ issuers: readonly IdentityProvider[] }>("/api/v1/session/oidc", signal)).body.issuers;
}

export function loginUrl(provider: IdentityProvider, next: string): string {
  return `${BASE_PATH}/api/v1/session/oidc/${encodeURIComponent(provider.name)}/start?${new URLSearchParams({ next })}`;
}

export async function logOut(): Promise<void> {
  await send("/api/v1/session", { method: "DELETE" });
}
