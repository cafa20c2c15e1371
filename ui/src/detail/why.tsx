/** The first answer: why the workload is pending, failed or degraded, or what its idle GPUs cost. */

import { serverNow } from "../api/server_clock";
import type { ComponentChildren } from "preact";
import type { PendingReason, Workload } from "../api/shapes";
import { Command } from "../components/command";
import { eventsCommand } from "../model/commands";
import { count, decimal, plural } from "../model/format";
import { idleGpuHours } from "../model/idle";
import { listUrl } from "../model/view";
import { Link } from "../router";
import { pendingHoursUrl } from "../usage/periods";
import { Age } from "../components/instant";

const SOURCES: Readonly<Record<string, string>> = {
  kai: "KAI Scheduler",
  kueue: "Kueue",
  volcano: "Volcano",
  scheduler: "Kubernetes scheduler",
};

export function Why({ workload }: { readonly workload: Workload }) {
  const idle = workload.idleAllocatedGpus ?? 0;
  if (workload.deletedAt === null && workload.phase === "Pending") return <Pending workload={workload} />;
  if (["Failed", "Degraded"].includes(workload.phase))
    return (
      <Box tone={workload.phase === "Failed" ? "failed" : "degraded"} title={`Why it ${workload.phase === "Failed" ? "failed" : "is degraded"}`}>
        <p class="why-answer">{workload.phaseMessage || worstCondition(workload) || "The cluster reports no message."}</p>
      </Box>
    );
  if (workload.deletedAt === null && idle > 0)
    return (
      <Box tone="pending" title="Idle cost">
        <p class="why-answer">
          {decimal(idle)} of {plural(workload.allocatedResources?.gpu ?? 0, "allocated GPU", "allocated GPUs")} idle
          <IdleCost workload={workload} />
        </p>
        {workload.submittedBy && <p class="why-source">Ask {workload.submittedBy} whether they are still needed.</p>}
      </Box>
    );
  if (workload.phaseMessage)
    return (
      <Box tone="starting" title="Message">
        <p class="why-answer">{workload.phaseMessage}</p>
      </Box>
    );
  return null;
}

function IdleCost({ workload }: { readonly workload: Workload }) {
  const since = workload.additionalFields?.["idleSince"];
  const hours = idleGpuHours(workload, serverNow());
  return (
    <>
      {typeof since === "string" && (
        <>
          {" "}
          for <Age since={since} />
        </>
      )}
      {hours === undefined ? "." : `: ${decimal(hours)} GPU-hours so far.`}
    </>
  );
}

function worstCondition(workload: Workload): string | undefined {
  const withMessage = workload.conditions.filter((condition) => condition.message);
  return withMessage[withMessage.length - 1]?.message;
}

function Pending({ workload }: { readonly workload: Workload }) {
  const reasons = workload.additionalFields?.pendingReasons ?? [];
  const [first, ...others] = reasons;
  return (
    <Box tone="pending" title="Why it is pending">
      <p class="why-answer">
        {first?.userMessage ||
          workload.phaseMessage ||
          "No scheduler has reported a reason yet. This is normal in the first seconds."}
      </p>
      {first !== undefined && <Evidence reason={first} />}
      {others.length > 0 && (
        <details>
          <summary>
            {others.length === 1 ? "1 more reason" : `${others.length} more reasons`}
          </summary>
          {others.map((reason, index) => (
            <div key={index} class="why-other">
              <p>{reason.userMessage || reason.message}</p>
              <Evidence reason={reason} />
            </div>
          ))}
        </details>
      )}
      <QueuePosition workload={workload} />
      <WhoHolds workload={workload} nodePools={nodePools(reasons)} />
      <Events workload={workload} />
    </Box>
  );
}

function nodePools(reasons: readonly PendingReason[]): string[] {
  return [...new Set(reasons.map(({ nodePool }) => nodePool).filter((name): name is string => !!name))];
}

/** As its scheduler tells it, else counted by the server from what it knows. */
function QueuePosition({ workload }: { readonly workload: Workload }) {
  const position = workload.additionalFields?.queuePosition;
  if (!position || position.others === 0) return null;
  if (position.source)
    return (
      <p class="why-source">
        Ahead of it in {position.source}'s own order: {count(position.ahead)} of {plural(position.others, "other", "others")} waiting in
        its ClusterQueue.
      </p>
    );
  const { projectName, clusterId } = workload;
  const pending = listUrl(
    [
      ["projectName", "==", projectName],
      ["clusterId", "==", clusterId],
      ["phase", "==", "Pending"],
    ],
    { sortBy: "phaseUpdatedAt", isDescending: false },
  );
  return (
    <p class="why-source">
      Ahead of it by priority and time waited: {count(position.ahead)} of{" "}
      <Link to={pending}>{plural(position.others, "other workload", "other workloads")}</Link> pending in its project; its scheduler may
      order them differently.
    </p>
  );
}

const LARGEST_FIRST = { sortBy: "allocatedGPU", isDescending: true } as const;

/** The way to those who hold what it waits for, as far as the reader may see them. */
function WhoHolds(props: { readonly workload: Workload; readonly nodePools: readonly string[] }) {
  const { projectName, clusterId } = props.workload;
  const here = ["clusterId", "==", clusterId] as const;
  return (
    <p class="why-source">
      Who holds GPUs: <Link to={listUrl([["projectName", "==", projectName], here], LARGEST_FIRST)}>project {projectName}</Link>
      {props.nodePools.map((name) => (
        <>
          {", "}
          <Link key={name} to={listUrl([["nodepool", "==", name], here], LARGEST_FIRST)}>
            node pool {name}
          </Link>
        </>
      ))}
      {" · "}
      <Link to={pendingHoursUrl(projectName)}>pending GPU-hours of the project this week</Link>
    </p>
  );
}

function Events({ workload }: { readonly workload: Workload }) {
  if (!workload.namespace) return null;
  const command = eventsCommand(workload.namespace, workload.name);
  return (
    <details class="raw">
      <summary>Events with kubectl</summary>
      <Command text={command} />
    </details>
  );
}

function Evidence({ reason }: { readonly reason: PendingReason }) {
  return (
    <>
      <p class="why-source">
        {SOURCES[reason.source] ?? reason.source}
        {reason.nodePool ? ` · node pool ${reason.nodePool}` : ""} · {reason.reason}
        {reason.since !== undefined && (
          <>
            {" "}
            · for <Age since={reason.since} />
          </>
        )}
      </p>
      {reason.message !== "" && (
        <details class="raw">
          <summary>Original scheduler message</summary>
          <p>{reason.message}</p>
        </details>
      )}
    </>
  );
}

function Box(props: { readonly tone: string; readonly title: string; readonly children: ComponentChildren }) {
  return (
    <section class={`why tone-${props.tone}`} aria-label={props.title}>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}
