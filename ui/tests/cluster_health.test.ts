import { expect, test } from "vitest";
import type { Cluster } from "../src/api/shapes";
import { connectionProblem, observedUntil, pendingProblems } from "../src/model/cluster_health";

const cluster = (members: Partial<Cluster>): Cluster =>
  ({ name: "west", state: "connected", kinds: [], ...members }) as unknown as Cluster;

test("deletions that wait are told with what decides them", () => {
  expect(pendingProblems(cluster({}))).toEqual([]);
  const held = { count: 2000, since: "2026-11-20T08:00:00Z", isRefused: false };
  const [waiting] = pendingProblems(cluster({ heldDeletions: held }));
  expect(waiting!.text).toContain("2,000 workloads disappeared at once");
  expect(waiting!.advice).toContain("watchbill admin cluster release west");
  expect(waiting!.advice).toContain("watchbill admin cluster refuse west");
  const [kept] = pendingProblems(cluster({ heldDeletions: { ...held, isRefused: true } }));
  expect(kept!.text).toContain("are kept");
});

test("a few changes on their way are no problem", () => {
  expect(pendingProblems(cluster({ backlog: 999 }))).toEqual([]);
  expect(pendingProblems(cluster({ backlog: 1000 }))[0]!.text).toContain("1,000 workloads");
});

test("why a cluster's data is old is told in the server's words", () => {
  const reason = "Its agent cannot read pods (forbidden): pods is forbidden";
  expect(connectionProblem(cluster({ state: "degraded", reason }))!.text).toBe(reason);
  expect(connectionProblem(cluster({ reason }))).toBeUndefined();
});

test("what a cluster that is not observed shows ends with its last contact", () => {
  const lastContactAt = "2026-11-20T08:00:00Z";
  for (const state of ["degraded", "disconnected"] as const)
    expect(observedUntil(cluster({ state, lastContactAt }))).toBe(lastContactAt);
  for (const state of ["connected", "waiting"] as const) expect(observedUntil(cluster({ state, lastContactAt }))).toBeUndefined();
  expect(observedUntil(undefined)).toBeUndefined();
});
