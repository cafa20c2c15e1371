/** Usage: who used how many GPU-hours over days, how many were idle, what they cost; and how many were pending. */

import { countWorkloads, getUsage, usageCsvUrl } from "../api/routes";
import { serverNow } from "../api/server_clock";
import type { UsageReport, UsageRow } from "../api/shapes";
import { useClusters, type Clusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { staleClusters } from "../model/cluster_health";
import { amount, count, gpuHours } from "../model/format";
import { DEFAULT_VIEW, listUrl, type View } from "../model/view";
import { Link, useRoute } from "../router";
import { Days, partClass } from "./days";
import {
  before,
  beginWithin,
  changeOf,
  compared,
  hasUsage,
  idleShare,
  MEASURES,
  measureOf,
  narrowed,
  narrowing,
  PERIODS,
  periodOf,
  unknownParameters,
  USAGE_GROUPS,
  usageGroupOf,
  usageTitle,
  wholeDays,
  workloadFilters,
  type Compared,
  type Measure,
  type Narrowing,
  type Period,
  type UsageGroup,
} from "./periods";
import { UnknownChoice, UnknownParameter, usageUrl } from "./unknown";

const EVERY_MS = 60_000;
const NAMED = 6;
const ROWS_SHOWN = 100;

type Item = readonly [string, string, string];

/** What an address asks for. */
interface Question {
  readonly period: Period;
  readonly group: UsageGroup;
  readonly measure: Measure;
  /** What the report is narrowed to. */
  readonly only: Narrowing;
  /** The filters of the workloads that are pending now; undefined where none says it. */
  readonly pendingFilters: readonly Item[] | undefined;
}

async function fetchUsage({ period, group, measure, only, pendingFilters }: Question, signal: AbortSignal) {
  const bounds = period.bounds(serverNow());
  const isOfPending = measure.word === "pending" && pendingFilters !== undefined;
  const asked = { groups: [group.word], only, sortBy: measure.sortBy };
  const [report, days, pending] = await Promise.all([
    getUsage({ bounds, ...asked }, signal),
    getUsage({ bounds, ...asked, groups: [group.word, "day"] }, signal),
    isOfPending ? countWorkloads(viewOf(pendingFilters), [], signal) : undefined,
  ]);
  const whole = wholeDays(bounds, report.accountedUntil);
  const [over, previous] = await Promise.all([
    whole && getUsage({ bounds: whole, ...asked }, signal),
    whole && getUsage({ bounds: before(whole, period), ...asked }, signal),
  ]);
  const sorted = [...report.rows].sort((a, b) => measure.of(b) - measure.of(a));
  const rows = compared(sorted, over?.rows ?? [], previous?.rows ?? [], measure, report.next === undefined);
  const isCut = { previous: (over?.next ?? previous?.next) !== undefined, days: days.next !== undefined };
  const isRecorded = previous !== undefined && hasUsage(previous.totals);
  const recordedSince = isRecorded ? beginWithin(previous) : undefined;
  const sums = over && isRecorded ? { now: measure.of(over.totals), before: measure.of(previous.totals) } : undefined;
  const totals = sums && { ...sums, isPartial: recordedSince !== undefined };
  const periods = whole && { whole, previous: before(whole, period), isRecorded, recordedSince };
  return { report, rows, days: days.rows, totals, compared: periods, isCut, pending, bounds };
}

type UsageData = Awaited<ReturnType<typeof fetchUsage>>;

const PENDING: Item = ["phase", "==", "Pending"];

function viewOf(items: readonly Item[]): View {
  const filters = items.map(([field, operator, value]) => ({ field, operator, value }));
  return { ...DEFAULT_VIEW, isAll: true, filters };
}

function clusterIdIn(clusters: Clusters): (name: string) => string | undefined {
  return (name) => clusters.data?.find((cluster) => cluster.name === name)?.id;
}

export function UsagePage() {
  const { query } = useRoute();
  const period = periodOf(query.get("period"));
  const group = usageGroupOf(query.get("by"));
  const measure = measureOf(query.get("show"));
  const clusters = useClusters();
  const only = narrowing(query);
  const narrowedTo = workloadFilters(only, clusterIdIn(clusters));
  const pendingFilters = narrowedTo && [PENDING, ...narrowedTo];
  const [unknown] = unknownParameters(query);
  if (unknown !== undefined) return <UnknownParameter name={unknown} query={query} />;
  if (period === undefined) return <UnknownChoice what="period" word={query.get("period")!} options={PERIODS} name="period" />;
  if (group === undefined) return <UnknownChoice what="group" word={query.get("by")!} options={USAGE_GROUPS} name="by" />;
  if (measure === undefined) return <UnknownChoice what="figure" word={query.get("show")!} options={MEASURES} name="show" />;
  return <Report query={query} question={{ period, group, measure, only, pendingFilters }} />;
}

interface ReportProps {
  readonly query: URLSearchParams;
  readonly question: Question;
}

function Report({ query, question }: ReportProps) {
  const { period, group, measure, only, pendingFilters } = question;
  const key = `usage ${group.word} ${period.word} ${measure.word} ${JSON.stringify([only, pendingFilters])}`;
  const { data, error, at, refresh } = useLiveQuery(key, (signal) => fetchUsage(question, signal), EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <ErrorState error={error} retry={refresh} />;
  const { report, rows, totals, isCut, bounds } = data;
  const named = rows.slice(0, NAMED).map(({ row }) => nameOf(row, group));
  return (
    <div class="page usage">
      <h1 class="off-screen">{usageTitle(query)}</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <div class="usage-choices">
        <Choice label="GPU-hours" name="show" chosen={measure} options={MEASURES} query={query} />
        <Choice label="Period" name="period" chosen={period} options={PERIODS} query={query} />
        <Choice label="Group by" name="by" chosen={group} options={USAGE_GROUPS} query={query} />
        {only.map((each) => (
          <span key={each[0]} class="chip">
            <span class="chip-text">{narrowed(each)}</span>
            <Link class="chip-remove" to={usageUrl(query, each[0], undefined)} aria-label={`Not ${narrowed(each)} alone`}>
              ×
            </Link>
          </span>
        ))}
      </div>
      {measure.word === "pending" ? (
        <PendingLead data={data} pendingFilters={pendingFilters ?? []} />
      ) : report.accountedUntil === null ? (
        <p class="lead">{notAccounted(report.totals, "allocated")}.</p>
      ) : report.totals.allocatedGpuHours + report.totals.pendingGpuHours === 0 ? (
        <p class="lead">No GPU-hours allocated or pending in these days{outstanding(data)}.</p>
      ) : (
        <Lead report={report} totals={totals} />
      )}
      <Days days={data.days} group={group} measure={measure} named={named} bounds={bounds} />
      <UsageTable report={report} rows={rows} totals={totals} question={question} named={named} query={query} />
      <p class="muted">
        {rows.length > ROWS_SHOWN && `${ROWS_SHOWN} of ${count(rows.length)} rows. `}
        {report.next !== undefined && `There are more groups than one answer holds: those with the fewest ${measure.label} GPU-hours are left out. `}
        {data.compared !== undefined &&
          (data.compared.isRecorded
            ? `Before: ${daysOf(data.compared.previous)}, beside the complete days ${daysOf(data.compared.whole)}. ${recordedInPart(data.compared.recordedSince)}`
            : `Before: no usage is recorded of ${daysOf(data.compared.previous)}. `)}
        {isCut.previous && "Of the period before only the largest groups are compared: a 0 there may be more. "}
        {isCut.days && "The bars are those of the first days: the rest has more groups than one answer holds. "}
        <a href={usageCsvUrl({ bounds, groups: [group.word], only, sortBy: measure.sortBy })} download>
          CSV
        </a>{" "}
        ·{" "}
        <a href={usageCsvUrl({ bounds, groups: [group.word, "day"], only })} download>
          CSV by day
        </a>
        {report.priceNote != null && ` · Prices: ${report.priceNote}`}
        {report.accountedUntil !== null && <Counted totals={report.totals} until={report.accountedUntil} end={bounds[1]} />}
      </p>
    </div>
  );
}

function recordedInPart(since: string | undefined): string {
  return since === undefined ? "" : `Usage is recorded from ${since.slice(0, 10)} on: of the period before only a part is compared. `;
}

/** The first and the last of whole days. */
function daysOf([start, end]: readonly [number, number]): string {
  const [first, last] = [start, end - 1].map((at) => new Date(at).toISOString().slice(0, 10));
  return first === last ? first! : `${first} to ${last}`;
}

interface ChoiceProps {
  readonly label: string;
  readonly name: string;
  readonly chosen: { readonly word: string };
  readonly options: readonly { readonly word: string; readonly label: string }[];
  readonly query: URLSearchParams;
}

function Choice({ label, name, chosen, options, query }: ChoiceProps) {
  return (
    <nav class="switch" aria-label={label}>
      {options.map(({ word, label: text }) => (
        <Link key={word} to={usageUrl(query, name, word)} aria-current={word === chosen.word ? "true" : undefined}>
          {text}
        </Link>
      ))}
    </nav>
  );
}

/** GPU-hours in the days that are over and in the period before. */
interface Pair extends Omit<Compared, "row"> {
  /** Usage began to be recorded within the period before: how it changed is not known. */
  readonly isPartial: boolean;
}

/** Those of all rows; undefined where no day is over, or where nothing is recorded of the period before, so that nothing is compared. */
type Totals = Pair | undefined;

function Lead({ report, totals: sums }: { readonly report: UsageReport; readonly totals: Totals }) {
  const { totals, currency } = report;
  const share = idleShare(totals);
  return (
    <p class="lead">
      <strong>{gpuHours(totals.allocatedGpuHours)}</strong> GPU-hours allocated
      {sums !== undefined && sums.before > 0 && ` (${change(sums)})`}
      {share !== undefined && (
        <>
          ; <strong>{gpuHours(totals.idleGpuHours ?? 0)}</strong> of them idle ({percent(share)} of what was measured)
        </>
      )}
      {totals.pendingGpuHours > 0 && `; ${gpuHours(totals.pendingGpuHours)} GPU-hours pending`}
      {totals.cost !== null && currency !== null && (
        <>
          ; cost <strong>{money(totals.cost, currency)}</strong>
        </>
      )}
      .
    </p>
  );
}

interface PendingLeadProps {
  readonly data: UsageData;
  /** The filters that list the workloads that are pending now. */
  readonly pendingFilters: readonly Item[];
}

function PendingLead({ data, pendingFilters }: PendingLeadProps) {
  const { report, totals, pending } = data;
  const { pendingGpuHours } = report.totals;
  return (
    <p class="lead">
      {report.accountedUntil === null ? (
        notAccounted(report.totals, "pending")
      ) : pendingGpuHours === 0 ? (
        `No GPU-hours pending in these days${outstanding(data)}`
      ) : (
        <>
          <strong>{gpuHours(pendingGpuHours)}</strong> GPU-hours pending (GPUs requested × time in Pending)
        </>
      )}
      {totals !== undefined && totals.before > 0 && `, ${change(totals)}`}.{" "}
      {pending === 0 && "No workload is pending now."}
      {pending !== undefined && pending > 0 && (
        <>
          <Link to={listUrl(pendingFilters, { sortBy: "phaseUpdatedAt", isDescending: false })}>
            {pending === 1 ? "1 workload is pending now" : `${count(pending)} workloads are pending now`}
          </Link>
          .
        </>
      )}
    </p>
  );
}

/** Before all is counted, for the first time or anew, there may be figures, but not all. */
function notAccounted(totals: UsageReport["totals"], what: string): string {
  if (hasUsage(totals)) return "Usage is being counted, for the first time or again: these figures are not complete";
  return `No usage is recorded yet: the first ${what} GPU-hours appear within 15 minutes`;
}

/** What is still to be counted of days that are not over. */
function outstanding({ bounds }: UsageData): string {
  return bounds[1] > serverNow() ? "; the newest ten minutes are not counted yet" : "";
}

interface CountedProps {
  readonly totals: UsageReport["totals"];
  readonly until: string;
  /** Of the period, in milliseconds. */
  readonly end: number;
}

function minuteOf(instant: string): string {
  return instant.slice(0, 16).replace("T", " ");
}

/** What is not counted, or not yet. */
function Counted({ totals, until, end }: CountedProps) {
  const silent = staleClusters(useClusters().data ?? []).filter(({ lastContactAt }) => Date.parse(lastContactAt ?? "") < end);
  return (
    <>
      {" "}
      · Counted up to {minuteOf(until)} UTC.
      {silent.map(({ id, name, state, lastContactAt }) => (
        <strong key={id}>
          {" "}
          {name} is {state}: its hours are counted up to its last contact at most, {minuteOf(lastContactAt!)} UTC, until its agent is back.
        </strong>
      ))}
      {totals.unmeasuredGpuHours > 0 && ` ${gpuHours(totals.unmeasuredGpuHours)} GPU-hours were not measured.`}
      {totals.gapGpuHours > 0 && ` Not counted: ${gpuHours(totals.gapGpuHours)} GPU-hours when no agent observed the cluster.`}
    </>
  );
}

interface TableProps {
  readonly report: UsageReport;
  readonly rows: readonly Compared[];
  readonly totals: Totals;
  readonly question: Question;
  readonly named: readonly string[];
  readonly query: URLSearchParams;
}

function UsageTable({ report, rows, totals: sums, question, named, query }: TableProps) {
  const { currency, totals, accountedUntil } = report;
  const { group, measure, only } = question;
  if (rows.length === 0) return accountedUntil === null ? null : <p class="muted">{nothingOf(only)}</p>;
  return (
    <div class="scroll-x">
      <table class="small-table wide" aria-label={`GPU-hours by ${group.label}`}>
        <thead>
          <tr>
            <th scope="col">{group.label[0]!.toUpperCase() + group.label.slice(1)}</th>
            {numbersOf(totals, measure, currency).map(([label]) => (
              <th key={label} scope="col" class="is-number">
                {label}
              </th>
            ))}
            <th scope="col" class="is-number" title={`GPU-hours ${measure.label} in the period before, and the change since`}>
              Before
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, ROWS_SHOWN).map(({ row, now, before }, index) => (
            <tr key={index}>
              <th scope="row">
                <span class={`usage-key ${partClass(index < named.length ? index : -1)}`} aria-hidden="true" />
                <Name row={row} group={group} />
                {group.word !== "workload" && <ByWorkload group={group} value={row.group[group.word] ?? ""} query={query} />}
              </th>
              <Numbers row={row} measure={measure} currency={currency} />
              <Before pair={sums && { now, before, isPartial: sums.isPartial }} />
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">All</th>
            <Numbers row={totals} measure={measure} currency={currency} />
            <Before pair={sums} />
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

function nothingOf(only: Narrowing): string {
  const whose = only.map(([word, value]) => {
    if (value === "") return `with ${narrowed([word, value])} `;
    return word === "project" ? `of a project named ${value} that you can see ` : `of ${narrowed([word, value])} `;
  });
  return `No workload ${whose.join("and ")}used or requested anything in this period.`;
}

function Before({ pair }: { readonly pair: Totals }) {
  if (pair === undefined) return <td class="is-number">–</td>;
  const change = pair.isPartial ? undefined : changeOf(pair.now, pair.before);
  return (
    <td class="is-number">
      {gpuHours(pair.before)} {change !== undefined && <span class="muted">{change}</span>}
    </td>
  );
}

type Figures = Omit<UsageRow, "group">;

/** The columns of numbers with their labels: what was asked for comes first, so that a narrow screen shows it. */
function numbersOf(row: Figures, measure: Measure, currency: string | null): (readonly [string, string])[] {
  const share = idleShare(row);
  const figures: Record<string, readonly [string, string]> = {
    allocated: ["Allocated GPU-hours", gpuHours(row.allocatedGpuHours)],
    idle: ["Idle", row.idleGpuHours === null ? "not measured" : gpuHours(row.idleGpuHours)],
    share: ["Idle %", share === undefined ? "–" : percent(share)],
    pending: ["Pending GPU-hours", gpuHours(row.pendingGpuHours)],
  };
  const { [measure.word]: first, ...others } = figures;
  return [
    first!,
    ...Object.values(others),
    ["CPU core-hours", gpuHours(row.cpuCoreHours)],
    ...(currency === null ? [] : [[currency, row.cost === null ? "–" : amount(row.cost)] as const]),
  ];
}

interface NumbersProps {
  readonly row: Figures;
  readonly measure: Measure;
  readonly currency: string | null;
}

function Numbers({ row, measure, currency }: NumbersProps) {
  return (
    <>
      {numbersOf(row, measure, currency).map(([label, cell]) => (
        <td key={label} class="is-number">
          {cell}
        </td>
      ))}
    </>
  );
}

function nameOf(row: UsageRow, group: UsageGroup): string {
  return row.group[group.word] ?? "–";
}

function Name({ row, group }: { readonly row: UsageRow; readonly group: UsageGroup }) {
  const clusters = useClusters();
  const value = row.group[group.word];
  if (value === null || value === undefined) return <span class="muted">no {group.label}</span>;
  const id = row.group["workloadId"];
  if (typeof id === "string") return <Link to={`/workloads/${encodeURIComponent(id)}`}>{value}</Link>;
  const filters = workloadFilters([[group.word, value]], clusterIdIn(clusters));
  return filters === undefined ? <span>{value}</span> : <Link to={listUrl(filters)}>{value}</Link>;
}

interface ByWorkloadProps {
  readonly group: UsageGroup;
  readonly value: string;
  readonly query: URLSearchParams;
}

/** The workloads behind a row, those that are long gone too. */
function ByWorkload({ group, value, query }: ByWorkloadProps) {
  const changed = new URLSearchParams(query);
  changed.set(group.word, value);
  changed.set("by", "workload");
  return (
    <>
      {" "}
      <Link class="muted" to={`/usage?${changed}`} aria-label={`${value === "" ? narrowed([group.word, value]) : value} by workload`}>
        by workload
      </Link>
    </>
  );
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

function change({ now, before: previous, isPartial }: Pair): string {
  const by = Math.round(100 * (now / previous - 1));
  if (isPartial) return `${gpuHours(previous)} in the recorded part of the period before`;
  if (by === 0) return "as much as in the period before";
  if (by >= 1000) return `${gpuHours(previous)} in the period before`;
  return `${count(Math.abs(by))} % ${by > 0 ? "more" : "less"} than in the period before`;
}

function money(value: number, currency: string): string {
  return `${amount(value)} ${currency}`;
}
