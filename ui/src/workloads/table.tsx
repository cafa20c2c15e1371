/** The list as a grid: sticky head and name, sortable and resizable columns, only the visible rows in the document. */

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Workload } from "../api/shapes";
import { useVisibleRows } from "../hooks/visible_rows";
import { fieldNamed } from "../model/fields";
import type { View, Widths } from "../model/view";
import { gridTemplate, NAME_COLUMN, pinnedOffsets, useColumnWidths } from "./column_widths";
import { COLUMNS, type ColumnSpec } from "./columns";
import { GPU_USE, GpuUseProvider } from "./gpu_use";
import { Row, rowId } from "./row";
import type { LiveRows } from "./live_rows";

const SPEC_BY_ID = new Map(COLUMNS.map((column) => [column.id, column]));
const NAME_HEAD = { label: "Workload", field: "name" };
const HEAD_HEIGHT = 32;

export interface TableProps {
  readonly rows: LiveRows;
  readonly view: View;
  readonly visible: readonly string[];
  readonly isNarrow: boolean;
  readonly selected: number;
  readonly onOpen: (workload: Workload, index: number) => void;
  readonly onSort: (field: string) => void;
  readonly onFilter: (field: string) => void;
  readonly onWidths: (widths: Widths) => void;
  readonly onRange: (first: number, last: number) => void;
}

export function Table(props: TableProps) {
  const { rows, view, visible, isNarrow, selected } = props;
  const [widths, startResize] = useColumnWidths(view.widths, props.onWidths);
  const scroller = useRef<HTMLDivElement>(null);
  const total = rows.total ?? 0;
  const pinned = isNarrow ? [] : visible.filter((id) => view.pinned.includes(id));
  const ordered = [...pinned, ...visible.filter((id) => !pinned.includes(id))];
  const columns = ordered.map((id) => SPEC_BY_ID.get(id)).filter((spec) => spec !== undefined);
  const offsets = pinnedOffsets(pinned, widths);
  const chosen = view.columns === undefined ? [] : columns.filter(({ id }) => id !== "phase");
  const rowHeight = isNarrow ? narrowRowHeight(chosen.length) : view.isCompact ? 26 : 32;
  const headHeight = isNarrow ? 0 : HEAD_HEIGHT;
  const shown = useVisibleRows(scroller, total, rowHeight, headHeight);

  useEffect(() => {
    void rows.show(shown.first, shown.last);
  }, [rows, shown.first, shown.last, total]);
  useEffect(() => {
    const visibleFirst = Math.floor((scroller.current?.scrollTop ?? 0) / rowHeight);
    const room = (scroller.current?.clientHeight ?? 0) - headHeight;
    props.onRange(visibleFirst, Math.min(total - 1, visibleFirst + Math.floor(room / rowHeight)));
  });
  useLayoutEffect(() => {
    if (scroller.current !== null) scroller.current.scrollTop = rows.scrollTop;
  }, [rows]);
  useEffect(() => {
    if (selected < 0) return;
    shown.scrollTo(selected);
    scroller.current?.focus({ preventScroll: true });
  }, [selected]);

  const template = gridTemplate(columns.map((column) => column.id), widths);
  const indexes = Array.from(
    { length: Math.max(0, shown.last - shown.first + 1) },
    (_, offset) => shown.first + offset,
  );

  const isUseShown = (isNarrow ? chosen : columns).some(({ id }) => id === GPU_USE);
  return (
    <GpuUseProvider rows={rows} first={shown.first} last={shown.last} isOn={isUseShown}>
    <div
      class={`grid${isNarrow ? " is-narrow" : ""}${view.isCompact ? " is-compact" : ""}`}
      role="grid"
      aria-label={view.isDeleted ? "Deleted workloads" : "Live workloads"}
      aria-rowcount={total + 1}
      ref={scroller}
      tabIndex={0}
      aria-activedescendant={selected >= 0 ? rowId(selected) : undefined}
      style={{ "--columns": template, "--row-height": `${rowHeight}px` }}
      onScroll={() => {
        shown.onScroll();
        rows.scrollTop = scroller.current?.scrollTop ?? 0;
      }}
    >
      {!isNarrow && (
        <div class="head" role="row" aria-rowindex={1}>
          {[undefined, ...columns].map((spec) => (
            <HeadCell
              key={spec?.id ?? NAME_COLUMN}
              spec={spec}
              view={view}
              onSort={props.onSort}
              onFilter={props.onFilter}
              onResize={(event) => startResize(spec?.id ?? NAME_COLUMN, event)}
              pinnedAt={spec === undefined ? undefined : offsets.get(spec.id)}
            />
          ))}
        </div>
      )}
      <div class="body" role="presentation" style={{ height: `${shown.height}px` }}>
        <div class="shown" role="presentation" style={{ transform: `translateY(${shown.top}px)` }}>
          {indexes.map((index) => {
            const workload = rows.at(index);
            if (workload === undefined)
              return <div class="row is-loading" role="row" aria-rowindex={index + 2} key={index} />;
            return (
              <Row
                key={index}
                workload={workload}
                index={index}
                columns={isNarrow ? chosen : columns}
                pinned={offsets}
                isSelected={index === selected}
                isOpen={workload.id === view.openId}
                isRemoved={rows.isRemoved(workload.id)}
                isNarrow={isNarrow}
                onOpen={props.onOpen}
              />
            );
          })}
        </div>
      </div>
    </div>
    </GpuUseProvider>
  );
}

/** Two lines, and below them the chosen columns, two in a line. */
function narrowRowHeight(columns: number): number {
  return 56 + 20 * Math.ceil(columns / 2);
}

interface HeadCellProps {
  /** Undefined for the column of the name. */
  readonly spec: ColumnSpec | undefined;
  readonly view: View;
  readonly onSort: (field: string) => void;
  readonly onFilter: (field: string) => void;
  readonly onResize: (event: PointerEvent) => void;
  readonly pinnedAt: number | undefined;
}

function HeadCell({ spec, view, onSort, onFilter, onResize, pinnedAt }: HeadCellProps) {
  const { field, label } = spec ?? NAME_HEAD;
  const isSorted = field !== undefined && view.sortBy === field;
  const direction = view.isDescending ? "descending" : "ascending";
  return (
    <div
      role="columnheader"
      class={`head-cell${spec?.isNumber ? " is-number" : ""}${pinnedAt === undefined ? "" : " is-pinned"}`}
      style={pinnedAt === undefined ? undefined : { left: `${pinnedAt}px` }}
      aria-sort={isSorted ? direction : field === undefined ? undefined : "none"}
      title={spec?.title}
    >
      {field === undefined || fieldNamed(field)?.isSortable === false ? (
        <span class="head-label">{label}</span>
      ) : (
        <button type="button" class="head-label" onClick={() => onSort(field)}>
          {label}
          <span class="sort" aria-hidden="true">
            {isSorted ? (view.isDescending ? "↓" : "↑") : ""}
          </span>
        </button>
      )}
      {field !== undefined && (
        <button
          type="button"
          class="head-filter"
          aria-label={`Filter by ${label}`}
          title={`Filter by ${label}`}
          onClick={() => onFilter(field)}
        >
          <svg viewBox="0 0 12 12" aria-hidden="true">
            <path d="M1 2h10L7 6.6V10.5L5 9.5V6.6z" fill="currentColor" />
          </svg>
        </button>
      )}
      <span class="resize" aria-hidden="true" onPointerDown={onResize} />
    </div>
  );
}
