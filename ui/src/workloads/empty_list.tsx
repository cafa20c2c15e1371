/** The list without rows: why it is empty, and what to do about it. */

import { useEffect, useState } from "preact/hooks";
import { countWorkloads, getFacets } from "../api/routes";
import { useClusters, type Clusters } from "../clusters/context";
import { fieldNamed } from "../model/fields";
import { nearest } from "../model/suggest";
import { plural } from "../model/format";
import { isSameFilter, without, type Filter } from "../model/filter";
import { isAiWorkOnly, type View } from "../model/view";
import { NoClusters } from "../clusters/no_clusters";
import { FindingText } from "../components/finding";
import { connectionProblem } from "../model/cluster_health";
import { EmptyState } from "../components/placeholders";
import { COUNTED_FIELDS, filterText } from "./filters";

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
        No {isAiWorkOnly(view) ? "AI workloads" : "workloads"} are running in the clusters visible to you. Deleted workloads are in the
        tab <em>Deleted</em>.
      </p>
      {isAiWorkOnly(view) && (
        <button type="button" class="button" onClick={() => onView({ ...view, isAll: true })}>
          Show all workloads
        </button>
      )}
    </EmptyState>
  );
}

interface Suggestion {
  readonly label: string;
  readonly view: View;
  readonly number: number;
}

type Candidate = Omit<Suggestion, "number">;

/** Single changes of the view that have matches: without a filter, with a corrected one, among the other workloads. */
async function suggest(view: View, clusters: Clusters, signal: AbortSignal): Promise<readonly Suggestion[]> {
  const corrected = await Promise.all(view.filters.map((filter) => corrections(view, filter, clusters, signal)));
  const candidates: Candidate[] = [
    ...corrected.flat(),
    ...view.filters.map((filter) => ({
      label: `Remove “${filterText(filter, clusters)}”`,
      view: { ...view, filters: without(view.filters, filter) },
    })),
    ...(view.search === "" ? [] : [{ label: `Remove the search “${view.search}”`, view: { ...view, search: "" } }]),
    ...(isAiWorkOnly(view) ? [{ label: "Search all workloads, not AI work alone", view: { ...view, isAll: true } }] : []),
    {
      label: view.isDeleted ? "Search live workloads" : "Search deleted workloads",
      view: { ...view, isDeleted: !view.isDeleted, sortBy: view.isDeleted ? "createdAt" : "deletedAt", isDescending: true },
    },
  ];
  const counted = candidates.map(async (candidate) => ({
    ...candidate,
    number: await countWorkloads(candidate.view, [], signal),
  }));
  return (await Promise.all(counted)).filter(({ number }) => number > 0);
}

/** What a filter on an exact text may have meant: a value that exists, or a part of one. */
async function corrections(view: View, filter: Filter, clusters: Clusters, signal: AbortSignal): Promise<Candidate[]> {
  if (filter.operator !== "==" || fieldNamed(filter.field)?.kind !== "text") return [];
  const meant: Filter[] = [{ ...filter, operator: "=@" }];
  if (COUNTED_FIELDS.includes(filter.field)) {
    const { body } = await getFacets({ ...view, filters: [], search: "" }, [filter.field], signal);
    const value = nearest(filter.value, (body.facets[0]?.values ?? []).map((counted) => counted.value));
    if (value !== undefined) meant.unshift({ ...filter, value });
  }
  return meant.map((correction) => ({
    label: `Did you mean “${filterText(correction, clusters)}”?`,
    view: { ...view, filters: view.filters.map((other) => (other === filter ? correction : other)) },
  }));
}

/** Suggests each single change of the view that has matches, with their number. */
function NoMatch({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const clusters = useClusters();
  const [suggestions, setSuggestions] = useState<readonly Suggestion[]>([]);
  const key = JSON.stringify([view.filters, view.search, view.isDeleted]);
  useEffect(() => {
    const stop = new AbortController();
    suggest(view, clusters, stop.signal).then(setSuggestions, () => setSuggestions([])); // The list shows the error.
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
