/** Phases: colour, shape and order of importance. The word itself is always shown too. */

export type Shape =
  | "dot"
  | "half"
  | "dashed"
  | "triangle"
  | "cross"
  | "check"
  | "square"
  | "leaving"
  | "unknown";

export interface PhaseStyle {
  readonly tone: string;
  readonly shape: Shape;
}

const STYLES: Readonly<Record<string, PhaseStyle>> = {
  Running: { tone: "running", shape: "dot" },
  Pending: { tone: "pending", shape: "half" },
  Degraded: { tone: "degraded", shape: "triangle" },
  Failed: { tone: "failed", shape: "cross" },
  Initializing: { tone: "starting", shape: "dashed" },
  Creating: { tone: "starting", shape: "dashed" },
  Resuming: { tone: "starting", shape: "dashed" },
  Updating: { tone: "starting", shape: "dashed" },
  Completed: { tone: "completed", shape: "check" },
  Stopped: { tone: "stopped", shape: "square" },
  Stopping: { tone: "stopped", shape: "square" },
  Deleting: { tone: "leaving", shape: "leaving" },
  Terminating: { tone: "leaving", shape: "leaving" },
  Unknown: { tone: "unknown", shape: "unknown" },
};

/** The order in which phases are offered: what people look for first. */
export const PHASES = Object.keys(STYLES);

export function phaseStyle(phase: string): PhaseStyle {
  return STYLES[phase] ?? { tone: "unknown", shape: "unknown" };
}

export function phaseRank(phase: string): number {
  const rank = PHASES.indexOf(phase);
  return rank === -1 ? PHASES.length : rank;
}
