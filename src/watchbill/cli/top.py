"""`top`: who holds the GPUs now, summed by project or whatever else people are grouped by."""

from enum import StrEnum
from typing import Annotated

import typer

from watchbill.cli import options
from watchbill.cli.columns import JSON
from watchbill.cli.listing import TABLE_ROWS
from watchbill.cli.session import Session, asks_server
from watchbill.cli.table import lines
from watchbill.cli.words import NONE, UNKNOWN, grouped, number

_WORKLOADS, _HELD, _IDLE = "WORKLOADS_COUNT", "GPU_ALLOCATION", "IDLE_ALLOCATED_GPUS"


class Grouping(StrEnum):
    PROJECT = "project"
    DEPARTMENT = "department"
    CLUSTER = "cluster"
    NODE_POOL = "nodepool"
    TYPE = "type"
    CATEGORY = "category"
    PHASE = "phase"
    WORKLOAD = "workload"


_FIELDS = {
    Grouping.PROJECT: "ProjectId",
    Grouping.DEPARTMENT: "DepartmentId",
    Grouping.CLUSTER: "ClusterId",
    Grouping.NODE_POOL: "CurrentNodepools",
    Grouping.TYPE: "Type",
    Grouping.CATEGORY: "Category",
    Grouping.PHASE: "Phase",
}


@asks_server
async def top(
    session: Session,
    by: Annotated[Grouping, typer.Option("--by", help="What to sum by.")] = Grouping.PROJECT,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Who holds GPUs now: workloads, GPUs allocated and GPUs idle, the largest first.

    IDLE sums what is measured and is `?` where nothing is. Projects of one name in two clusters are two.
    By workload also the last hour of GPU and CPU use, where something measures it; `·` is a gap.
    """
    import asyncio

    if by is Grouping.WORKLOAD:
        from watchbill.cli.top_workloads import top_workloads

        await top_workloads(session, limit=limit, has_headers=not no_headers)
        return

    field, client = _FIELDS[by], session.client
    answers = await asyncio.gather(
        *(client.telemetry(kind, group_by=(field,)) for kind in (_WORKLOADS, _HELD, _IDLE))
    )
    rows = _rows(*answers)
    shown = limit or TABLE_ROWS
    headers = None if no_headers else [by.value.upper(), "WORKLOADS", "GPUS", "IDLE"]
    if rows:
        for line in lines(headers, rows[:shown], session.terminal):
            session.terminal.print(line)
    else:
        session.terminal.remark("No live workload is there that you may see.")
    if len(rows) > shown:
        session.terminal.remark(
            f"{grouped(shown)} of {grouped(len(rows))} shown (--limit N for more)"
        )


def _rows(workloads: JSON, held: JSON, idle: JSON) -> list[list[str]]:
    """A row a group, most GPUs first, then most workloads, then by name."""
    counts, gpus, unused = _sums(workloads), _sums(held), _sums(idle)
    labels = _labels(held) | _labels(workloads)
    found = sorted(
        counts.keys() | gpus.keys(),
        key=lambda key: (-gpus.get(key, 0.0), -counts.get(key, 0.0), labels.get(key) or key),
    )
    return [
        [
            labels.get(key) or key or NONE,
            grouped(int(counts.get(key, 0.0))),
            number(gpus.get(key, 0.0)),
            number(unused[key]) if key in unused else UNKNOWN if gpus.get(key) else NONE,
        ]
        for key in found
    ]


def _sums(answer: JSON) -> dict[str, float]:
    return {_group(value)["value"]: float(value["value"]) for value in answer["values"]}


def _labels(answer: JSON) -> dict[str, str]:
    """What people call each group, where that is not its value."""
    groups = [_group(value) for value in answer["values"]]
    return {group["value"]: group["name"] for group in groups if group.get("name")}


def _group(value: JSON) -> JSON:
    found: JSON = value["groups"][0]
    return found
