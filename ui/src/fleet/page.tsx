/** The fleet at a glance: the headline numbers over time, GPU allocation, idle GPUs, pending times, clusters. */

import { getFleet, getIdleWorkloads, getTelemetry } from "../api/routes";
import { useClusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { StaleClusters } from "../clusters/stale_clusters";
import { useLiveQuery } from "../hooks/live_query";
import { NoIdleGpus } from "../idle/no_idle_gpus";
import { ownerRow } from "../idle/page";
import { phaseRank } from "../model/phases";
import { Bars } from "../components/bars";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { Link, useRoute } from "../router";
import { ClusterHealth } from "./clusters";
import { countFailed } from "./failed";
import { Summary } from "./summary";
import { allocationRows, phaseRow, waitingRow } from "./bar_rows";
import { groupingOf, GROUPINGS, type Grouping } from "./groupings";

const EVERY_MS = 10_000;
const OWNERS_SHOWN = 6;

async function fetchFleet(grouping: Grouping, signal: AbortSignal) {
  const [fleet, allocated, waiting, idle, failed] = await Promise.all([
    getFleet(signal),
    getTelemetry("GPU_ALLOCATION", { groupBy: grouping.key }, signal),
    getTelemetry("PENDING_TIME_DISTRIBUTION", {}, signal),
    getIdleWorkloads(1, signal),
    countFailed(signal),
  ]);
  return { fleet, allocated, waiting, owners: idle.owners, failed };
}

export function FleetPage() {
  const grouping = groupingOf(useRoute().query.get("by"));
  const { data, error, at, refresh } = useLiveQuery(`fleet ${grouping.key}`, (signal) => fetchFleet(grouping, signal), EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <ErrorState error={error} retry={refresh} />;
  const phases = Object.entries(data.fleet.now.phases).sort(([a], [b]) => phaseRank(a) - phaseRank(b));
  return (
    <div class="page fleet">
      <h1 class="off-screen">Fleet</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <StaleClusters />
      <Summary fleet={data.fleet} failed={data.failed} />
      <div class="columns-2">
        <Block title="Allocated GPUs by" more={<GroupingSwitch chosen={grouping} />}>
          <Bars
            label={`Allocated GPUs by ${grouping.label}`}
            rows={allocationRows(grouping, data.allocated, clusters)}
            empty="No GPUs are allocated."
          />
        </Block>
        <Block title="Idle GPU-hours by owner" more={<Link to="/idle">all</Link>}>
          {data.owners.length > 0 ? (
            <Bars label="Idle GPU-hours by owner" rows={data.owners.slice(0, OWNERS_SHOWN).map(ownerRow)} />
          ) : (
            <NoIdleGpus gpus={data.fleet.now.gpus} />
          )}
        </Block>
        <Block title="Pending workloads by pending time">
          <Bars label="Pending workloads by pending time" rows={data.waiting.map(waitingRow)} empty="No workload is pending." />
        </Block>
        <Block title="Workloads by phase">
          <Bars
            label="Workloads by phase"
            rows={phases.map(([phase, number]) => phaseRow(phase, number))}
            empty="There are no workloads."
          />
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
    <nav class="switch" aria-label="Group allocated GPUs by">
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
