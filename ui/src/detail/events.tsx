/** What Kubernetes reported about a workload and when it changed its phase, in one line of time, newest first. */

import { getEventHistory } from "../api/routes";
import type { HistoryRecord, Workload } from "../api/shapes";
import { useLiveQuery } from "../hooks/live_query";
import { count } from "../model/format";
import { Instant } from "../components/instant";
import { PhaseBadge } from "../components/phase";
import { EmptyState, ErrorState, Skeleton } from "../components/placeholders";

export function Events({ workload }: { readonly workload: Workload }) {
  const { data, error, refresh } = useLiveQuery(
    `events ${workload.id}`,
    (signal) => getEventHistory(workload.id, signal),
    10_000,
  );
  if (data === undefined) return error === undefined ? <Skeleton /> : <ErrorState error={error} retry={refresh} />;
  if (data.length === 0)
    return (
      <EmptyState title="No events">
        <p>Nothing is known of its past.</p>
      </EmptyState>
    );
  return (
    <div class="scroll-x">
      <table class="small-table wide" aria-label="Events and phases">
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">What</th>
            <th scope="col">Object</th>
            <th scope="col">Message</th>
          </tr>
        </thead>
        <tbody>
          {data.map((record, index) => (
            <Row key={record.spec.event?.id ?? `phase ${index}`} record={record} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ record }: { readonly record: HistoryRecord }) {
  const { event, phaseUpdate } = record.spec;
  return (
    <tr>
      <td>
        <Instant at={record.meta.creationTimestamp} />
      </td>
      <td>
        {event == null ? (
          phaseUpdate != null && <PhaseBadge phase={phaseUpdate.phase} isPast={false} />
        ) : (
          <>
            {event.type === "Warning" ? <strong>{event.reason}</strong> : event.reason}
            {event.count > 1 && <span class="muted"> {count(event.count)} times</span>}
          </>
        )}
      </td>
      <td>{event != null && <code>{`${event.involvedObject.kind}/${event.involvedObject.name}`}</code>}</td>
      <td class="wraps">{event?.message ?? phaseUpdate?.phaseMessage}</td>
    </tr>
  );
}
