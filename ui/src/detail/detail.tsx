/** One workload: its identity, the reason for its state, its phase history; then the tabs. */

import { serverUrl } from "../base_path";
import { useEffect } from "preact/hooks";
import { getHistory, getWorkload } from "../api/routes";
import type { Workload } from "../api/shapes";
import { clusterName, useClusters } from "../clusters/context";
import { isStale, observedUntil } from "../model/cluster_health";
import { useLiveQuery } from "../hooks/live_query";
import { useTitle } from "../hooks/title";
import { workloadCommand, workloadCurl } from "../model/commands";
import { gpusAllocated } from "../workloads/columns";
import { detailViewUrl, TABS } from "../model/detail_view";
import { CopyButton } from "../components/copy";
import { Age, Instant } from "../components/instant";
import { PhaseBadge } from "../components/phase";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { Link } from "../router";
import { FilterLink } from "../workloads/filter_link";
import { Events } from "./events";
import { Json } from "./json";
import { Metrics } from "./metrics";
import { Overview } from "./overview";
import { Pods } from "./pods";
import { useDetailView } from "./use_detail_view";
import { Structure } from "./structure";
import { Timeline } from "./timeline";
import { Why } from "./why";

interface DetailProps {
  readonly id: string;
  /** Present in the panel, absent on a page of its own. */
  readonly onClose?: () => void;
}

export function Detail({ id, onClose }: DetailProps) {
  const { data: workload, error, at, refresh } = useLiveQuery(
    `workload ${id}`,
    (signal) => getWorkload(id, signal),
    { id },
  );
  const version = workload === undefined ? undefined : `${workload.phase} ${workload.phaseUpdatedAt} ${workload.deletedAt}`;
  const history = useLiveQuery(`history ${id}`, (signal) => getHistory(id, signal), undefined);
  useEffect(() => {
    if (history.data !== undefined || history.error !== undefined) history.refresh();
  }, [version, history.error === undefined ? 0 : at]);
  const [{ tab }, setDetailView] = useDetailView();
  useTitle(workload?.name);
  if (workload === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <ErrorState error={error} retry={refresh} isPage />;
  return (
    <article class="detail">
      <Header workload={workload} onClose={onClose} />
      <StaleBar error={error} at={at} retry={refresh} />
      <UnobservedBar workload={workload} />
      <Why workload={workload} />
      <Timeline workload={workload} history={history} />
      <div class="tabs detail-tabs" role="tablist" aria-label="Details">
        {TABS.map((name) => (
          <button
            key={name}
            id={`tab-${name}`}
            type="button"
            role="tab"
            class="tab"
            aria-selected={tab === name}
            aria-controls="tab-content"
            onClick={() => setDetailView({ tab: name, range: undefined, zoom: undefined })}
          >
            {name}
          </button>
        ))}
      </div>
      <div id="tab-content" role="tabpanel" aria-labelledby={`tab-${tab}`} class="tab-content">
        {tab === "Overview" && <Overview workload={workload} />}
        {tab === "Metrics" && <Metrics workload={workload} />}
        {tab === "Pods" && <Pods key={workload.id} workload={workload} />}
        {tab === "Events" && <Events workload={workload} />}
        {tab === "Structure" && <Structure workload={workload} />}
        {tab === "JSON" && <Json workload={workload} />}
      </div>
    </article>
  );
}

function Header({ workload, onClose }: { readonly workload: Workload; readonly onClose: (() => void) | undefined }) {
  const clusters = useClusters();
  const cluster = clusters.byId.get(workload.clusterId);
  const [detailView] = useDetailView();
  const page = detailViewUrl(`/workloads/${encodeURIComponent(workload.id)}`, detailView);
  return (
    <header class="detail-header">
      <div class="detail-title">
        <h1>{workload.name}</h1>
        {onClose !== undefined && (
          <span class="detail-actions">
            <Link class="button" to={page} title="Open as a page (Enter)">
              open
            </Link>
            <button type="button" class="button" aria-label="Close" title="Close (Esc)" onClick={onClose}>
              ×
            </button>
          </span>
        )}
      </div>
      <p class="detail-phase">
        <PhaseBadge phase={workload.phase} isPast={workload.deletedAt !== null} />
        <span>
          {workload.deletedAt === null ? (
            <>
              for <Age since={workload.phaseUpdatedAt} until={observedUntil(cluster)} />
            </>
          ) : (
            <>
              <strong>deleted</strong> <Instant at={workload.deletedAt} />
            </>
          )}
        </span>
        <span class="muted">
          {workload.type}
          {workload.deletedAt === null && ` · ${gpusAllocated(workload)} ${workload.allocatedResources?.gpu === 1 ? "GPU" : "GPUs"} allocated`}
        </span>
      </p>
      <p class="detail-owner">
        {workload.projectName !== "" && (
          <FilterLink field="projectName" value={workload.projectName}>{workload.projectName}</FilterLink>
        )}
        {workload.departmentName !== "" && (
          <FilterLink field="departmentName" value={workload.departmentName}>{workload.departmentName}</FilterLink>
        )}
        <FilterLink field="clusterId" value={workload.clusterId}>
          {clusterName(clusters, workload.clusterId)}
        </FilterLink>
        {workload.submittedBy !== undefined && workload.submittedBy !== "" && (
          <FilterLink field="submittedBy" value={workload.submittedBy}>{workload.submittedBy}</FilterLink>
        )}
      </p>
      <p class="detail-id">
        <code>{workload.id}</code>
        <CopyButton text={workload.id} label="Copy the ID" />
        <CopyButton text={workloadCommand(workload.id, workload.phase === "Pending" && workload.deletedAt === null)} label="Copy as CLI command">
          as CLI
        </CopyButton>
        <CopyButton text={workloadCurl(workload.id, serverUrl())} label="Copy as curl command">
          as curl
        </CopyButton>
      </p>
    </header>
  );
}

/** The cluster is not observed: everything below is the last state seen. */
function UnobservedBar({ workload }: { readonly workload: Workload }) {
  const cluster = useClusters().byId.get(workload.clusterId);
  if (workload.deletedAt !== null || !isStale(cluster)) return null;
  return (
    <p class="bar bar-warning" role="status">
      <span>
        Cluster {cluster.name} is {cluster.state}
        {cluster.lastContactAt !== undefined && (
          <>
            ; last contact <Age since={cluster.lastContactAt} /> ago
          </>
        )}
        . This is the last state it reported.{cluster.reason !== undefined && ` ${cluster.reason}`}
      </span>
    </p>
  );
}
