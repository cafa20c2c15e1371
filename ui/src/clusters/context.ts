/** The clusters, loaded once for all pages: their names, and which of them are disconnected. */

import { createContext } from "preact";
import { useContext, useMemo } from "preact/hooks";
import { listClusters } from "../api/routes";
import type { Cluster } from "../api/shapes";
import { useLiveQuery, type LiveQuery } from "../hooks/live_query";
import { duration } from "../model/format";

export interface Clusters extends LiveQuery<readonly Cluster[]> {
  readonly byId: ReadonlyMap<string, Cluster>;
}

const NONE: Clusters = {
  data: undefined,
  error: undefined,
  at: undefined,
  refresh: () => undefined,
  byId: new Map(),
};

export const ClustersContext = createContext<Clusters>(NONE);

export function useClusters(): Clusters {
  return useContext(ClustersContext);
}

export function useClustersLive(isLoggedIn: boolean): Clusters {
  const live = useLiveQuery(isLoggedIn ? "clusters" : undefined, listClusters, 10_000);
  const byId = useMemo(
    () => new Map((live.data ?? []).map((cluster) => [cluster.id, cluster])),
    [live.data],
  );
  return { ...live, byId };
}

export function clusterName(clusters: Clusters, id: string): string {
  return clusters.byId.get(id)?.name ?? id.slice(0, 8);
}

/** How long a GPU must be unused to count as idle: `1m`, or `1m to 5m` where the agents differ. */
export function idleAfter(clusters: readonly Cluster[]): string | undefined {
  const kinds = clusters.flatMap((cluster) => cluster.kinds ?? []);
  const windows = kinds.flatMap((kind) => kind.idleAfterSeconds ?? []).sort((a, b) => a - b);
  if (windows.length === 0) return undefined;
  const [least, most] = [duration(windows[0]!), duration(windows[windows.length - 1]!)];
  return least === most ? least : `${least} to ${most}`;
}
