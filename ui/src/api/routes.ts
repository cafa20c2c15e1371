/** Every question that the page asks, and nothing else that knows a path of the API. */

import { askedOf, type View } from "../model/view";
import type { Filter } from "../model/filter";
import { ask, send, type Answer } from "./http";
import type {
  Cluster,
  Element,
  Facets,
  FleetFigures,
  IdleGpus,
  Measurement,
  Me,
  Spell,
  TelemetryValue,
  Workload,
} from "./shapes";

const WORKLOADS = "/api/v1/workloads";

export interface Page {
  readonly offset: number;
  readonly limit: number;
}

export function listQuery(view: View, bound: readonly Filter[], page?: Page): URLSearchParams {
  const query = askedOf(view, bound);
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
  const answer = await ask<{ workloads: readonly Workload[] }>(`${WORKLOADS}?${query}`, signal);
  return answer.body.workloads;
}

export async function countWorkloads(
  view: View,
  more: readonly Filter[] = [],
  signal?: AbortSignal,
): Promise<number> {
  const query = askedOf(view, more);
  return (await ask<{ count: number }>(`${WORKLOADS}/count?${query}`, signal)).body.count;
}

export function facetsOf(
  view: View,
  fields: readonly string[],
  signal?: AbortSignal,
): Promise<Answer<Facets>> {
  const query = askedOf(view);
  query.set("fields", fields.join(","));
  return ask<Facets>(`${WORKLOADS}/facets?${query}`, signal);
}

export function exportUrl(view: View, format: "csv" | "ndjson"): string {
  const query = askedOf(view);
  query.set("format", format);
  return `${WORKLOADS}/export?${query}`;
}

/** Server-sent events that tell when something in the view changed. */
export function streamUrl(view: View): string {
  return `${WORKLOADS}/stream?${askedOf(view)}`;
}

export async function getWorkload(id: string, signal?: AbortSignal): Promise<Workload> {
  return (await ask<Workload>(`${WORKLOADS}/${encodeURIComponent(id)}`, signal)).body;
}

export async function getHistory(id: string, signal?: AbortSignal): Promise<readonly Spell[]> {
  const path = `${WORKLOADS}/${encodeURIComponent(id)}/history`;
  return (await ask<{ history: readonly Spell[] }>(path, signal)).body.history;
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
  const counted = ask<{ totalElementsCount: number; storedElementsCount: number }>(
    `${path}/count`,
    signal,
  );
  const elements: Element[] = [];
  let offset: number | undefined = 0;
  while (offset !== undefined && elements.length < ELEMENTS_SHOWN) {
    const page: Answer<{ elements: readonly Element[]; next?: number }> = await ask(
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
  return (await ask<{ measurements: readonly Measurement[] }>(path, signal)).body.measurements;
}

export async function telemetry(
  type: string,
  more: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<readonly TelemetryValue[]> {
  const query = new URLSearchParams({ telemetryType: type, ...more });
  const path = `${WORKLOADS}/telemetry?${query}`;
  return (await ask<{ values: readonly TelemetryValue[] }>(path, signal)).body.values;
}

/** Workloads with idle GPUs, the most GPU-hours first. */
export async function idleGpus(limit: number, signal?: AbortSignal): Promise<IdleGpus> {
  return (await ask<IdleGpus>(`${WORKLOADS}/idle?limit=${limit}`, signal)).body;
}

/** The headline figures now, and every five minutes of the last 24 hours. */
export async function fleetFigures(signal?: AbortSignal): Promise<FleetFigures> {
  return (await ask<FleetFigures>("/api/v1/fleet", signal)).body;
}

export async function listClusters(signal?: AbortSignal): Promise<readonly Cluster[]> {
  return (await ask<{ clusters: readonly Cluster[] }>("/api/v1/clusters", signal)).body.clusters;
}

export async function whoAmI(signal?: AbortSignal): Promise<Me> {
  return (await ask<Me>("/api/v1/me", signal)).body;
}

export async function signIn(clientId: string, clientSecret: string): Promise<Me> {
  const response = await send("/api/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ clientId, clientSecret }),
  });
  return (await response.json()) as Me;
}

export interface Issuer {
  readonly name: string;
  readonly title: string;
}

/** Where people may log in with their own account. */
export async function listIssuers(signal?: AbortSignal): Promise<readonly Issuer[]> {
  return (await ask<{ issuers: readonly Issuer[] }>("/api/v1/session/oidc", signal)).body.issuers;
}

export function issuerUrl(issuer: Issuer, next: string): string {
  return `/api/v1/session/oidc/${encodeURIComponent(issuer.name)}/start?${new URLSearchParams({ next })}`;
}

export async function signOut(): Promise<void> {
  await send("/api/v1/session", { method: "DELETE" });
}
