/** Idle GPUs: who holds them, since when, and how many GPU-hours they have cost. */

import { getFleet, getIdleWorkloads } from "../api/routes";
import type { IdleOwner, IdleWorkload } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { StaleClusters } from "../clusters/stale_clusters";
import { useLiveQuery } from "../hooks/live_query";
import { count, decimal, gpuHours, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Bars, type BarRow } from "../components/bars";
import { Age } from "../components/instant";
import { Owner, ownerName } from "../components/owner";
import { PhaseBadge } from "../components/phase";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { Link } from "../router";
import { Definition, NoIdleGpus, Unmeasured } from "./no_idle_gpus";

const SHOWN = 200;
const OWNERS_SHOWN = 10;
/** The most owners in an answer. */
const OWNERS_COUNTED = 50;

async function fetchIdle(signal: AbortSignal) {
  const [idle, { now }] = await Promise.all([getIdleWorkloads(SHOWN, signal), getFleet(signal)]);
  return { ...idle, gpus: now.gpus };
}

export function IdlePage() {
  const { data, error, at, refresh } = useLiveQuery("idle", fetchIdle, 10_000);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={8} /> : <ErrorState error={error} retry={refresh} />;
  const unmeasured = data.gpus.allocated - data.gpus.measured;
  return (
    <div class="page">
      <h1 class="off-screen">Idle GPUs</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <StaleClusters />
      {data.total > 0 ? (
        <>
          <p class="lead">
            <strong>{decimal(data.idleGpus)}</strong> of {decimal(data.gpus.allocated)} allocated GPUs are idle, in{" "}
            {plural(data.total, "workload", "workloads")}: <strong>{gpuHours(data.idleGpuHours)}</strong> GPU-hours so far.
          </p>
          <Definition />
          <p class="muted">
            Idle GPU-hours are those of a workload's whole life; <i>Idle for</i> is how long it has been idle this time, counted anew when its agent starts.
          </p>
          <Unmeasured number={unmeasured} />
          <section class="block">
            <h2>By owner</h2>
            <Bars label="Idle GPU-hours by owner" rows={data.owners.slice(0, OWNERS_SHOWN).map(ownerRow)} />
            {data.owners.length > OWNERS_SHOWN && (
              <p class="muted">
                The first {OWNERS_SHOWN} of {data.owners.length < OWNERS_COUNTED ? "" : "more than "}
                {count(data.owners.length)} owners.
              </p>
            )}
          </section>
          <IdleTable workloads={data.workloads} />
          {data.total > data.workloads.length && (
            <p class="muted">
              {count(data.workloads.length)} of {count(data.total)} ·{" "}
              <Link to={listUrl([["idleAllocatedGpus", ">=", "0.01"]], { sortBy: "idleAllocatedGpus" })}>show all</Link>
            </p>
          )}
        </>
      ) : (
        <NoIdleGpus gpus={data.gpus} isPage />
      )}
    </div>
  );
}

export function ownerRow(owner: IdleOwner): BarRow {
  const name = owner.submittedBy;
  const items = [["idleAllocatedGpus", ">=", "0.01"], ...(name === null ? [] : [["submittedBy", "==", name]])];
  return {
    key: name ?? "",
    label: <Owner owner={name} />,
    value: owner.idleGpuHours,
    shown: `${gpuHours(owner.idleGpuHours)} h · ${plural(owner.idleGpus, "GPU", "GPUs")}`,
    tone: "pending",
    to: listUrl(items as [string, string, string][], { sortBy: "idleAllocatedGpus" }),
  };
}

function idleSince(workload: IdleWorkload): string | undefined {
  const since = workload.additionalFields?.["idleSince"];
  return typeof since === "string" ? since : undefined;
}

function IdleTable({ workloads }: { readonly workloads: readonly IdleWorkload[] }) {
  const clusters = useClusters();
  return (
    <div class="scroll-x">
      <table class="small-table wide" aria-label="Workloads with idle GPUs">
        <thead>
          <tr>
            <th scope="col">Workload</th>
            <th scope="col">Owner</th>
            <th scope="col" class="is-number">Idle GPU-hours</th>
            <th scope="col" class="is-number">Idle GPUs</th>
            <th scope="col" class="is-number">Allocated GPUs</th>
            <th scope="col">Idle for</th>
            <th scope="col">Project</th>
            <th scope="col">Cluster</th>
            <th scope="col">Phase</th>
          </tr>
        </thead>
        <tbody>
          {workloads.map((workload) => (
            <tr key={workload.id}>
              <th scope="row">
                <Link to={`/workloads/${encodeURIComponent(workload.id)}`}>{workload.name}</Link>
              </th>
              <td>
                {workload.submittedBy === undefined || workload.submittedBy === "" ? (
                  <Owner owner={undefined} />
                ) : (
                  <Link class="quiet" to={listUrl([["submittedBy", "==", workload.submittedBy]])}>
                    <span title={workload.submittedBy}>{ownerName(workload.submittedBy)}</span>
                  </Link>
                )}
              </td>
              <td class="is-number">
                <strong>{gpuHours(workload.idleGpuHours)}</strong>
              </td>
              <td class="is-number">{decimal(workload.idleAllocatedGpus ?? 0)}</td>
              <td class="is-number">{decimal(workload.allocatedResources?.gpu ?? 0)}</td>
              <td>{idleSince(workload) === undefined ? "–" : <Age since={idleSince(workload)!} />}</td>
              <td>
                <Link class="quiet" to={listUrl([["projectName", "==", workload.projectName]])}>{workload.projectName}</Link>
              </td>
              <td>{clusterName(clusters, workload.clusterId)}</td>
              <td>
                <PhaseBadge phase={workload.phase} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
