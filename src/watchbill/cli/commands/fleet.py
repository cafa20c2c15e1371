"""`fleet`: GPUs, pending workloads and failures of all that the caller may read, now and over time.

`projects` and `departments`: the same by who may use them, beside their quotas.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import filter_item, find_cluster
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import note_stale
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_bytes,
    format_count,
    format_duration,
    format_number,
    sparkline,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    PHASE_COLOURS,
    AnswerFormat,
    Cell,
    Row,
    TableFormat,
    safe,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.responses.fleet import Fleet, FleetGpus, FleetMoment
    from watchbill.responses.organisation import (
        DepartmentResponse,
        ProjectResponse,
        QuotaStatus,
        UnitResources,
    )

WIDTH = 48
MAX_HOURS = 30 * 24


@dataclass(frozen=True, slots=True)
class _Series:
    """`show` is how a value is written; `unknown` what stands for one that is not known."""

    label: str
    get: "Callable[[FleetMoment], float | None]"
    show: Callable[[float], str] = format_number
    unknown: str = NONE


_SERIES = (
    _Series("GPUs allocated", lambda moment: moment.gpus.allocated),
    _Series("GPUs idle", lambda moment: moment.gpus.idle, unknown=UNKNOWN),
    _Series("pending", lambda moment: moment.pending.count),
    _Series("median wait", lambda moment: moment.pending.median_wait_seconds, format_duration),
    _Series("failed in 24h", lambda moment: moment.failed_in_last_day),
)


@server_command
async def fleet(
    session: CommandContext,
    output: options.Output = AnswerFormat.TABLE,
    hours: Annotated[
        int, typer.Option(min=1, max=MAX_HOURS, help="Hours that the series goes back.")
    ] = 24,
) -> None:
    """Show the fleet's GPUs, pending workloads, their wait and failures, now and over the last hours.

    In the small charts `·` is a time without data.
    """
    end = datetime.now(UTC)
    answer = await session.client.fleet(start=end - timedelta(hours=hours), end=end)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](answer))
        return
    for line in _headline(answer.now):
        session.terminal.print(line)
    phases = sorted(answer.now.phases.items(), key=lambda item: (-item[1], item[0]))
    rows: list[list[Cell | str]] = [
        [Cell(phase, PHASE_COLOURS.get(phase)), format_count(count)] for phase, count in phases
    ]
    if rows:
        session.terminal.print("")
        for line in table_lines(["PHASE", "WORKLOADS"], rows, session.terminal):
            session.terminal.print(line)
    if not answer.series:
        session.terminal.note("No data in this range; a data point is recorded every five minutes.")
        return
    session.terminal.print("")
    charts = list(_charts(answer, end - timedelta(hours=hours), end))
    for line in table_lines([f"LAST {hours}h", "", "NOW", "HIGHEST"], charts, session.terminal):
        session.terminal.print(line)


def _headline(now: "FleetMoment") -> Iterator[str]:
    gpus, pending = now.gpus, now.pending
    total = UNKNOWN if gpus.total is None else format_number(gpus.total)
    yield f"{'GPUs':<16}{format_number(gpus.allocated)} of {total} allocated; {_idle(gpus)}"
    wait = pending.median_wait_seconds
    half = "" if wait is None else f", half of them for more than {format_duration(wait)}"
    yield f"{'pending':<16}{format_count(pending.count)}{half}"
    yield f"{'failed in 24h':<16}{format_count(now.failed_in_last_day)}"
    yield f"{'workloads':<16}{format_count(now.workloads)}"


def _idle(gpus: "FleetGpus") -> str:
    if not gpus.allocated:
        return "none idle"
    if gpus.idle is None:
        return "idle GPUs are not measured"
    unmeasured = gpus.allocated - gpus.measured
    rest = f" ({format_number(unmeasured)} are not measured)" if unmeasured > 0 else ""
    return f"{format_number(gpus.idle)} idle{rest}"


def _charts(answer: "Fleet", start: datetime, end: datetime) -> Iterator[list[str]]:
    for series in _SERIES:
        values = _values(answer, series, start, end)
        now = series.get(answer.now)
        known = [value for value in (*values, now) if value is not None]
        yield [
            series.label,
            sparkline(values, width=WIDTH),
            series.unknown if now is None else series.show(now),
            series.show(max(known)) if known else NONE,
        ]


def _values(answer: "Fleet", series: _Series, start: datetime, end: datetime) -> list[float | None]:
    """The series over the whole range, with a gap where no moment was recorded."""
    step = timedelta(seconds=answer.step_seconds)
    values: list[float | None] = [None] * max(1, round((end - start) / step))
    for moment in answer.series:
        if start <= moment.at <= end:
            values[min(len(values) - 1, (moment.at - start) // step)] = series.get(moment)
    return values


SHOWN = 50
UNLIMITED = "unlimited"
_BYTES_PER_MEGABYTE = 1_000_000
_FIGURES = ("QUOTA", "USED", "ASKED", "RUN", "WAIT", "IDLE")
_WIDE = ("LIMIT", "WEIGHT", "CPU", "MEMORY", "24H", "CLUSTER")
_CSV = (
    *("cluster", "name", "department", "scheduler", "gpuQuota", "gpuAllocated", "gpuRequested"),
    *("gpuAllocatedNonPreemptible", "cpuAllocated", "memoryAllocated", "workloads", "running"),
    *("pending", "idleGpus"),
)
ProjectName = Annotated[
    str | None,
    typer.Argument(
        metavar="PROJECT",
        help="One project, by name: its quotas by node pool.",
        show_default=False,
        autocompletion=options.complete_project,
    ),
]
Output = Annotated[TableFormat, typer.Option("--output", "-o", help="How to print.")]
UnitSearch = Annotated[
    str | None, typer.Option("--search", "-s", help="Text in the project's or department's name.")
]


@server_command
async def projects(
    session: CommandContext,
    name: ProjectName = None,
    output: Output = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    search: UnitSearch = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List projects: GPU quota, used, asked for; workloads that run and wait, GPUs that idle.

    What is not known is a question mark. A namespace that is in no queue has no quota.
    """
    from watchbill.client.organisation import project_list
    from watchbill.errors import NotFound

    filters = [] if name is None else [filter_item("name", name, "==")]
    if cluster is not None:
        filters.append(f"clusterId=={(await find_cluster(session.client, cluster)).id}")
    most = limit or (SHOWN if output in (TableFormat.TABLE, TableFormat.WIDE) else None)
    listed = await project_list(session.client, filters=tuple(filters), search=search, most=most)
    if name is not None and not listed.projects:
        raise NotFound(f"There is no project {name}.", details="`watchbill projects` lists them.")
    if name is not None and output is TableFormat.TABLE:
        clusters = await _names_of_noted(session, listed.projects)
        for project in listed.projects:
            for line in _project_lines(project, clusters):
                session.terminal.print(line)
        return
    await _print(session, listed.projects, output, "projects", has_headers=not no_headers)
    if listed.next_offset is not None:
        session.terminal.note(
            f"The first {format_count(len(listed.projects))}; --limit shows more."
        )


