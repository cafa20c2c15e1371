import { describe, expect, it } from "vitest";
import type { Department, Project } from "../src/api/shapes";
import { filtersOf, matching, reasons, sorted, unitTree, type Unit } from "../src/projects/tree";

const CLUSTER = "c0000000-0000-0000-0000-000000000001";

interface Given {
  readonly above?: string;
  readonly quota?: number;
  readonly scheduler?: string;
  readonly used?: number | null;
  readonly idle?: number;
  readonly waiting?: number;
  readonly deserved?: number;
}

function project(id: string, name: string, given: Given = {}): Project {
  const { above = "", quota, scheduler, used = 0, idle, waiting = 0, deserved } = given;
  return {
    id,
    name,
    clusterId: CLUSTER,
    parentId: above,
    scheduler,
    totalResources: { gpuQuota: quota },
    resources: deserved === undefined ? [] : [{ gpu: { deserved } }],
    status: { phase: "Ready", quotaStatus: { allocated: { gpu: used ?? undefined } } },
    workloads: { total: 1, running: 1, pending: 0, pendingGpus: waiting, idleGpus: idle },
  } as unknown as Project;
}

function department(number: number, name: string, above?: number, isWhole = true): Department {
  const uuid = (value: number): string => `00000000-0000-0000-0000-${value.toString(16).padStart(12, "0")}`;
  return {
    id: String(number),
    name,
    clusterId: CLUSTER,
    totalResources: { gpuQuota: 16 },
    resources: [],
    ...(above === undefined ? {} : { parent: { id: uuid(above), name: "?" } }),
    ...(isWhole ? { status: { quotaStatus: { allocated: { gpu: 20 } } }, workloads: { pending: 0, pendingGpus: 0, idleGpus: 0 } } : {}),
  } as unknown as Department;
}

const tree = (projects: readonly Project[], departments: readonly Department[] = []): readonly Unit[] =>
  unitTree(projects, departments, () => "aurora");
const outline = (units: readonly Unit[]): unknown => units.map((unit) => [unit.name, outline(unit.children)]);

describe("the tree of projects", () => {
  it("puts projects below departments, and departments below theirs, in any order", () => {
    const departments = [department(26, "ml", 3), department(3, "research")];
    const units = tree([project("7", "vision", { above: "26" }), project("8", "tools")], departments);
    expect(outline(units)).toEqual([["aurora", [["tools", []], ["research", [["ml", [["vision", []]]]]]]]]);
  });
  it("keeps a project whose department is not shown", () => {
    expect(outline(tree([project("7", "vision", { above: "26" })]))).toEqual([["aurora", [["vision", []]]]]);
  });
  it("has what is held beyond the quota", () => {
    const [cluster] = tree([project("1", "a", { quota: 8, scheduler: "KAI", used: 11.5, idle: 2, waiting: 4 })]);
    expect(cluster!.children[0]!.figures).toEqual({ quota: 8, allocated: 11.5, over: 3.5, pending: 4, idle: 2 });
    expect(cluster!.figures).toMatchObject({ allocated: 11.5, pending: 4, idle: 2 });
  });
  it("does not add up what is not known", () => {
    const units = tree([project("1", "a", { used: null, idle: 1 }), project("2", "b", { used: 3 })]);
    expect(units[0]!.figures.allocated).toMatchObject({ word: "unknown" });
    expect(units[0]!.figures.idle).toMatchObject({ word: "unknown" });
  });
  it("tells a namespace, a quota without a bound and hidden sums apart", () => {
    const projects = [project("1", "a"), project("2", "b", { scheduler: "KAI", deserved: -1, above: "3" })];
    const [cluster] = tree(projects, [department(3, "research", undefined, false)]);
    const words = (unit: Unit): unknown => unit.figures.quota;
    const [namespace, part] = cluster!.children;
    expect([words(namespace!), words(part!), words(part!.children[0]!)]).toMatchObject([
      { word: "none" },
      { word: "hidden" },
      { word: "unlimited" },
    ]);
    expect(reasons([cluster!]).map(([word]) => word)).toEqual(["unknown", "none", "hidden", "unlimited"]);
  });
  it("is sorted level by level, with the unknown last in both directions", () => {
    const units = tree([project("1", "a", { used: 1 }), project("2", "b", { used: null }), project("3", "c", { used: 2 })]);
    const names = (isDescending: boolean) => sorted(units, "allocated", isDescending)[0]!.children.map((unit) => unit.name);
    expect(names(true)).toEqual(["c", "a", "b"]);
    expect(names(false)).toEqual(["a", "c", "b"]);
  });
  it("shows of a search only departments with a match", () => {
    const units = tree([project("7", "vision", { above: "3" })], [department(3, "research"), department(4, "other")]);
    expect(outline(matching(units, "visi"))).toEqual([["aurora", [["research", [["vision", []]]]]]]);
    expect(matching(tree([], [department(4, "other")]), "visi")).toEqual([]);
  });
  it("leads to what a figure counts, where the list can be asked for it", () => {
    const units = tree([project("7", "vision", { above: "26" })], [department(3, "research"), department(26, "ml", 3)]);
    const research = units[0]!.children[0]!;
    expect(filtersOf(research)).toBeUndefined();
    expect(filtersOf(research.children[0]!)).toEqual([["departmentName", "==", "ml"], ["departmentId", "==", "26"]]);
  });
});
