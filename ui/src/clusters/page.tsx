/** The clusters: in contact or not, what cannot be observed there, which GPUs they have. */

import { telemetry } from "../api/routes";
import type { Cluster, KindState } from "../api/shapes";
import { useLive } from "../hooks/live";
import { bytes, count, decimal, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Age, Instant } from "../parts/instant";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { StateMark } from "../parts/state_mark";
import { Link } from "../router";
import { ConnectCluster } from "./connect";
import { useClusters } from "./context";

const STATE_WORDS: Readonly<Record<string, string>> = {
  waiting: "waiting for its agent",
  connected: "connected",
  degraded: "late",
  disconnected: "out of contact",
};

const EVERY_MS = 10_000;
/** The group of what the agent scrapes, which stands among the kinds that it observes. */
const EXPORTERS = "metrics";

/** GPUs held, by cluster and node pool. */
type Held = ReadonlyMap<string, number>;

async function askHeld(signal: AbortSignal): Promise<Held> {
  const values = await telemetry("GPU_ALLOCATION", { groupBy: "ClusterId,CurrentNodepools" }, signal);
  return new Map(values.map(({ groups, value }) => [placeOf(groups![0]!.value, groups![1]!.value), Number(value)]));
}

const placeOf = (clusterId: string, nodePool: string): string => `${clusterId} ${nodePool}`;

export function ClustersPage() {
  const clusters = useClusters();
  const held = useLive("held by node pool", askHeld, EVERY_MS).data;
  if (clusters.data === undefined)
    return clusters.error === undefined ? <Skeleton /> : <Failure error={clusters.error} retry={clusters.refresh} />;
  if (clusters.data.length === 0) return <ConnectCluster />;
  const inContact = clusters.data.filter((cluster) => cluster.state === "connected").length;
  return (
    <div class="page">
      <h1 class="off-screen">Clusters</h1>
      <StaleBar error={clusters.error} at={clusters.at} retry={clusters.refresh} />
      <p class="lead">
        <strong>
          {inContact} of {clusters.data.length}
        </strong>{" "}
        {clusters.data.length === 1 ? "cluster is" : "clusters are"} in contact.
      </p>
      <div class="cards">
        {clusters.data.map((cluster) => (
          <ClusterCard key={cluster.id} cluster={cluster} held={held} />
        ))}
      </div>
    </div>
  );
}

interface CardProps {
  readonly cluster: Cluster;
  /** Undefined until it is known. */
  readonly held: Held | undefined;
}

function ClusterCard({ cluster, held }: CardProps) {
  const blind = (cluster.kinds ?? []).filter((kind) => ["forbidden", "failing"].includes(kind.state));
  const kinds = (cluster.kinds ?? []).filter((kind) => kind.group !== EXPORTERS);
  const absent = kinds.filter((kind) => kind.state === "absent");
  const complete = kinds.filter((kind) => kind.state === "complete");
  const read = (cluster.kinds ?? []).filter((kind) => kind.group === EXPORTERS && kind.state === "complete");
  return (
    <section class="card" aria-label={cluster.name}>
      <h2>
        <StateMark state={cluster.state} />
        {cluster.name}
        <span class="card-state">
          {STATE_WORDS[cluster.state] ?? cluster.state}
          {cluster.since !== undefined && cluster.state !== "connected" && (
            <>
              {" "}
              for <Age since={cluster.since} />
            </>
          )}
        </span>
      </h2>
      <dl class="facts-list">
        <div>
          <dt>Workloads</dt>
          <dd>
            <Link to={listUrl([["clusterId", "==", cluster.id]])}>{count(cluster.workloads)}</Link>
          </dd>
        </div>
        <div>
          <dt>Last contact</dt>
          <dd>
            {cluster.lastContactAt === undefined ? (
              "never"
            ) : (
              <>
                <Age since={cluster.lastContactAt} /> ago
              </>
            )}
          </dd>
        </div>
        {cluster.kubernetesVersion !== undefined && cluster.kubernetesVersion !== "" && (
          <div>
            <dt>Kubernetes</dt>
            <dd>{cluster.kubernetesVersion}</dd>
          </div>
        )}
        {cluster.agentVersion !== undefined && (
          <div>
            <dt>Agent</dt>
            <dd>
              {cluster.agentVersion}
              {(cluster.takeovers ?? 0) > 0 && ` · ${plural(cluster.takeovers!, "takeover", "takeovers")}`}
            </dd>
          </div>
        )}
      </dl>
      <NodePools cluster={cluster} held={held} />
      <p class="card-part muted">
        {read.length > 0
          ? `Use is measured by ${read.map((kind) => kind.kind).join(", ")}.`
          : "The agent measures no use here."}
        {read.map((kind) => kind.message !== undefined && <span key={kind.kind}> {kind.kind}: {kind.message}.</span>)}
      </p>
      {blind.length > 0 && (
        <div class="card-part warning">
          <h3>Cannot be observed here</h3>
          <ul class="plain">
            {blind.map((kind) => (
              <Kind key={`${kind.group}/${kind.kind}`} kind={kind} />
            ))}
          </ul>
        </div>
      )}
      {kinds.length > 0 && (
        <details class="muted">
          <summary>
            {plural(complete.length, "kind is", "kinds are")} observed completely, {count(absent.length)} not installed
          </summary>
          <KindNames title="Observed" kinds={complete} />
          <KindNames title="Not installed" kinds={absent} />
        </details>
      )}
      <Troubles cluster={cluster} />
    </section>
  );
}

