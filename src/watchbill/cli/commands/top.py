"""`top`: the workloads with most GPUs, or sums by group; and what one workload uses, GPU by GPU."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import lookup, options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import TABLE_ROWS, allocated_gpus
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_count,
    format_known,
    format_number,
    format_significant,
)
from watchbill.cli.output.terminal import TABLE_DOCUMENTS, TableFormat, table_document, table_lines
from watchbill.cli.workload_use import (
    CONTACT_LAG,
    Series,
    UsageSeries,
    chart,
    is_known,
    last_value,
    top_workload,
    usage_series,
)

if TYPE_CHECKING:
    from watchbill.client import Client, Selection
    from watchbill.responses.contract import TelemetryResponse, TelemetryValue, WorkloadResponse

SHOWN_WORKLOADS = 20
MEASURED_ROWS = 100
"""Further ones are listed without a chart: each costs a question."""
CONCURRENT_REQUESTS = 4
_COLUMNS = (
    *("name", "project", "phase", "allocatedGpus", "idleAllocatedGpus"),
    *("gpuUtilization", "", "cpuUsage", ""),
)
"""Those without a name are charts."""
_GPU, _CPU = "GPU_UTILIZATION", "CPU_USAGE_CORES"


async def top_list(
    session: CommandContext,
    narrowing: tuple[str, ...],
    output: TableFormat,
    *,
    limit: int | None,
    has_headers: bool,
) -> None:
    """`narrowing`: items of filterBy that narrow it."""
    import asyncio

    from watchbill.client import Selection

    client, terminal = session.client, session.terminal
    with_gpus = Selection(
        filters=(*narrowing, "allocatedGPU>=0.000001"), sort_by="allocatedGPU", is_descending=True
    )
    shown = limit or SHOWN_WORKLOADS
    workloads = await client.workloads(with_gpus, most=shown)
    if not workloads and output not in TABLE_DOCUMENTS:
        terminal.note("No workloads with GPUs visible to you.")
        return
    slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
    end = datetime.now(UTC) - CONTACT_LAG

    async def load(workload: "WorkloadResponse") -> UsageSeries:
        async with slots:
            return await usage_series(client, workload.id, (_GPU, _CPU), end=end)

    loaded = await asyncio.gather(*(load(workload) for workload in workloads[:MEASURED_ROWS]))
    series = [*loaded, *({} for _ in workloads[MEASURED_ROWS:])]
    if output in TABLE_DOCUMENTS:
        usage = [_usage(*pair) for pair in zip(workloads, series, strict=True)]
        terminal.write(table_document(output, {"workloads": usage}, _MEMBERS))
        await _note_cut(session, with_gpus, shown, len(workloads))
        return
    rows = [_row(*pair) for pair in zip(workloads, series, strict=True)]
    for line in table_lines(header_row(*_COLUMNS) if has_headers else None, rows, terminal):
        terminal.print(line)
    if not any(is_known(usage.get((name, ""))) for usage in loaded for name in (_GPU, _CPU)):
        terminal.note(
            "No use measured in the last hour; `watchbill doctor` shows what is measured."
        )
    await _note_cut(session, with_gpus, shown, len(workloads))
    await lookup.noted_cluster_names(session, {row.cluster_id for row in workloads}, "workloads")


async def _note_cut(
    session: CommandContext, selection: "Selection", shown: int, listed: int
) -> None:
    if listed < shown:
        return
    count = await session.client.workload_count(selection)
    if count > shown:
        session.terminal.note(
            f"{format_count(shown)} of {format_count(count)} shown (--limit N for more)"
        )


_MEMBERS = (
    *("id", "name", "projectName", "phase", "allocatedGpus", "idleAllocatedGpus"),
    *("gpuUtilization", "cpuUsageCores"),
)


def _usage(workload: "WorkloadResponse", series: UsageSeries) -> dict[str, Any]:
    """For programs; null is not known. `gpuUtilization` in percent."""
    utilization, cores = series.get((_GPU, "")), series.get((_CPU, ""))
    values = (
        *(workload.id, workload.name, workload.project_name, workload.phase),
        *(workload.allocated_resources.gpu, workload.idle_allocated_gpus),
        last_value(utilization) if is_known(utilization) else None,
        last_value(cores) if is_known(cores) else None,
    )
    return dict(zip(_MEMBERS, values, strict=True))


def _row(workload: "WorkloadResponse", series: UsageSeries) -> list[str]:
    idle = workload.idle_allocated_gpus
    return [
        workload.name,
        workload.project_name or NONE,
        workload.phase,
        allocated_gpus(workload),
        format_known(idle),
        *_use(series.get((_GPU, "")), unit="%", top=100.0),
        *_use(series.get((_CPU, "")), unit="", top=None),
    ]


def _use(values: Series | None, *, unit: str, top: float | None) -> tuple[str, str]:
    """The newest value and the usage, or that it is not known."""
    if values is None or not is_known(values):
        return UNKNOWN, ""
    return f"{format_significant(last_value(values))}{unit}", chart(values, top=top)


_WORKLOADS, _ALLOCATED, _IDLE = "WORKLOADS_COUNT", "GPU_ALLOCATION", "IDLE_ALLOCATED_GPUS"


class UsageGrouping(StrEnum):
    OWNER = "owner"
    PROJECT = "project"
    DEPARTMENT = "department"
    CLUSTER = "cluster"
    NODE_POOL = "nodepool"
    TYPE = "type"
    CATEGORY = "category"
    PHASE = "phase"
    WORKLOAD = "workload"


_FIELDS: dict[UsageGrouping, tuple[str, ...]] = {
    UsageGrouping.OWNER: ("submittedBy",),
    UsageGrouping.PROJECT: ("ProjectId", "ClusterId"),
    UsageGrouping.DEPARTMENT: ("DepartmentId", "ClusterId"),
    UsageGrouping.CLUSTER: ("ClusterId",),
    UsageGrouping.NODE_POOL: ("CurrentNodepools",),
    UsageGrouping.TYPE: ("Type",),
    UsageGrouping.CATEGORY: ("Category",),
    UsageGrouping.PHASE: ("Phase",),
}
"""Projects and departments are a cluster's own: two may bear one name."""

