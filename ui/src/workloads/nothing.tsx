/** The list without rows: why there are none, and what would bring them back. */

import { useEffect, useState } from "preact/hooks";
import { countWorkloads } from "../api/routes";
import { useClusters } from "../clusters/context";
import { count } from "../model/format";
import { isSameFilter, without, type Filter } from "../model/filter";
import type { View } from "../model/view";
import { ConnectCluster } from "../clusters/connect";
import { Empty } from "../parts/states";
import { filterWords } from "./filters";

export function Nothing({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const clusters = useClusters();
  const isNarrowed = view.filters.length > 0 || view.search !== "";
  if (isNarrowed) return <NoMatch view={view} onView={onView} />;
  if (clusters.data?.length === 0) return <ConnectCluster />;
  if (view.isDeleted)
    return (
      <Empty title="Nothing has been deleted yet">
        <p>Workloads that vanish from their cluster are listed here, with their history, until retention ends.</p>
      </Empty>
    );
  return (
    <Empty title="No workloads">
      <p>
        The clusters report no workloads within your scope. One that is gone may be in the tab <em>Deleted</em>.
      </p>
    </Empty>
  );
}

interface Way {
  readonly label: string;
  readonly view: View;
  readonly number: number;
}

/** Which single filter removed the last rows: each way out with the number of rows that it brings. */
function NoMatch({ view, onView }: { readonly view: View; readonly onView: (view: View) => void }) {
  const clusters = useClusters();
  const [ways, setWays] = useState<readonly Way[]>([]);
  const key = JSON.stringify([view.filters, view.search, view.isDeleted]);
  useEffect(() => {
    const stop = new AbortController();
    const candidates: { label: string; view: View }[] = view.filters.map((filter: Filter) => ({
      label: `Drop “${filterWords(filter, clusters)}”`,
      view: { ...view, filters: without(view.filters, filter) },
    }));
    if (view.search !== "") candidates.push({ label: `Drop the search “${view.search}”`, view: { ...view, search: "" } });
    candidates.push({
      label: view.isDeleted ? "Look among live workloads" : "Look among deleted workloads",
      view: { ...view, isDeleted: !view.isDeleted, sortBy: view.isDeleted ? "createdAt" : "deletedAt", isDescending: true },
    });
    Promise.all(
      candidates.map(async (way) => ({ ...way, number: await countWorkloads(way.view, [], stop.signal) })),
    ).then(
      (found) => setWays(found.filter((way) => way.number > 0)),
      () => setWays([]), // The list itself already tells that the server does not answer.
    );
    return () => stop.abort();
  }, [key]);
  const isFilterLeft = (way: Way): boolean =>
    view.filters.every((filter) => way.view.filters.some((other) => isSameFilter(other, filter)));
  return (
    <Empty title="No workload matches">
      {ways.map((way) => (
        <p key={way.label}>
          <button type="button" class={isFilterLeft(way) ? "button" : "button is-primary"} onClick={() => onView(way.view)}>
            {way.label}
          </button>{" "}
          brings {count(way.number)}
        </p>
      ))}
      {ways.length === 0 && (
        <button
          type="button"
          class="button"
          onClick={() => onView({ ...view, filters: [], search: "" })}
        >
          Clear all filters
        </button>
      )}
    </Empty>
  );
}