@server_command
async def departments(
    session: CommandContext,
    output: Output = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List departments: GPU quota, used, asked for; workloads that run and wait, GPUs that idle.

    Of a department of which you see only some projects nothing but the name is shown.
    """
    from watchbill.client.organisation import department_list

    filters: tuple[str, ...] = ()
    if cluster is not None:
        filters = (f"clusterId=={(await find_cluster(session.client, cluster)).id}",)
    most = limit or (SHOWN if output in (TableFormat.TABLE, TableFormat.WIDE) else None)
    listed = await department_list(session.client, filters=filters, most=most)
    await _print(session, listed.departments, output, "departments", has_headers=not no_headers)
    if listed.next_offset is not None:
        count = format_count(len(listed.departments))
        session.terminal.note(f"The first {count}; --limit shows more.")


async def _cluster_names(session: CommandContext) -> dict[Any, str]:
    return {cluster.id: cluster.name for cluster in await session.client.clusters()}


async def _names_of_noted(
    session: CommandContext, units: "Sequence[ProjectResponse | DepartmentResponse]"
) -> dict[Any, str]:
    """The clusters' names; which of these units' clusters are silent is said."""
    clusters = await session.client.clusters()
    shown = {unit.cluster_id for unit in units}
    silent = (cluster for cluster in clusters if cluster.id in shown)
    note_stale(session.terminal, silent, session.now(), "figures")
    return {cluster.id: cluster.name for cluster in clusters}


async def _print(
    session: CommandContext,
    units: "Sequence[ProjectResponse | DepartmentResponse]",
    output: TableFormat,
    word: str,
    *,
    has_headers: bool,
) -> None:
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[AnswerFormat(output.value)]({word: units}))
        return
    is_plain = output is TableFormat.TABLE
    if output is TableFormat.CSV:
        from watchbill.tabular import rows_as_csv

        clusters = await _cluster_names(session)
        session.terminal.write(rows_as_csv([_CSV, *(_csv_row(unit, clusters) for unit in units)]))
        return
    clusters = await _names_of_noted(session, units)
    headers = ["PROJECT" if word == "projects" else "DEPARTMENT"]
    headers += ["DEPARTMENT" if word == "projects" else "IN", *_FIGURES]
    headers += [] if is_plain else _WIDE
    rows = [_row(unit, clusters, is_wide=not is_plain) for unit in units]
    for line in table_lines(headers if has_headers else None, rows, session.terminal):
        session.terminal.print(line)
    if not units:
        session.terminal.note(f"No {word} are known to you.")


def _quota_status(unit: "ProjectResponse | DepartmentResponse") -> "QuotaStatus | None":
    return None if unit.status is None else unit.status.quota_status


def _row(
    unit: "ProjectResponse | DepartmentResponse", clusters: dict[Any, str], *, is_wide: bool
) -> Row:
    status, live = _quota_status(unit), unit.workloads
    row: list[Cell | str] = [unit.name, unit.parent.name if unit.parent else NONE, _quota(unit)]
    if status is None or live is None:
        row += [NONE] * 5
    else:
        row += [
            _known(status.allocated.gpu),
            _known(status.requested.gpu),
            format_count(live.running),
            format_count(live.pending),
            _known(live.idle_gpus),
        ]
    if is_wide:
        mean = unit.overtime_data.range24h_data if unit.overtime_data else None
        row += [
            _joined(unit.resources, "limit"),
            _joined(unit.resources, "over_quota_weight"),
            _known(status.allocated.cpu and status.allocated.cpu / 1000) if status else NONE,
            _size(status.allocated.memory) if status else NONE,
            format_number(mean.average_gpu_allocation) if mean else NONE,
            clusters.get(unit.cluster_id, NONE),
        ]
    return row


def _quota(unit: "ProjectResponse | DepartmentResponse") -> str:
    """A queue that says nothing of GPUs, or grants slices of an unknown size, is not without a bound."""
    if unit.total_resources.gpu_quota is not None:
        return format_number(unit.total_resources.gpu_quota)
    quotas = [each.gpu.deserved for each in unit.resources]
    return UNLIMITED if any(quota is not None and quota < 0 for quota in quotas) else NONE


def _joined(resources: "Sequence[UnitResources]", member: str) -> str:
    """Of GPUs, node pool by node pool."""
    return ",".join(_bounded(getattr(each.gpu, member)) for each in resources) or NONE


def _bounded(amount: float | None) -> str:
    if amount is None:
        return NONE
    return UNLIMITED if amount < 0 else format_number(amount)


def _known(figure: float | None) -> str:
    return UNKNOWN if figure is None else format_number(figure)


def _size(megabytes: float | None) -> str:
    return UNKNOWN if megabytes is None else format_bytes(megabytes * _BYTES_PER_MEGABYTE)


def _csv_row(
    unit: "ProjectResponse | DepartmentResponse", clusters: dict[Any, str]
) -> Sequence[Any]:
    status, live = _quota_status(unit), unit.workloads
    figures: Sequence[Any] = [None] * 9
    if status is not None and live is not None:
        figures = (
            *(status.allocated.gpu, status.requested.gpu, status.allocated_non_preemptible.gpu),
            *(status.allocated.cpu, status.allocated.memory),
            *(live.total, live.running, live.pending, live.idle_gpus),
        )
    return (
        *(clusters.get(unit.cluster_id, str(unit.cluster_id)), unit.name),
        *(unit.parent.name if unit.parent else None, unit.scheduler),
        *(unit.total_resources.gpu_quota, *figures),
    )


def _project_lines(project: "ProjectResponse", clusters: dict[Any, str]) -> Iterator[str]:
    status = project.status.quota_status
    live = project.workloads
    message = f" ({project.status.phase_message})" if project.status.phase_message else ""
    facts = {
        "Project": project.name,
        "Department": project.parent.name if project.parent else "",
        "Cluster": clusters.get(project.cluster_id, str(project.cluster_id)),
        "Queue": f"{project.scheduler}, {project.status.phase}{message}"
        if project.scheduler
        else "none",
        "GPUs": f"{_known(status.allocated.gpu)} used ({_known(status.allocated_non_preemptible.gpu)} "
        f"not preemptible, {_known(live.idle_gpus)} idle), {_known(status.requested.gpu)} asked for, "
        f"quota {_quota(project)}",
        "Workloads": f"{format_count(live.total)}: {format_count(live.running)} running, "
        f"{format_count(live.pending)} pending",
    }
    for label, text in facts.items():
        if text:
            yield f"{label + ':':<12}{safe(text)}"
    held = {each.node_pool_name: each.allocated for each in project.status.node_pool_quota_statuses}
    quotas = {each.node_pool.name if each.node_pool else "": each for each in project.resources}
    for pool in sorted(held.keys() | quotas.keys()):
        used = _known(held[pool].gpu) if pool in held else "0"
        quota = quotas.get(pool)
        yield safe(
            f"Node pool {pool or '(any)'}: {used} GPUs used"
            + (
                f", quota {_bounded(quota.gpu.deserved)}, limit {_bounded(quota.gpu.limit)}, "
                f"over-quota weight {_bounded(quota.gpu.over_quota_weight)}"
                if quota
                else ", no quota"
            )
        )
