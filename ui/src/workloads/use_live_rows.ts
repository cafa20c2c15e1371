/** Connects the rows of a view to the page: one instance per query, cached while a workload is open. */

import { useEffect, useMemo, useReducer } from "preact/hooks";
import { ApiError } from "../api/http";
import { countWorkloads, getFacets, getWorkload, listWorkloads } from "../api/routes";
import { startLiveRefresh, type RateChange } from "../hooks/live_refresh";
import { rowsKey, type View } from "../model/view";
import { LiveRows, type RowSource } from "./live_rows";

let cached: { readonly key: string; readonly rows: LiveRows } | undefined;

/** Clears the cache at logout, so that the next user sees none of it. */
export function forgetRows(): void {
  cached = undefined;
}

export function useLiveRows(view: View): LiveRows {
  const key = rowsKey(view);
  const rows = useMemo(() => {
    if (cached?.key !== key) cached = { key, rows: new LiveRows(sourceOf(view)) };
    return cached.rows;
  }, [key]);
  const [, rerender] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const end = rows.subscribe(() => rerender(undefined));
    const stop = startLiveRefresh(
      () => rows.refresh(),
      rateFor(view, rows),
      (isStreaming) => rows.setStreaming(isStreaming),
    );
    return () => {
      end();
      stop();
    };
  }, [rows]);
  return rows;
}

/** Only the server can tell whether a workload that is not loaded matches the filters. */
function rateFor(view: View, rows: LiveRows): RateChange {
  const isUnfiltered = view.filters.length === 0 && view.search === "";
  return (changed, gone) => {
    if ([...changed, ...gone].some((id) => rows.has(id))) return "yes";
    const candidates = view.isDeleted ? gone : changed;
    if (candidates.length === 0) return "no";
    return isUnfiltered ? "yes" : "maybe";
  };
}

function sourceOf(view: View): RowSource {
  const boundField = view.isDeleted ? "deletedAt" : "createdAt";
  const newestFirst: View = { ...view, sortBy: boundField, isDescending: true };
  return {
    boundField,
    newest: async () => (await listWorkloads(newestFirst, [], { offset: 0, limit: 1 }))[0]?.[boundField] ?? undefined,
    facets: () => getFacets(view, ["phase"]),
    page: (bound, offset, limit) => listWorkloads(view, bound, { offset, limit }),
    count: (more) => countWorkloads(view, more),
    get: async (id) => {
      try {
        return await getWorkload(id);
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return undefined;
        throw error;
      }
    },
  };
}
