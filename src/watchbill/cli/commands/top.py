"""The last hour of what a workload used, as series that can be drawn.

`top NAME`: what one workload uses, in all and GPU by GPU, now and in the last hour.

`top`: who holds most GPUs, and what the last hour of each looked like.

`top`: who holds the GPUs now, workload by workload or summed; and what one workload uses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeGuard
from uuid import UUID

import typer

from watchbill.cli.commands.get import TABLE_ROWS
from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import Place, filters_of, find_workload
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.columns import JSON, member
from watchbill.cli.output.formats import DOCUMENTS, AnswerFormat
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    brief,
    byte_size,
    grouped,
    number,
    plural,
    sparkline,
)
from watchbill.cli.output.table import lines
from watchbill.cli.output.terminal import safe
from watchbill.errors import NotFound, TooMany, Unavailable

if TYPE_CHECKING:
    from watchbill.client import Client

SAMPLES = 24
HOUR = timedelta(hours=1)
LAG = timedelta(seconds=40)
"""Nothing is known past a cluster's last contact; by then every connected one has been heard of again."""

Series = list[float | None]
Hour = dict[tuple[str, str], Series]
"""By metric type and GPU; the empty GPU is the whole workload."""


async def last_hour(
    client: "Client", workload_id: UUID, types: Sequence[str], *, end: datetime
) -> Hour:
    """The series that there are; a type that is not measured, or a source that is down, has none."""
    try:
        answer = await client.metrics(
            workload_id, types, start=end - HOUR, end=end, samples=SAMPLES
        )
    except (NotFound, Unavailable, TooMany):
        return {}
    return {
        (one["type"], (one.get("labels") or {}).get("gpu", "")): _spread(one["values"] or (), end)
        for one in answer["measurements"]
    }


def _spread(values: Sequence[JSON], end: datetime) -> Series:
    """By position in the hour, with a gap where there is no sample."""
    step = HOUR / SAMPLES
    found: Series = [None] * SAMPLES
    for one in values:
        age = end - datetime.fromisoformat(one["timestamp"])
        position = SAMPLES - 1 - round(age / step)
        if 0 <= position < SAMPLES:
            found[position] = float(one["value"])
    return found


def is_known(values: Series | None) -> TypeGuard[Series]:
    return values is not None and any(value is not None for value in values)


def newest(values: Sequence[float | None]) -> float:
    """Of a series of which something is known."""
    return next(value for value in reversed(values) if value is not None)


def drawn(values: Sequence[float | None], *, top: float | None) -> str:
    return sparkline(values, width=SAMPLES, top=top)


GPU_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Figure:
    """`limit`: the type whose value is what was asked for; `top`: what a full column of the chart is."""

    label: str
    type: str
    shown: Callable[[float], str]
    limit: str = ""
    top: float | None = None


def _percent(value: float) -> str:
    return f"{brief(value)}%"


def _rate(value: float) -> str:
    return f"{byte_size(value)}/s"


_FIGURES = (
    _Figure("GPU use", "GPU_UTILIZATION", _percent, top=100.0),
    _Figure("GPU memory", "GPU_MEMORY_USAGE_BYTES", byte_size),
    _Figure("NVLink", "NVLINK_BANDWIDTH_TOTAL", _rate),
    _Figure("CPU cores", "CPU_USAGE_CORES", brief, limit="CPU_REQUEST_CORES"),
    _Figure("memory", "CPU_MEMORY_USAGE_BYTES", byte_size, limit="CPU_MEMORY_REQUEST_BYTES"),
    _Figure("running pods", "RUNNING_POD_COUNT", brief, limit="POD_COUNT"),
)
_GPU_FIGURES, _GPU_MEMORY, _NVLINK = _FIGURES[:3]
_TYPES = tuple(name for figure in _FIGURES for name in (figure.type, figure.limit) if name)


