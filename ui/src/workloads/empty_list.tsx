/** The list without rows: why it is empty, and what to do about it. */

import { useEffect, useState } from "preact/hooks";
import { countWorkloads } from "../api/routes";
import { useClusters } from "../clusters/context";
import { plural } from "../model/format";
import { isSameFilter, without, type Filter } from "../model/filter";
import type { View } from "../model/view";
import { NoClusters } from "../clusters/no_clusters";
import { FindingText } from "../components/finding";
import { connectionProblem } from "../model/cluster_health";
import { EmptyState } from "../components/placeholders";
import { filterText } from "./filters";

export function EmptyList({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const clusters = useClusters();
  const isNarrowed = view.filters.length > 0 || view.search !== "";
  if (isNarrowed) return <NoMatch view={view} onView={onView} />;
  if (clusters.data?.length === 0) return <NoClusters />;
  const problems = (clusters.data ?? [])
    .map((cluster) => ({ cluster, problem: connectionProblem(cluster) }))
    .filter(({ problem }) => problem !== undefined);
  if (view.isDeleted)
    return (
      <EmptyState title="No deleted workloads">
        <p>Workloads deleted from their cluster are listed here, with their history, until the retention period ends.</p>
      </EmptyState>
    );
  return (
    <EmptyState title="No workloads">
      {problems.map(({ cluster, problem }) => (
        <p key={cluster.id}>
          <strong>{cluster.name}</strong>: <FindingText finding={problem!} />
        </p>
      ))}
      <p>
        No workloads are running in the clusters visible to you. Deleted workloads are in the tab <em>Deleted</em>.
      </p>
    </EmptyState>
  );
}

interface Suggestion {
  readonly label: string;
  readonly view: View;
  readonly number: number;
}

/** Suggests each single change of the view that has matches, with their number. */
function NoMatch({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const clusters = useClusters();
  const [suggestions, setSuggestions] = useState<readonly Suggestion[]>([]);
  const key = JSON.stringify([view.filters, view.search, view.isDeleted]);
  useEffect(() => {
    const stop = new AbortController();
    const candidates: { label: string; view: View }[] = view.filters.map((filter: Filter) => ({
      label: `Remove “${filterText(filter, clusters)}”`,
      view: { ...view, filters: without(view.filters, filter) },
    }));
    if (view.search !== "") candidates.push({ label: `Remove the search “${view.search}”`, view: { ...view, search: "" } });
    candidates.push({
      label: view.isDeleted ? "Search live workloads" : "Search deleted workloads",
      view: { ...view, isDeleted: !view.isDeleted, sortBy: view.isDeleted ? "createdAt" : "deletedAt", isDescending: true },
    });
    Promise.all(
      candidates.map(async (suggestion) => ({ ...suggestion, number: await countWorkloads(suggestion.view, [], stop.signal) })),
    ).then(
      (results) => setSuggestions(results.filter((suggestion) => suggestion.number > 0)),
      () => setSuggestions([]), // The list itself shows that the server does not respond.
    );
    return () => stop.abort();
  }, [key]);
  const isFilterLeft = (suggestion: Suggestion): boolean =>
    view.filters.every((filter) => suggestion.view.filters.some((other) => isSameFilter(other, filter)));
  return (
    <EmptyState title="No workload matches">
      {suggestions.map((suggestion) => (
        <p key={suggestion.label}>
          <button type="button" class={isFilterLeft(suggestion) ? "button" : "button is-primary"} onClick={() => onView(suggestion.view)}>
            {suggestion.label}
          </button>{" "}
          {plural(suggestion.number, "match", "matches")}
        </p>
      ))}
      {suggestions.length === 0 && (
        <button
          type="button"
          class="button"
          onClick={() => onView({ ...view, filters: [], search: "" })}
        >
          Clear all filters
        </button>
      )}
    </EmptyState>
  );
}