_Key = tuple[str, ...]


@server_command
async def top(
    session: CommandContext,
    name: options.MaybeNamed = None,
    by: Annotated[
        UsageGrouping, typer.Option("--by", help="What to sum by.")
    ] = UsageGrouping.WORKLOAD,
    pod: Annotated[
        str | None, typer.Option("--pod", metavar="NAME", help="Only this pod of the workload.")
    ] = None,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    output: options.TableOutput = TableFormat.TABLE,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"At most this many.  [default: {SHOWN_WORKLOADS} workloads, {TABLE_ROWS} rows of sums]",
            show_default=False,
        ),
    ] = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show the workloads with most GPUs and their last hour of use; or one workload's use, GPU by GPU.

    `·` in a chart is a gap, `?` is not measured. With --by project and the like: workloads, GPUs allocated and
    GPUs idle, the largest first; --by owner counts workloads that hold GPUs; projects of the
    same name in two clusters count separately. --project and --cluster choose between workloads of the same
    NAME.
    """
    if name is not None:
        scope, has_headers = LookupScope(project=project, cluster=cluster), not no_headers
        await top_workload(
            session, name, output, pod_name=pod, scope=scope, has_headers=has_headers
        )
        return
    if pod is not None:
        usage_error("--pod also needs the NAME of its workload.")
    if by is UsageGrouping.WORKLOAD:
        narrowing = await scope_filters(
            session.client, LookupScope(project=project, cluster=cluster)
        )
        await top_list(session, narrowing, output, limit=limit, has_headers=not no_headers)
        return

    fields, client = _FIELDS[by], session.client
    if by is UsageGrouping.OWNER:
        narrowing = await scope_filters(client, LookupScope(project=project, cluster=cluster))
        answers = await _sums_by_owner(client, narrowing)
    else:
        answers = await _telemetry(client, fields)
    if output in TABLE_DOCUMENTS:
        sums = {"groups": _sums_of_groups(by, *answers)[:limit]}
        session.terminal.write(table_document(output, sums, _members_of_sums(by)))
        return
    rows = _rows(*answers)
    shown = limit or TABLE_ROWS
    group = "nodePool" if by is UsageGrouping.NODE_POOL else by.value
    columns = (group, *("cluster" for _ in fields[1:]), "workloads", "allocatedGpus")
    headers = None if no_headers else header_row(*columns, "idleAllocatedGpus")
    if rows:
        for line in table_lines(headers, rows[:shown], session.terminal):
            session.terminal.print(line)
    else:
        session.terminal.note("No live workloads visible to you.")
    if len(rows) > shown:
        session.terminal.note(
            f"{format_count(shown)} of {format_count(len(rows))} shown (--limit N for more)"
        )
    await lookup.note_old_figures(session)


async def _telemetry(client: "Client", fields: tuple[str, ...]) -> "list[TelemetryResponse]":
    import asyncio

    kinds = (_WORKLOADS, _ALLOCATED, _IDLE)
    return await asyncio.gather(*(client.telemetry(kind, group_by=fields) for kind in kinds))


async def _sums_by_owner(client: "Client", narrowing: tuple[str, ...]) -> "list[TelemetryResponse]":
    """What the API's telemetry does not group by: summed here, over all workloads that hold GPUs."""
    from watchbill.client import Selection
    from watchbill.responses.contract import TelemetryGroup, TelemetryResponse, TelemetryValue

    selection = Selection(filters=(*narrowing, "allocatedGPU>=0.000001"))
    sums: dict[str, dict[str, float]] = {kind: {} for kind in (_WORKLOADS, _ALLOCATED, _IDLE)}
    for workload in await client.workloads(selection, most=None):
        figures = (1.0, workload.allocated_resources.gpu, workload.idle_allocated_gpus)
        for kind, figure in zip(sums, figures, strict=True):
            if figure is not None:
                owner = workload.submitted_by or ""
                sums[kind][owner] = sums[kind].get(owner, 0.0) + figure
    return [
        TelemetryResponse(
            type=kind,
            timestamp=datetime.now(UTC),
            values=tuple(
                TelemetryValue(str(figure), (TelemetryGroup("submittedBy", owner),))
                for owner, figure in by_owner.items()
            ),
        )
        for kind, by_owner in sums.items()
    ]


