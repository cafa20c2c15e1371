/** Usage: who used how many GPU-hours over days, how many were idle, what they cost; and how many were pending. */

import { countWorkloads, getUsage, usageCsvUrl } from "../api/routes";
import { serverNow } from "../api/server_clock";
import type { UsageReport, UsageRow } from "../api/shapes";
import { useClusters } from "../clusters/context";
import { NoClusters } from "../clusters/no_clusters";
import { EmptyState, ErrorState, Skeleton, StaleBar } from "../components/placeholders";
import { useLiveQuery } from "../hooks/live_query";
import { count, decimal, gpuHours } from "../model/format";
import { nearest } from "../model/suggest";
import { DEFAULT_VIEW, listUrl, type View } from "../model/view";
import { Link, useRoute } from "../router";
import { Days, partClass } from "./days";
import {
  before,
  idleShare,
  MEASURES,
  measureOf,
  PERIODS,
  periodOf,
  USAGE_GROUPS,
  usageGroupOf,
  usageTitle,
  type Measure,
  type Period,
  type UsageGroup,
} from "./periods";

const EVERY_MS = 60_000;
const NAMED = 6;
const ROWS_SHOWN = 100;

/** What an address asks for. `project` undefined = of all. */
interface Question {
  readonly period: Period;
  readonly group: UsageGroup;
  readonly measure: Measure;
  readonly project: string | undefined;
}

async function fetchUsage({ period, group, measure, project }: Question, signal: AbortSignal) {
  const bounds = period.bounds(serverNow());
  const [report, days, previous, pending] = await Promise.all([
    getUsage({ bounds, groups: [group.word], project }, signal),
    getUsage({ bounds, groups: [group.word, "day"], project }, signal),
    getUsage({ bounds: before(bounds, period), groups: [], project }, signal),
    measure.word === "pending" ? countWorkloads(pendingView(project), [], signal) : undefined,
  ]);
  const rows = [...report.rows].sort((a, b) => measure.of(b) - measure.of(a));
  return { report: { ...report, rows }, days: days.rows, previous: previous.totals, pending, bounds };
}

const PENDING = ["phase", "==", "Pending"] as const;

function pendingItems(project: string | undefined): (readonly [string, string, string])[] {
  return project === undefined ? [PENDING] : [PENDING, ["projectName", "==", project]];
}

function pendingView(project: string | undefined): View {
  const filters = pendingItems(project).map(([field, operator, value]) => ({ field, operator, value }));
  return { ...DEFAULT_VIEW, isAll: true, filters };
}

export function UsagePage() {
  const { query } = useRoute();
  const period = periodOf(query.get("period"));
  const group = usageGroupOf(query.get("by"));
  const measure = measureOf(query.get("show"));
  const project = query.get("project") ?? undefined;
  if (period === undefined) return <Unknown what="period" word={query.get("period")!} options={PERIODS} name="period" />;
  if (group === undefined) return <Unknown what="group" word={query.get("by")!} options={USAGE_GROUPS} name="by" />;
  if (measure === undefined) return <Unknown what="figure" word={query.get("show")!} options={MEASURES} name="show" />;
  return <Report query={query} question={{ period, group, measure, project }} />;
}

interface UnknownProps {
  readonly what: string;
  readonly word: string;
  /** The parameter of the address. */
  readonly name: string;
  readonly options: ChoiceProps["options"];
}

/** An address is refused with words, as the API and the command line do. */
function Unknown({ what, word, name, options }: UnknownProps) {
  const { query } = useRoute();
  const meant = nearest(word, options.map((option) => option.word));
  const to = (chosen: string): string => usageUrl(query, name, chosen);
  return (
    <EmptyState title={`There is no ${what} “${word}”`}>
      {meant !== undefined && (
        <p>
          Did you mean <Link to={to(meant)}>{meant}</Link>?
        </p>
      )}
      <p>
        There are{" "}
        {options.map((option, index) => (
          <>
            {index > 0 && ", "}
            <Link to={to(option.word)}>{option.word}</Link>
          </>
        ))}
        .
      </p>
    </EmptyState>
  );
}

