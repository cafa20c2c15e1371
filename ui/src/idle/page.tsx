/** Who holds GPUs and does not use them. Where nothing measures, that is said; it is not zero. */

import { countWorkloads, listWorkloads, telemetry } from "../api/routes";
import type { Workload } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { useLive } from "../hooks/live";
import { count, decimal, duration } from "../model/format";
import { DEFAULT_VIEW, listUrl, type View } from "../model/view";
import { Empty, Failure, Skeleton, StaleBar } from "../parts/states";
import { PhaseBadge } from "../parts/phase";
import { Link } from "../router";

const SHOWN = 200;
const IDLE: View = {
  ...DEFAULT_VIEW,
  filters: [{ field: "idleAllocatedGpus", operator: ">=", value: "0.01" }],
  sortBy: "idleAllocatedGpus",
  isDescending: true,
};

async function askIdle(signal: AbortSignal) {
  const [workloads, number, measured, held] = await Promise.all([
    listWorkloads(IDLE, [], { offset: 0, limit: SHOWN }, signal),
    countWorkloads(IDLE, [], signal),
    telemetry("IDLE_ALLOCATED_GPUS", {}, signal),
    telemetry("GPU_ALLOCATION", {}, signal),
  ]);
  return {
    workloads,
    number,
    isMeasured: measured.length > 0,
    idle: Number(measured[0]?.value ?? 0),
    held: Number(held[0]?.value ?? 0),
  };
}

export function IdlePage() {
  const { data, error, at, refresh } = useLive("idle", askIdle, 10_000);
  if (data === undefined)
    return error === undefined ? <Skeleton rows={8} /> : <Failure error={error} retry={refresh} />;
  return (
    <div class="page">
      <h1 class="off-screen">Idle GPUs</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      {data.workloads.length > 0 ? (
        <>
          <p class="lead">
            <strong>{decimal(data.idle)}</strong> of {decimal(data.held)} allocated GPUs do nothing, in{" "}
            {count(data.number)} {data.number === 1 ? "workload" : "workloads"}.
          </p>
          <IdleTable workloads={data.workloads} />
          {data.number > data.workloads.length && (
            <p class="muted">
              {count(data.workloads.length)} of {count(data.number)} ·{" "}
              <Link to={listUrl([["idleAllocatedGpus", ">=", "0.01"]], { sortBy: "idleAllocatedGpus" })}>all in the list</Link>
            </p>
          )}
        </>
      ) : data.isMeasured ? (
        <Empty title="No idle GPUs">
          <p>Every GPU that is measured did some work within the last five minutes.</p>
        </Empty>
      ) : (
        <Empty title="Nothing measures GPU use yet">
          <p>
            {decimal(data.held)} GPUs are allocated, but no cluster reports how busy they are. That is not the same as
            none being idle.
          </p>
          <p>An agent that can read a GPU exporter (DCGM) in its cluster fills this page.</p>
        </Empty>
      )}
    </div>
  );
}

function IdleTable({ workloads }: { readonly workloads: readonly Workload[] }) {
  const clusters = useClusters();
  return (
    <div class="scroll-x">
      <table class="small-table wide">
        <thead>
          <tr>
            <th scope="col">Idle</th>
            <th scope="col" class="is-number">of allocated</th>
            <th scope="col">Owner</th>
            <th scope="col">Workload</th>
            <th scope="col">Project</th>
            <th scope="col">Cluster</th>
            <th scope="col">Phase</th>
            <th scope="col" class="is-number">Running for</th>
          </tr>
        </thead>
        <tbody>
          {workloads.map((workload) => (
            <tr key={workload.id}>
              <td>
                <strong>{decimal(workload.idleAllocatedGpus ?? 0)}</strong>
              </td>
              <td class="is-number">{decimal(workload.allocatedResources?.gpu ?? 0)}</td>
              <td>{workload.submittedBy ?? <span class="none">unknown</span>}</td>
              <td>
                <Link to={`/workloads/${encodeURIComponent(workload.id)}`}>{workload.name}</Link>
              </td>
              <td>{workload.projectName}</td>
              <td>{clusterName(clusters, workload.clusterId)}</td>
              <td>
                <PhaseBadge phase={workload.phase} />
              </td>
              <td class="is-number">{duration(workload.totalRunningTimeSeconds ?? 0)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
