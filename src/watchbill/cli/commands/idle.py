"""`idle`: workloads with idle GPUs, since when, and the GPU-hours lost so far."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, load_view, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    COLUMNS,
    TABLE_ROWS,
    ColumnView,
    TableColumn,
    note_stale_clusters,
    select_columns,
)
from watchbill.cli.output.headers import HEADERS, header_row
from watchbill.cli.output.humanize import NONE, format_age, format_count, format_number, plural
from watchbill.cli.output.terminal import DOCUMENTS, Cell, TableFormat, table_lines

if TYPE_CHECKING:
    from watchbill.responses.contract import WorkloadResponse
    from watchbill.responses.workloads import IdleWorkload, IdleWorkloadList
    from watchbill.tabular import CsvCell

_WITH_GPUS = "allocatedGPU>=0.000001"


def _idle_since(workload: "WorkloadResponse", view: ColumnView) -> str:
    return format_age(workload.extra.idle_since, view.now)


def _hours(workload: "WorkloadResponse", view: ColumnView) -> str:
    from watchbill.responses.workloads import IdleWorkload

    assert isinstance(workload, IdleWorkload), "the operation answers these alone"
    return f"{workload.idle_gpu_hours:,.1f}"


_COLUMNS: Mapping[str, TableColumn] = COLUMNS | {
    "idlefor": TableColumn(HEADERS["idleSince"], _idle_since),
    "hours": TableColumn(HEADERS["idleGpuHours"], _hours),
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
        IdleGrouping | None, typer.Option("--by", help="What to sum by.  [default: each workload]")
    ] = None,
    output: options.TableOutput = TableFormat.TABLE,
    filters: options.Filters = None,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
    columns: options.Columns = None,
) -> None:
    """List workloads with idle GPUs, the most idle GPU-hours first.

    A GPU is idle when it is allocated and its utilization stayed 0 for longer than its agent's window
    (five minutes unless set otherwise; `watchbill doctor` shows it). IDLE-FOR is how long it has been idle
    this time, counted anew when its agent starts; IDLE-HOURS are all idle GPU-hours of the workload's life.
    Where utilization is not measured, idleness is unknown, and the output says so. Also: `idle --by owner`.
    """
    from watchbill.client import Selection

    selected = select_columns(columns, _DEFAULT, _COLUMNS)
    scope = LookupScope(project=project, cluster=cluster, is_everywhere=everywhere)
    narrowing = (*(filters or ()), *await scope_filters(session.client, scope))
    is_csv = output is TableFormat.CSV
    if is_csv and columns is not None:
        usage_error("--columns chooses columns of tables; -o csv has all of its own.")
    is_list = output not in DOCUMENTS and by is None and not is_csv
    most = None if by is not None else limit or (TABLE_ROWS if is_list else None)
    answer = await session.client.idle_workloads(Selection(filters=narrowing), most=most)
    if output in DOCUMENTS and by is None:
        session.terminal.write(DOCUMENTS[output](answer))
        return
    view = await load_view(session)
    if output in DOCUMENTS and by is not None:
        groups = _group_records(answer.workloads, by, view)
        session.terminal.write(DOCUMENTS[output]({"groups": groups}))
        return
    if is_csv:
        session.terminal.write(_csv(answer.workloads, by, view))
        return
    if by is None:
        headers = [column.header for column in selected]
        rows = [
            [column.show(workload, view) for column in selected] for workload in answer.workloads
        ]
    else:
        headers, rows = _group_rows(answer.workloads, by, view)
    shown = rows[: limit or TABLE_ROWS]
    if shown:
        for line in table_lines(None if no_headers else headers, shown, session.terminal):
            session.terminal.print(line)
    note_stale_clusters(session.terminal, view, answer.workloads)
    total = answer.total if by is None else len(rows)
    if len(shown) < total:
        session.terminal.note(
            f"{format_count(len(shown))} of {format_count(total)} shown (--limit N for more)"
        )
    await _note_sums(session, answer, narrowing)


def _csv(workloads: "Sequence[IdleWorkload]", by: IdleGrouping | None, view: ColumnView) -> bytes:
    """Numbers as they are, and instants instead of ages."""
    from watchbill.tabular import CsvCell, rows_as_csv

    rows: list[Sequence[CsvCell]]
    if by is not None:
        rows = [(by.value, "workloads", "idleAllocatedGpus", "idleSince", "idleGpuHours")]
        rows += [tuple(record.values()) for record in _group_records(workloads, by, view)]
        return rows_as_csv(rows)
    rows = [
        (
            *("name", "id", "type", "project", "owner", "cluster", "phase", "allocatedGpus"),
            *("idleAllocatedGpus", "idleSince", "idleGpuHours"),
        )
    ]
    rows += [
        (
            *(each.name, str(each.id), each.type, each.project_name, each.submitted_by),
            *(_text_of("cluster", each, view), each.phase.value, each.allocated_resources.gpu),
            *(each.idle_allocated_gpus, each.extra.idle_since, each.idle_gpu_hours),
        )
        for each in workloads
    ]
    return rows_as_csv(rows)


def _text_of(column: str, workload: "IdleWorkload", view: ColumnView) -> str:
    cell = COLUMNS[column].show(workload, view)
    return cell if isinstance(cell, str) else cell.text


def _groups(
    workloads: "Sequence[IdleWorkload]", by: IdleGrouping, view: ColumnView
) -> "list[tuple[str, list[IdleWorkload]]]":
    """The most GPU-hours first."""
    groups: dict[str, list[IdleWorkload]] = {}
    for workload in workloads:
        groups.setdefault(_text_of(by.value, workload, view), []).append(workload)
    return sorted(groups.items(), key=lambda item: -_sum_of_hours(item[1]))


def _group_records(
    workloads: "Sequence[IdleWorkload]", by: IdleGrouping, view: ColumnView
) -> "list[dict[str, CsvCell]]":
    """Numbers as they are; the group's name stands under what is grouped by."""
    return [
        {
            by.value: None if name == NONE else name,
            "workloads": len(members),
            "idleAllocatedGpus": _sum_of_gpus(members),
            "idleSince": _earliest(members),
            "idleGpuHours": _sum_of_hours(members),
        }
        for name, members in _groups(workloads, by, view)
    ]


