/** GPU-hours by day, stacked by group: allocated, or requested by pending workloads. */

import type { UsageRow } from "../api/shapes";
import { count } from "../model/format";
import { usageDays, type Measure, type UsageGroup } from "./periods";

interface DaysProps {
  readonly days: readonly UsageRow[];
  readonly group: UsageGroup;
  readonly measure: Measure;
  readonly named: readonly string[];
  readonly bounds: readonly [number, number];
}

/** The colour of a part: those that have a name of their own, then all others. */
export function partClass(index: number): string {
  return index < 0 ? "usage-rest" : `usage-part-${index}`;
}

export function Days({ days: rows, group, measure, named, bounds }: DaysProps) {
  const days = usageDays(rows, group, measure, named, bounds);
  const most = Math.max(...days.map(({ total }) => total));
  if (most <= 0) return null;
  return (
    <figure class="usage-chart" aria-label={`GPU-hours ${measure.label} by day`}>
      <div class="usage-days" role="list">
        {days.map(({ day, parts, total }) => (
          <div key={day} class="usage-day" role="listitem" aria-label={`${day}: ${count(Math.round(total))} GPU-hours`} title={`${day}: ${count(Math.round(total))} GPU-hours`}>
            {[...named, ""].map((name) => {
              const value = parts.get(name) ?? 0;
              return value > 0 ? (
                <span key={name} class={partClass(named.indexOf(name))} style={{ height: `${(100 * value) / most}%` }} />
              ) : null;
            })}
          </div>
        ))}
      </div>
      <figcaption class="muted">
        <span>{days[0]?.day}</span>
        <span>at most {count(Math.round(most))} GPU-hours a day</span>
        <span>{days.at(-1)?.day}</span>
      </figcaption>
    </figure>
  );
}
