/** Requests against what is held, placement, endpoints, images, conditions. */

import type { ComponentChildren } from "preact";
import type { Condition, Endpoint, Extended, Workload } from "../api/shapes";
import { decimal, duration, memory, utcInstant, localInstant } from "../model/format";
import { safeLink } from "../model/links";
import { Instant } from "../parts/instant";
import { podsShown } from "../workloads/columns";

export function Overview({ workload }: { readonly workload: Workload }) {
  return (
    <>
      <Resources workload={workload} />
      <Section title="Endpoints">
        <Endpoints endpoints={workload.endpoints ?? []} />
      </Section>
      <Facts workload={workload} />
      <Section title="Images">
        <List items={workload.images ?? []} none="None known." />
      </Section>
      <Program workload={workload} />
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
  const asked = workload.workloadRequestedResources;
  const held = workload.allocatedResources;
  const rows: ResourceRow[] = [
    ["GPUs", amount(asked?.gpu?.request), amount(asked?.gpu?.limit), amount(held?.gpu)],
    [
      "GPU memory",
      memory(asked?.gpuMemory?.request ?? undefined),
      memory(asked?.gpuMemory?.limit ?? undefined),
      memory(held?.gpuMemory ?? undefined),
    ],
    ["CPU cores", amount(asked?.cpu?.request), amount(asked?.cpu?.limit), amount(held?.cpu)],
    [
      "Memory",
      memory(asked?.cpuMemory?.request ?? undefined),
      memory(asked?.cpuMemory?.limit ?? undefined),
      memory(held?.cpuMemory ?? undefined),
    ],
  ];
  const heldOf = (name: string): string | undefined =>
    held?.extendedResources?.find((extended: Extended) => extended.resource === name)?.quantity ?? undefined;
  for (const { resource, quantity } of asked?.extendedResources ?? [])
    if (resource != null) rows.push([resource, quantity ?? undefined, undefined, heldOf(resource)]);
  return rows.filter(([, ...values]) => values.some((value) => value !== undefined && value !== "0"));
}

function Resources({ workload }: { readonly workload: Workload }) {
  const rows = resourceRows(workload);
  return (
    <Section title="Resources">
      <table class="small-table">
        <thead>
          <tr>
            <td />
            <th scope="col">requested</th>
            <th scope="col">limit</th>
            <th scope="col">{workload.deletedAt === null ? "allocated" : "allocated last"}</th>
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
  if (endpoints.length === 0) return <p class="muted">Not exposed.</p>;
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

/** A link only for what is plainly a web address; everything else is text. */
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

function Facts({ workload }: { readonly workload: Workload }) {
  const { topology } = workload;
  const placement = topology?.actualPlacement;
  const instants: readonly (readonly [string, string | null | undefined])[] = [
    ["Created", workload.createdAt],
    ["Completed", workload.completedAt],
    ["Deleted", workload.deletedAt],
    ["Guaranteed until", workload.guaranteedRuntimeEndsAt],
    ["Record changed", workload.updatedAt],
  ];
  const facts: readonly (readonly [string, string | undefined])[] = [
    ["Namespace", workload.namespace],
    ["Category", workload.category],
    ["Framework", workload.distributedFramework],
    ["Application", workload.aiApplicationName],
    ["Node pools asked for", workload.requestedNodePools?.join(", ")],
    ["Node pools now", workload.currentNodePools?.join(", ")],
    ["Topology", topology?.name],
    ["Placement required", topology?.requiredPlacement],
    ["Placement preferred", topology?.preferredPlacement],
    ["Placed in", placement == null ? undefined : `${placement.level} ${placement.value}`],
    ["Priority", priorityOf(workload)],
    ["Preemptible", workload.preemptible == null ? undefined : workload.preemptible ? "yes" : "no"],
    ["Total pending", secondsOf(workload.totalPendingTimeSeconds)],
    ["Total running", secondsOf(workload.totalRunningTimeSeconds)],
    ["Phase by pods alone", workload.k8sPhase === workload.phase ? undefined : workload.k8sPhase],
  ];
  return (
    <Section title="Facts">
      <dl class="facts-list">
        {facts
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

function Program({ workload }: { readonly workload: Workload }) {
  const variables = Object.entries(workload.environmentVariables ?? {});
  const line = [workload.command, workload.arguments].filter(Boolean).join(" ");
  if (line === "" && variables.length === 0) return null;
  return (
    <Section title="Program">
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

function List({ items, none }: { readonly items: readonly string[]; readonly none: string }) {
  if (items.length === 0) return <p class="muted">{none}</p>;
  return (
    <ul class="plain">
      {items.map((item, index) => (
        <li key={index}>
          <code>{item}</code>
        </li>
      ))}
    </ul>
  );
}

function Conditions({ conditions }: { readonly conditions: readonly Condition[] }) {
  if (conditions.length === 0) return <p class="muted">The object reports none.</p>;
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
