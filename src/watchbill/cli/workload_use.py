"""What one workload uses, now and over its last hour: `top NAME`, and figures that other commands show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from watchbill.cli.connection.lookup import LookupScope, find_workload
from watchbill.cli.connection.session import CommandContext
from watchbill.cli.output.columns import allocated_gpus
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_bytes,
    format_count,
    format_known,
    format_significant,
    plural,
    sparkline,
)
from watchbill.cli.output.terminal import (
    TABLE_DOCUMENTS,
    TableFormat,
    safe,
    table_document,
    table_lines,
)
from watchbill.errors import Forbidden, NotFound, TooMany, Unavailable

if TYPE_CHECKING:
    from uuid import UUID

    from watchbill.client import Client
    from watchbill.responses.contract import MetricSample, PodResponse, WorkloadResponse
    from watchbill.responses.usage import UsageFigures

SAMPLES = 24
HOUR = timedelta(hours=1)
CONTACT_LAG = timedelta(seconds=40)
"""Nothing is known past a cluster's last contact; by then every connected one has made contact again."""
LONGEST_REPORT = timedelta(days=3650)

Series = list[float | None]
UsageSeries = dict[tuple[str, str], Series]
"""By metric type and GPU; the empty GPU is the whole workload."""


async def life_usage(
    client: "Client", workload: "WorkloadResponse", now: datetime
) -> "tuple[UsageFigures | None, str | None]":
    """What a workload has used in all its days, and the currency of its cost. None while these are being
    counted anew, where the answer comes too late, and to whoever may not see it."""
    try:
        report = await client.usage(
            start=max(workload.created_at, now - LONGEST_REPORT),
            groups=["workload"],
            filters=[f"workload=={workload.id}"],
        )
    except (Forbidden, Unavailable, TooMany):
        return None, None
    if report.accounted_until is None:
        return None, report.currency
    own = (row for row in report.rows if row.group.get("workloadId") == str(workload.id))
    return next(own, None), report.currency


async def usage_series(
    client: "Client",
    workload_id: "UUID",
    types: Sequence[str],
    *,
    end: datetime,
    pod_id: "UUID | None" = None,
) -> UsageSeries:
    """The series that there are; a type that is not measured, or a source that is down, has none."""
    try:
        answer = await client.metrics(
            workload_id, types, start=end - HOUR, end=end, samples=SAMPLES, pod_id=pod_id
        )
    except (NotFound, Unavailable, TooMany):
        return {}
    return {
        (series.type.removesuffix("_PER_GPU"), (series.labels or {}).get("gpu", "")): _spread(
            series.values or (), end
        )
        for series in answer.measurements
    }


def _spread(samples: "Sequence[MetricSample]", end: datetime) -> Series:
    """By position in the usage, with a gap where there is no sample."""
    step = HOUR / SAMPLES
    values: Series = [None] * SAMPLES
    for sample in samples:
        age = end - datetime.fromisoformat(sample.timestamp)
        position = SAMPLES - 1 - round(age / step)
        if 0 <= position < SAMPLES:
            values[position] = float(sample.value)
    return values


def is_known(values: Series | None) -> TypeGuard[Series]:
    return values is not None and any(value is not None for value in values)


def last_value(values: Sequence[float | None]) -> float:
    """Of a series of which something is known."""
    return next(value for value in reversed(values) if value is not None)


def chart(values: Sequence[float | None], *, top: float | None) -> str:
    return sparkline(values, width=SAMPLES, top=top)


GPU_ROWS = 64
"""Further GPUs are in the heat map alone."""
MAP_CELLS = 64
"""GPUs in one line of it."""


@dataclass(frozen=True, slots=True)
class UseMetric:
    """`limit`: the type whose value is what was asked for; `top`: what a full column of the chart is."""

    label: str
    type: str
    show: Callable[[float], str]
    limit: str = ""
    top: float | None = None


def _percent(value: float) -> str:
    return f"{format_significant(value)}%"


def _rate(value: float) -> str:
    return f"{format_bytes(value)}/s"


USE_METRICS = (
    UseMetric("GPU use", "GPU_UTILIZATION", _percent, top=100.0),
    UseMetric("GPU memory", "GPU_MEMORY_USAGE_BYTES", format_bytes),
    UseMetric("NVLink", "NVLINK_BANDWIDTH_TOTAL", _rate),
    UseMetric("CPU cores", "CPU_USAGE_CORES", format_significant, limit="CPU_REQUEST_CORES"),
    UseMetric("memory", "CPU_MEMORY_USAGE_BYTES", format_bytes, limit="CPU_MEMORY_REQUEST_BYTES"),
    UseMetric("running pods", "RUNNING_POD_COUNT", format_significant, limit="POD_COUNT"),
)
_GPU_USE, _GPU_MEMORY, _NVLINK = USE_METRICS[:3]
USE_TYPES = tuple(name for metric in USE_METRICS for name in (metric.type, metric.limit) if name)
_POD_TYPES = (
    *("GPU_UTILIZATION", "GPU_UTILIZATION_PER_GPU", "CPU_USAGE_CORES", "CPU_MEMORY_USAGE_BYTES"),
    *("GPU_MEMORY_USAGE_BYTES", "GPU_MEMORY_USAGE_BYTES_PER_GPU"),
    *("NVLINK_BANDWIDTH_TOTAL", "NVLINK_BANDWIDTH_TOTAL_PER_GPU"),
)
"""Of a pod, single devices have types of their own."""


def end_of_use(workload: "WorkloadResponse | PodResponse") -> datetime:
    """When it ended, or the newest moment of which something is known."""
    return workload.completed_at or workload.deleted_at or datetime.now(UTC) - CONTACT_LAG


