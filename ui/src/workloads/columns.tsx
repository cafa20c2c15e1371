/** The columns of the list: what each shows, how wide it is, and which field sorts and filters it. */

import type { ComponentChildren } from "preact";
import type { Cluster, Workload } from "../api/shapes";
import { clusterName, type Clusters } from "../clusters/context";
import { isStale, observedUntil } from "../model/cluster_health";
import { StateMark } from "../components/cluster_state";
import { allocation, count, decimal, duration, memory, quantity } from "../model/format";
import { Age, Instant } from "../components/instant";
import { PhaseBadge } from "../components/phase";
import { ownerName } from "../components/owner";
import { FilterLink } from "./filter_link";
import { GpuUseCell } from "./gpu_use";

export interface ColumnSpec {
  readonly id: string;
  readonly label: string;
  readonly title?: string;
  readonly width: number;
  readonly isNumber?: boolean;
  /** The field to sort and filter by, if there is one. */
  readonly field?: string;
  readonly show: (workload: Workload, clusters: Clusters) => ComponentChildren;
  /** A change of this value makes the cell flash once. */
  readonly flashOn?: (workload: Workload) => string;
}

const DASH = <span class="none">–</span>;

function text(value: string | null | undefined): ComponentChildren {
  return value === undefined || value === null || value === "" ? DASH : value;
}

function filterLink(field: string, value: string | undefined, format = (text: string): string => text): ComponentChildren {
  if (value === undefined || value === "") return DASH;
  return (
    <FilterLink class="quiet" field={field} value={value} title={value} tabIndex={-1}>
      {format(value)}
    </FilterLink>
  );
}

/** The first of several names as a link, and how many more there are. */
function nameLinks(field: string, names: readonly string[] | undefined, format?: (text: string) => string): ComponentChildren {
  const [first, ...others] = names ?? [];
  return (
    <>
      {filterLink(field, first, format)}
      {others.length > 0 && (
        <span class="muted" title={others.join("\n")}>
          {" "}
          +{others.length}
        </span>
      )}
    </>
  );
}

/** Without the registry and the path, which most images of a cluster share. */
function imageName(image: string): string {
  return image.split("/").pop() ?? image;
}

function pair(requested: string | undefined, allocated: string | undefined): ComponentChildren {
  if (requested === undefined && allocated === undefined) return DASH;
  return (
    <>
      {requested ?? "–"} <span class="slash">/</span> {allocated ?? "–"}
    </>
  );
}

/** Requested GPUs, or GPU memory where that is what was requested. */
function gpuRequest(workload: Workload): string | undefined {
  const requested = workload.workloadRequestedResources;
  const gpus = requested?.gpu?.request;
  return gpus == null ? sum(requested?.gpuMemory?.request) : decimal(gpus);
}

function gpuPair(workload: Workload): ComponentChildren {
  const held = workload.allocatedResources?.gpu;
  if (held === null) return pair(gpuRequest(workload), "?");
  const allocated = held ?? 0;
  if (gpuRequest(workload) === undefined && allocated === 0) return DASH;
  return pair(gpuRequest(workload), decimal(allocated));
}

export function podsShown(workload: Workload): string {
  const { number, min, max, completions } = workload.requestedPods ?? {};
  const wanted = number ?? completions ?? undefined;
  if (wanted !== undefined && wanted !== null) return `${workload.runningPods}/${wanted}`;
  if (min != null || max != null) return `${workload.runningPods}/${min ?? 0}–${max ?? "∞"}`;
  return String(workload.runningPods);
}

function idle(workload: Workload): ComponentChildren {
  const value = workload.idleAllocatedGpus;
  if (workload.allocatedResources?.gpu === 0) return DASH;
  if (value === null || value === undefined)
    return (
      <span class="none" title="Not measured">
        n/m
      </span>
    );
  return value > 0 ? <strong class="tone-pending">{decimal(value)}</strong> : "0";
}

