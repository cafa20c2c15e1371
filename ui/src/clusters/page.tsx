/** The clusters: their state, what cannot be observed in them, and their GPUs. */

import { getTelemetry } from "../api/routes";
import type { Cluster, KindState } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { bytes, count, decimal, plural } from "../model/format";
import { connectionProblem, EXPORTERS, gpuMeasurement, pendingProblems, unobservedKinds } from "../model/cluster_health";
import { listUrl } from "../model/view";
import { FindingText } from "../components/finding";
import { Age, Instant } from "../components/instant";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { StateMark } from "../components/cluster_state";
import { Link } from "../router";
import { useMe } from "../session";
import { useClusters } from "./context";
import { NoClusters } from "./no_clusters";

const EVERY_MS = 10_000;

/** Allocated GPUs by cluster and node pool; the keys come from `poolKey`. */
type Allocation = ReadonlyMap<string, number>;

async function fetchAllocation(signal: AbortSignal): Promise<Allocation> {
  const values = await getTelemetry("GPU_ALLOCATION", { groupBy: "ClusterId,CurrentNodepools" }, signal);
  return new Map(values.map(({ groups, value }) => [poolKey(groups![0]!.value, groups![1]!.value), Number(value)]));
}

const poolKey = (clusterId: string, nodePool: string): string => `${clusterId} ${nodePool}`;

export function ClustersPage() {
  const clusters = useClusters();
  const allocated = useLiveQuery("allocated GPUs by node pool", fetchAllocation, EVERY_MS).data;
  if (clusters.data === undefined)
    return clusters.error === undefined ? <Skeleton /> : <ErrorState error={clusters.error} retry={clusters.refresh} />;
  if (clusters.data.length === 0) return <NoClusters />;
  const connected = clusters.data.filter((cluster) => cluster.state === "connected").length;
  return (
    <div class="page">
      <h1 class="off-screen">Clusters</h1>
      <StaleBar error={clusters.error} at={clusters.at} retry={clusters.refresh} />
      <p class="lead">
        <strong>
          {connected} of {clusters.data.length}
        </strong>{" "}
        {clusters.data.length === 1 ? "cluster is" : "clusters are"} connected.
      </p>
      <div class="cards">
        {clusters.data.map((cluster) => (
          <ClusterCard key={cluster.id} cluster={cluster} allocated={allocated} />
        ))}
      </div>
    </div>
  );
}

interface CardProps {
  readonly cluster: Cluster;
  /** Undefined until it is loaded. */
  readonly allocated: Allocation | undefined;
}

function ClusterCard({ cluster, allocated }: CardProps) {
  const unobserved = unobservedKinds(cluster);
  const problem = connectionProblem(cluster);
  const measurement = gpuMeasurement(cluster, useMe());
  const kinds = (cluster.kinds ?? []).filter((kind) => kind.group !== EXPORTERS);
  const absent = kinds.filter((kind) => kind.state === "absent");
  const complete = kinds.filter((kind) => kind.state === "complete");
  const exporters = (cluster.kinds ?? []).filter((kind) => kind.group === EXPORTERS && kind.state === "complete");
  const answering = exporters.filter((kind) => kind.message === undefined);
  return (
    <section class="card" aria-label={cluster.name}>
      <h2>
        <StateMark state={cluster.state} />
        {cluster.name}
        <span class="card-state">
          {cluster.state === "waiting" ? "waiting for its agent" : cluster.state}
          {cluster.since !== undefined && cluster.state !== "connected" && (
            <>
              {" "}
              for <Age since={cluster.since} />
            </>
          )}
        </span>
      </h2>
      <dl class="details-list">
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
              {cluster.lastTakeoverAt !== undefined && (
                <>
                  {` · ${plural(cluster.takeovers!, "takeover", "takeovers")}, the last one `}
                  <Age since={cluster.lastTakeoverAt} /> ago
                </>
              )}
            </dd>
          </div>
        )}
      </dl>
      {problem !== undefined && (
        <p class="card-part warning">
          <FindingText finding={problem} />
        </p>
      )}
      {pendingProblems(cluster).map((finding) => (
        <p key={finding.text} class="card-part warning">
          <FindingText finding={finding} />
        </p>
      ))}
      <NodePools cluster={cluster} allocated={allocated} />
      {cluster.state !== "waiting" && (
        <p class="card-part muted">
          {measurement.isMeasured ? "GPU use is measured." : <FindingText finding={measurement} />}
          {answering.length > 0 && ` Read: ${answering.map((kind) => kind.kind).join(", ")}.`}
        </p>
      )}
      {exporters.map(
        (kind) =>
          kind.message !== undefined && (
            <p key={kind.kind} class="card-part muted">
              Exporters of the kind “{kind.kind}”: {kind.message}.
            </p>
          ),
      )}
      {unobserved.length > 0 && (
        <div class="card-part warning">
          <h3>Cannot be observed here</h3>
          <ul class="plain">
            {unobserved.map((kind) => (
              <Kind key={`${kind.group}/${kind.kind}`} kind={kind} />
            ))}
          </ul>
        </div>
      )}
      {kinds.length > 0 && (
        <details class="muted">
          <summary>
            {plural(complete.length, "kind", "kinds")} observed completely, {count(absent.length)} not installed
          </summary>
          <KindNames title="Observed" kinds={complete} />
          <KindNames title="Not installed" kinds={absent} />
        </details>
      )}
      <Problems cluster={cluster} />
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

function NodePools({ cluster, allocated }: CardProps) {
  const pools = cluster.nodePools ?? [];
  if (pools.length === 0) return null;
  return (
    <table class="small-table card-part pools" aria-label={`Node pools of ${cluster.name}`}>
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
            <td class="is-number">{pool.gpus === null ? "not known" : decimal(pool.gpus)}</td>
            <td class="is-number">
              {allocated !== undefined && pool.gpus !== null && pool.gpus > 0 && (
                <Share allocated={allocated.get(poolKey(cluster.id, pool.nodePool)) ?? 0} whole={pool.gpus} />
              )}
            </td>
            <td class="is-number">{pool.gpuMemoryBytes === undefined ? "–" : bytes(pool.gpuMemoryBytes)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The most gaps and refused workloads of a cluster in an answer. */
const NEWEST_SHOWN = 100;

/** Contact gaps, and workloads that were refused because another cluster reports them. */
function Problems({ cluster }: { readonly cluster: Cluster }) {
  const gaps = cluster.gaps ?? [];
  const refused = cluster.refused ?? [];
  return (
    <>
      {gaps.length > 0 && (
        <details>
          <summary>{plural(gaps.length, "contact gap", "contact gaps")}
            {gaps.length === NEWEST_SHOWN && ", the newest ones"}</summary>
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
          <summary>{plural(refused.length, "workload was refused", "workloads were refused")}
            {refused.length === NEWEST_SHOWN && ", the newest ones"}</summary>
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

/** Allocated GPUs and their share of the pool, rounded down: only a full pool shows 100 %. */
function Share({ allocated, whole }: { readonly allocated: number; readonly whole: number }) {
  const percent = Math.floor((100 * allocated) / whole);
  return (
    <span class="share">
      {decimal(allocated)} · {percent} %
      <span class="share-track" aria-hidden="true">
        <span class="share-fill" style={{ width: `${Math.min(100, percent)}%` }} />
      </span>
    </span>
  );
}