async def top_workload(
    session: CommandContext,
    name: str,
    output: TableFormat,
    *,
    pod_name: str | None = None,
    scope: LookupScope,
    has_headers: bool,
) -> None:
    """`pod_name`: of this pod of it alone."""
    client, terminal = session.client, session.terminal
    workload = (await find_workload(client, name, scope)).workload
    pod = None if pod_name is None else await _pod(client, workload, pod_name)
    shown, types = (workload, USE_TYPES) if pod is None else (pod, _POD_TYPES)
    pod_id = None if pod is None else pod.id
    end = end_of_use(shown)
    usage = await usage_series(client, workload.id, types, end=end, pod_id=pod_id)
    if output in TABLE_DOCUMENTS:
        terminal.write(table_document(output, _last_values(shown, usage)))
        return
    terminal.print(_headline(workload) if pod is None else _pod_headline(pod))
    if not any(is_known(values) for values in usage.values()):
        terminal.note("No use of it was measured then; `watchbill doctor` shows what is measured.")
        return
    has_ended = shown.completed_at is not None or shown.deleted_at is not None
    headers = header_row("", "last" if has_ended else "now", "requested", "lastHour")
    totals = [
        _total(metric, usage) for metric in USE_METRICS if is_known(usage.get((metric.type, "")))
    ]
    for line in ("", *table_lines(headers if has_headers else None, totals, terminal)):
        terminal.print(line)
    _print_devices(session, usage, has_headers=has_headers)


async def _pod(client: "Client", workload: "WorkloadResponse", name: str) -> "PodResponse":
    """Live or gone. Raises NotFound where the workload has none of that name."""
    for is_deleted in (False, True):
        listed = await client.pods(workload.id, is_deleted=is_deleted, search=name)
        for pod in listed.pods:
            if pod.name == name:
                return pod
    raise NotFound(
        f"{workload.name} has no pod {name}.",
        details=f"`watchbill pods {workload.name}` lists them.",
    )


def _pod_headline(pod: "PodResponse") -> str:
    allocated = pod.allocated_resources
    gpus = NONE if allocated is None else format_known(allocated.gpu)
    return safe(f"{pod.name} (pod, {pod.k8s_phase}, on {pod.node_name or NONE}): {gpus} GPUs")


def _last_values(shown: "WorkloadResponse | PodResponse", usage: UsageSeries) -> dict[str, Any]:
    """The last value of each series, for programs."""
    return {
        "id": shown.id,
        "name": shown.name,
        "metrics": [
            {"type": name, **({"gpu": gpu} if gpu else {}), "value": last_value(values)}
            for (name, gpu), values in usage.items()
            if is_known(values)
        ],
    }


def _headline(workload: "WorkloadResponse") -> str:
    gpus, idle = workload.allocated_resources.gpu, workload.idle_allocated_gpus
    unused = "" if gpus == 0 else f", {format_known(idle)} of them idle"
    where = f"{workload.type}, {workload.phase}, project {workload.project_name or NONE}"
    pods = plural(workload.running_pods, "running pod")
    return safe(f"{workload.name} ({where}): {allocated_gpus(workload)} GPUs{unused}, {pods}")


def _total(metric: UseMetric, usage: UsageSeries) -> Sequence[str]:
    values, requested = usage[metric.type, ""], usage.get((metric.limit, ""))
    return [
        metric.label,
        metric.show(last_value(values)),
        metric.show(last_value(requested))
        if requested is not None and is_known(requested)
        else NONE,
        chart(values, top=metric.top),
    ]


def _print_devices(session: CommandContext, usage: UsageSeries, *, has_headers: bool) -> None:
    """A row a GPU, the least used first: that is the one to ask about."""
    devices = {gpu for _, gpu in usage if gpu}
    use = {gpu: _now(usage.get((_GPU_USE.type, gpu))) for gpu in devices}
    order = sorted(devices, key=lambda gpu: (use[gpu] is None, use[gpu] or 0.0, gpu))
    rows = [
        [
            gpu,
            *(_cell(metric, usage, gpu) for metric in (_GPU_USE, _GPU_MEMORY, _NVLINK)),
            _chart(usage, gpu),
        ]
        for gpu in order[:GPU_ROWS]
    ]
    if not rows:
        return
    headers = header_row("gpu", "gpuUtilization", "gpuMemoryUsage", "nvlinkBandwidth", "lastHour")
    for line in ("", *table_lines(headers if has_headers else None, rows, session.terminal)):
        session.terminal.print(line)
    if len(order) > GPU_ROWS:
        for line in ("", *_heat_map([use[gpu] for gpu in order])):
            session.terminal.print(line)


def _heat_map(use: Sequence[float | None]) -> list[str]:
    """All GPUs, a character each, in the order of the table that holds the first of them."""
    cells = sparkline(use, width=len(use), top=_GPU_USE.top)
    unused = sum(value == 0 for value in use)
    return [
        f"All {format_count(len(use))} GPUs by their use now, the least used first; "
        f"{format_count(unused)} at 0%:",
        *(cells[start : start + MAP_CELLS] for start in range(0, len(cells), MAP_CELLS)),
    ]


def _now(values: Series | None) -> float | None:
    return last_value(values) if values is not None and is_known(values) else None


def _cell(metric: UseMetric, usage: UsageSeries, gpu: str) -> str:
    value = _now(usage.get((metric.type, gpu)))
    return UNKNOWN if value is None else metric.show(value)


def _chart(usage: UsageSeries, gpu: str) -> str:
    values = usage.get((_GPU_USE.type, gpu))
    return chart(values, top=_GPU_USE.top) if values is not None and is_known(values) else ""
