/** Shown in place of the list while the URL has filters or columns that do not exist: nothing is left out silently. */

import { EmptyState } from "../components/placeholders";
import { formatFilter, type InvalidFilter } from "../model/filter";
import { nearest } from "../model/suggest";
import type { View } from "../model/view";
import { COLUMNS } from "./columns";

interface InvalidFiltersProps {
  readonly view: View;
  readonly onView: (view: View) => void;
}

const COLUMN_IDS: readonly string[] = COLUMNS.map(({ id }) => id);

/** Columns of the URL that there are not. */
export function unknownColumns(view: View): readonly string[] {
  return [...new Set([...(view.columns ?? []), ...view.pinned])].filter((id) => !COLUMN_IDS.includes(id));
}

export function UnknownColumns({ view, onView }: InvalidFiltersProps) {
  const unknown = unknownColumns(view);
  const replaced = (id: string, names: readonly string[]): View => {
    const replace = (list: readonly string[]): string[] => list.flatMap((name) => (name === id ? names : [name]));
    return {
      ...view,
      columns: view.columns === undefined ? undefined : replace(view.columns),
      pinned: replace(view.pinned),
    };
  };
  return (
    <EmptyState title={unknown.length === 1 ? "A column does not exist" : "Some columns do not exist"}>
      {unknown.map((id) => {
        const meant = nearest(id, COLUMN_IDS);
        return (
          <div key={id} role="alert">
            <p>There is no column '{id}'. Columns: {COLUMN_IDS.join(", ")}.</p>
            {meant !== undefined && (
              <button type="button" class="button is-primary" onClick={() => onView(replaced(id, [meant]))}>
                Did you mean {meant}?
              </button>
            )}{" "}
            <button type="button" class="button" onClick={() => onView(replaced(id, []))}>
              Remove {id}
            </button>
          </div>
        );
      })}
    </EmptyState>
  );
}

export function InvalidFilters({ view, onView }: InvalidFiltersProps) {
  const without = (invalid: InvalidFilter): View => ({
    ...view,
    invalidFilters: view.invalidFilters.filter((other) => other !== invalid),
  });
  return (
    <EmptyState title={view.invalidFilters.length === 1 ? "A filter cannot be applied" : "Some filters cannot be applied"}>
      {view.invalidFilters.map((invalid) => (
        <div key={invalid.text} role="alert">
          <p>{invalid.problem}</p>
          {invalid.suggestion !== undefined && (
            <button
              type="button"
              class="button is-primary"
              onClick={() => onView({ ...without(invalid), filters: [...view.filters, invalid.suggestion!] })}
            >
              Did you mean {formatFilter(invalid.suggestion)}?
            </button>
          )}{" "}
          <button type="button" class="button" onClick={() => onView(without(invalid))}>
            Remove {invalid.text}
          </button>
        </div>
      ))}
    </EmptyState>
  );
}
