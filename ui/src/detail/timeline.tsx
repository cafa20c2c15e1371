/** The phase history of a workload: a bar in proportion to time, and a list. */

import type { PhaseInterval, Workload } from "../api/shapes";
import { useClusters } from "../clusters/context";
import type { LiveQuery } from "../hooks/live_query";
import { useNow } from "../hooks/clock";
import { observedUntil } from "../model/cluster_health";
import { duration, localInstant } from "../model/format";
import { phaseStyle } from "../model/phases";
import { Instant } from "../components/instant";
import { PhaseBadge } from "../components/phase";

interface TimelineProps {
  readonly workload: Workload;
  readonly history: LiveQuery<readonly PhaseInterval[]>;
}

interface Span extends PhaseInterval {
  readonly seconds: number;
}

export function spansOf(history: readonly PhaseInterval[], endsAt: number): Span[] {
  return history.map((interval) => {
    const end = interval.endedAt === undefined ? endsAt : Date.parse(interval.endedAt);
    return { ...interval, seconds: Math.max(0, (end - Date.parse(interval.startedAt)) / 1000) };
  });
}

function total(spans: readonly Span[], phase: string): number {
  return spans.reduce((sum, span) => (span.phase === phase ? sum + span.seconds : sum), 0);
}

export function Timeline({ workload, history }: TimelineProps) {
  const now = useNow(5_000);
  const cluster = useClusters().byId.get(workload.clusterId);
  if (history.data === undefined)
    return history.error === undefined ? (
      <div class="timeline is-loading" />
    ) : (
      <p class="muted">The phase history is not available: {history.error.message}</p>
    );
  if (history.data.length === 0) return <p class="muted">No phase has been recorded yet.</p>;
  const end = workload.deletedAt ?? observedUntil(cluster);
  const spans = spansOf(history.data, end === undefined ? now : Date.parse(end));
  const summary = spans.map((span) => `${span.phase} ${duration(span.seconds)}`).join(", ");
  return (
    <section class="timeline" aria-label="Phases">
      <div class="timeline-bar" role="img" aria-label={summary}>
        {spans.map((span) => (
          <span
            key={`${span.phase}${span.startedAt}`}
            class={`span tone-${phaseStyle(span.phase).tone}`}
            style={{ flexGrow: Math.max(span.seconds, 0.001) }}
            title={`${span.phase} ${duration(span.seconds)} from ${localInstant(span.startedAt)}`}
          />
        ))}
      </div>
      <p class="timeline-ends">
        <Instant at={history.data[0]!.startedAt} />
        <span>
          pending {duration(total(spans, "Pending"))} · running {duration(total(spans, "Running"))}
        </span>
        {end === undefined ? <span>now</span> : <Instant at={end} />}
      </p>
      <details>
        <summary>{spans.length === 1 ? "1 phase" : `${spans.length} phases`}</summary>
        <ol class="phase-list">
          {spans
            .map((span) => (
              <li key={`${span.phase}${span.startedAt}`}>
                <PhaseBadge phase={span.phase} />
                <span class="phase-list-time">{duration(span.seconds)}</span>
                <Instant at={span.startedAt} />
                {span.phaseMessage !== undefined && <span class="phase-list-message">{span.phaseMessage}</span>}
              </li>
            ))
            .reverse()}
        </ol>
      </details>
    </section>
  );
}
