/** Requested and allocated resources, endpoints, placement, images, conditions. */

import type { ComponentChildren } from "preact";
import type { Condition, Endpoint, Workload } from "../api/shapes";
import { decimal, duration, memory, utcInstant, localInstant } from "../model/format";
import { safeLink } from "../model/links";
import { Instant } from "../components/instant";
import { fieldNamed } from "../model/fields";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { labelsOf, podsShown } from "../workloads/columns";

export function Overview({ workload }: { readonly workload: Workload }) {
  return (
    <>
      <Resources workload={workload} />
      <Section title="Endpoints">
        <Endpoints endpoints={workload.endpoints ?? []} />
      </Section>
      <DetailList workload={workload} />
      <Section title="Images">
        <NameLinks field="image" names={workload.images ?? []} none="No images are known." />
      </Section>
      <Section title="Nodes and GPUs">
        <NameLinks
          field="node"
          names={workload.additionalFields?.nodes ?? []}
          none={workload.deletedAt === null ? "None of its pods has a node." : "No nodes are known."}
        />
        <NameLinks field="gpuModel" names={workload.additionalFields?.gpuModels ?? []} />
      </Section>
      <Section title="Labels">
        <NameLinks field="label" names={labelsOf(workload)} none="No labels." />
      </Section>
      <Command workload={workload} />
      <Section title="Conditions">
        <Conditions conditions={workload.conditions} />
      </Section>
    </>
  );
}

