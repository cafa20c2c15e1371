/** One row of the list, and its two-line form for narrow screens. Cells change in place and flash once. */

import { serverNow } from "../api/server_clock";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import type { Workload } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { isStale, observedUntil } from "../model/cluster_health";
import { shortDuration, secondsBetween } from "../model/format";
import { phaseStyle } from "../model/phases";
import { Age } from "../components/instant";
import { PhaseBadge } from "../components/phase";
import { Link } from "../router";
import { gpusAllocated, podsShown, type ColumnSpec } from "./columns";

interface RowProps {
  readonly workload: Workload;
  readonly index: number;
  /** On a narrow screen, only those that were chosen: the default ones are in its two lines. */
  readonly columns: readonly ColumnSpec[];
  /** How far from the left those columns stay that are pinned. */
  readonly pinned: ReadonlyMap<string, number>;
  readonly isSelected: boolean;
  readonly isOpen: boolean;
  readonly isRemoved: boolean;
  readonly isNarrow: boolean;
  readonly onOpen: (workload: Workload, index: number) => void;
}

/** The id of a row in the document, for assistive technology to know which one is selected. */
export function rowId(index: number): string {
  return `row-${index}`;
}

function classesOf(props: RowProps, isOld: boolean): string {
  const classes = ["row"];
  if (props.isSelected) classes.push("is-selected");
  if (props.isOpen) classes.push("is-open");
  if (props.isRemoved) classes.push("is-removed");
  if (isOld) classes.push("is-stale");
  return classes.join(" ");
}

export function Row(props: RowProps) {
  const { workload, index } = props;
  const clusters = useClusters();
  const cluster = clusters.byId.get(workload.clusterId);
  const isOld = workload.deletedAt === null && isStale(cluster);
  const staleness =
    isOld && cluster?.lastContactAt !== undefined
      ? `${cluster.name} is ${cluster.state}; last contact ${shortDuration(secondsBetween(cluster.lastContactAt, serverNow()))} ago`
      : undefined;
  return (
    <div
      id={rowId(index)}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={props.isSelected}
      class={classesOf(props, isOld)}
      title={props.isRemoved ? "No longer matches this view" : staleness}
      data-id={workload.id}
      onClick={() => !hasSelection() && props.onOpen(workload, index)}
    >
      {props.isNarrow ? <Lines {...props} /> : <Cells {...props} />}
    </div>
  );
}

/** Whether somebody selects text, which must not open anything. */
function hasSelection(): boolean {
  const selection = window.getSelection();
  return selection !== null && !selection.isCollapsed;
}

function Cells({ workload, columns, pinned }: RowProps) {
  const clusters = useClusters();
  return (
    <>
      <div role="rowheader" class="cell cell-name">
        <Name workload={workload} />
        <Message workload={workload} />
      </div>
      {columns.map((column) => (
        <div
          role="gridcell"
          key={column.id}
          class={`cell${column.isNumber ? " is-number" : ""}${pinned.has(column.id) ? " is-pinned" : ""}`}
          style={pinned.has(column.id) ? { left: `${pinned.get(column.id)}px` } : undefined}
        >
          <Flash of={workload.id} on={column.flashOn?.(workload)}>
            {column.show(workload, clusters)}
          </Flash>
        </div>
      ))}
    </>
  );
}

function Name({ workload }: { readonly workload: Workload }) {
  return (
    <Link class="name" to={`/workloads/${encodeURIComponent(workload.id)}`} tabIndex={-1} title={workload.name}>
      {workload.name}
    </Link>
  );
}

/** Why the workload is pending or failed, beside its name. */
function Message({ workload }: { readonly workload: Workload }) {
  if (workload.phaseMessage === undefined || workload.phaseMessage === "") return null;
  return (
    <span class={`message tone-${phaseStyle(workload.phase).tone}`} title={workload.phaseMessage}>
      {workload.phaseMessage}
    </span>
  );
}

/** The row on a narrow screen: two lines, and the columns that were chosen below them, two in a line. */
function Lines({ workload, columns }: RowProps) {
  const clusters = useClusters();
  const facts = [
    workload.projectName,
    clusterName(clusters, workload.clusterId),
    `${podsShown(workload)} pods`,
    `${gpusAllocated(workload)} ${gpusAllocated(workload) === "1" ? "GPU" : "GPUs"}`,
  ];
  return (
    <div role="gridcell" class="two-lines">
      <div class="line">
        <Name workload={workload} />
        <PhaseBadge phase={workload.phase} isPast={workload.deletedAt !== null} />
        <span class="since">
          <Age
            since={workload.deletedAt ?? workload.phaseUpdatedAt}
            until={workload.deletedAt === null ? observedUntil(clusters.byId.get(workload.clusterId)) : undefined}
            isShort
          />
        </span>
      </div>
      <div class="line second">
        {workload.phaseMessage === undefined || workload.phaseMessage === "" ? (
          <span class="facts">{facts.filter((fact) => fact !== "").join(" · ")}</span>
        ) : (
          <Message workload={workload} />
        )}
      </div>
      {columns.length > 0 && (
        <div class="chosen">
          {columns.map((column) => (
            <span key={column.id} class="chosen-cell">
              <span class="chosen-label">{column.label}</span> {column.show(workload, clusters)}
            </span>
          ))}
        </div>
      )}
    </div>
  );
}

/** Flashes once when `on` changes for the same workload, never when the row shows another workload. */
function Flash(props: {
  readonly of: string;
  readonly on: string | undefined;
  readonly children: ComponentChildren;
}) {
  const last = useRef({ of: props.of, on: props.on, times: 0 });
  if (last.current.of !== props.of) last.current = { of: props.of, on: props.on, times: 0 };
  else if (last.current.on !== props.on)
    last.current = { of: props.of, on: props.on, times: last.current.times + 1 };
  const { times } = last.current;
  return (
    <span key={times} class={times > 0 ? "value flash" : "value"}>
      {props.children}
    </span>
  );
}