function sum(value: string | null | undefined): string | undefined {
  if (value === null || value === undefined || quantity(value) === 0) return undefined;
  return memory(value);
}

function instant(at: string | null | undefined): ComponentChildren {
  return at === null || at === undefined ? DASH : <Instant at={at} />;
}

function seconds(value: number | null | undefined): ComponentChildren {
  return value === null || value === undefined || value === 0 ? DASH : duration(value);
}

/** The columns after the first, which always shows the name and the message. */
function staleMark(cluster: Cluster | undefined) {
  return isStale(cluster) && <StateMark state={cluster.state} />;
}

export const COLUMNS: readonly ColumnSpec[] = [
  {
    id: "phase",
    label: "Phase",
    width: 168,
    field: "phase",
    flashOn: (w) => w.phase,
    show: (w, clusters) => (
      <span class="phase-cell">
        <PhaseBadge phase={w.phase} isPast={w.deletedAt !== null} />
        {w.deletedAt === null && (
          <span class="since">
            <Age since={w.phaseUpdatedAt} until={observedUntil(clusters.byId.get(w.clusterId))} isShort />
          </span>
        )}
      </span>
    ),
  },
  { id: "type", label: "Type", width: 132, field: "type", show: (w) => filterLink("type", w.type) },
  {
    id: "project",
    label: "Project",
    width: 128,
    field: "projectName",
    show: (w) => filterLink("projectName", w.projectName),
  },
  {
    id: "owner",
    label: "Owner",
    width: 136,
    field: "submittedBy",
    show: (w) => filterLink("submittedBy", w.submittedBy, ownerName),
  },
  {
    id: "cluster",
    label: "Cluster",
    width: 104,
    field: "clusterId",
    show: (w, clusters) => (
      <FilterLink class="quiet" field="clusterId" value={w.clusterId} tabIndex={-1}>
        {staleMark(clusters.byId.get(w.clusterId))}
        {clusterName(clusters, w.clusterId)}
      </FilterLink>
    ),
  },
  {
    id: "pods",
    label: "Pods",
    title: "Running / requested pods",
    width: 68,
    isNumber: true,
    flashOn: podsShown,
    show: podsShown,
  },
  {
    id: "gpu",
    label: "GPUs r/a",
    title: "GPUs requested / allocated",
    width: 116,
    isNumber: true,
    field: "allocatedGPU",
    flashOn: (w) => String(w.allocatedResources?.gpu ?? 0),
    show: gpuPair,
  },
  {
    id: "idle",
    label: "Idle",
    title: "Idle GPUs: allocated, but not used; n/m = not measured",
    width: 56,
    isNumber: true,
    field: "idleAllocatedGpus",
    flashOn: (w) => String(w.idleAllocatedGpus),
    show: idle,
  },
  {
    id: "gpuUse",
    label: "GPU use",
    title: "GPU utilization, the last 3 hours and now",
    width: 132,
    show: (w) => <GpuUseCell workload={w} />,
  },
  {
    id: "created",
    label: "Age",
    title: "Time since creation",
    width: 60,
    isNumber: true,
    field: "createdAt",
    show: (w) => <Age since={w.createdAt} isShort />,
  },
  { id: "deleted", label: "Deleted", width: 176, field: "deletedAt", show: (w) => instant(w.deletedAt) },
  {
    id: "department",
    label: "Department",
    width: 120,
    field: "departmentName",
    show: (w) => filterLink("departmentName", w.departmentName),
  },
  { id: "namespace", label: "Namespace", width: 132, show: (w) => text(w.namespace) },
  {
    id: "category",
    label: "Category",
    width: 84,
    field: "category",
    show: (w) => filterLink("category", w.category),
  },
  {
    id: "framework",
    label: "Framework",
    width: 92,
    field: "distributedFramework",
    show: (w) => filterLink("distributedFramework", w.distributedFramework),
  },
  {
    id: "nodepools",
    label: "Node pools",
    width: 112,
    field: "nodepool",
    show: (w) => text(w.currentNodePools?.join(", ")),
  },
  {
    id: "priority",
    label: "Priority",
    width: 72,
    isNumber: true,
    field: "priority",
    show: (w) => (w.priority === null ? DASH : count(w.priority)),
  },
  {
    id: "priorityClass",
    label: "Priority class",
    width: 112,
    field: "priorityClassName",
    show: (w) => filterLink("priorityClassName", w.priorityClassName),
  },
  {
    id: "preemptible",
    label: "Preemptible",
    width: 96,
    show: (w) => (w.preemptible == null ? DASH : w.preemptible ? "yes" : "no"),
  },
  {
    id: "gpuMemory",
    label: "GPU memory r/a",
    width: 132,
    isNumber: true,
    show: (w) =>
      pair(
        sum(w.workloadRequestedResources?.gpuMemory?.request),
        sum(w.allocatedResources?.gpuMemory),
      ),
  },
  {
    id: "cpu",
    label: "CPU r/a",
    width: 96,
    isNumber: true,
    show: (w) => {
      const requested = w.workloadRequestedResources?.cpu?.request;
      const allocated = w.allocatedResources?.cpu;
      return pair(requested == null ? undefined : decimal(requested), allocated == null ? undefined : decimal(allocated));
    },
  },
  {
    id: "memory",
    label: "Memory r/a",
    width: 148,
    isNumber: true,
    show: (w) =>
      pair(
        sum(w.workloadRequestedResources?.cpuMemory?.request),
        sum(w.allocatedResources?.cpuMemory),
      ),
  },
  {
    id: "pending",
    label: "Pending time",
    title: "Total pending time",
    width: 112,
    isNumber: true,
    field: "totalPendingTimeSeconds",
    show: (w) => seconds(w.totalPendingTimeSeconds),
  },
  {
    id: "running",
    label: "Running time",
    title: "Total running time",
    width: 112,
    isNumber: true,
    field: "totalRunningTimeSeconds",
    show: (w) => seconds(w.totalRunningTimeSeconds),
  },
  {
    id: "createdAt",
    label: "Created",
    width: 176,
    field: "createdAt",
    show: (w) => instant(w.createdAt),
  },
  {
    id: "completed",
    label: "Completed",
    width: 176,
    field: "completedAt",
    show: (w) => instant(w.completedAt),
  },
  {
    id: "connections",
    label: "Endpoints",
    width: 84,
    isNumber: true,
    show: (w) => ((w.endpoints?.length ?? 0) === 0 ? DASH : count(w.endpoints!.length)),
  },
  { id: "image", label: "Image", width: 176, field: "image", show: (w) => nameLinks("image", w.images, imageName) },
  { id: "node", label: "Node", width: 132, field: "node", show: (w) => nameLinks("node", w.additionalFields?.nodes) },
  {
    id: "gpuModel",
    label: "GPU type",
    width: 168,
    field: "gpuModel",
    show: (w) => nameLinks("gpuModel", w.additionalFields?.gpuModels),
  },
  { id: "label", label: "Labels", width: 176, field: "label", show: (w) => nameLinks("label", labelsOf(w)) },
  {
    id: "application",
    label: "Application",
    width: 120,
    field: "aiApplicationName",
    show: (w) => filterLink("aiApplicationName", w.aiApplicationName),
  },
];

/** As `KEY=VALUE`, which is how the list is filtered by them. */
export function labelsOf(workload: Workload): readonly string[] {
  return Object.entries(workload.additionalFields?.labels ?? {}).map(([key, value]) => `${key}=${value}`);
}

const LIVE = ["phase", "type", "project", "owner", "cluster", "pods", "gpu", "idle", "created"];
const DELETED = ["phase", "type", "project", "owner", "cluster", "running", "deleted"];

export function defaultColumns(isDeleted: boolean): readonly string[] {
  return isDeleted ? DELETED : LIVE;
}

export function gpusAllocated(workload: Workload): string {
  return allocation(workload.allocatedResources?.gpu);
}