async def top_devices(
    session: CommandContext, word: str, output: AnswerFormat, *, place: Place, has_headers: bool
) -> None:
    terminal = session.terminal
    workload = await find_workload(session.client, word, place)
    ended = workload.get("completedAt") or workload.get("deletedAt")
    end = datetime.fromisoformat(ended) if ended else datetime.now(UTC) - LAG
    hour = await last_hour(session.client, UUID(workload["id"]), _TYPES, end=end)
    if output in DOCUMENTS:
        terminal.write(DOCUMENTS[output](_device_figures(workload, hour)))
        return
    terminal.print(_headline(workload))
    if not any(is_known(values) for values in hour.values()):
        terminal.remark(
            "No use of it was measured then; `watchbill doctor` says whether anything measures it."
        )
        return
    headers = ["", "NOW" if ended is None else "LAST", "REQUESTED", "LAST HOUR"]
    totals = [_total(figure, hour) for figure in _FIGURES if is_known(hour.get((figure.type, "")))]
    for line in ("", *lines(headers if has_headers else None, totals, terminal)):
        terminal.print(line)
    _print_devices(session, hour, has_headers=has_headers)


def _device_figures(workload: JSON, hour: Hour) -> JSON:
    """The newest of each series, for programs."""
    return {
        "id": workload["id"],
        "name": workload["name"],
        "metrics": [
            {"type": name, **({"gpu": gpu} if gpu else {}), "value": newest(values)}
            for (name, gpu), values in hour.items()
            if is_known(values)
        ],
    }


def _headline(workload: JSON) -> str:
    held = member(workload, ("allocatedResources", "gpu")) or 0
    idle = workload.get("idleAllocatedGpus")
    unused = "" if not held else f", {UNKNOWN if idle is None else number(idle)} of them idle"
    where = (
        f"{workload['type']}, {workload['phase']}, project {workload.get('projectName') or NONE}"
    )
    pods = plural(workload.get("runningPods") or 0, "running pod")
    return safe(f"{workload['name']} ({where}): {number(held)} GPUs{unused}, {pods}")


def _total(figure: _Figure, hour: Hour) -> Sequence[str]:
    values, asked = hour[figure.type, ""], hour.get((figure.limit, ""))
    return [
        figure.label,
        figure.shown(newest(values)),
        figure.shown(newest(asked)) if asked is not None and is_known(asked) else NONE,
        drawn(values, top=figure.top),
    ]


def _print_devices(session: CommandContext, hour: Hour, *, has_headers: bool) -> None:
    """A row a GPU, the least used first: that is the one to ask about."""
    devices = {gpu for _, gpu in hour if gpu}
    use = {gpu: _now(hour.get((_GPU_FIGURES.type, gpu))) for gpu in devices}
    order = sorted(devices, key=lambda gpu: (use[gpu] is None, use[gpu] or 0.0, gpu))
    rows = [
        [
            gpu,
            *(_cell(figure, hour, gpu) for figure in (_GPU_FIGURES, _GPU_MEMORY, _NVLINK)),
            _chart(hour, gpu),
        ]
        for gpu in order[:GPU_ROWS]
    ]
    if not rows:
        return
    headers = ["GPU", "USE", "MEMORY", "NVLINK", "LAST HOUR OF USE"]
    for line in ("", *lines(headers if has_headers else None, rows, session.terminal)):
        session.terminal.print(line)
    if len(order) > GPU_ROWS:
        session.terminal.remark(
            f"The {GPU_ROWS} least used of {grouped(len(order))} GPUs are shown."
        )


def _now(values: Series | None) -> float | None:
    return newest(values) if values is not None and is_known(values) else None


def _cell(figure: _Figure, hour: Hour, gpu: str) -> str:
    found = _now(hour.get((figure.type, gpu)))
    return UNKNOWN if found is None else figure.shown(found)


def _chart(hour: Hour, gpu: str) -> str:
    values = hour.get((_GPU_FIGURES.type, gpu))
    return drawn(values, top=_GPU_FIGURES.top) if values is not None and is_known(values) else ""


ROWS = 20
MEASURED_ROWS = 100
"""Further ones are listed without a chart: each costs a question."""
ASKED_AT_ONCE = 4
_HEADERS = ["WORKLOAD", "PROJECT", "PHASE", "GPUS", "IDLE", "GPU-USE", "", "CPU-CORES", ""]
_GPU, _CPU = "GPU_UTILIZATION", "CPU_USAGE_CORES"


