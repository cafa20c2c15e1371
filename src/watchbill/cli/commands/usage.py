"""`usage`: GPU-hours over days, by project, owner or any other group."""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.options import parse_moment, parse_span
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import STALE_STATES, note_no_cluster
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import format_count
from watchbill.cli.output.terminal import DOCUMENTS, AnswerFormat, Cell, table_lines
from watchbill.errors import Invalid

if TYPE_CHECKING:
    from watchbill.query import UsageSort
    from watchbill.responses.usage import UsageFigures, UsageReport, UsageRow

TABLE_ROWS = 50
_DAY = timedelta(days=1)
_HOW_TO_WRITE = "write 30d, 4w or 2026-11-01"
NOT_YET = "No usage is recorded yet; the first figures appear within 15 minutes."
NOT_COMPLETE = (
    "Usage is being counted, for the first time or again: these figures are not complete."
)
_TIMES = frozenset({"day", "week", "month"})


class SortBy(StrEnum):
    """The figure of which the groups with the most come first."""

    ALLOCATED = "allocated"
    REQUESTED = "requested"
    IDLE = "idle"
    PENDING = "pending"
    COST = "cost"


_SORTS: dict[SortBy, "UsageSort"] = {
    SortBy.ALLOCATED: "allocatedGpuHours",
    SortBy.REQUESTED: "requestedGpuHours",
    SortBy.IDLE: "idleGpuHours",
    SortBy.PENDING: "pendingGpuHours",
    SortBy.COST: "cost",
}


class UsageFormat(StrEnum):
    """How to print a report."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole days of a report, and the period before them."""

    now: "UsageReport"
    before: "UsageReport"

    @property
    def is_partial(self) -> bool:
        """Whether usage began to be recorded within the period before."""
        since = self.before.recorded_since
        return since is not None and self.before.start <= since < self.before.end


def _moment(option: str, text: str) -> datetime:
    """The first of so many days, the last of which is today (`30d`, `4w`), or a date. Raises Invalid."""
    now, span = datetime.now(UTC), parse_span(text)
    if span is None:
        return parse_moment(option, text, now, hint=_HOW_TO_WRITE)
    if span < _DAY:
        raise Invalid(f"{option} must be whole days, got '{text}'.", details=_HOW_TO_WRITE)
    return now - span + _DAY


def _group(word: str) -> str:
    """The API's name of a group that is written as other commands write it: `nodepool`, `gpu-type`."""
    from watchbill.query import USAGE_GROUPS

    names = {name.lower(): name for name in USAGE_GROUPS} | {"gputype": "gpuModel"}
    return names.get(word.strip().lower().replace("-", ""), word.strip())


