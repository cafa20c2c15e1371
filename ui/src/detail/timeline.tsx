/** The phases of a workload as one bar in proportion to time, with the list behind it. */

import type { Spell, Workload } from "../api/shapes";
import type { Live } from "../hooks/live";
import { useNow } from "../hooks/tick";
import { duration, localInstant } from "../model/format";
import { lookOf } from "../model/phases";
import { Instant } from "../parts/instant";
import { PhaseBadge } from "../parts/phase";

interface TimelineProps {
  readonly workload: Workload;
  readonly history: Live<readonly Spell[]>;
}

interface Span extends Spell {
  readonly seconds: number;
}

export function spansOf(history: readonly Spell[], endsAt: number): Span[] {
  return history.map((spell) => {
    const end = spell.endedAt === undefined ? endsAt : Date.parse(spell.endedAt);
    return { ...spell, seconds: Math.max(0, (end - Date.parse(spell.startedAt)) / 1000) };
  });
}

function total(spans: readonly Span[], phase: string): number {
  return spans.reduce((sum, span) => (span.phase === phase ? sum + span.seconds : sum), 0);
}

export function Timeline({ workload, history }: TimelineProps) {
  const now = useNow(5_000);
  if (history.data === undefined)
    return history.error === undefined ? (
      <div class="timeline is-loading" />
    ) : (
      <p class="muted">The phases cannot be read now: {history.error.message}</p>
    );
  if (history.data.length === 0) return <p class="muted">No phase has been recorded yet.</p>;
  const isOver = workload.deletedAt !== null;
  const spans = spansOf(history.data, isOver ? Date.parse(workload.deletedAt!) : now);
  const words = spans.map((span) => `${span.phase} ${duration(span.seconds)}`).join(", ");
  return (
    <section class="timeline" aria-label="Phases">
      <div class="timeline-bar" role="img" aria-label={words}>
        {spans.map((span) => (
          <span
            key={`${span.phase}${span.startedAt}`}
            class={`span tone-${lookOf(span.phase).tone}`}
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
        {isOver ? <Instant at={workload.deletedAt!} /> : <span>now</span>}
      </p>
      <details>
        <summary>{spans.length === 1 ? "1 phase" : `${spans.length} phases`}</summary>
        <ol class="spells">
          {spans
            .map((span) => (
              <li key={`${span.phase}${span.startedAt}`}>
                <PhaseBadge phase={span.phase} />
                <span class="spell-time">{duration(span.seconds)}</span>
                <Instant at={span.startedAt} />
                {span.phaseMessage !== undefined && <span class="spell-message">{span.phaseMessage}</span>}
              </li>
            ))
            .reverse()}
        </ol>
      </details>
    </section>
  );
}
