/** GPU utilization of the visible rows as lines, all of them with one request. */

import { createContext, type ComponentChildren } from "preact";
import { useContext, useRef } from "preact/hooks";
import { getUtilization } from "../api/routes";
import type { Utilization, Workload } from "../api/shapes";
import { Spark } from "../components/spark";
import { useLiveQuery } from "../hooks/live_query";
import type { LiveRows } from "./live_rows";

/** The id of the column. */
export const GPU_USE = "gpuUse";
const REFRESH_MS = 30_000;
/** Rows are asked for in blocks, so that scrolling by a row asks nothing. */
const BLOCK = 25;
const MAX_IDS = 100;

type Uses = ReadonlyMap<string, Utilization>;

interface GpuUse {
  readonly uses: Uses;
  readonly hasFailed: boolean;
}

const GpuUseContext = createContext<GpuUse>({ uses: new Map(), hasFailed: false });

interface GpuUseProviderProps {
  readonly rows: LiveRows;
  readonly first: number;
  readonly last: number;
  readonly isOn: boolean;
  readonly children: ComponentChildren;
}

/** Keeps what was loaded before while the list scrolls. */
export function GpuUseProvider({ rows, first, last, isOn, children }: GpuUseProviderProps) {
  const ids = isOn ? idsAround(rows, first, last) : [];
  const key = ids.length === 0 ? undefined : `utilization ${ids.join(",")}`;
  const { data, error } = useLiveQuery(key, (signal) => getUtilization(ids, signal), REFRESH_MS);
  const kept = useRef<Uses>(new Map());
  if (data !== undefined) kept.current = new Map([...kept.current, ...data].slice(-5 * MAX_IDS));
  return (
    <GpuUseContext.Provider value={{ uses: kept.current, hasFailed: error !== undefined }}>{children}</GpuUseContext.Provider>
  );
}

function idsAround(rows: LiveRows, first: number, last: number): readonly string[] {
  const begin = Math.floor(first / BLOCK) * BLOCK;
  const ids: string[] = [];
  for (let index = begin; index < begin + MAX_IDS && index < Math.ceil((last + 1) / BLOCK) * BLOCK; index += 1) {
    const workload = rows.at(index);
    if (workload !== undefined && holdsGpus(workload)) ids.push(workload.id);
  }
  return ids;
}

function holdsGpus(workload: Workload): boolean {
  return workload.deletedAt === null && workload.allocatedResources?.gpu !== 0;
}

/** The line of one workload, with what it is now; each reason for having none looks different. */
export function GpuUseCell({ workload }: { readonly workload: Workload }) {
  const { uses, hasFailed } = useContext(GpuUseContext);
  if (!holdsGpus(workload)) return <span class="none">–</span>;
  const use = uses.get(workload.id);
  if (use === undefined) return hasFailed ? <None text="?" title="The utilization could not be loaded" /> : null;
  if (use.values === null) return <None text="?" title="The metrics store of its cluster does not answer" />;
  if (use.values.every((value) => value === null)) return <None text="n/m" title="Not measured in the last 3 hours" />;
  const points = use.values.map((value, index) => ({ at: index, value }));
  const now = use.values[use.values.length - 1];
  const words = now == null ? "not measured now" : `${Math.round(now)} % now`;
  return (
    <span class="gpu-use" title={`GPU utilization of the last 3 hours: ${words}`}>
      {points.filter(({ value }) => value !== null).length > 1 && (
        <Spark points={points} stepMs={1} most={100} label={`GPU utilization of the last 3 hours, ${words}`} />
      )}
      <span>{now == null ? "–" : `${Math.round(now)} %`}</span>
    </span>
  );
}

function None({ text, title }: { readonly text: string; readonly title: string }) {
  return (
    <span class="none" title={title}>
      {text}
    </span>
  );
}
