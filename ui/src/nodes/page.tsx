/** Nodes: the GPUs of each by pool, which are allocated, idle, free or lost; and who holds a node. */

import { getNodes } from "../api/routes";
import type { ClusterNode } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { StaleClusters } from "../clusters/stale_clusters";
import { EmptyState, ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { count, decimal, plural } from "../model/format";
import { Link } from "../router";
import { NodeDetail } from "./detail";
import { shortModel, squares, statusText, sum, USES, type Figures } from "./gpus";

const EVERY_MS = 10_000;

export function NodesPage({ query }: { readonly query: URLSearchParams }) {
  const { data, error, at, refresh } = useLiveQuery("nodes", getNodes, EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={8} /> : <ErrorState error={error} retry={refresh} />;
  const asked = query.get("node");
  const chosen = data.nodes.find((node) => node.id === asked);
  const down = data.nodes.filter((node) => node.status !== "Ready");
  return (
    <div class="page nodes">
      <h1 class="off-screen">Nodes</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <StaleClusters />
      {data.nodes.length === 0 ? (
        <EmptyState title="No nodes">
          <p>No agent reports nodes that are visible to you.</p>
        </EmptyState>
      ) : (
        <>
          <Lead nodes={data.nodes} />
          {down.length > 0 && <NotReady nodes={down} />}
          <Legend />
          {chosen !== undefined && <NodeDetail node={chosen} />}
          {asked !== null && chosen === undefined && <NotThere isCut={data.next !== undefined} />}
          {pools(data.nodes).map((nodes) => (
            <Pool key={`${nodes[0]!.clusterUuid} ${nodes[0]!.nodePool}`} nodes={nodes} chosen={chosen} />
          ))}
          {data.next !== undefined && <p class="muted">The first {count(data.nodes.length)} nodes.</p>}
        </>
      )}
    </div>
  );
}

/** An address outlives its node. */
function NotThere({ isCut }: { readonly isCut: boolean }) {
  return (
    <p role="alert">
      The node of this address is not among these: it is gone, or you may not see it{isCut && ", or it comes after the first ones"}.{" "}
      <Link to="/nodes">All nodes</Link>
    </p>
  );
}

/** By cluster and pool, those with GPUs first. */
function pools(nodes: readonly ClusterNode[]): readonly (readonly ClusterNode[])[] {
  const byPool = new Map<string, ClusterNode[]>();
  for (const node of nodes) {
    const key = `${node.clusterUuid} ${node.nodePool}`;
    byPool.set(key, [...(byPool.get(key) ?? []), node]);
  }
  const hasGpus = (pool: readonly ClusterNode[]): number => (pool.some((node) => node.gpuInfo) ? 0 : 1);
  return [...byPool.values()].sort((one, other) => hasGpus(one) - hasGpus(other));
}

function Lead({ nodes }: { readonly nodes: readonly ClusterNode[] }) {
  const of = sum(nodes);
  return (
    <p class="lead">
      <strong>{decimal(of.busy + of.idle)}</strong> of {decimal(whole(of))} GPUs {allocatedTo(nodes)} on{" "}
      {plural(nodes.length, "node", "nodes")}
      {of.idle > 0 && `, ${decimal(of.idle)} of them idle`}
      {of.free > 0 && `; ${decimal(of.free)} free`}
      {of.lost > 0 && `; ${decimal(of.lost)} not usable`}
      {of.unknown > 0 && `; of ${decimal(of.unknown)} it is not known whether they are free`}.
    </p>
  );
}

/** Of a cluster that is seen in part only the viewer's own workloads count. */
function allocatedTo(nodes: readonly ClusterNode[]): string {
  return nodes.some((node) => node.isPartial) ? "allocated to workloads that are visible to you" : "allocated";
}

const whole = (of: Figures): number => USES.reduce((total, [use]) => total + of[use], 0);

/** Nodes that are down, and how much goes with each. */
function NotReady({ nodes }: { readonly nodes: readonly ClusterNode[] }) {
  return (
    <div class="card-part warning">
      <p>
        {plural(nodes.length, "node is", "nodes are")} not Ready:{" "}
        {nodes.slice(0, 10).map((node, index) => (
          <>
            {index > 0 && ", "}
            <Link to={nodeUrl(node)}>{node.name}</Link>
            {node.workloadsTotal > 0 && ` (${plural(node.workloadsTotal, "workload", "workloads")})`}
          </>
        ))}
        {nodes.length > 10 && ` and ${count(nodes.length - 10)} more`}
      </p>
    </div>
  );
}

function Legend() {
  return (
    <ul class="gpu-legend" aria-label="Legend">
      {USES.map(([use, label]) => (
        <li key={use}>
          <span class={`gpu gpu-${use}`} aria-hidden="true" /> {label}
        </li>
      ))}
    </ul>
  );
}

interface PoolProps {
  readonly nodes: readonly ClusterNode[];
  readonly chosen: ClusterNode | undefined;
}

function Pool({ nodes, chosen }: PoolProps) {
  const clusters = useClusters();
  const first = nodes[0]!;
  const of = sum(nodes);
  return (
    <section class="block" aria-label={`Node pool ${first.nodePool}`}>
      <h2>
        {first.nodePool} <span class="muted">{clusterName(clusters, first.clusterUuid)}</span>
        <span class="muted">
          {" "}
          · {plural(nodes.length, "node", "nodes")}
          {whole(of) > 0 && ` · ${decimal(of.busy + of.idle)} of ${decimal(whole(of))} GPUs ${allocatedTo(nodes)}`}
        </span>
      </h2>
      <ul class="node-grid">
        {nodes.map((node) => (
          <li key={node.id}>
            <Tile node={node} isChosen={node === chosen} />
          </li>
        ))}
      </ul>
    </section>
  );
}

const nodeUrl = (node: ClusterNode): string => `/nodes?node=${node.id}`;

function Tile({ node, isChosen }: { readonly node: ClusterNode; readonly isChosen: boolean }) {
  const drawn = squares(node);
  return (
    <Link
      to={isChosen ? "/nodes" : nodeUrl(node)}
      class={`node-tile${node.status === "Ready" ? "" : " is-down"}`}
      aria-current={isChosen ? "true" : undefined}
    >
      <span class="node-name">{node.name}</span>
      {(node.status !== "Ready" || node.isCordoned) && <span class="node-state">{statusText(node)}</span>}
      {drawn !== undefined && drawn.length > 0 && (
        <span class="gpus" aria-hidden="true">
          {drawn.map((use, index) => (
            <span key={index} class={`gpu gpu-${use}`} />
          ))}
        </span>
      )}
      <span class="muted">{summary(node)}</span>
    </Link>
  );
}

/** The figures as words: squares are not for everybody. */
function summary(node: ClusterNode): string {
  const gpus = node.gpuInfo ?? undefined;
  if (gpus === undefined) return node.capacity.gpus === 0 ? "no GPUs" : "GPUs not known";
  const allocated = node.allocated.gpus === undefined ? "?" : decimal(node.allocated.gpus);
  const model = shortModel(gpus.gpuType);
  return `${allocated} of ${count(gpus.gpuCount)}${model === "" ? "" : ` ${model}`}`;
}
