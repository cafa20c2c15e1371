/** The tree as a table: a row for each unit, those below it folded away where its reader wants that. */

import { useState } from "preact/hooks";
import { decimal, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { FIGURES, filtersOf, isKnown, type FigureName, type SortField, type Unit } from "./tree";

const COLUMNS: Readonly<Record<FigureName, { readonly label: string; readonly title: string }>> = {
  quota: { label: "Quota", title: "GPUs that its queue guarantees, over all node pools" },
  allocated: { label: "Allocated", title: "GPUs that its live workloads hold" },
  over: { label: "Over quota", title: "GPUs that it holds beyond its quota" },
  pending: { label: "Pending", title: "GPUs that its pending workloads request" },
  idle: { label: "Idle", title: "GPUs that are allocated to it and not used" },
};

/** What a figure counts, as filters of the list beside those of the unit, and how that is sorted. */
const COUNTED: Readonly<Partial<Record<FigureName, { readonly filter: readonly [string, string, string]; readonly sortBy: string }>>> = {
  allocated: { filter: ["allocatedGPU", ">=", "0.01"], sortBy: "allocatedGPU" },
  pending: { filter: ["phase", "==", "Pending"], sortBy: "createdAt" },
  idle: { filter: ["idleAllocatedGpus", ">=", "0.01"], sortBy: "idleAllocatedGpus" },
};

interface ProjectTableProps {
  readonly units: readonly Unit[];
  readonly field: SortField;
  readonly isDescending: boolean;
  readonly onSort: (field: SortField) => void;
}

// The roles are written out because a narrow page lays the rows out as grids, which would lose them.
export function ProjectTable({ units, field, isDescending, onSort }: ProjectTableProps) {
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const onFold = (key: string): void => {
    const changed = new Set(folded);
    if (!changed.delete(key)) changed.add(key);
    setFolded(changed);
  };
  const heading = (name: SortField, label: string, title?: string) => (
    <th
      key={name}
      role="columnheader"
      scope="col"
      class={name === "name" ? undefined : "is-number"}
      title={title}
      aria-sort={name !== field ? "none" : isDescending ? "descending" : "ascending"}
    >
      <button type="button" class="head-label" onClick={() => onSort(name)}>
        {label}
        <span aria-hidden="true">{name === field ? (isDescending ? " ↓" : " ↑") : ""}</span>
      </button>
    </th>
  );
  return (
    <table role="table" class="small-table wide project-table" aria-label="GPUs by cluster, department and project">
      <thead role="rowgroup">
        <tr role="row">
          {heading("name", "Project")}
          {FIGURES.map((name) => heading(name, COLUMNS[name].label, COLUMNS[name].title))}
        </tr>
      </thead>
      <tbody role="rowgroup">{rows(units, 0, folded, onFold)}</tbody>
    </table>
  );
}

function rows(units: readonly Unit[], depth: number, folded: ReadonlySet<string>, onFold: (key: string) => void): preact.ComponentChildren {
  return units.map((unit) => (
    <>
      <Row key={unit.key} unit={unit} depth={depth} isFolded={folded.has(unit.key)} onFold={onFold} />
      {!folded.has(unit.key) && rows(unit.children, depth + 1, folded, onFold)}
    </>
  ));
}

interface RowProps {
  readonly unit: Unit;
  readonly depth: number;
  readonly isFolded: boolean;
  readonly onFold: (key: string) => void;
}

function Row({ unit, depth, isFolded, onFold }: RowProps) {
  const filters = filtersOf(unit);
  return (
    <tr role="row" class={`project-row is-${unit.kind}`}>
      <th role="rowheader" scope="row">
        <div class="project-name" style={{ paddingInlineStart: `${depth * 18}px` }}>
          {unit.children.length > 0 ? (
            <button
              type="button"
              class="fold"
              aria-expanded={!isFolded}
              aria-label={`${isFolded ? "Show" : "Hide"} what is in ${unit.name}`}
              onClick={() => onFold(unit.key)}
            >
              {isFolded ? "▸" : "▾"}
            </button>
          ) : (
            <span class="fold" aria-hidden="true" />
          )}
          <span>
            {filters === undefined ? unit.name : <Link class="quiet" to={listUrl(filters)}>{unit.name}</Link>}{" "}
            <span class="muted project-kind">{unit.scheduler ?? (unit.kind === "project" ? "namespace" : unit.kind)}</span>
            {unit.notReadyMessage !== undefined && <span class="project-problem">Not ready: {unit.notReadyMessage}</span>}
          </span>
        </div>
      </th>
      {FIGURES.map((name) => (
        <td key={name} role="cell" class={`is-number${name === "over" && isOver(unit) ? " is-over" : ""}`}>
          <FigureCell unit={unit} name={name} />
        </td>
      ))}
    </tr>
  );
}

function isOver({ figures }: Unit): boolean {
  return isKnown(figures.over) && figures.over > 0;
}

function FigureCell({ unit, name }: { readonly unit: Unit; readonly name: FigureName }) {
  const figure = unit.figures[name];
  if (!isKnown(figure))
    return (
      <span class="muted" title={figure.reason}>
        {figure.word}
      </span>
    );
  const { filters, counted } = { filters: filtersOf(unit), counted: COUNTED[name] };
  const workloads = name === "pending" ? (unit.pendingWorkloads ?? 0) : 0;
  const text = `${name === "over" && figure > 0 ? "+" : ""}${decimal(figure)}`;
  if (filters === undefined || counted === undefined || (figure === 0 && workloads === 0)) return <>{text}</>;
  return (
    <Link
      to={listUrl([...filters, counted.filter], { sortBy: counted.sortBy })}
      title={workloads > 0 ? `${plural(workloads, "workload is", "workloads are")} pending` : undefined}
      aria-label={`${text} ${COLUMNS[name].label.toLowerCase()}: workloads of ${unit.name}`}
    >
      {text}
    </Link>
  );
}
