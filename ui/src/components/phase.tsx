import type { JSX } from "preact";
import { phaseStyle, type Shape } from "../model/phases";

const PATHS: Readonly<Record<Shape, JSX.Element>> = {
  dot: <circle cx="6" cy="6" r="4.5" fill="currentColor" />,
  half: (
    <>
      <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.6" />
      <path d="M6 1.8a4.2 4.2 0 0 1 0 8.4z" fill="currentColor" />
    </>
  ),
  dashed: (
    <circle
      cx="6"
      cy="6"
      r="4.2"
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
      stroke-dasharray="2.6 1.8"
    />
  ),
  triangle: <path d="M6 1.2 11.2 10.6H.8z" fill="currentColor" />,
  cross: <path d="m2.2 2.2 7.6 7.6m0-7.6-7.6 7.6" stroke="currentColor" stroke-width="2.2" />,
  check: (
    <path d="m1.8 6.4 3 3 5.4-6.6" fill="none" stroke="currentColor" stroke-width="2" />
  ),
  square: <rect x="1.8" y="1.8" width="8.4" height="8.4" rx="1" fill="currentColor" />,
  leaving: (
    <path
      d="M4 2h7v8H4L.9 6zm1.6 2.4 3.4 3.2m0-3.2L5.6 7.6"
      fill="none"
      stroke="currentColor"
      stroke-width="1.4"
    />
  ),
  unknown: (
    <path
      d="M3.4 4.2a2.6 2.6 0 1 1 3.8 2.3C6.3 7 6 7.4 6 8.3M6 9.6v1.6"
      fill="none"
      stroke="currentColor"
      stroke-width="1.8"
    />
  ),
};

interface PhaseBadgeProps {
  readonly phase: string;
  /** The last phase of a deleted workload: grey, and marked as past. */
  readonly isPast?: boolean;
}

export function PhaseMark({ phase, isPast = false }: PhaseBadgeProps) {
  const style = phaseStyle(phase);
  return (
    <svg class={isPast ? "mark" : `mark tone-${style.tone}`} viewBox="0 0 12 12" aria-hidden="true">
      {PATHS[style.shape]}
    </svg>
  );
}

/** Colour, shape and word together; never colour alone. */
export function PhaseBadge({ phase, isPast = false }: PhaseBadgeProps) {
  return (
    <span class={isPast ? "phase is-past" : `phase tone-${phaseStyle(phase).tone}`}>
      <PhaseMark phase={phase} isPast={isPast} />
      {isPast && <span class="phase-was">was</span>}
      <span class="phase-word">{phase}</span>
    </span>
  );
}
