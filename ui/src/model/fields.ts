/** The fields to filter and sort by, with the API's names. The server validates them again. */

export type FieldKind = "text" | "number" | "date";

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly kind: FieldKind;
}

export const FIELDS: readonly Field[] = [
  { name: "name", label: "Workload", kind: "text" },
  { name: "phase", label: "Phase", kind: "text" },
  { name: "type", label: "Type", kind: "text" },
  { name: "category", label: "Category", kind: "text" },
  { name: "projectName", label: "Project", kind: "text" },
  { name: "departmentName", label: "Department", kind: "text" },
  { name: "submittedBy", label: "Owner", kind: "text" },
  { name: "clusterId", label: "Cluster", kind: "text" },
  { name: "nodepool", label: "Node pool", kind: "text" },
  { name: "allocatedGPU", label: "Allocated GPUs", kind: "number" },
  { name: "idleAllocatedGpus", label: "Idle GPUs", kind: "number" },
  { name: "createdAt", label: "Created", kind: "date" },
  { name: "phaseUpdatedAt", label: "In phase since", kind: "date" },
  { name: "completedAt", label: "Completed", kind: "date" },
  { name: "deletedAt", label: "Deleted", kind: "date" },
  { name: "totalPendingTimeSeconds", label: "Pending time (s)", kind: "number" },
  { name: "totalRunningTimeSeconds", label: "Running time (s)", kind: "number" },
  { name: "priority", label: "Priority", kind: "number" },
  { name: "priorityClassName", label: "Priority class", kind: "text" },
  { name: "distributedFramework", label: "Framework", kind: "text" },
  { name: "guaranteedRuntimeEndsAt", label: "Guaranteed until", kind: "date" },
  { name: "aiApplicationName", label: "Application", kind: "text" },
  { name: "aiApplicationId", label: "Application ID", kind: "text" },
  { name: "projectId", label: "Project ID", kind: "text" },
  { name: "departmentId", label: "Department ID", kind: "text" },
  { name: "idleGpus", label: "Idle GPUs (whole)", kind: "number" },
];

const BY_NAME = new Map(FIELDS.map((field) => [field.name, field]));

export function fieldNamed(name: string): Field | undefined {
  return BY_NAME.get(name);
}

export const OPERATORS: Readonly<Record<string, string>> = {
  "==": "is",
  "!=": "is not",
  "=@": "contains",
  "!@": "does not contain",
  "=^": "starts with",
  "=$": "ends with",
  ">=": "≥",
  "<=": "≤",
};

const ORDERED = ["==", "!=", ">=", "<="];

/** The operators that the server accepts for a field; numbers and dates have no partial matches. */
export function operatorsOf(field: Field): readonly string[] {
  return field.kind === "text" ? Object.keys(OPERATORS) : ORDERED;
}
