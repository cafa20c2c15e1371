/**
 * A sparkline: a line without axes that starts at 0, so that small changes look small. Moments that were not
 * recorded are gaps.
 */

const WIDTH = 160;
const HEIGHT = 28;
const EDGE = 2;

export interface SparkPoint {
  /** Milliseconds. */
  readonly at: number;
  /** Null = unknown. */
  readonly value: number | null;
}

interface SparkProps {
  readonly points: readonly SparkPoint[];
  /** Points further apart than this have a gap between them. */
  readonly stepMs: number;
  readonly label: string;
  /** The value at the top; the largest one where it is left out. */
  readonly most?: number;
}

export function Spark({ points, stepMs, label, most: top }: SparkProps) {
  const known = points.filter(({ value }) => value !== null);
  if (known.length < 2) return <span class="spark is-empty">no history yet</span>;
  const most = top ?? (Math.max(...known.map(({ value }) => value!)) || 1);
  const first = points[0]!.at;
  const span = points[points.length - 1]!.at - first || 1;
  const x = (at: number): string => (EDGE + ((WIDTH - 2 * EDGE) * (at - first)) / span).toFixed(1);
  const y = (value: number): string => (HEIGHT - EDGE - ((HEIGHT - 2 * EDGE) * value) / most).toFixed(1);
  let path = "";
  let previous = -Infinity;
  for (const { at, value } of points) {
    if (value === null) {
      previous = -Infinity;
      continue;
    }
    path += `${at - previous > 1.5 * stepMs ? "M" : "L"}${x(at)} ${y(value)}`;
    previous = at;
  }
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <path d={path} />
    </svg>
  );
}
