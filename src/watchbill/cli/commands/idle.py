"""`idle`: who holds GPUs that do nothing, since when, and what that has cost so far."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import LookupScope, load_view, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    COLUMNS,
    JSON,
    TABLE_ROWS,
    ColumnView,
    TableColumn,
    note_stale_clusters,
    select_columns,
    value_at,
)
from watchbill.cli.output.humanize import format_age, format_count, format_number, plural
from watchbill.cli.output.terminal import DOCUMENTS, AnswerFormat, Row, table_lines

_SINCE = ("additionalFields", "idleSince")
_HOURS = ("idleGpuHours",)
_HOLDING = "allocatedGPU>=0.000001"


def _idle_for(workload: JSON, view: ColumnView) -> str:
    return format_age(value_at(workload, _SINCE), view.now)


def _hours(workload: JSON, view: ColumnView) -> str:
    return f"{workload['idleGpuHours']:,.1f}"


_COLUMNS: Mapping[str, TableColumn] = COLUMNS | {
    "idlefor": TableColumn("IDLE-FOR", _idle_for, {"idleSince": _SINCE}),
    "hours": TableColumn("GPU-HOURS", _hours, {"idleGpuHours": _HOURS}),
}
_DEFAULT = ("name", "type", "project", "owner", "gpu", "idle", "idlefor", "hours", "phase")


class IdleGrouping(StrEnum):
    OWNER = "owner"
    PROJECT = "project"
    DEPARTMENT = "department"
    CLUSTER = "cluster"
    TYPE = "type"


@server_command
async def idle(
    session: CommandContext,
    by: Annotated[
        IdleGrouping | None, typer.Option("--by", help="Sum them up.  [default: each workload]")
    ] = None,
    output: options.Output = AnswerFormat.TABLE,
    filters: options.Filters = None,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
    columns: options.Columns = None,
) -> None:
    """List workloads with idle GPUs, the most idle GPU-hours first.

    A GPU is idle when it is allocated and its utilisation stayed 0 for longer than its agent's window
    (five minutes unless set otherwise; `watchbill doctor` tells it). IDLE-FOR is
    since when, GPU-HOURS is what was lost by now. Where nothing measures utilisation nobody can know, and this
    says so. Also: `idle --by owner`.
    """
    from watchbill.client import Selection

    picked = select_columns(columns, _DEFAULT, _COLUMNS)
    place = LookupScope(project=project, cluster=cluster, is_everywhere=everywhere)
    here = (*(filters or ()), *await scope_filters(session.client, place))
    is_list = output is AnswerFormat.TABLE and by is None
    most = None if by is not None else limit or (TABLE_ROWS if is_list else None)
    found = await session.client.idle_workloads(Selection(filters=here), most=most)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](found))
        return
    view, clusters = await load_view(session.client)
    shown = found["workloads"]
    headers, every = _grouped(shown, by, view) if by is not None else _each(shown, picked, view)
    rows = every[: limit or TABLE_ROWS]
    for line in (
        table_lines(None if no_headers else headers, rows, session.terminal) if rows else ()
    ):
        session.terminal.print(line)
    note_stale_clusters(session.terminal, clusters, shown, view.now)
    total = found["total"] if by is None else len(every)
    if len(rows) < total:
        session.terminal.note(
            f"{format_count(len(rows))} of {format_count(total)} shown (--limit N for more)"
        )
    await _remark_sums(session, found, here)


def _each(
    workloads: Sequence[JSON], columns: Sequence[TableColumn], view: ColumnView
) -> tuple[list[str], list[Row]]:
    rows: list[Row] = [[column.shown(one, view) for column in columns] for one in workloads]
    return [column.header for column in columns], rows


def _grouped(
    workloads: Sequence[JSON], by: IdleGrouping, view: ColumnView
) -> tuple[list[str], list[Row]]:
    """A row a group, the most GPU-hours first."""
    column = COLUMNS[by.value]
    groups: dict[str, list[JSON]] = {}
    for one in workloads:
        shown = column.shown(one, view)
        groups.setdefault(shown if isinstance(shown, str) else shown.text, []).append(one)
    rows: list[Row] = [
        [
            name,
            format_count(len(ones)),
            format_number(sum(one.get("idleAllocatedGpus") or 0 for one in ones)),
            format_age(
                min(filter(None, (value_at(one, _SINCE) for one in ones)), default=None), view.now
            ),
            f"{_sum_of_hours(ones):,.1f}",
        ]
        for name, ones in sorted(groups.items(), key=lambda one: -_sum_of_hours(one[1]))
    ]
    return [column.header, "WORKLOADS", "IDLE", "LONGEST", "GPU-HOURS"], rows


def _sum_of_hours(workloads: Sequence[JSON]) -> float:
    return sum(float(one["idleGpuHours"]) for one in workloads)


async def _remark_sums(session: CommandContext, found: JSON, here: tuple[str, ...]) -> None:
    import asyncio

    from watchbill.client import Selection

    holding = (*here, _HOLDING)
    holders, measured = await asyncio.gather(
        session.client.workload_count(Selection(filters=holding)),
        session.client.workload_count(Selection(filters=(*holding, "idleAllocatedGpus>=0"))),
    )
    if found["total"]:
        session.terminal.note(
            f"{format_number(found['idleGpus'])} GPUs of {plural(found['total'], 'workload')} are idle: "
            f"{found['idleGpuHours']:,.1f} GPU-hours by now."
        )
    session.terminal.note(coverage(holders, measured))


def coverage(holders: int, measured: int) -> str:
    """Of how much anything is known."""
    if not holders:
        return "No workload holds GPUs."
    if not measured:
        return (
            f"Nothing measures the GPUs of the {plural(holders, 'workload')} that hold some: "
            "which are idle is not known."
        )
    if measured < holders:
        return (
            f"{format_count(measured)} of {plural(holders, 'workload')} with GPUs are measured; "
            f"of the other {format_count(holders - measured)} it is not known."
        )
    return f"All {plural(holders, 'workload')} with GPUs are measured."
