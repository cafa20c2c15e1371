/** What the fleet's allocated GPUs can be grouped by. Pure. */

export interface Grouping {
  /** The name in the API, and the one in the page's URLs. */
  readonly key: string;
  readonly word: string;
  readonly label: string;
  /** The filter field of a bar's link; by name where people see projects of one name in two clusters as one. */
  readonly field: string;
  readonly isByName?: boolean;
}

export const GROUPINGS: readonly Grouping[] = [
  { key: "ProjectId", word: "project", label: "project", field: "projectName", isByName: true },
  { key: "DepartmentId", word: "department", label: "department", field: "departmentName", isByName: true },
  { key: "ClusterId", word: "cluster", label: "cluster", field: "clusterId" },
  { key: "CurrentNodepools", word: "nodepool", label: "node pool", field: "nodepool" },
  { key: "Type", word: "type", label: "type", field: "type" },
  { key: "Category", word: "category", label: "category", field: "category" },
];

export function groupingOf(word: string | null): Grouping {
  return GROUPINGS.find((grouping) => grouping.word === word) ?? GROUPINGS[0]!;
}
