/** One workload: who it is, why it is as it is, what happened to it; then the tabs. */

import { useEffect, useState } from "preact/hooks";
import { getHistory, getWorkload, streamUrl } from "../api/routes";
import type { Workload } from "../api/shapes";
import { clusterName, isOutOfContact, useClusters } from "../clusters/context";
import { useLive } from "../hooks/live";
import { asCommandOne, asCurlOne } from "../model/commands";
import { plural } from "../model/format";
import { sightUrl, TABS } from "../model/sight";
import { DEFAULT_VIEW, listUrl } from "../model/view";
import { CopyButton } from "../parts/copy";
import { Age, Instant } from "../parts/instant";
import { PhaseBadge } from "../parts/phase";
import { Failure, Skeleton, StaleBar } from "../parts/states";
import { Link } from "../router";
import { Json } from "./json";
import { Metrics } from "./metrics";
import { Overview } from "./overview";
import { useSight } from "./sight";
import { Structure } from "./structure";
import { Timeline } from "./timeline";
import { Why } from "./why";

/** Until it is known what to listen to. */
const FIRST_MS = 5_000;

interface DetailProps {
  readonly id: string;
  /** Present in the panel, absent on a page of its own. */
  readonly onClose?: () => void;
}

export function Detail({ id, onClose }: DetailProps) {
  const [pace, setPace] = useState<string | undefined>(undefined);
  const { data: workload, error, at, refresh } = useLive(
    `workload ${id}`,
    (signal) => getWorkload(id, signal),
    pace === undefined ? FIRST_MS : { url: pace, id },
  );
  useEffect(() => setPace(workload === undefined ? undefined : changesOf(workload)), [workload?.name, workload?.deletedAt]);
  const moment = workload === undefined ? undefined : `${workload.phase} ${workload.phaseUpdatedAt} ${workload.deletedAt}`;
  const history = useLive(`history ${id}`, (signal) => getHistory(id, signal), undefined);
  useEffect(() => {
    if (history.data !== undefined || history.error !== undefined) history.refresh();
  }, [moment, history.error === undefined ? 0 : at]);
  const [{ tab }, look] = useSight();
  if (workload === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <Failure error={error} retry={refresh} isPage />;
  return (
    <article class="detail">
      <Header workload={workload} onClose={onClose} />
      <StaleBar error={error} at={at} retry={refresh} />
      <Contact workload={workload} />
      <Why workload={workload} />
      <Timeline workload={workload} history={history} />
      <div class="tabs detail-tabs" role="tablist" aria-label="Parts of the workload">
        {TABS.map((name) => (
          <button
            key={name}
            id={`tab-${name}`}
            type="button"
            role="tab"
            class="tab"
            aria-selected={tab === name}
            aria-controls="tab-content"
            onClick={() => look({ tab: name, range: undefined, zoom: undefined })}
          >
            {name}
          </button>
        ))}
      </div>
      <div id="tab-content" role="tabpanel" aria-labelledby={`tab-${tab}`} class="tab-content">
        {tab === "Overview" && <Overview workload={workload} />}
        {tab === "Metrics" && <Metrics workload={workload} />}
        {tab === "Structure" && <Structure workload={workload} />}
        {tab === "JSON" && <Json workload={workload} />}
      </div>
    </article>
  );
}

/** The stream knows no ids; a name within a cluster is nearly one. */
function changesOf(workload: Workload): string {
  const filters = [
    { field: "clusterId", operator: "==", value: workload.clusterId },
    { field: "name", operator: "==", value: workload.name },
  ];
  return streamUrl({ ...DEFAULT_VIEW, filters, isDeleted: workload.deletedAt !== null });
}

function Header({ workload, onClose }: { readonly workload: Workload; readonly onClose: (() => void) | undefined }) {
  const clusters = useClusters();
  const [sight] = useSight();
  const page = sightUrl(`/workloads/${encodeURIComponent(workload.id)}`, sight);
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
        <PhaseBadge phase={workload.phase} />
        <span>
          {workload.deletedAt === null ? (
            <>
              for <Age since={workload.phaseUpdatedAt} />
            </>
          ) : (
            <>
              <strong>deleted</strong> <Instant at={workload.deletedAt} />
            </>
          )}
        </span>
        <span class="muted">
          {workload.type}
          {workload.deletedAt === null && ` · ${plural(workload.allocatedResources?.gpu ?? 0, "GPU", "GPUs")} allocated`}
        </span>
      </p>
      <p class="detail-owner">
        {workload.projectName !== "" && (
          <Link to={listUrl([["projectName", "==", workload.projectName]])}>{workload.projectName}</Link>
        )}
        {workload.departmentName !== "" && (
          <Link to={listUrl([["departmentName", "==", workload.departmentName]])}>{workload.departmentName}</Link>
        )}
        <Link to={listUrl([["clusterId", "==", workload.clusterId]])}>
          {clusterName(clusters, workload.clusterId)}
        </Link>
        {workload.submittedBy !== undefined && workload.submittedBy !== "" && (
          <Link to={listUrl([["submittedBy", "==", workload.submittedBy]])}>{workload.submittedBy}</Link>
        )}
      </p>
      <p class="detail-id">
        <code>{workload.id}</code>
        <CopyButton text={workload.id} label="Copy the id" />
        <CopyButton text={asCommandOne(workload.id, workload.phase === "Pending" && workload.deletedAt === null)} label="Copy as CLI command">
          as CLI
        </CopyButton>
        <CopyButton text={asCurlOne(workload.id, window.location.origin)} label="Copy as curl command">
          as curl
        </CopyButton>
      </p>
    </header>
  );
}

/** A cluster out of contact: everything below is what was last seen. */
function Contact({ workload }: { readonly workload: Workload }) {
  const cluster = useClusters().byId.get(workload.clusterId);
  if (workload.deletedAt !== null || !isOutOfContact(cluster)) return null;
  return (
    <p class="bar bar-warning">
      <span>
        Cluster {cluster!.name} is out of contact
        {cluster!.lastContactAt !== undefined && (
          <>
            : last seen <Age since={cluster!.lastContactAt} /> ago
          </>
        )}
        . This is what it said then.
      </span>
    </p>
  );
}