function usageUrl(query: URLSearchParams, name: string, word: string | undefined): string {
  const changed = new URLSearchParams(query);
  if (word === undefined) changed.delete(name);
  else changed.set(name, word);
  return `/usage?${changed}`;
}

interface ReportProps {
  readonly query: URLSearchParams;
  readonly question: Question;
}

function Report({ query, question }: ReportProps) {
  const { period, group, measure, project } = question;
  const key = `usage ${group.word} ${period.word} ${measure.word} ${project ?? ""}`;
  const { data, error, at, refresh } = useLiveQuery(key, (signal) => fetchUsage(question, signal), EVERY_MS);
  const clusters = useClusters();
  if (clusters.data?.length === 0) return <NoClusters />;
  if (data === undefined)
    return error === undefined ? <Skeleton rows={10} /> : <ErrorState error={error} retry={refresh} />;
  const { report, bounds } = data;
  const named = report.rows.slice(0, NAMED).map((row) => nameOf(row, group));
  return (
    <div class="page usage">
      <h1 class="off-screen">{usageTitle(query)}</h1>
      <StaleBar error={error} at={at} retry={refresh} />
      <div class="usage-choices">
        <Choice label="GPU-hours" name="show" chosen={measure} options={MEASURES} query={query} />
        <Choice label="Period" name="period" chosen={period} options={PERIODS} query={query} />
        <Choice label="Group by" name="by" chosen={group} options={USAGE_GROUPS} query={query} />
        {project !== undefined && (
          <span class="chip">
            <span class="chip-text">project {project}</span>
            <Link class="chip-remove" to={usageUrl(query, "project", undefined)} aria-label={`All projects, not ${project} alone`}>
              ×
            </Link>
          </span>
        )}
      </div>
      {measure.word === "pending" ? (
        <PendingLead report={report} previous={data.previous} pending={data.pending ?? 0} project={project} />
      ) : (
        <Lead report={report} previous={data.previous.allocatedGpuHours} />
      )}
      <Days days={data.days} group={group} measure={measure} named={named} bounds={bounds} />
      <UsageTable report={report} group={group} named={named} query={query} project={project} />
      <p class="muted">
        {report.rows.length > ROWS_SHOWN && `${ROWS_SHOWN} of ${count(report.rows.length)} rows. `}
        {report.next !== undefined && "There are more groups than one answer holds: those with the fewest allocated GPU-hours are left out. "}
        <a href={usageCsvUrl({ bounds, groups: [group.word], project })} download>
          CSV
        </a>{" "}
        ·{" "}
        <a href={usageCsvUrl({ bounds, groups: [group.word, "day"], project })} download>
          CSV by day
        </a>{" "}
        · <Counted report={report} />
      </p>
    </div>
  );
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

function Lead({ report, previous }: { readonly report: UsageReport; readonly previous: number }) {
  const { totals, currency } = report;
  const share = idleShare(totals);
  return (
    <p class="lead">
      <strong>{gpuHours(totals.allocatedGpuHours)}</strong> GPU-hours allocated
      {previous > 0 && ` (${change(totals.allocatedGpuHours, previous)} the period before)`}
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
  readonly report: UsageReport;
  readonly previous: UsageReport["totals"];
  /** Workloads that are pending now. */
  readonly pending: number;
  readonly project: string | undefined;
}

function PendingLead({ report, previous, pending, project }: PendingLeadProps) {
  const { pendingGpuHours } = report.totals;
  return (
    <p class="lead">
      <strong>{gpuHours(pendingGpuHours)}</strong> GPU-hours pending (GPUs requested × time in Pending)
      {previous.pendingGpuHours > 0 && `, ${change(pendingGpuHours, previous.pendingGpuHours)} the period before`}.{" "}
      {pending === 0 ? (
        "No workload is pending now."
      ) : (
        <>
          <Link to={listUrl(pendingItems(project), { sortBy: "phaseUpdatedAt", isDescending: false })}>
            {pending === 1 ? "1 workload is pending now" : `${count(pending)} workloads are pending now`}
          </Link>
          .
        </>
      )}
    </p>
  );
}

/** What is not counted, or not yet. */
function Counted({ report }: { readonly report: UsageReport }) {
  const { accountedUntil, totals } = report;
  if (accountedUntil === null) return <>Nothing is accounted yet; the first figures come within 15 minutes.</>;
  return (
    <>
      Counted up to {accountedUntil.slice(0, 16).replace("T", " ")} UTC.
      {totals.unmeasuredGpuHours > 0 && ` ${gpuHours(totals.unmeasuredGpuHours)} GPU-hours were not measured.`}
      {totals.gapGpuHours > 0 && ` Not counted: ${gpuHours(totals.gapGpuHours)} GPU-hours when no agent observed the cluster.`}
    </>
  );
}

interface TableProps {
  readonly report: UsageReport;
  readonly group: UsageGroup;
  readonly named: readonly string[];
  readonly query: URLSearchParams;
  /** Whose alone it is. */
  readonly project: string | undefined;
}

function UsageTable({ report, group, named, query, project }: TableProps) {
  const { currency, totals } = report;
  if (report.rows.length === 0)
    return report.accountedUntil === null ? null : (
      <p class="muted">
        {project === undefined
          ? "No workload used or requested anything in this period."
          : `No workload of a project named ${project} that you can see used or requested anything in this period.`}
      </p>
    );
  return (
    <div class="scroll-x">
      <table class="small-table wide">
        <thead>
          <tr>
            <th scope="col">{group.label[0]!.toUpperCase() + group.label.slice(1)}</th>
            <th scope="col" class="is-number">Allocated GPU-hours</th>
            <th scope="col" class="is-number">Idle</th>
            <th scope="col" class="is-number">Idle %</th>
            <th scope="col" class="is-number">Pending</th>
            <th scope="col" class="is-number">CPU core-hours</th>
            {currency !== null && <th scope="col" class="is-number">{currency}</th>}
          </tr>
        </thead>
        <tbody>
          {report.rows.slice(0, ROWS_SHOWN).map((row, index) => (
            <tr key={index}>
              <th scope="row">
                {index < named.length && <span class={`usage-key ${partClass(index)}`} aria-hidden="true" />}
                <Name row={row} group={group} />
                {group.word === "project" && project === undefined && <ByWorkload project={row.group["project"]} query={query} />}
              </th>
              <Numbers row={row} currency={currency} />
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">All</th>
            <Numbers row={totals} currency={currency} />
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

function Numbers({ row, currency }: { readonly row: Omit<UsageRow, "group">; readonly currency: string | null }) {
  const share = idleShare(row);
  const cells = [
    gpuHours(row.allocatedGpuHours),
    row.idleGpuHours === null ? "not measured" : gpuHours(row.idleGpuHours),
    share === undefined ? "–" : percent(share),
    gpuHours(row.pendingGpuHours),
    gpuHours(row.cpuCoreHours),
    ...(currency === null ? [] : [row.cost === null ? "–" : decimal(row.cost)]),
  ];
  return (
    <>
      {cells.map((cell, index) => (
        <td key={index} class="is-number">
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
  const value = row.group[group.word];
  if (value === null || value === undefined) return <span class="muted">no {group.label}</span>;
  const id = row.group["workloadId"];
  if (typeof id === "string") return <Link to={`/workloads/${encodeURIComponent(id)}`}>{value}</Link>;
  if (group.field === "") return <span>{value}</span>;
  return <Link to={listUrl([[group.field, "==", value]])}>{value}</Link>;
}

/** The same report of one project alone. */
function ByWorkload({ project, query }: { readonly project: string | null | undefined; readonly query: URLSearchParams }) {
  if (project === null || project === undefined) return null;
  const changed = new URLSearchParams(query);
  changed.set("project", project);
  changed.set("by", "workload");
  return (
    <>
      {" "}
      <Link class="muted" to={`/usage?${changed}`} aria-label={`${project} by workload`}>
        by workload
      </Link>
    </>
  );
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

function change(now: number, previous: number): string {
  const by = Math.round(100 * (now / previous - 1));
  if (by === 0) return "as much as in";
  if (by >= 1000) return `${gpuHours(previous)} in`;
  return by > 0 ? `${count(by)} % more than in` : `${count(-by)} % less than in`;
}

function money(value: number, currency: string): string {
  return `${decimal(value)} ${currency}`;
}
