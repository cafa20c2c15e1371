/** How the GPUs of a node are drawn: one square each, by what they are used for. Pure. */

import type { ClusterNode, NodeDevice } from "../api/shapes";

export type Use = "busy" | "idle" | "free" | "lost" | "unknown";

/** What each use is called, in the order of the squares. */
export const USES: readonly (readonly [Use, string])[] = [
  ["busy", "allocated"],
  ["idle", "allocated, idle"],
  ["free", "free"],
  ["lost", "not usable"],
  ["unknown", "not known"],
];

/** Of more GPUs only numbers are shown. */
const MOST_SQUARES = 32;

export type Figures = Readonly<Record<Use, number>>;

/** Adds up to the node's GPUs, of which the last ones are those that nobody can have. */
export function figures(node: ClusterNode): Figures {
  const whole = node.capacity.gpus ?? node.gpuInfo?.gpuCount ?? 0;
  const allocated = Math.min(node.allocated.gpus ?? 0, whole);
  const idle = Math.min(node.idleAllocatedGpus ?? 0, allocated);
  const rest = whole - allocated;
  const none = { busy: allocated - idle, idle, free: 0, lost: 0, unknown: 0 };
  if (node.status !== "Ready" || node.isCordoned) return { ...none, lost: rest };
  if (node.isPartial || node.allocated.gpus === undefined) return { ...none, unknown: rest };
  const lost = Math.max(0, Math.min(rest, whole - (node.allocatable.gpus ?? whole)));
  return { ...none, free: rest - lost, lost };
}

function isHeld(device: NodeDevice): boolean {
  return (device.workloads ?? []).length > 0;
}

/** Whether a node's pods hold all of its GPUs. What the number of slices tells of their GPUs is not known. */
function hasNoneLeft(node: ClusterNode): boolean {
  const devices = node.devices ?? [];
  const areWhole = node.capacity.gpus === devices.length && devices.every((device) => device.profile === undefined);
  return areWhole && node.allocated.gpus !== undefined && node.allocated.gpus > devices.length - 0.005;
}

/**
 * What a device is used for, as its exporter tells who holds it. Exporters are asked now and then, and know nothing of
 * a pod that has just begun or ended: where they contradict what the node's pods hold, it is not known. Of a node that
 * has no GPU left each is allocated, whatever they say.
 */
export function deviceUse(device: NodeDevice, node: ClusterNode): Use {
  const allocated = node.allocated.gpus;
  if (isHeld(device)) return allocated === 0 ? "unknown" : device.isIdle === true ? "idle" : "busy";
  if (hasNoneLeft(node)) return "busy";
  const held = (node.devices ?? []).filter(isHeld).length;
  if (node.isPartial || (allocated !== undefined && held < Math.ceil(allocated - 0.005))) return "unknown";
  return node.status === "Ready" && !node.isCordoned ? "free" : "lost";
}

/**
 * A square for each GPU: its own use where each is known, else what is used of all of them, one after the other.
 * Undefined where there are too many to draw.
 */
export function squares(node: ClusterNode): readonly Use[] | undefined {
  const of = figures(node);
  const whole = Math.round(USES.reduce((sum, [use]) => sum + of[use], 0));
  if (whole > MOST_SQUARES) return undefined;
  const devices = node.devices ?? [];
  if (devices.length === whole && devices.every((device) => device.profile === undefined))
    return devices.map((device) => deviceUse(device, node));
  const drawn: Use[] = [];
  let end = 0;
  for (const [use] of USES) {
    end += of[use];
    while (drawn.length < Math.round(end)) drawn.push(use);
  }
  return drawn.slice(0, whole);
}

export function sum(nodes: readonly ClusterNode[]): Figures {
  const total = { busy: 0, idle: 0, free: 0, lost: 0, unknown: 0 };
  for (const node of nodes) {
    const of = figures(node);
    for (const [use] of USES) total[use] += of[use];
  }
  return total;
}

/** A model without its vendor, which all begin with. */
export function shortModel(model: string): string {
  return model.replace(/^nvidia[- ]/iu, "");
}

/** As kubectl has it, which says SchedulingDisabled. */
export function statusText(node: ClusterNode): string {
  return node.isCordoned ? `${node.status}, cordoned` : node.status;
}
