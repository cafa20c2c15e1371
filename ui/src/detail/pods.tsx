/** The pods of a workload: status, restarts, how they last ended, where they run. */

import { useState } from "preact/hooks";
import { getPods, PODS_SHOWN } from "../api/routes";
import type { Pod, Workload } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { count } from "../model/format";
import { lastExit, podStatus, failingFirst } from "../model/pods";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { Age, Instant } from "../components/instant";
import { EmptyState, ErrorState, Skeleton } from "../components/placeholders";

export function Pods({ workload }: { readonly workload: Workload }) {
  const isDeleted = workload.deletedAt !== null;
  const [offset, setOffset] = useState(0);
  const { data, error, refresh } = useLiveQuery(
    `pods ${workload.id} ${isDeleted} ${offset}`,
    (signal) => getPods(workload.id, isDeleted, offset, signal),
    5_000,
  );
  if (data === undefined) return error === undefined ? <Skeleton /> : <ErrorState error={error} retry={refresh} />;
  if (data.pods.length === 0 && offset > 0) return <Pages offset={offset} shown={0} next={undefined} go={setOffset} />;
  if (data.pods.length === 0)
    return (
      <EmptyState title="No pods">
        <p>{isDeleted ? "No pods of it are kept any more." : "No pods of it exist now."}</p>
      </EmptyState>
    );
  return (
    <>
      <div class="scroll-x">
        <table class="small-table wide" aria-label="Pods">
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
            {failingFirst(data.pods).map((pod) => (
              <PodRow key={pod.id} pod={pod} />
            ))}
          </tbody>
        </table>
      </div>
      {(offset > 0 || data.next !== undefined) && (
        <Pages offset={offset} shown={data.pods.length} next={data.next} go={setOffset} />
      )}
    </>
  );
}

interface PagesProps {
  readonly offset: number;
  readonly shown: number;
  /** Where the following page begins; undefined = there is none. */
  readonly next: number | undefined;
  readonly go: (offset: number) => void;
}

function Pages({ offset, shown, next, go }: PagesProps) {
  return (
    <nav class="pages" aria-label="Pages of pods">
      <span class="muted">{shown === 0 ? "No pods here any more." : `Pods ${count(offset + 1)} to ${count(offset + shown)}.`}</span>{" "}
      <button type="button" class="button" disabled={offset === 0} onClick={() => go(Math.max(0, offset - PODS_SHOWN))}>
        Previous pods
      </button>{" "}
      <button type="button" class="button" disabled={next === undefined} onClick={() => next !== undefined && go(next)}>
        Next pods
      </button>
    </nav>
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
