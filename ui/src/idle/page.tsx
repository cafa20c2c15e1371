/** Who holds GPUs and does not use them, since when, and what that has cost. */

import { fleetFigures, idleGpus } from "../api/routes";
import type { IdleOwner, IdleWorkload } from "../api/shapes";
import { clusterName, idleAfter, useClusters } from "../clusters/context";
import { useLive } from "../hooks/live";
import { count, decimal, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Bars, type BarRow } from "../parts/bars";
import { Age } from "../parts/instant";
import { Owner, ownerName } from "../parts/owner";
import { PhaseBadge } from "../parts/phase";
import { Empty, Failure, Skeleton, StaleBar } from "../parts/states";
import { Link } from "../router";

const SHOWN = 200;
const OWNERS_SHOWN = 10;

async function askIdle(signal: AbortSignal) {
  const [idle, { now }] = await Promise.all([idleGpus(SHOWN, signal), fleetFigures(signal)]);
  return { ...idle, gpus: now.gpus };
}

export function IdlePage() {
  const { data, error, at, refresh } = useLive("idle", askIdle, 10_000);
  if (data === undefined)
    return error === undefined ? <Skeleton rows={8} /> : <Failure error={error} retry={refresh} />;
  const unmeasured = data.gpus.allocated - data.gpus.measured;
  return (
    <div class="page">
      <h1 class="off-screen">Idle GPUs</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      {data.total > 0 ? (
        <>
          <p class="lead">
            <strong>{decimal(data.idleGpus)}</strong> of {decimal(data.gpus.allocated)} allocated GPUs do nothing, in{" "}
            {plural(data.total, "workload", "workloads")}: <strong>{hours(data.idleGpuHours)}</strong> GPU-hours so far.
          </p>
          <Meaning unmeasured={unmeasured} />
          <section class="block">
            <h2>By owner</h2>
            <Bars label="Idle GPU-hours by owner" rows={data.owners.slice(0, OWNERS_SHOWN).map(ownerRow)} />
          </section>
          <IdleTable workloads={data.workloads} />
          {data.total > data.workloads.length && (
            <p class="muted">
              {count(data.workloads.length)} of {count(data.total)} ·{" "}
              <Link to={listUrl([["idleAllocatedGpus", ">=", "0.01"]], { sortBy: "idleAllocatedGpus" })}>all in the list</Link>
            </p>
          )}
        </>
      ) : data.gpus.idle !== null ? (
        <Empty title="No idle GPUs">
          <p>Every GPU that is measured did some work of late.</p>
          <Meaning unmeasured={unmeasured} />
        </Empty>
      ) : (
        <Empty title="Nothing measures GPU use yet">
          <p>
            {decimal(data.gpus.allocated)} GPUs are allocated, but no cluster reports how busy they are. That is not the same as
            none being idle.
          </p>
          <p>An agent that can read a GPU exporter (DCGM) in its cluster fills this page.</p>
        </Empty>
      )}
    </div>
  );
}

/** GPU-hours: exact while small, whole beyond. */
function hours(value: number): string {
  return value < 10 ? decimal(value) : count(value);
}

function Meaning({ unmeasured }: { readonly unmeasured: number }) {
  const after = idleAfter(useClusters().data ?? []);
  return (
    <p class="muted">
      Idle: allocated, and its utilisation has stayed at zero for longer than {after ?? "its agent's window"}.
      {unmeasured > 0.005 && ` Of ${decimal(unmeasured)} allocated GPUs nothing is known; they are not counted here.`}
    </p>
  );
}

export function ownerRow(owner: IdleOwner): BarRow {
  const name = owner.submittedBy;
  const items = [["idleAllocatedGpus", ">=", "0.01"], ...(name === null ? [] : [["submittedBy", "==", name]])];
  return {
    key: name ?? "",
    label: <Owner owner={name} />,
    value: owner.idleGpuHours,
    shown: `${hours(owner.idleGpuHours)} h · ${decimal(owner.idleGpus)} GPU`,
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
      <table class="small-table wide">
        <thead>
          <tr>
            <th scope="col" class="is-number">GPU-hours</th>
            <th scope="col" class="is-number">Idle</th>
            <th scope="col" class="is-number">of</th>
            <th scope="col">Since</th>
            <th scope="col">Owner</th>
            <th scope="col">Workload</th>
            <th scope="col">Project</th>
            <th scope="col">Cluster</th>
            <th scope="col">Phase</th>
          </tr>
        </thead>
        <tbody>
          {workloads.map((workload) => (
            <tr key={workload.id}>
              <td class="is-number">
                <strong>{hours(workload.idleGpuHours)}</strong>
              </td>
              <td class="is-number">{decimal(workload.idleAllocatedGpus ?? 0)}</td>
              <td class="is-number">{decimal(workload.allocatedResources?.gpu ?? 0)}</td>
              <td>{idleSince(workload) === undefined ? "–" : <Age since={idleSince(workload)!} />}</td>
              <td>
                {workload.submittedBy === undefined || workload.submittedBy === "" ? (
                  <Owner owner={undefined} />
                ) : (
                  <Link class="quiet" to={listUrl([["submittedBy", "==", workload.submittedBy]])}>
                    <span title={workload.submittedBy}>{ownerName(workload.submittedBy)}</span>
                  </Link>
                )}
              </td>
              <td>
                <Link to={`/workloads/${encodeURIComponent(workload.id)}`}>{workload.name}</Link>
              </td>
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
