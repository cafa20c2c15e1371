/** Shown in place of the list while the URL has filters that cannot be applied: nothing is left out silently. */

import { EmptyState } from "../components/placeholders";
import { formatFilter, type InvalidFilter } from "../model/filter";
import type { View } from "../model/view";

interface InvalidFiltersProps {
  readonly view: View;
  readonly onView: (view: View) => void;
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
