/** The pods of a workload: status, restarts, how they last ended, where they run. */

import { getPods } from "../api/routes";
import type { Pod, PodContainer, Workload } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { count } from "../model/format";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { Age, Instant } from "../components/instant";
import { EmptyState, ErrorState, Skeleton } from "../components/placeholders";

export function Pods({ workload }: { readonly workload: Workload }) {
  const isDeleted = workload.deletedAt !== null;
  const { data, error, refresh } = useLiveQuery(
    `pods ${workload.id} ${isDeleted}`,
    (signal) => getPods(workload.id, isDeleted, signal),
    5_000,
  );
  if (data === undefined) return error === undefined ? <Skeleton /> : <ErrorState error={error} retry={refresh} />;
  if (data.pods.length === 0)
    return (
      <EmptyState title="No pods">
        <p>{isDeleted ? "No pods of it are kept any more." : "No pods of it exist now."}</p>
      </EmptyState>
    );
  return (
    <>
      <div class="scroll-x">
        <table class="small-table wide">
          <thead>
            <tr>
              <th scope="col">Pod</th>
              <th scope="col">Status</th>
              <th scope="col">Restarts</th>
              <th scope="col">Last exit</th>
              <th scope="col">Node</th>
              <th scope="col">Allocated GPUs</th>
              <th scope="col">{isDeleted ? "Deleted" : "Age"}</th>
            </tr>
          </thead>
          <tbody>
            {data.pods.map((pod) => (
              <PodRow key={pod.id} pod={pod} />
            ))}
          </tbody>
        </table>
      </div>
      {data.next !== undefined && <p class="muted">The first {count(data.pods.length)} pods.</p>}
    </>
  );
}

function PodRow({ pod }: { readonly pod: Pod }) {
  return (
    <tr>
      <td>
        <code>{pod.name}</code>
        {pod.message !== undefined && <p class="muted">{pod.message}</p>}
      </td>
      <td>{podStatus(pod)}</td>
      <td>{count(pod.restarts)}</td>
      <td>{lastExit(pod.containers)}</td>
      <td>
        {pod.nodeName === undefined ? (
          "–"
        ) : (
          <Link to={listUrl([["node", "==", pod.nodeName]])} title="All workloads on this node">
            {pod.nodeName}
          </Link>
        )}
        {pod.currentNodePool !== undefined && <span class="muted"> {pod.currentNodePool}</span>}
      </td>
      <td>{pod.allocatedResources?.gpu ?? "–"}</td>
      <td>{pod.deletedAt === undefined ? <Age since={pod.createdAt} /> : <Instant at={pod.deletedAt} />}</td>
    </tr>
  );
}

/** The reason where something is wrong, else the phase, as kubectl has it. */
export function podStatus(pod: Pod): string {
  if (pod.isTerminating === true && pod.deletedAt === undefined) return "Terminating";
  return pod.reason ?? pod.k8sPhase;
}

/** How a container ended, a failed one first; that of a container that runs is of the time before. */
export function lastExit(containers: readonly PodContainer[]): string {
  const ends = containers.map((container) =>
    container.state === "terminated"
      ? { code: container.exitCode, reason: container.reason }
      : { code: container.lastExitCode, reason: container.lastReason },
  );
  const known = ends.filter((end) => end.code !== undefined);
  const end = known.find((each) => each.code !== 0) ?? known[0];
  return end === undefined ? "–" : `${end.reason ?? "Error"} (${end.code})`;
}
