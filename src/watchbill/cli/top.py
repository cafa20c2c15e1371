"""`top`: who holds the GPUs now, workload by workload or summed; and what one workload uses."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from watchbill.cli import options
from watchbill.cli.columns import JSON
from watchbill.cli.find import Place, filters_of
from watchbill.cli.formats import DOCUMENTS, AnswerFormat
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
    Grouping.PROJECT: ("ProjectId", "ClusterId"),
    Grouping.DEPARTMENT: ("DepartmentId", "ClusterId"),
    Grouping.CLUSTER: ("ClusterId",),
    Grouping.NODE_POOL: ("CurrentNodepools",),
    Grouping.TYPE: ("Type",),
    Grouping.CATEGORY: ("Category",),
    Grouping.PHASE: ("Phase",),
}
"""Projects and departments are a cluster's own: two may bear one name."""

_Key = tuple[str, ...]


@asks_server
async def top(
    session: Session,
    name: options.MaybeNamed = None,
    by: Annotated[Grouping, typer.Option("--by", help="What to sum by.")] = Grouping.WORKLOAD,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    output: options.Output = AnswerFormat.TABLE,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Who holds most GPUs, with the last hour of GPU and CPU use; or what one workload uses, GPU by GPU.

    `·` in a chart is a gap, `?` is not measured. With --by project and the like: workloads, GPUs allocated and
    GPUs idle, the largest first; projects of one name in two clusters are two. --project and --cluster say
    which of several workloads a NAME means.
    """
    import asyncio

    if name is not None:
        from watchbill.cli.top_devices import top_devices

        place = Place(project=project, cluster=cluster)
        await top_devices(session, name, output, place=place, has_headers=not no_headers)
        return
    if by is Grouping.WORKLOAD:
        from watchbill.cli.top_workloads import top_workloads

        here = await filters_of(session.client, Place(project=project, cluster=cluster))
        await top_workloads(session, here, output, limit=limit, has_headers=not no_headers)
        return

    fields, client = _FIELDS[by], session.client
    answers = await asyncio.gather(
        *(client.telemetry(kind, group_by=fields) for kind in (_WORKLOADS, _HELD, _IDLE))
    )
    if output in DOCUMENTS:
        found = _sums_of_groups(by, *answers)
        session.terminal.write(DOCUMENTS[output]({"groups": found[:limit]}))
        return
    rows = _rows(*answers)
    shown = limit or TABLE_ROWS
    groups = [by.value.upper(), *("CLUSTER" for _ in fields[1:])]
    headers = None if no_headers else [*groups, "WORKLOADS", "GPUS", "IDLE"]
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
    counts, gpus, unused = _sums(workloads), _sums(held), _sums(idle)
    labels = _labels(held) | _labels(workloads)
    return [
        [
            *labels[key],
            grouped(int(counts.get(key, 0.0))),
            number(gpus.get(key, 0.0)),
            number(unused[key]) if key in unused else UNKNOWN if gpus.get(key) else NONE,
        ]
        for key in _ordered(counts, gpus, labels)
    ]


def _sums_of_groups(by: Grouping, workloads: JSON, held: JSON, idle: JSON) -> list[JSON]:
    """The same for programs; `idleGpus` is null where nothing is measured."""
    counts, gpus, unused = _sums(workloads), _sums(held), _sums(idle)
    labels = _labels(held) | _labels(workloads)
    names = (by.value, "cluster")
    return [
        dict(zip(names, labels[key], strict=False))
        | {
            "workloads": int(counts.get(key, 0.0)),
            "gpus": gpus.get(key, 0.0),
            "idleGpus": unused.get(key),
        }
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


def _sums(answer: JSON) -> dict[_Key, float]:
    return {_key(value): float(value["value"]) for value in answer["values"]}


def _labels(answer: JSON) -> dict[_Key, _Key]:
    """What people call each group."""
    return {
        _key(value): tuple(group.get("name") or group["value"] or NONE for group in value["groups"])
        for value in answer["values"]
    }


def _key(value: JSON) -> _Key:
    return tuple(group["value"] for group in value["groups"])