def _rows(
    workloads: "TelemetryResponse", allocated: "TelemetryResponse", idle: "TelemetryResponse"
) -> list[list[str]]:
    counts, gpus, unused = _sums(workloads), _sums(allocated), _sums(idle)
    labels = _labels(allocated) | _labels(workloads)
    return [
        [
            *labels[key],
            format_count(int(counts.get(key, 0.0))),
            format_number(gpus.get(key, 0.0)),
            format_number(unused[key]) if key in unused else UNKNOWN if gpus.get(key) else NONE,
        ]
        for key in _ordered(counts, gpus, labels)
    ]


_SUMS = ("workloads", "gpus", "idleGpus")


def _members_of_sums(by: UsageGrouping) -> tuple[str, ...]:
    return (by.value, *("cluster" for _ in _FIELDS[by][1:]), *_SUMS)


def _sums_of_groups(
    by: UsageGrouping,
    workloads: "TelemetryResponse",
    allocated: "TelemetryResponse",
    idle: "TelemetryResponse",
) -> list[dict[str, Any]]:
    """The same for programs; `idleGpus` is null where nothing is measured."""
    counts, gpus, unused = _sums(workloads), _sums(allocated), _sums(idle)
    labels = _labels(allocated) | _labels(workloads)
    names = (by.value, "cluster")
    return [
        dict(zip(names, labels[key], strict=False))
        | dict(
            zip(_SUMS, (int(counts.get(key, 0)), gpus.get(key, 0.0), unused.get(key)), strict=True)
        )
        for key in _ordered(counts, gpus, labels)
    ]


def _ordered(
    counts: Mapping[_Key, float], gpus: Mapping[_Key, float], labels: Mapping[_Key, _Key]
) -> list[_Key]:
    """Most GPUs first, then most workloads, then by name."""
    return sorted(
        counts.keys() | gpus.keys(),
        key=lambda key: (-gpus.get(key, 0.0), -counts.get(key, 0.0), labels[key]),
    )


def _sums(answer: "TelemetryResponse") -> dict[_Key, float]:
    return {_key(value): float(value.value) for value in answer.values}


def _labels(answer: "TelemetryResponse") -> dict[_Key, _Key]:
    """What people call each group."""
    return {
        _key(value): tuple(group.name or group.value or NONE for group in value.groups)
        for value in answer.values
    }


def _key(value: "TelemetryValue") -> _Key:
    return tuple(group.value for group in value.groups)
