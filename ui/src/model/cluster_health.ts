/** Why the data of a cluster is missing or old, and what to do about it. */

import type { Cluster, KindState, Me } from "../api/shapes";
import { plural } from "./format";

export interface Finding {
  readonly text: string;
  /** The next step, if there is one. */
  readonly advice?: string;
}

/** The agent reports its metrics exporters among the kinds, under this group. */
export const EXPORTERS = "metrics";
const GPU_EXPORTER = "DCGM exporter";

const AGENT_LOG = "kubectl -n watchbill logs deploy/watchbill-agent";

/** Kinds that the agent should observe and cannot. */
export function unobservedKinds(cluster: Cluster): readonly KindState[] {
  return (cluster.kinds ?? []).filter(
    (kind) => kind.group !== EXPORTERS && (kind.state === "forbidden" || kind.state === "failing"),
  );
}

/** The records of a cluster that is not observed are the last state seen, not the current state. */
export function isStale(cluster: Cluster | undefined): cluster is Cluster {
  return cluster !== undefined && (cluster.state === "degraded" || cluster.state === "disconnected");
}

/** Clusters whose data is not current. */
export function staleClusters(clusters: readonly Cluster[]): readonly Cluster[] {
  return clusters.filter(isStale);
}

/** Until when the cluster's live workloads were observed, where that is not now: no time counts beyond it. */
export function observedUntil(cluster: Cluster | undefined): string | undefined {
  return isStale(cluster) ? cluster.lastContactAt : undefined;
}

/** Why a cluster is not connected; undefined if it is. */
export function connectionProblem(cluster: Cluster): Finding | undefined {
  if (cluster.state === "connected") return undefined;
  if (cluster.state === "waiting")
    return { text: "Its agent has never connected.", advice: "Start the agent with the credential of this cluster." };
  if (cluster.reason !== undefined && cluster.reason !== "No contact with its agent.")
    return { text: cluster.reason, advice: `Look at the agent's log: ${AGENT_LOG}` };
  const isAgentRunning = (cluster.kinds ?? []).some((kind) => kind.state === "failing" && kind.group !== EXPORTERS);
  if (isAgentRunning)
    return {
      text: "Its agent runs, but cannot reach the Kubernetes API server.",
      advice: `Check the API server, and the network path to it from the agent: ${AGENT_LOG}`,
    };
  return {
    text: "Its agent does not report.",
    advice: `Check that the agent's pod runs and can reach this server: ${AGENT_LOG}`,
  };
}

/** From so many on, changes that wait to be applied are shown as a problem. */
const BACKLOG_SHOWN = 1_000;

/** What is not applied yet although it is known, and what to do about it. */
export function pendingProblems(cluster: Cluster): readonly Finding[] {
  const problems: Finding[] = [];
  const held = cluster.heldDeletions;
  if (held !== undefined)
    problems.push({
      text: held.isRefused
        ? `${plural(held.count, "workload", "workloads")} disappeared and are kept, as an administrator decided.`
        : `${plural(held.count, "workload", "workloads")} disappeared at once and are deleted if the next inventory confirms it.`,
      advice: held.isRefused
        ? `Delete them with: watchbill admin cluster release ${cluster.name}`
        : `Delete them with: watchbill admin cluster release ${cluster.name} – or keep them with: watchbill admin cluster refuse ${cluster.name}`,
    });
  if ((cluster.backlog ?? 0) >= BACKLOG_SHOWN)
    problems.push({
      text: `${plural(cluster.backlog!, "workload", "workloads")} with changes that are not applied yet.`,
      advice: `Look at the agent's log: ${AGENT_LOG}`,
    });
  return problems;
}

export interface Measurement extends Finding {
  readonly isMeasured: boolean;
}

const BY_STATE: Readonly<Record<string, Finding>> = {
  absent: { text: "No GPU exporter was found.", advice: "Install the NVIDIA DCGM exporter in the cluster." },
  forbidden: {
    text: "The agent may not read the GPU exporter.",
    advice: "Grant it nodes/proxy and pods/proxy (the role watchbill-agent-measuring in deploy/kubernetes/agent/agent.yaml).",
  },
  failing: {
    text: "The GPU exporter does not respond.",
    advice: "Check the exporter's pods. Until they respond, idle GPUs are not known.",
  },
};

const NOT_VISIBLE: Finding = {
  text: "Your access covers only a part of this cluster, so it is not shown whether GPU use is measured.",
};
const NOT_REPORTED: Finding = {
  text: "The agent has not reported yet what it observes.",
  advice: "It does so within a minute of its start.",
};

function isWholeVisible(cluster: Cluster, me: Me | undefined): boolean {
  return me?.scope.tenant === true || me?.scope.clusterIds.includes(cluster.id) === true;
}

/** Whether GPU use is measured in a cluster, and why not, as far as this account may see that. */
export function gpuMeasurement(cluster: Cluster, me: Me | undefined): Measurement {
  const problem = connectionProblem(cluster);
  if (cluster.state === "waiting") return { isMeasured: false, ...problem! };
  const kinds = cluster.kinds ?? [];
  if (kinds.length === 0) return { isMeasured: false, ...(isWholeVisible(cluster, me) ? NOT_REPORTED : NOT_VISIBLE) };
  const exporter = kinds.find((kind) => kind.group === EXPORTERS && kind.kind === GPU_EXPORTER);
  if (exporter === undefined)
    return {
      isMeasured: false,
      text: "The agent has not read a GPU exporter yet.",
      advice: "It does so within a minute of its start, unless measuring is switched off in its settings.",
    };
  if (exporter.state === "complete") return { isMeasured: true, text: "GPU use is measured.", ...problem };
  return { isMeasured: false, ...(BY_STATE[exporter.state] ?? { text: `The GPU exporter is ${exporter.state}.` }) };
}
