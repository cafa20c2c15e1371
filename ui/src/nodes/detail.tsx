/** One node: what is wrong with it, what it has, and the workloads that hold it. */

import type { ClusterNode } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { Age } from "../components/instant";
import { bytes, count, decimal, plural } from "../model/format";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { deviceUse, shortModel, statusText, USES } from "./gpus";

export function NodeDetail({ node }: { readonly node: ClusterNode }) {
  const clusters = useClusters();
  const gpus = node.gpuInfo ?? undefined;
  const problems = (node.conditions ?? []).filter((each) => (each.status === "True") !== (each.type === "Ready"));
  return (
    <section class="card node-detail" aria-label={node.name}>
      <h2>
        {node.name}
        <span class="card-state">
          {statusText(node)} · <Age since={node.createdAt} /> old
        </span>
      </h2>
      {problems.map((each) => (
        <p key={each.type} class="card-part warning">
          {each.type} is {each.status} ({each.reason})
          {each.lastTransitionTime !== undefined && (
            <>
              {" "}
              for <Age since={each.lastTransitionTime} />
            </>
          )}
          {each.message === undefined ? "." : `: ${each.message}`}
        </p>
      ))}
      <dl class="details-list">
        <Fact name="Cluster">{clusterName(clusters, node.clusterUuid)}</Fact>
        <Fact name="Node pool">{node.nodePool}</Fact>
        {gpus !== undefined && (
          <Fact name="GPUs">
            {count(gpus.gpuCount)} {shortModel(gpus.gpuType)}
            {node.gpuMemoryBytes !== undefined && ` · ${bytes(node.gpuMemoryBytes)} each`}
            {node.gpuSharing !== undefined && ` · shared by ${node.gpuSharing}`}
          </Fact>
        )}
        <Fact name="CPU">
          {known(node.allocated.cpuCores, decimal)} of {known(node.capacity.cpuCores, decimal)} cores allocated
        </Fact>
        <Fact name="Memory">
          {known(node.allocated.cpuMemoryBytes, bytes)} of {known(node.capacity.cpuMemoryBytes, bytes)} allocated
        </Fact>
        {(node.taints ?? []).length > 0 && (
          <Fact name="Taints">
            {node.taints!.map((taint) => `${taint.key}${taint.value === undefined ? "" : `=${taint.value}`}:${taint.effect}`).join(", ")}
          </Fact>
        )}
      </dl>
      <Devices node={node} />
      <Workloads node={node} />
    </section>
  );
}

interface FactProps {
  readonly name: string;
  readonly children: preact.ComponentChildren;
}

function Fact({ name, children }: FactProps) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function known(value: number | null | undefined, text: (value: number) => string): string {
  return value === undefined || value === null ? "?" : text(value);
}

const USE_LABELS = new Map(USES);

/** Which GPU, or slice of one, who holds. */
function Devices({ node }: { readonly node: ClusterNode }) {
  const devices = node.devices ?? [];
  if (devices.length === 0) return null;
  return (
    <div class="scroll-x">
      <table class="small-table wide" aria-label="GPUs">
        <thead>
          <tr>
            <th scope="col">GPU</th>
            <th scope="col">State</th>
            <th scope="col">Workload</th>
          </tr>
        </thead>
        <tbody>
          {devices.map((device) => {
            const use = deviceUse(device, node);
            return (
              <tr key={device.id}>
                <td title={device.id}>
                  {device.index ?? device.id} {device.profile !== undefined && <span class="muted">{device.profile}</span>}
                </td>
                <td>
                  <span class={`gpu gpu-${use}`} aria-hidden="true" /> {USE_LABELS.get(use)}
                </td>
                <td>
                  {(device.workloads ?? []).map((workload, index) => (
                    <>
                      {index > 0 && ", "}
                      <Link to={`/workloads/${workload.id}`}>{workload.name ?? workload.id}</Link>
                    </>
                  ))}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Workloads({ node }: { readonly node: ClusterNode }) {
  if (node.workloads.length === 0) return <p class="muted">No workload that is visible to you has pods on it.</p>;
  const total = plural(node.workloadsTotal, "workload", "workloads");
  return (
    <>
      <p>{node.status === "Ready" ? `${total} on it:` : `It may take ${total} with it:`}</p>
      <div class="scroll-x">
        <table class="small-table wide" aria-label="Workloads on it">
          <thead>
            <tr>
              <th scope="col">Workload</th>
              <th scope="col">Project</th>
              <th scope="col" class="is-number">Pods</th>
              <th scope="col" class="is-number">Allocated GPUs</th>
            </tr>
          </thead>
          <tbody>
            {node.workloads.map((workload) => (
              <tr key={workload.id}>
                <td>
                  <Link to={`/workloads/${workload.id}`}>{workload.name}</Link>
                </td>
                <td>
                  <Link class="quiet" to={listUrl([["projectName", "==", workload.projectName]])}>{workload.projectName}</Link>
                </td>
                <td class="is-number">{count(workload.pods)}</td>
                <td class="is-number">{known(workload.gpus, decimal)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {node.workloadsTotal > node.workloads.length && (
        <p class="muted">
          {count(node.workloads.length)} of {count(node.workloadsTotal)} ·{" "}
          <Link to={listUrl([["node", "==", node.name]])}>show all</Link>
        </p>
      )}
    </>
  );
}