def _group_rows(
    workloads: "Sequence[IdleWorkload]", by: IdleGrouping, view: ColumnView
) -> tuple[list[str], list[list[Cell | str]]]:
    """A row a group."""
    rows: list[list[Cell | str]] = [
        [
            name,
            format_count(len(members)),
            format_number(_sum_of_gpus(members)),
            format_age(_earliest(members), view.now),
            f"{_sum_of_hours(members):,.1f}",
        ]
        for name, members in _groups(workloads, by, view)
    ]
    headers = header_row("workloads", "idleAllocatedGpus", "longestIdle", "idleGpuHours")
    return [COLUMNS[by.value].header, *headers], rows


def _earliest(workloads: "Sequence[IdleWorkload]") -> datetime | None:
    return min(filter(None, (workload.extra.idle_since for workload in workloads)), default=None)


def _sum_of_gpus(workloads: "Sequence[IdleWorkload]") -> float:
    return round(sum(workload.idle_allocated_gpus or 0 for workload in workloads), 6)


def _sum_of_hours(workloads: "Sequence[IdleWorkload]") -> float:
    return round(sum(workload.idle_gpu_hours for workload in workloads), 6)


async def _note_sums(
    session: CommandContext, answer: "IdleWorkloadList", narrowing: tuple[str, ...]
) -> None:
    import asyncio

    from watchbill.client import Selection

    with_gpus = (*narrowing, _WITH_GPUS)
    count, measured = await asyncio.gather(
        session.client.workload_count(Selection(filters=with_gpus)),
        session.client.workload_count(Selection(filters=(*with_gpus, "idleAllocatedGpus>=0"))),
    )
    if answer.total:
        session.terminal.note(
            f"{format_number(answer.idle_gpus)} GPUs of {plural(answer.total, 'workload')} are idle: "
            f"{answer.idle_gpu_hours:,.1f} GPU-hours in their whole lives."
        )
    elif measured:
        session.terminal.note("No idle GPUs in workloads that are measured.")
    session.terminal.note(coverage(count, measured))


def coverage(with_gpus: int, measured: int) -> str:
    """Of how many workloads with GPUs use is measured."""
    if not with_gpus:
        return "No workload has GPUs."
    if not measured:
        return (
            f"GPU use is not measured for the {plural(with_gpus, 'workload')} with GPUs: "
            "idle GPUs are unknown."
        )
    if measured < with_gpus:
        others = with_gpus - measured
        return (
            f"{format_count(measured)} of {plural(with_gpus, 'workload')} with GPUs "
            f"{'is' if measured == 1 else 'are'} measured; the other "
            f"{'is' if others == 1 else f'{format_count(others)} are'} not."
        )
    return f"All {plural(with_gpus, 'workload')} with GPUs are measured."