@server_command
async def usage(
    session: CommandContext,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="GROUP[,GROUP…]",
            help="Up to three of cluster, department, project, owner, namespace, type, category, nodePool, "
            "gpuModel, priorityClass, workload, day, week, month; also written node-pool, gpu-type and so on.",
        ),
    ] = "project",
    since: Annotated[
        str, typer.Option("--since", metavar="AGO|DATE", help="First day: 30d, 4w or 2026-11-01.")
    ] = "30d",
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="AGO|DATE",
            help="First day that is not counted, as in --since.  [default: tomorrow]",
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="GROUP OP VALUE",
            help="Only these, such as 'project==vision' or 'owner=@example.com'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    sort_by: Annotated[
        SortBy,
        typer.Option(
            "--sort-by",
            help="The figure whose largest come first; days, weeks and months stay in order.",
        ),
    ] = SortBy.ALLOCATED,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also the allocated GPU-hours of the period before: from the first of a month on the same "
            "days of the month before it, whole months with whole ones, else as many days. A day that is "
            "not over is compared with none.",
        ),
    ] = False,
    output: Annotated[
        UsageFormat, typer.Option("--output", "-o", help="How to print.")
    ] = UsageFormat.TABLE,
    no_headers: options.NoHeaders = False,
) -> None:
    """Report who used how many GPU-hours, and how many of them were idle.

    Days are UTC days. Deleted workloads count too. All hours are GPU-hours, except CORE-HOURS and
    GIB-HOURS. IDLE-HOURS is `?` where it was not measured; PENDING-HOURS counts the GPUs that pending
    workloads requested.
    """
    groups = [_group(name) for name in by.split(",") if name.strip()]
    if compare:
        _check_comparison(groups, output)
    start = _moment("--since", since)
    end = None if until is None else _moment("--until", until)
    report = await session.client.usage(
        start=start, end=end, groups=groups, filters=filters or (), sort_by=_SORTS[sort_by]
    )
    is_compared = compare and report.accounted_until is not None
    comparison = (
        await _compare(session, report, groups, filters or (), by_months=parse_span(since) is None)
        if is_compared
        else None
    )
    if output is UsageFormat.CSV:
        session.terminal.write(_csv(groups, report, comparison))
        if report.accounted_until is None:
            session.terminal.note(_not_accounted(report))
        if report.price_note is not None:
            session.terminal.note(f"Prices: {report.price_note}")
        await _note_silent_clusters(session, report)
        return
    if output not in (UsageFormat.TABLE, UsageFormat.WIDE):
        session.terminal.write(DOCUMENTS[AnswerFormat(output.value)](report))
        return
    is_wide = output is UsageFormat.WIDE
    _print_table(session, report, groups, comparison, no_headers=no_headers, is_wide=is_wide)
    _print_notes(session, report, comparison)
    await _note_silent_clusters(session, report)


async def _compare(
    session: CommandContext,
    report: "UsageReport",
    groups: list[str],
    filters: Sequence[str],
    *,
    by_months: bool,
) -> Comparison:
    """Whole days with whole days: one that is not counted to its end has none to be compared with."""
    now = report
    counted = (report.accounted_until or report.end).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    if counted < report.end:
        if counted <= report.start:
            usage_error(
                "--compare needs a complete day, and none of these is complete yet.",
                hint="begin earlier with --since",
            )
        now = await session.client.usage(
            start=report.start, end=counted, groups=groups, filters=filters
        )
    start, end = _period_before(now.start, now.end, by_months=by_months)
    before = await session.client.usage(start=start, end=end, groups=groups, filters=filters)
    return Comparison(now, before)


def _csv(groups: list[str], report: "UsageReport", comparison: Comparison | None) -> bytes:
    from watchbill.responses.usage import usage_table
    from watchbill.tabular import rows_as_csv

    if comparison is None:
        return rows_as_csv(usage_table(groups, report.rows))
    listed = _beside(report.rows, comparison)
    header, *lines = usage_table(groups, [row for row, _, _ in listed])
    header += ["comparedGpuHours", "gpuHoursBefore"]
    for line, (_, now, before) in zip(lines, listed, strict=True):
        line += [now, before if _has_usage(comparison.before.totals) else None]
    return rows_as_csv([header, *lines])


def _check_comparison(groups: list[str], output: UsageFormat) -> None:
    """Raises Invalid."""
    if output in (UsageFormat.JSON, UsageFormat.YAML):
        usage_error(
            "--compare prints a table or CSV.", hint="ask for each period with --since and --until"
        )
    if times := _TIMES & {*groups}:
        usage_error(f"--compare cannot compare one {min(times)} with another period's.")


def _period_before(start: datetime, end: datetime, *, by_months: bool) -> tuple[datetime, datetime]:
    """What days are compared with. By months: those that begin on the first of a month with the same days as
    many months earlier, whole months with whole ones. Else as many days just before."""
    if not by_months or start.day != 1:
        return start - (end - start), start
    last = end - _DAY
    months = 12 * (last.year - start.year) + last.month - start.month + 1
    if end.day == 1:
        return _months_earlier(start, months), start
    return _months_earlier(start, months), _months_earlier(last, months) + _DAY


def _months_earlier(at: datetime, months: int) -> datetime:
    """The same day of an earlier month, or its last one."""
    year, month = divmod(12 * at.year + at.month - 1 - months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))