async def top_workloads(
    session: CommandContext,
    here: tuple[str, ...],
    output: AnswerFormat,
    *,
    limit: int | None,
    has_headers: bool,
) -> None:
    """`here`: items of filterBy that narrow it."""
    import asyncio

    from watchbill.client import Selection

    client, terminal = session.client, session.terminal
    holding = Selection(
        filters=(*here, "allocatedGPU>=0.000001"), sort_by="allocatedGPU", is_descending=True
    )
    shown = limit or ROWS
    workloads = await client.workloads(holding, most=shown)
    if not workloads and output not in DOCUMENTS:
        terminal.remark("No workload that you may see holds GPUs.")
        return
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    end = datetime.now(UTC) - LAG

    async def measured(workload: JSON) -> Hour:
        async with places:
            return await last_hour(client, UUID(workload["id"]), (_GPU, _CPU), end=end)

    hours = await asyncio.gather(*(measured(one) for one in workloads[:MEASURED_ROWS]))
    charts = [*hours, *({} for _ in workloads[MEASURED_ROWS:])]
    if output in DOCUMENTS:
        found = [_figures(*one) for one in zip(workloads, charts, strict=True)]
        terminal.write(DOCUMENTS[output]({"workloads": found}))
        return
    rows = [_row(workload, chart) for workload, chart in zip(workloads, charts, strict=True)]
    for line in lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    if not any(is_known(chart.get((name, ""))) for chart in hours for name in (_GPU, _CPU)):
        terminal.remark(
            "No use was measured in the last hour; `watchbill doctor` says whether anything measures it."
        )
    if len(workloads) >= shown:
        count = await client.workload_count(holding)
        if count > shown:
            terminal.remark(f"{grouped(shown)} of {grouped(count)} shown (--limit N for more)")


def _figures(workload: JSON, chart: Hour) -> JSON:
    """For programs; null is not known. `gpuUtilization` in percent."""
    utilization, cores = chart.get((_GPU, "")), chart.get((_CPU, ""))
    return {
        **{name: workload.get(name) for name in ("id", "name", "projectName", "phase")},
        "allocatedGpus": member(workload, ("allocatedResources", "gpu")),
        "idleAllocatedGpus": workload.get("idleAllocatedGpus"),
        "gpuUtilization": newest(utilization) if is_known(utilization) else None,
        "cpuUsageCores": newest(cores) if is_known(cores) else None,
    }


def _row(workload: JSON, chart: Hour) -> list[str]:
    idle = workload.get("idleAllocatedGpus")
    return [
        workload["name"],
        str(workload.get("projectName") or NONE),
        workload["phase"],
        number(member(workload, ("allocatedResources", "gpu"))),
        UNKNOWN if idle is None else number(idle),
        *_use(chart.get((_GPU, "")), unit="%", top=100.0),
        *_use(chart.get((_CPU, "")), unit="", top=None),
    ]


def _use(values: Series | None, *, unit: str, top: float | None) -> tuple[str, str]:
    """The newest value and the hour, or that it is not known."""
    if values is None or not is_known(values):
        return UNKNOWN, ""
    return f"{brief(newest(values))}{unit}", drawn(values, top=top)


_WORKLOADS, _HELD, _IDLE = "WORKLOADS_COUNT", "GPU_ALLOCATION", "IDLE_ALLOCATED_GPUS"


class UsageGrouping(StrEnum):
    PROJECT = "project"
    DEPARTMENT = "department"
    CLUSTER = "cluster"
    NODE_POOL = "nodepool"
    TYPE = "type"
    CATEGORY = "category"
    PHASE = "phase"
    WORKLOAD = "workload"


_FIELDS = {
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


@asks_server
async def top(
    session: CommandContext,
    name: options.MaybeNamed = None,
    by: Annotated[
        UsageGrouping, typer.Option("--by", help="What to sum by.")
    ] = UsageGrouping.WORKLOAD,
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
        place = Place(project=project, cluster=cluster)
        await top_devices(session, name, output, place=place, has_headers=not no_headers)
        return
    if by is UsageGrouping.WORKLOAD:
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


def _sums_of_groups(by: UsageGrouping, workloads: JSON, held: JSON, idle: JSON) -> list[JSON]:
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