function Section(props: { readonly title: string; readonly children: ComponentChildren }) {
  return (
    <section class="part">
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}

function amount(value: number | null | undefined): string | undefined {
  return value === null || value === undefined ? undefined : decimal(value);
}

type ResourceRow = readonly [string, string | undefined, string | undefined, string | undefined];

function resourceRows(workload: Workload): ResourceRow[] {
  const requested = workload.workloadRequestedResources;
  const allocated = workload.allocatedResources;
  const rows: ResourceRow[] = [
    ["GPUs", amount(requested?.gpu?.request), amount(requested?.gpu?.limit), amount(allocated?.gpu)],
    [
      "GPU memory",
      memory(requested?.gpuMemory?.request ?? undefined),
      memory(requested?.gpuMemory?.limit ?? undefined),
      memory(allocated?.gpuMemory ?? undefined),
    ],
    ["CPU cores", amount(requested?.cpu?.request), amount(requested?.cpu?.limit), amount(allocated?.cpu)],
    [
      "Memory",
      memory(requested?.cpuMemory?.request ?? undefined),
      memory(requested?.cpuMemory?.limit ?? undefined),
      memory(allocated?.cpuMemory ?? undefined),
    ],
  ];
  const allocatedOf = (name: string): string | undefined => {
    const held = allocated?.extendedResources?.find((extended) => extended?.resource === name);
    return held == null ? undefined : (held.quantity ?? "?");
  };
  for (const extended of requested?.extendedResources ?? [])
    if (extended?.resource != null)
      rows.push([extended.resource, extended.quantity ?? "?", undefined, allocatedOf(extended.resource)]);
  return rows.filter(([, ...values]) => values.some((value) => value !== undefined && value !== "0"));
}

function Resources({ workload }: { readonly workload: Workload }) {
  const rows = resourceRows(workload);
  return (
    <Section title="Resources">
      <table class="small-table" aria-label="Resources">
        <thead>
          <tr>
            <td />
            <th scope="col">requested</th>
            <th scope="col">limit</th>
            <th scope="col">{workload.deletedAt === null ? "allocated" : "last allocated"}</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">Pods</th>
            <td>{podsShown(workload).split("/")[1] ?? "–"}</td>
            <td>
              <span class="none">–</span>
            </td>
            <td>{workload.runningPods} running</td>
          </tr>
          {rows.map(([label, ...values]) => (
            <tr key={label}>
              <th scope="row">{label}</th>
              {values.map((value, index) => (
                <td key={index}>{value ?? <span class="none">–</span>}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}

function Endpoints({ endpoints }: { readonly endpoints: readonly Endpoint[] }) {
  if (endpoints.length === 0) return <p class="muted">No endpoints.</p>;
  return (
    <ul class="plain">
      {endpoints.map((endpoint, index) => (
        <li key={index}>
          <Address endpoint={endpoint} />
          {endpoint.protocol !== undefined && <span class="muted"> {endpoint.protocol}</span>}
        </li>
      ))}
    </ul>
  );
}

/** A link only if the URL is a plain web address; otherwise text. */
function Address({ endpoint }: { readonly endpoint: Endpoint }) {
  const link = safeLink(endpoint.url);
  const port = endpoint.port === undefined ? "" : `:${endpoint.port}`;
  const shown = endpoint.url ?? `${endpoint.host ?? ""}${port}${endpoint.path ?? ""}`;
  if (link === undefined) return <code class="address">{shown}</code>;
  return (
    <a class="address" href={link} target="_blank" rel="noopener noreferrer">
      {shown}
    </a>
  );
}

function DetailList({ workload }: { readonly workload: Workload }) {
  const { topology } = workload;
  const placement = topology?.actualPlacement;
  const instants: readonly (readonly [string, string | null | undefined])[] = [
    ["Created", workload.createdAt],
    ["Completed", workload.completedAt],
    ["Deleted", workload.deletedAt],
    ["Guaranteed until", workload.guaranteedRuntimeEndsAt],
    ["Last updated", workload.updatedAt],
  ];
  const details: readonly (readonly [string, string | undefined])[] = [
    ["Namespace", workload.namespace],
    ["Category", workload.category],
    ["Framework", workload.distributedFramework],
    ["Application", workload.aiApplicationName],
    ["Requested node pools", workload.requestedNodePools?.join(", ")],
    ["Current node pools", workload.currentNodePools?.join(", ")],
    ["Topology", topology?.name],
    ["Required placement", topology?.requiredPlacement],
    ["Preferred placement", topology?.preferredPlacement],
    ["Actual placement", placement == null ? undefined : `${placement.level} ${placement.value}`],
    ["Priority", priorityOf(workload)],
    ["Preemptible", workload.preemptible == null ? undefined : workload.preemptible ? "yes" : "no"],
    ["Total pending time", secondsOf(workload.totalPendingTimeSeconds)],
    ["Total running time", secondsOf(workload.totalRunningTimeSeconds)],
    ["Phase of the pods", workload.k8sPhase === workload.phase ? undefined : workload.k8sPhase],
  ];
  return (
    <Section title="Details">
      <dl class="details-list">
        {details
          .filter(([, value]) => value !== undefined && value !== "")
          .map(([label, value]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        {instants
          .filter(([, at]) => at !== undefined && at !== null)
          .map(([label, at]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd>
                <Instant at={at!} />
              </dd>
            </div>
          ))}
      </dl>
    </Section>
  );
}

function priorityOf(workload: Workload): string | undefined {
  if (workload.priority === null && workload.priorityClassName === "") return undefined;
  return [workload.priorityClassName, workload.priority].filter((part) => part !== "" && part !== null).join(" · ");
}

function secondsOf(value: number | null | undefined): string | undefined {
  return value === null || value === undefined ? undefined : duration(value);
}

function Command({ workload }: { readonly workload: Workload }) {
  const variables = Object.entries(workload.environmentVariables ?? {});
  const line = [workload.command, workload.arguments].filter(Boolean).join(" ");
  if (line === "" && variables.length === 0) return null;
  return (
    <Section title="Command">
      {line !== "" && <code class="block">{line}</code>}
      {variables.length > 0 && (
        <details>
          <summary>
            {variables.length === 1 ? "1 environment variable" : `${variables.length} environment variables`}
          </summary>
          <code class="block">{variables.map(([name, value]) => `${name}=${value}`).join("\n")}</code>
        </details>
      )}
    </Section>
  );
}

interface NameLinksProps {
  readonly field: string;
  readonly names: readonly string[];
  readonly none?: string;
}

/** Each leads to the workloads that share it. */
function NameLinks({ field, names, none }: NameLinksProps) {
  if (names.length === 0) return none === undefined ? null : <p class="muted">{none}</p>;
  return (
    <ul class="plain">
      {names.map((name) => (
        <li key={name}>
          <Link to={listUrl([[field, "==", name]])} title={`All workloads with this ${fieldNamed(field)?.label.toLowerCase()}`}>
            <code>{name}</code>
          </Link>
        </li>
      ))}
    </ul>
  );
}

function Conditions({ conditions }: { readonly conditions: readonly Condition[] }) {
  if (conditions.length === 0) return <p class="muted">No conditions.</p>;
  return (
    <ul class="plain conditions">
      {conditions.map((condition, index) => (
        <li key={index}>
          <strong>{condition.type}</strong> {condition.status}
          {condition.reason !== undefined && condition.reason !== "" && <span class="muted"> · {condition.reason}</span>}
          {condition.lastTransitionTime != null && (
            <time class="muted" dateTime={condition.lastTransitionTime} title={utcInstant(condition.lastTransitionTime)}>
              {" "}
              · {localInstant(condition.lastTransitionTime)}
            </time>
          )}
          {condition.message !== undefined && condition.message !== "" && <p>{condition.message}</p>}
        </li>
      ))}
    </ul>
  );
}