function KindNames({ title, kinds }: { readonly title: string; readonly kinds: readonly KindState[] }) {
  if (kinds.length === 0) return null;
  const names = new Set(kinds.map((kind) => kind.kind));
  return (
    <p>
      {title}: {[...names].sort().join(", ")}.
    </p>
  );
}

function Kind({ kind }: { readonly kind: KindState }) {
  return (
    <li>
      <strong>{kind.kind}</strong>
      {kind.group !== "" && <span class="muted"> {kind.group}</span>} – {kind.state} for <Age since={kind.since} />
      {kind.message !== undefined && <p class="muted">{kind.message}</p>}
    </li>
  );
}

function NodePools({ cluster, held }: CardProps) {
  const pools = cluster.nodePools ?? [];
  if (pools.length === 0) return null;
  return (
    <table class="small-table card-part pools">
      <thead>
        <tr>
          <th scope="col">Node pool</th>
          <th scope="col" class="is-number">Nodes</th>
          <th scope="col" class="is-number">GPUs</th>
          <th scope="col" class="is-number">Allocated</th>
          <th scope="col" class="is-number">GPU memory</th>
        </tr>
      </thead>
      <tbody>
        {pools.map((pool) => (
          <tr key={pool.nodePool}>
            <th scope="row">
              <Link to={listUrl([["clusterId", "==", cluster.id], ["nodepool", "==", pool.nodePool]])}>
                {pool.nodePool}
              </Link>
            </th>
            <td class="is-number">{count(pool.nodes)}</td>
            <td class="is-number">{decimal(pool.gpus)}</td>
            <td class="is-number">
              {held !== undefined && pool.gpus > 0 && (
                <Share held={held.get(placeOf(cluster.id, pool.nodePool)) ?? 0} whole={pool.gpus} />
              )}
            </td>
            <td class="is-number">{pool.gpuMemoryBytes === undefined ? "–" : bytes(pool.gpuMemoryBytes)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Times without contact and workloads that another cluster holds already. */
function Troubles({ cluster }: { readonly cluster: Cluster }) {
  const gaps = cluster.gaps ?? [];
  const refused = cluster.refused ?? [];
  return (
    <>
      {gaps.length > 0 && (
        <details>
          <summary>{plural(gaps.length, "time without contact", "times without contact")}</summary>
          <ul class="plain">
            {gaps.map((gap, index) => (
              <li key={index}>
                <Instant at={gap.from} /> – {gap.to === undefined ? "now" : <Instant at={gap.to} />}
              </li>
            ))}
          </ul>
        </details>
      )}
      {refused.length > 0 && (
        <details>
          <summary>{plural(refused.length, "workload was refused", "workloads were refused")}</summary>
          <ul class="plain">
            {refused.map((item) => (
              <li key={item.id}>
                <code>{item.id}</code> {item.reason}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

/** So many of a pool's GPUs, and how much of it that is, rounded down: only a full one is full. */
function Share({ held, whole }: { readonly held: number; readonly whole: number }) {
  const percent = Math.floor((100 * held) / whole);
  return (
    <span class="share">
      {decimal(held)} · {percent} %
      <span class="share-track" aria-hidden="true">
        <span class="share-fill" style={{ width: `${Math.min(100, percent)}%` }} />
      </span>
    </span>
  );
}
