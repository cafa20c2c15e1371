/** What the page says of a pod, and in which order pods stand. */

import type { Pod, PodContainer } from "../api/shapes";

/** What failed or cannot run before the rest, each by creation, as the command line has it. */
export function failingFirst(pods: readonly Pod[]): readonly Pod[] {
  return [...pods.filter(isFailing), ...pods.filter((pod) => !isFailing(pod))];
}

function isFailing(pod: Pod): boolean {
  return pod.k8sPhase !== "Succeeded" && (pod.k8sPhase === "Failed" || pod.reason !== undefined);
}

/** The reason where something is wrong, else the phase, as kubectl has it. */
export function podStatus(pod: Pod): string {
  if (pod.isTerminating === true && pod.deletedAt === undefined) return "Terminating";
  return pod.reason ?? pod.k8sPhase;
}

/** How a container ended, a failed one first; that of a container that runs is of the time before. */
export function lastExit(containers: readonly PodContainer[]): string {
  const ends = containers.map((container) =>
    container.state === "terminated"
      ? { code: container.exitCode, reason: container.reason }
      : { code: container.lastExitCode, reason: container.lastReason },
  );
  const known = ends.filter((end) => end.code !== undefined);
  const end = known.find((each) => each.code !== 0) ?? known[0];
  return end === undefined ? "–" : `${end.reason ?? "Error"} (${end.code})`;
}
