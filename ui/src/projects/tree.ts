/** The tree cluster, department, project with its figures: what is not known stays so, with the reason. Pure. */

import type { Department, Project } from "../api/shapes";

/** A number of GPUs, or the word that stands for it and why there is none. */
export type Figure = number | { readonly word: string; readonly reason: string };

export const FIGURES = ["quota", "allocated", "over", "pending", "idle"] as const;
export type FigureName = (typeof FIGURES)[number];
export type SortField = "name" | FigureName;
export const SORT_FIELDS: readonly SortField[] = ["name", ...FIGURES];

export interface Unit {
  readonly key: string;
  readonly kind: "cluster" | "department" | "project";
  /** The number that workloads name; of a cluster its id. */
  readonly id: string;
  readonly name: string;
  readonly scheduler: string | undefined;
  readonly notReadyMessage: string | undefined;
  readonly pendingWorkloads: number | undefined;
  readonly figures: Readonly<Record<FigureName, Figure>>;
  readonly children: readonly Unit[];
}

export const NO_QUOTA: Figure = {
  word: "none",
  reason: "It is a namespace, not a queue of KAI, Kueue or Volcano, so nothing limits or guarantees its GPUs.",
};
const CLUSTER_QUOTA: Figure = {
  word: "–",
  reason: "A cluster has no quota: the page Nodes shows what it has.",
};
const UNLIMITED: Figure = { word: "unlimited", reason: "Its queue states a quota without a bound." };
const NOT_STATED: Figure = { word: "none", reason: "Its queue states no quota of GPUs." };
const KUEUE_PROJECT: Figure = { word: "none", reason: "Kueue gives quotas to ClusterQueues and cohorts: see the department above." };
const USED_UNKNOWN: Figure = {
  word: "unknown",
  reason: "Some of its workloads hold GPUs in a unit that no node explains, so they cannot be added up.",
};
const IDLE_UNKNOWN: Figure = { word: "unknown", reason: "Nothing measures its GPUs: the page Clusters says why, and what to do." };
const HIDDEN: Figure = { word: "hidden", reason: "You may see only some of its projects, so its sums are not shown to you." };
const NOT_OVER: Figure = { word: "–", reason: "Without a quota nothing is over it." };

/** Below this, sums of fractions of GPUs differ by rounding only. */
const ROUNDING_GPUS = 0.005;

export const isKnown = (figure: Figure): figure is number => typeof figure === "number";

export function unitTree(projects: readonly Project[], departments: readonly Department[], nameOf: (clusterId: string) => string): readonly Unit[] {
  const byParent = new Map<string, Unit[]>();
  const add = (parent: string, unit: Unit): void => {
    byParent.set(parent, [...(byParent.get(parent) ?? []), unit]);
  };
  const known = new Set(departments.map((department) => department.id));
  const parentKey = (id: string | undefined, clusterId: string): string =>
    id !== undefined && known.has(id) ? `department ${id}` : `cluster ${clusterId}`;
  for (const project of projects) add(parentKey(project.parentId, project.clusterId), projectUnit(project));
  for (const department of deepestFirst(departments)) {
    const unit = departmentUnit(department, byParent.get(`department ${department.id}`) ?? []);
    add(parentKey(parentId(department), department.clusterId), unit);
  }
  const clusterIds = [...new Set([...projects, ...departments].map((unit) => unit.clusterId))];
  return clusterIds.map((id) => clusterUnit(id, nameOf(id), byParent.get(`cluster ${id}`) ?? []));
}

/** A department's number, which its parent writes as a UUID. */
function parentId(department: Department): string | undefined {
  return department.parent === undefined ? undefined : String(BigInt(`0x${department.parent.id.replaceAll("-", "")}`));
}

/** Those without departments below them first. */
function deepestFirst(departments: readonly Department[]): readonly Department[] {
  const parents = new Map(departments.map((department) => [department.id, parentId(department)]));
  const depth = (id: string): number => {
    let steps = 0;
    for (let at = parents.get(id); at !== undefined && steps < departments.length; at = parents.get(at)) steps += 1;
    return steps;
  };
  return [...departments].sort((one, other) => depth(other.id) - depth(one.id));
}

function projectUnit(project: Project): Unit {
  return {
    key: `project ${project.id}`,
    kind: "project",
    id: project.id,
    name: project.name,
    scheduler: project.scheduler,
    notReadyMessage: project.status.phase === "NotReady" ? (project.status.phaseMessage ?? "Its queue admits nothing.") : undefined,
    pendingWorkloads: project.workloads.pending,
    figures: figuresOf(
      quotaOf(project, project.scheduler === undefined ? NO_QUOTA : project.scheduler === "Kueue" ? KUEUE_PROJECT : NOT_STATED),
      project.status.quotaStatus?.allocated?.gpu ?? USED_UNKNOWN,
      project.workloads,
    ),
    children: [],
  };
}

