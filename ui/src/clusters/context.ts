/** The clusters, asked once for the whole page: names for ids, and which of them are out of contact. */

import { createContext } from "preact";
import { useContext, useMemo } from "preact/hooks";
import { listClusters } from "../api/routes";
import type { Cluster } from "../api/shapes";
import { useLive, type Live } from "../hooks/live";
import { duration } from "../model/format";

export interface Clusters extends Live<readonly Cluster[]> {
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

export function useClustersLive(isSignedIn: boolean): Clusters {
  const live = useLive(isSignedIn ? "clusters" : undefined, listClusters, 10_000);
  const byId = useMemo(
    () => new Map((live.data ?? []).map((cluster) => [cluster.id, cluster])),
    [live.data],
  );
  return { ...live, byId };
}

export function clusterName(clusters: Clusters, id: string): string {
  return clusters.byId.get(id)?.name ?? id.slice(0, 8);
}

/** When a GPU counts as idle, as the agents have it: `1m`, or `1m to 5m` where they differ. */
export function idleAfter(clusters: readonly Cluster[]): string | undefined {
  const kinds = clusters.flatMap((cluster) => cluster.kinds ?? []);
  const windows = kinds.flatMap((kind) => kind.idleAfterSeconds ?? []).sort((a, b) => a - b);
  if (windows.length === 0) return undefined;
  const [least, most] = [duration(windows[0]!), duration(windows[windows.length - 1]!)];
  return least === most ? least : `${least} to ${most}`;
}

/** Records of such a cluster are what was last seen, not what is. */
export function isOutOfContact(cluster: Cluster | undefined): boolean {
  return cluster !== undefined && cluster.state === "disconnected";
}
