import { expect, it } from "vitest";
import type { Pod } from "../src/api/shapes";
import { lastExit, podStatus, failingFirst } from "../src/model/pods";

const pod = (name: string, k8sPhase: string, more: object = {}): Pod =>
  ({ name, k8sPhase, containers: [], ...more }) as unknown as Pod;

it("begins with the pods that failed or cannot run, each by creation", () => {
  const pods = [
    pod("ran", "Succeeded", { reason: "Completed" }),
    pod("runs", "Running"),
    pod("crashes", "Running", { reason: "CrashLoopBackOff" }),
    pod("waits", "Pending"),
    pod("failed", "Failed"),
    pod("no-image", "Pending", { reason: "ImagePullBackOff" }),
  ];
  expect(failingFirst(pods).map((each) => each.name)).toEqual(["crashes", "failed", "no-image", "ran", "runs", "waits"]);
});

it("says of a pod what kubectl says", () => {
  expect(podStatus(pod("a", "Running", { reason: "CrashLoopBackOff" }))).toBe("CrashLoopBackOff");
  expect(podStatus(pod("a", "Running", { isTerminating: true }))).toBe("Terminating");
  expect(podStatus(pod("a", "Running", { isTerminating: true, deletedAt: "2026-11-30T10:00:00Z" }))).toBe("Running");
  expect(lastExit([{ name: "a", state: "running", lastExitCode: 137, lastReason: "OOMKilled" }] as never)).toBe("OOMKilled (137)");
});