function departmentUnit(department: Department, children: readonly Unit[]): Unit {
  const { status, workloads } = department;
  const isWhole = status !== undefined && workloads !== undefined;
  return {
    key: `department ${department.id}`,
    kind: "department",
    id: department.id,
    name: department.name,
    scheduler: department.scheduler,
    notReadyMessage: undefined,
    pendingWorkloads: workloads?.pending,
    figures: isWhole
      ? figuresOf(quotaOf(department, department.scheduler === undefined ? NO_QUOTA : NOT_STATED), status.quotaStatus.allocated?.gpu ?? USED_UNKNOWN, workloads)
      : { quota: HIDDEN, allocated: HIDDEN, over: HIDDEN, pending: HIDDEN, idle: HIDDEN },
    children,
  };
}

/** A cluster's figures are those of what is shown below it. */
function clusterUnit(id: string, name: string, children: readonly Unit[]): Unit {
  const projects = children.flatMap(projectsOf);
  const total = (figure: FigureName): Figure => sum(projects.map((project) => project.figures[figure]));
  return {
    key: `cluster ${id}`,
    kind: "cluster",
    id,
    name,
    scheduler: undefined,
    notReadyMessage: undefined,
    pendingWorkloads: projects.reduce((number, project) => number + (project.pendingWorkloads ?? 0), 0),
    figures: { quota: CLUSTER_QUOTA, allocated: total("allocated"), over: CLUSTER_QUOTA, pending: total("pending"), idle: total("idle") },
    children,
  };
}

export function projectsOf(unit: Unit): readonly Unit[] {
  return unit.kind === "project" ? [unit] : unit.children.flatMap(projectsOf);
}

/** Unknown where one of them is. */
function sum(figures: readonly Figure[]): Figure {
  const unknown = figures.find((figure) => !isKnown(figure));
  if (unknown !== undefined) return unknown;
  return figures.filter(isKnown).reduce((total, figure) => total + figure, 0);
}

function quotaOf(unit: Project | Department, absent: Figure): Figure {
  const total = unit.totalResources.gpuQuota;
  if (total !== undefined && total !== null) return total;
  return unit.resources.some((resources) => resources.gpu.deserved === -1) ? UNLIMITED : absent;
}

function figuresOf(quota: Figure, allocated: Figure, live: Project["workloads"]): Unit["figures"] {
  return { quota, allocated, over: overOf(quota, allocated), pending: live.pendingGpus ?? 0, idle: live.idleGpus ?? IDLE_UNKNOWN };
}

function overOf(quota: Figure, allocated: Figure): Figure {
  if (!isKnown(quota)) return NOT_OVER;
  if (!isKnown(allocated)) return allocated;
  return allocated - quota > ROUNDING_GPUS ? allocated - quota : 0;
}

/** Without the departments that have no project below them, except those that are called so themselves. */
export function matching(units: readonly Unit[], search: string): readonly Unit[] {
  const text = search.toLowerCase();
  return units
    .map((unit) => ({ ...unit, children: matching(unit.children, search) }))
    .filter((unit) => unit.kind === "project" || unit.children.length > 0 || (unit.kind === "department" && unit.name.toLowerCase().includes(text)));
}

/** Every level by itself; what has no number comes last. */
export function sorted(units: readonly Unit[], field: SortField, isDescending: boolean): readonly Unit[] {
  const direction = isDescending ? -1 : 1;
  const compare = (one: Unit, other: Unit): number => {
    const byName = one.name.localeCompare(other.name, "en") || one.key.localeCompare(other.key, "en");
    if (field === "name") return direction * byName;
    const [left, right] = [one.figures[field], other.figures[field]];
    if (isKnown(left) && isKnown(right)) return direction * (left - right) || byName;
    return Number(isKnown(right)) - Number(isKnown(left)) || byName;
  };
  return [...units].sort(compare).map((unit) => ({ ...unit, children: sorted(unit.children, field, isDescending) }));
}

/** Each reason why a figure is missing, with its word, once. */
export function reasons(units: readonly Unit[]): readonly (readonly [string, string])[] {
  const found = new Map<string, string>();
  const visit = (unit: Unit): void => {
    for (const name of FIGURES) {
      const figure = unit.figures[name];
      if (!isKnown(figure) && figure.word !== "–") found.set(figure.reason, figure.word);
    }
    unit.children.forEach(visit);
  };
  units.forEach(visit);
  return [...found].map(([reason, word]) => [word, reason]);
}

/** The filters of the list for what a unit's figure counts; undefined where the list cannot be asked for it. */
export function filtersOf(unit: Unit): readonly (readonly [string, string, string])[] | undefined {
  if (unit.kind === "cluster") return [["clusterId", "==", unit.id]];
  if (unit.kind === "project") return [["projectName", "==", unit.name], ["projectId", "==", unit.id]];
  if (unit.children.some((child) => child.kind === "department")) return undefined;
  return [["departmentName", "==", unit.name], ["departmentId", "==", unit.id]];
}
