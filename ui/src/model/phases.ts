/** Phases: colour group, shape and order of importance. The word itself is always shown too. */

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

export interface PhaseLook {
  readonly tone: string;
  readonly shape: Shape;
}

const LOOKS: Readonly<Record<string, PhaseLook>> = {
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
export const PHASES = Object.keys(LOOKS);

export function lookOf(phase: string): PhaseLook {
  return LOOKS[phase] ?? { tone: "unknown", shape: "unknown" };
}

export function phaseRank(phase: string): number {
  const rank = PHASES.indexOf(phase);
  return rank === -1 ? PHASES.length : rank;
}
