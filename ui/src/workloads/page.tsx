/** The list of workloads. Its state is in the URL, except for the scroll position. */

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { countWorkloads } from "../api/routes";
import type { Workload } from "../api/shapes";
import { Panel } from "../detail/panel";
import { useKeys } from "../hooks/keyboard";
import { useLiveQuery } from "../hooks/live_query";
import { NARROW, useMedia } from "../hooks/media";
import { clock, count } from "../model/format";
import { toggled, type Filter } from "../model/filter";
import { readDetailView, detailViewUrl } from "../model/detail_view";
import { readView, rowsKey, sortedBy, viewUrl, type View, type Widths } from "../model/view";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { navigate, type Route } from "../router";
import { defaultColumns } from "./columns";
import { PhaseFilter } from "./phase_filter";
import { FilterChips } from "./filters";
import { EmptyList } from "./empty_list";
import type { LiveRows, PendingChanges } from "./live_rows";
import { Table } from "./table";
import { Toolbar } from "./toolbar";
import { InvalidFilters, UnknownColumns, unknownColumns } from "./invalid_filters";
import { ViewProvider } from "./view_context";
import { useLiveRows } from "./use_live_rows";

export function WorkloadsPage({ route }: { readonly route: Route }) {
  const view = readView(route.query);
  const rows = useLiveRows(view);
  const isNarrow = useMedia(NARROW);
  const [selected, setSelected] = useState(-1);
  /** The field of the filter that is being added; undefined while the form is closed. */
  const [newField, setNewField] = useState<string | undefined>(undefined);
  const [isChoosingColumns, setChoosingColumns] = useState(false);
  const key = rowsKey(view);
  useEffect(() => setSelected(-1), [key]);

  const setView = (next: View, replace = false): void =>
    navigate(next.openId === undefined ? viewUrl(next) : detailViewUrl(viewUrl(next), readDetailView(route.query)), { replace });
  const setFilters = (filters: readonly Filter[]): void => setView({ ...view, filters });
  const openPage = (workload: Workload): void => navigate(`/workloads/${encodeURIComponent(workload.id)}`);
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
    f: (event) => (event.preventDefault(), setNewField("")),
    p: () => setFilters(toggled(view.filters, "phase", "Pending")),
    n: () => void rows.reveal(),
    Escape: () => {
      if (view.openId !== undefined) close();
      else if (selected >= 0) setSelected(-1);
    },
  });

  const sort = (field: string): void => setView(sortedBy(view, field));

  return (
    <ViewProvider value={view}>
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
            <Toolbar
              view={view}
              onView={setView}
              isChoosingColumns={isChoosingColumns}
              setChoosingColumns={setChoosingColumns}
            />
          </div>
          <PhaseFilter facets={rows.facets} filters={view.filters} onFilters={setFilters} />
          {view.invalidFilters.length > 0 ? (
            <InvalidFilters view={view} onView={setView} />
          ) : unknownColumns(view).length > 0 ? (
            <UnknownColumns view={view} onView={setView} />
          ) : (
          <List
            rows={rows}
            view={view}
            isNarrow={isNarrow}
            selected={selected}
            onOpen={openPanel}
            onSort={sort}
            onFilter={setNewField}
            onWidths={(widths) => setView({ ...view, widths }, true)}
            onView={setView}
          />
          )}
        </section>
        {view.openId !== undefined && !isNarrow && <Panel id={view.openId} onClose={close} />}
      </div>
    </ViewProvider>
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
  const { data } = useLiveQuery(`other ${rowsKey(other)}`, (signal) => countWorkloads(other, [], signal), 30_000);
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
  readonly onWidths: (widths: Widths) => void;
  readonly onView: (view: View) => void;
}

function List(props: ListProps) {
  const { rows, view } = props;
  const [range, setRange] = useState({ first: 0, last: 0 });
  const visible = view.columns ?? defaultColumns(view.isDeleted);
  const retry = (): void => void rows.refresh();
  const hasFirstRows = rows.total === 0 && rows.pendingChanges.added > 0;
  useEffect(() => {
    if (hasFirstRows) void rows.reveal();
  }, [hasFirstRows]);
  if (rows.total === undefined)
    return rows.error === undefined ? <Skeleton rows={14} /> : <ErrorState error={rows.error} retry={retry} />;
  const isRefused = rows.error instanceof ApiError && rows.error.status === 400;
  if (isRefused) return <ErrorState error={rows.error!} />;
  return (
    <>
      {rows.total === 0 ? (
        <EmptyList view={view} onView={props.onView} />
      ) : (
        <Table
          {...props}
          visible={visible}
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
        <ChangesBar pendingChanges={rows.pendingChanges} onShow={() => void rows.reveal()} />
        <Freshness rows={rows} />
        {rows.refreshedAt !== undefined && <span class="wide-only">{clock(rows.refreshedAt)}</span>}
      </div>
    </>
  );
}

/** Whether changes appear as they happen, by polling, or not at all. */
function Freshness({ rows }: { readonly rows: LiveRows }) {
  if (rows.error !== undefined) return <span class="not-live">not live</span>;
  if (rows.isStreaming)
    return (
      <span class="live" title="Changes appear within seconds">
        live
      </span>
    );
  return (
    <span class="live is-polling" title="The stream of changes is not open; the list is refreshed every 5 seconds">
      polling
    </span>
  );
}

/** The changes since the snapshot. Rows move only when someone asks for it. */
function ChangesBar({ pendingChanges, onShow }: { readonly pendingChanges: PendingChanges; readonly onShow: () => void }) {
  const words = [
    pendingChanges.added > 0 ? `${count(pendingChanges.added)} new` : "",
    pendingChanges.removed > 0 ? `${count(pendingChanges.removed)} removed or changed` : "",
    pendingChanges.isReordered && pendingChanges.added === 0 && pendingChanges.removed === 0 ? "order changed" : "",
  ].filter((word) => word !== "");
  return (
    <div class="pending-changes" role="status">
      {words.length > 0 && (
        <button type="button" class="changes-button" onClick={onShow} title="Show them now (n)">
          {words.join(", ")} · show
        </button>
      )}
    </div>
  );
}
