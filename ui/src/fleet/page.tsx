/** The fleet at a glance: numbers that matter and how they went, who holds the GPUs, how long things wait. */

import { fleetFigures, idleGpus, telemetry } from "../api/routes";
import { useClusters } from "../clusters/context";
import { ConnectCluster } from "../clusters/connect";
import { useLive } from "../hooks/live";
import { ownerRow } from "../idle/page";
import { phaseRank } from "../model/phases";
import { Bars } from "../parts/bars";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { Link, usePlace } from "../router";
import { ClusterHealth } from "./clusters";
import { Figures } from "./figures";
import { groupingOf, GROUPINGS, heldRows, phaseRow, waitingRow, type Grouping } from "./rows";

const EVERY_MS = 10_000;
const OWNERS_SHOWN = 6;

async function askFleet(grouping: Grouping, signal: AbortSignal) {
  const [figures, held, waiting, idle] = await Promise.all([
    fleetFigures(signal),
    telemetry("GPU_ALLOCATION", { groupBy: grouping.key }, signal),
    telemetry("PENDING_TIME_DISTRIBUTION", {}, signal),
    idleGpus(1, signal),
  ]);
  return { figures, held, waiting, owners: idle.owners };
}

export function FleetPage() {
  const grouping = groupingOf(usePlace().query.get("by"));
  const { data, error, at, refresh } = useLive(`fleet ${grouping.key}`, (signal) => askFleet(grouping, signal), EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <ConnectCluster />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <Failure error={error} retry={refresh} />;
  const phases = Object.entries(data.figures.now.phases).sort(([a], [b]) => phaseRank(a) - phaseRank(b));
  return (
    <div class="page fleet">
      <h1 class="off-screen">Fleet</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <Figures figures={data.figures} />
      <div class="columns-2">
        <Block title="GPUs allocated by" more={<GroupingSwitch chosen={grouping} />}>
          <Bars label={`GPUs allocated by ${grouping.label}`} rows={heldRows(grouping, data.held, clusters)} />
        </Block>
        <Block title="Idle GPU-hours by owner" more={<Link to="/idle">all</Link>}>
          {data.owners.length > 0 ? (
            <Bars label="Idle GPU-hours by owner" rows={data.owners.slice(0, OWNERS_SHOWN).map(ownerRow)} />
          ) : (
            <p class="muted">
              {data.figures.now.gpus.idle === null ? "Nothing measures GPU use here." : "Every measured GPU works."}
            </p>
          )}
        </Block>
        <Block title="Pending now, by waiting time">
          <Bars label="Pending by waiting time" rows={data.waiting.map(waitingRow)} />
        </Block>
        <Block title="Workloads by phase">
          <Bars label="Workloads by phase" rows={phases.map(([phase, number]) => phaseRow(phase, number))} />
        </Block>
        <Block title="Clusters" more={<Link to="/clusters">all</Link>}>
          <ClusterHealth clusters={clusters.data ?? []} />
        </Block>
      </div>
    </div>
  );
}

function GroupingSwitch({ chosen }: { readonly chosen: Grouping }) {
  return (
    <nav class="switch" aria-label="GPUs allocated by">
      {GROUPINGS.map((grouping) => (
        <Link
          key={grouping.key}
          to={`/fleet?by=${grouping.word}`}
          aria-current={grouping === chosen ? "true" : undefined}
        >
          {grouping.label}
        </Link>
      ))}
    </nav>
  );
}

interface BlockProps {
  readonly title: string;
  readonly more?: preact.ComponentChildren;
  readonly children: preact.ComponentChildren;
}

function Block({ title, more, children }: BlockProps) {
  return (
    <section class="block">
      <div class="block-head">
        <h2>{title}</h2>
        {more}
      </div>
      {children}
    </section>
  );
}
