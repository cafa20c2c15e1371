import type { Facets } from "../api/shapes";
import { count } from "../model/format";
import { toggled, type Filter } from "../model/filter";
import { phaseRank } from "../model/phases";
import { PhaseMark } from "../components/phase";

interface PhaseFilterProps {
  readonly facets: Facets | undefined;
  readonly filters: readonly Filter[];
  readonly onFilters: (filters: readonly Filter[]) => void;
}

/** The number of workloads in each phase; pressing a phase toggles a filter on it. */
export function PhaseFilter({ facets, filters, onFilters }: PhaseFilterProps) {
  const values = facets?.facets.find((facet) => facet.field === "phase")?.values ?? [];
  const counts = new Map(values.map(({ value, count: number }) => [value, number]));
  const chosen = new Set(
    filters.filter(({ field, operator }) => field === "phase" && operator === "==").map(({ value }) => value),
  );
  for (const value of chosen) if (!counts.has(value)) counts.set(value, 0);
  const phases = [...counts.keys()].sort((a, b) => phaseRank(a) - phaseRank(b));
  return (
    <div class="facets" role="group" aria-label="Phases">
      {phases.map((phase) => (
        <button
          key={phase}
          type="button"
          class="facet"
          aria-pressed={chosen.has(phase)}
          onClick={() => onFilters(toggled(filters, "phase", phase))}
        >
          <PhaseMark phase={phase} />
          {phase === "" ? "none" : phase} <b>{count(counts.get(phase) ?? 0)}</b>
        </button>
      ))}
    </div>
  );
}