def _print_table(
    session: CommandContext,
    report: "UsageReport",
    groups: list[str],
    comparison: Comparison | None,
    *,
    no_headers: bool,
    is_wide: bool,
) -> None:
    has_cost = report.currency is not None
    headers = header_row(*groups, *_COLUMNS)
    headers += [report.currency or ""] if has_cost else []
    headers += header_row(*_WIDE) if is_wide else []
    headers += header_row("hoursBefore", "change") if comparison is not None else []
    listed = _beside(report.rows, comparison)
    rows: list[list[Cell | str]] = [
        [
            *(row.group.get(name) or "-" for name in groups),
            *_cells(row, has_cost=has_cost),
            *(_more_cells(row) if is_wide else ()),
            *(() if comparison is None else _compared_cells(comparison, now, before)),
        ]
        for row, now, before in listed[:TABLE_ROWS]
    ]
    if rows and groups:
        for line in table_lines(None if no_headers else headers, rows, session.terminal):
            session.terminal.print(line)
    if len(listed) > TABLE_ROWS:
        session.terminal.note(
            f"{TABLE_ROWS} of {format_count(len(listed))} rows shown (-o csv for all)."
        )


def _beside(
    rows: "Sequence[UsageRow]", comparison: Comparison | None
) -> "list[tuple[UsageRow, float, float]]":
    """Each row with the GPU-hours of its group in the whole days and in the period before; who held GPUs
    then alone follows."""
    import msgspec

    from watchbill.responses.usage import NO_USAGE

    if comparison is None:
        return [(row, 0.0, 0.0) for row in rows]
    now, before = (
        {_key(row): row.allocated_gpu_hours for row in report.rows}
        for report in (comparison.now, comparison.before)
    )
    listed = {_key(row) for row in rows}
    ended = [
        msgspec.structs.replace(NO_USAGE, group=was.group)
        for was in comparison.before.rows
        if was.allocated_gpu_hours and _key(was) not in listed
    ]
    return [(row, now.get(_key(row), 0.0), before.get(_key(row), 0.0)) for row in (*rows, *ended)]


def _key(row: "UsageRow") -> tuple[tuple[str, str | None], ...]:
    return tuple(sorted(row.group.items()))


def _compared_cells(comparison: Comparison, now: float, before: float) -> list[str]:
    """No 0 where nothing at all is recorded of the period before, no change where only a part of it is."""
    if not _has_usage(comparison.before.totals):
        return ["-", "-"]
    hours, share = _change(now, before)
    return [hours, "-" if comparison.is_partial else share]


def _change(now: float, before: float) -> list[str]:
    """The change as the page writes it: a factor from eleven times on; none beyond a hundredfold."""
    if before <= 0 or now >= 100 * before:
        share = "-"
    elif now >= 11 * before:
        share = f"{now / before:.0f} times"
    else:
        share = f"{100 * (now / before - 1):+.0f}%"
    return [f"{before:,.1f}", share]


def _print_notes(
    session: CommandContext,
    report: "UsageReport",
    comparison: Comparison | None,
) -> None:
    """Of all rows together, and of what is not counted. Before all is accounted no sum is known: no 0."""
    if report.accounted_until is None:
        session.terminal.note(_not_accounted(report))
        return
    totals = report.totals
    days = f"from {report.start:%Y-%m-%d} to {report.end - _DAY:%Y-%m-%d}"
    if totals.allocated_gpu_hours:
        idle = _hours(totals.idle_gpu_hours)
        session.terminal.note(
            f"{totals.allocated_gpu_hours:,.1f} GPU-hours allocated {days}, {idle} of them idle."
        )
    else:
        held = "allocated" if totals.pending_gpu_hours else "allocated or requested"
        session.terminal.note(f"No GPU was {held} {days}.")
    if comparison is not None:
        _print_comparison(session, report, comparison)
    if report.price_note is not None:
        session.terminal.note(f"Prices: {report.price_note}")
    if report.currency is not None and round(totals.unpriced_gpu_hours, 1):
        session.terminal.note(f"{totals.unpriced_gpu_hours:,.1f} GPU-hours have no price.")
    if round(totals.unmeasured_gpu_hours, 1):
        session.terminal.note(f"{totals.unmeasured_gpu_hours:,.1f} GPU-hours were not measured.")
    if round(totals.gap_gpu_hours, 1):
        session.terminal.note(
            f"Not counted: {totals.gap_gpu_hours:,.1f} GPU-hours in times when no agent observed the cluster."
        )
    session.terminal.note(f"Counted up to {report.accounted_until:%Y-%m-%d %H:%M} UTC.")


