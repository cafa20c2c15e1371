/** Ties the rows of a view to the page: one instance per question, kept while someone looks at one workload. */

import { useEffect, useMemo, useReducer } from "preact/hooks";
import { ApiError } from "../api/http";
import { countWorkloads, facetsOf, getWorkload, listWorkloads, streamUrl } from "../api/routes";
import { keepFresh } from "../hooks/fresh";
import { rowsKey, type View } from "../model/view";
import { LiveRows, type RowSource } from "./rows";

let kept: { readonly key: string; readonly rows: LiveRows } | undefined;

/** Forgets what was read; whoever signs in next sees none of it. */
export function forgetRows(): void {
  kept = undefined;
}

export function useRows(view: View): LiveRows {
  const key = rowsKey(view);
  const rows = useMemo(() => {
    if (kept?.key !== key) kept = { key, rows: new LiveRows(sourceOf(view)) };
    return kept.rows;
  }, [key]);
  const [, rerender] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const end = rows.subscribe(() => rerender(undefined));
    const stop = keepFresh(
      streamUrl(view),
      () => rows.refresh(),
      (changed, gone) => changed.length > 0 || gone.some((id) => rows.holds(id)),
    );
    return () => {
      end();
      stop();
    };
  }, [rows]);
  return rows;
}

function sourceOf(view: View): RowSource {
  const boundField = view.isDeleted ? "deletedAt" : "createdAt";
  const newestFirst: View = { ...view, sortBy: boundField, isDescending: true };
  return {
    boundField,
    newest: async () => (await listWorkloads(newestFirst, [], { offset: 0, limit: 1 }))[0]?.[boundField] ?? undefined,
    facets: () => facetsOf(view, ["phase"]),
    page: (bound, offset, limit) => listWorkloads(view, bound, { offset, limit }),
    count: (more) => countWorkloads(view, more),
    one: async (id) => {
      try {
        return await getWorkload(id);
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return undefined;
        throw error;
      }
    },
  };
}
