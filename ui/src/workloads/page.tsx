/** The list of workloads. All of its state is in the URL, but for where it is scrolled to. */

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { countWorkloads } from "../api/routes";
import type { Workload } from "../api/shapes";
import { Panel } from "../detail/panel";
import { useKeys } from "../hooks/keys";
import { useLive } from "../hooks/live";
import { NARROW, useMedia } from "../hooks/media";
import { clock, count } from "../model/format";
import type { Filter } from "../model/filter";
import { readSight, sightUrl } from "../model/sight";
import { readView, rowsKey, viewUrl, type View } from "../model/view";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { go, type Place } from "../router";
import { usualColumns } from "./columns";
import { FacetBar } from "./facets";
import { FilterChips } from "./filters";
import { Nothing } from "./nothing";
import type { LiveRows, Waiting } from "./rows";
import { Table } from "./table";
import { Tools } from "./tools";
import { useRows } from "./use_rows";

export function WorkloadsPage({ place }: { readonly place: Place }) {
  const view = readView(place.query);
  const rows = useRows(view);
  const isNarrow = useMedia(NARROW);
  const [selected, setSelected] = useState(-1);
  /** The field of the filter that is being made; undefined while none is. */
  const [newField, setNewField] = useState<string | undefined>(undefined);
  const [isChoosingColumns, setChoosingColumns] = useState(false);
  const key = rowsKey(view);
  useEffect(() => setSelected(-1), [key]);

  const setView = (next: View, replace = false): void =>
    go(next.openId === undefined ? viewUrl(next) : sightUrl(viewUrl(next), readSight(place.query)), { replace });
  const setFilters = (filters: readonly Filter[]): void => setView({ ...view, filters });
  const openPage = (workload: Workload): void => go(`/workloads/${encodeURIComponent(workload.id)}`);
  const openPanel = (workload: Workload, index: number): void => {
    setSelected(index);
    if (isNarrow) openPage(workload);
    else setView({ ...view, openId: view.openId === workload.id ? undefined : workload.id }, view.openId !== undefined);
  };
  const close = (): void => setView({ ...view, openId: undefined }, true);
  const move = (by: number): void => {
    const total = rows.total ?? 0;
    if (total === 0) return;
    const next = Math.max(0, Math.min(total - 1, selected + by));
    setSelected(next);
    const workload = rows.at(next);
    if (view.openId !== undefined && workload !== undefined)
      setView({ ...view, openId: workload.id }, true);
  };
  const withSelected = (act: (workload: Workload) => void) => (): void => {
    const workload = rows.at(selected);
    if (workload !== undefined) act(workload);
  };
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: (event) => (event.preventDefault(), move(1)),
    ArrowUp: (event) => (event.preventDefault(), move(-1)),
    Enter: (event) => {
      if (event.target instanceof HTMLButtonElement || event.target instanceof HTMLAnchorElement) return;
      withSelected(openPage)();
    },
    o: withSelected((workload) => openPanel(workload, selected)),
    c: (event) => (event.preventDefault(), setChoosingColumns(true)),
    f: (event) => (event.preventDefault(), setNewField("projectName")),
    n: () => void rows.reveal(),
    Escape: () => {
      if (view.openId !== undefined) close();
      else if (selected >= 0) setSelected(-1);
    },
  });

  const sort = (field: string): void => {
    const isSame = view.sortBy === field;
    setView({ ...view, sortBy: field, isDescending: isSame ? !view.isDescending : false });
  };

  return (
    <div class={view.openId !== undefined && !isNarrow ? "workloads has-panel" : "workloads"}>
      <section class="list" aria-label="Workloads">
        <h1 class="off-screen">Workloads</h1>
        <div class="list-head">
          <Tabs view={view} rows={rows} onView={setView} />
          <FilterChips
            view={view}
            newField={newField}
            setNewField={setNewField}
            onFilters={setFilters}
          />
          <Tools
            view={view}
            onView={setView}
            isChoosingColumns={isChoosingColumns}
            setChoosingColumns={setChoosingColumns}
          />
        </div>
        <FacetBar facets={rows.facets} filters={view.filters} onFilters={setFilters} />
        <List
          rows={rows}
          view={view}
          isNarrow={isNarrow}
          selected={selected}
          onOpen={openPanel}
          onSort={sort}
          onFilter={setNewField}
          onView={setView}
        />
      </section>
      {view.openId !== undefined && !isNarrow && <Panel id={view.openId} onClose={close} />}
    </div>
  );
}