async def _note_silent_clusters(session: CommandContext, report: "UsageReport") -> None:
    """Their hours end with their last contact, whatever is counted of others."""
    clusters = await session.client.clusters()
    note_no_cluster(session.terminal, clusters)
    if report.accounted_until is None:
        return
    for cluster in clusters:
        seen = cluster.last_contact_at
        if cluster.state in STALE_STATES and seen is not None and seen < report.end:
            session.terminal.note(
                f"note: cluster {cluster.name} is {cluster.state}: its hours are counted up to its last "
                f"contact at most, {seen:%Y-%m-%d %H:%M} UTC, until its agent is back."
            )


def _not_accounted(report: "UsageReport") -> str:
    """Where nothing says how far usage is counted there may be figures: a count is under way."""
    return NOT_COMPLETE if any(_has_usage(row) for row in report.rows) else NOT_YET


def _has_usage(row: "UsageFigures") -> bool:
    return bool(row.allocated_gpu_hours or row.pending_gpu_hours or row.cpu_core_hours)


def _print_comparison(
    session: CommandContext, report: "UsageReport", comparison: Comparison
) -> None:
    now, before = comparison.now, comparison.before
    hours, share = _change(now.totals.allocated_gpu_hours, before.totals.allocated_gpu_hours)
    days = f"from {before.start:%Y-%m-%d} to {before.end - _DAY:%Y-%m-%d}"
    if not before.totals.allocated_gpu_hours:
        none = "none" if _has_usage(before.totals) else "no usage is recorded"
        session.terminal.note(f"Before, {days}: {none}.")
        return
    change = "" if share == "-" or comparison.is_partial else f" ({share} since)"
    session.terminal.note(f"Before, {days}: {hours}{change}.")
    if comparison.is_partial and before.recorded_since is not None:
        session.terminal.note(
            f"Usage is recorded from {before.recorded_since:%Y-%m-%d} on: of the period before only a part "
            "is compared."
        )
    if now.end < report.end:
        session.terminal.note(
            f"Compared with {now.totals.allocated_gpu_hours:,.1f} up to {now.end - _DAY:%Y-%m-%d}, "
            "the last complete day."
        )


def _cells(figures: "UsageFigures", *, has_cost: bool) -> list[Cell | str]:
    measured = figures.allocated_gpu_hours - figures.unmeasured_gpu_hours
    idle = figures.idle_gpu_hours
    share = f"{100 * idle / measured:.0f}" if idle is not None and measured > 0 else "-"
    cells: list[Cell | str] = [
        f"{figures.allocated_gpu_hours:,.1f}",
        _hours(idle),
        share,
        f"{figures.pending_gpu_hours:,.1f}",
    ]
    return [*cells, "-" if figures.cost is None else f"{figures.cost:,.2f}"] if has_cost else cells


_COLUMNS = ("allocatedGpuHours", "idleGpuHours", "idleShare", "pendingGpuHours")
_WIDE = (
    *("requestedGpuHours", "busyGpuHours", "unmeasuredGpuHours", "gapGpuHours"),
    *("cpuCoreHours", "memoryGibHours", "unpricedGpuHours"),
)


def _more_cells(figures: "UsageFigures") -> list[str]:
    return [
        _hours(value)
        for value in (
            figures.requested_gpu_hours,
            figures.busy_gpu_hours,
            figures.unmeasured_gpu_hours,
            figures.gap_gpu_hours,
            figures.cpu_core_hours,
            figures.memory_gib_hours,
            figures.unpriced_gpu_hours,
        )
    ]


def _hours(value: float | None) -> str:
    return "?" if value is None else f"{value:,.1f}"