interface TabsProps {
  readonly view: View;
  readonly rows: LiveRows;
  readonly onView: (view: View) => void;
}

function Tabs({ view, rows, onView }: TabsProps) {
  const other: View = {
    ...view,
    isDeleted: !view.isDeleted,
    sortBy: view.isDeleted ? "createdAt" : "deletedAt",
    isDescending: true,
    columns: undefined,
    openId: undefined,
  };
  const { data } = useLive(`other ${rowsKey(other)}`, (signal) => countWorkloads(other, [], signal), 30_000);
  const here = rows.facets?.total;
  const shown = (number: number | undefined): string => (number === undefined ? "…" : count(number));
  return (
    <div class="tabs" role="tablist" aria-label="Live or deleted">
      {[false, true].map((isDeleted) => (
        <button
          key={String(isDeleted)}
          type="button"
          role="tab"
          class="tab"
          aria-selected={view.isDeleted === isDeleted}
          onClick={() => view.isDeleted !== isDeleted && onView(other)}
        >
          {isDeleted ? "Deleted" : "Live"} <b>{shown(view.isDeleted === isDeleted ? here : data)}</b>
        </button>
      ))}
    </div>
  );
}

interface ListProps {
  readonly rows: LiveRows;
  readonly view: View;
  readonly isNarrow: boolean;
  readonly selected: number;
  readonly onOpen: (workload: Workload, index: number) => void;
  readonly onSort: (field: string) => void;
  readonly onFilter: (field: string) => void;
  readonly onView: (view: View) => void;
}

function List(props: ListProps) {
  const { rows, view } = props;
  const [range, setRange] = useState({ first: 0, last: 0 });
  const visible = view.columns ?? usualColumns(view.isDeleted);
  const kept = useRef(visible);
  if (kept.current.join() !== visible.join()) kept.current = visible;
  const retry = (): void => void rows.refresh();
  const isEmptyNoMore = rows.total === 0 && rows.waiting.fresh > 0;
  useEffect(() => {
    if (isEmptyNoMore) void rows.reveal();
  }, [isEmptyNoMore]);
  if (rows.total === undefined)
    return rows.error === undefined ? <Skeleton rows={14} /> : <Failure error={rows.error} retry={retry} />;
  const isRefused = rows.error instanceof ApiError && rows.error.status === 400;
  if (isRefused) return <Failure error={rows.error!} />;
  return (
    <>
      {rows.total === 0 ? (
        <Nothing view={view} onView={props.onView} />
      ) : (
        <Table
          {...props}
          visible={kept.current}
          onRange={(first, last) =>
            setRange((old) => (old.first === first && old.last === last ? old : { first, last }))
          }
        />
      )}
      <StaleBar error={rows.error} at={rows.refreshedAt} retry={retry} />
      <div class="status">
        {rows.total > 0 && (
          <span>
            {count(range.first + 1)}–{count(range.last + 1)} of {count(rows.total)}
          </span>
        )}
        <WaitingBar waiting={rows.waiting} onShow={() => void rows.reveal()} />
        <span class={rows.error === undefined ? "live" : "not-live"}>
          {rows.error === undefined ? "live" : "not live"}
        </span>
        {rows.refreshedAt !== undefined && <span class="wide-only">{clock(rows.refreshedAt)}</span>}
      </div>
    </>
  );
}

/** What came and went since the view was taken. Rows move only when someone asks for it. */
function WaitingBar({ waiting, onShow }: { readonly waiting: Waiting; readonly onShow: () => void }) {
  const words = [
    waiting.fresh > 0 ? `${count(waiting.fresh)} new` : "",
    waiting.left > 0 ? `${count(waiting.left)} gone or changed` : "",
    waiting.isMoved && waiting.fresh === 0 && waiting.left === 0 ? "new order" : "",
  ].filter((word) => word !== "");
  return (
    <div class="waiting" role="status">
      {words.length > 0 && (
        <button type="button" class="waiting-button" onClick={onShow} title="Show them now (n)">
          {words.join(", ")} · show
        </button>
      )}
    </div>
  );
}
