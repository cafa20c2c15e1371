"""`compare`: some workloads side by side: phases, requests, allocation, use, and GPU-hours."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    ColumnView,
    allocated_gpus,
    note_stale_clusters,
    requested_gpus,
)
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_age,
    format_duration,
    format_known,
    format_number,
)
from watchbill.cli.output.terminal import (
    PHASE_COLOURS,
    TABLE_DOCUMENTS,
    Cell,
    TableFormat,
    table_document,
    table_lines,
)
from watchbill.cli.workload_use import (
    USE_METRICS,
    USE_TYPES,
    UsageSeries,
    end_of_use,
    is_known,
    last_value,
    life_usage,
    usage_series,
)

if TYPE_CHECKING:
    from watchbill.client import Client
    from watchbill.responses.contract import WorkloadResponse
    from watchbill.responses.usage import UsageFigures
    from watchbill.responses.workloads import PhaseInterval

MAX_COMPARED = 5
_SHOWN_AS_PODS = "RUNNING_POD_COUNT"
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME|ID",
        help="Two to five workloads, by name or id.",
        show_default=False,
        autocompletion=options.complete_name,
    ),
]


@dataclass(frozen=True, slots=True)
class Compared:
    """`phase_seconds`: how long it was in each phase, in the order in which it came to them; `use`: of its last
    hour; `usage`: of its whole life, None where that is not known."""

    workload: "WorkloadResponse"
    phase_seconds: Mapping[str, float]
    use: UsageSeries
    usage: "UsageFigures | None"
    currency: str | None


@server_command
async def compare(
    session: CommandContext,
    names: Names,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show two to five workloads side by side: phases, requests, allocation, use and GPU-hours.

    A column for each. Use is the last that was measured; `?` is not measured. GPU-hours are those of the whole
    life, as in `watchbill usage`, whose newest ten minutes are not counted yet.
    """
    import asyncio

    if not 2 <= len(names) <= MAX_COMPARED:
        usage_error(f"Between 2 and {MAX_COMPARED} workloads can be compared, not {len(names)}.")
    scope = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    documents = await asyncio.gather(
        *(find_workload(session.client, name, scope) for name in names)
    )
    view = await load_view(session)
    compared = await asyncio.gather(
        *(_load(session.client, document.workload, view.now) for document in documents)
    )
    if output in TABLE_DOCUMENTS:
        listed = {"workloads": [_document(each) for each in compared]}
        session.terminal.write(table_document(output, listed))
        return
    headers = [*header_row("name"), *(each.workload.name for each in compared)]
    rows = [row for row in _rows(compared, view) if any(cell not in (NONE, "") for cell in row[1:])]
    for line in table_lines(None if no_headers else headers, rows, session.terminal):
        session.terminal.print(line)
    note_stale_clusters(session.terminal, view, [each.workload for each in compared])


async def _load(client: "Client", workload: "WorkloadResponse", now: datetime) -> Compared:
    import asyncio

    history, use, (usage, currency) = await asyncio.gather(
        client.history(workload.id),
        usage_series(client, workload.id, USE_TYPES, end=end_of_use(workload)),
        life_usage(client, workload, now),
    )
    end = workload.deleted_at or now
    return Compared(workload, _phase_seconds(history.history, end), use, usage, currency)


def _phase_seconds(phases: "Sequence[PhaseInterval]", end: datetime) -> Mapping[str, float]:
    seconds: Counter[str] = Counter()
    for interval in phases:
        lasted = (interval.ended_at or end) - interval.started_at
        seconds[interval.phase] += max(0, round(lasted.total_seconds()))
    return seconds


def _rows(compared: Sequence[Compared], view: ColumnView) -> list[list[Cell | str]]:
    facts: dict[str, Callable[[Compared], Cell | str]] = {
        "type": lambda each: each.workload.type,
        "project": lambda each: each.workload.project_name or NONE,
        "owner": lambda each: each.workload.submitted_by or NONE,
        "cluster": lambda each: view.cluster_name(each.workload.cluster_id),
        "created": lambda each: f"{format_age(each.workload.created_at, view.now)} ago",
        "phase": lambda each: _phase(each.workload, view),
    }
    phases = dict.fromkeys(phase for each in compared for phase in each.phase_seconds)
    facts |= {f"in {phase}": _time_in(phase) for phase in phases}
    facts |= {
        "pods running": _pods,
        "GPUs requested": lambda each: requested_gpus(each.workload),
        "GPUs allocated": lambda each: allocated_gpus(each.workload),
        "GPUs idle": _idle,
        "node pools": lambda each: ", ".join(each.workload.current_node_pools) or NONE,
        "CPU requested": lambda each: _cores(each.workload),
        "memory requested": lambda each: _memory(each.workload),
    }
    facts |= {
        f"{metric.label} now": _last(metric.type, metric.show)
        for metric in USE_METRICS
        if metric.type != _SHOWN_AS_PODS
    }
    facts |= {
        "GPU-hours": _hours("allocated_gpu_hours"),
        "GPU-hours idle": _hours("idle_gpu_hours"),
        "GPU-hours pending": _hours("pending_gpu_hours"),
        f"cost {compared[0].currency or ''}".strip(): _cost,
    }
    return [[label, *(show(each) for each in compared)] for label, show in facts.items()]


def _phase(workload: "WorkloadResponse", view: ColumnView) -> Cell:
    gone = f", deleted {format_age(workload.deleted_at, view.now)} ago"
    text = f"{workload.phase}{gone if workload.deleted_at is not None else ''}"
    return Cell(text, PHASE_COLOURS.get(workload.phase))


def _time_in(phase: str) -> Callable[[Compared], str]:
    def show(each: Compared) -> str:
        seconds = each.phase_seconds.get(phase)
        return NONE if seconds is None else format_duration(seconds)

    return show


def _pods(each: Compared) -> str:
    requested = each.workload.requested_pods.number
    return f"{each.workload.running_pods} of {format_known(requested)}"


def _idle(each: Compared) -> str:
    workload = each.workload
    return (
        NONE
        if workload.allocated_resources.gpu == 0
        else format_known(workload.idle_allocated_gpus)
    )


def _cores(workload: "WorkloadResponse") -> str:
    cpu = workload.workload_requested_resources.cpu
    return format_number(cpu.request if cpu else None)


def _memory(workload: "WorkloadResponse") -> str:
    memory = workload.workload_requested_resources.cpu_memory
    return (memory.request if memory else None) or NONE


def _last(metric_type: str, show: Callable[[float], str]) -> Callable[[Compared], str]:
    def last(each: Compared) -> str:
        series = each.use.get((metric_type, ""))
        return show(last_value(series)) if is_known(series) else UNKNOWN

    return last


def _hours(member: str) -> Callable[[Compared], str]:
    def hours(each: Compared) -> str:
        value = None if each.usage is None else getattr(each.usage, member)
        return UNKNOWN if value is None else f"{value:,.1f}"

    return hours


def _cost(each: Compared) -> str:
    cost = None if each.usage is None else each.usage.cost
    return NONE if cost is None else f"{cost:,.2f}"


def _document(each: Compared) -> dict[str, Any]:
    """For programs; null is not known. Members that the API has, as it has them."""
    workload = each.workload
    return {
        "id": workload.id,
        "name": workload.name,
        "type": workload.type,
        "projectName": workload.project_name,
        "submittedBy": workload.submitted_by,
        "clusterId": workload.cluster_id,
        "createdAt": workload.created_at,
        "completedAt": workload.completed_at,
        "deletedAt": workload.deleted_at,
        "phase": workload.phase,
        "phaseSeconds": dict(each.phase_seconds),
        "runningPods": workload.running_pods,
        "requestedPods": workload.requested_pods,
        "workloadRequestedResources": workload.workload_requested_resources,
        "allocatedResources": workload.allocated_resources,
        "idleAllocatedGpus": workload.idle_allocated_gpus,
        "currentNodePools": workload.current_node_pools,
        "use": {
            metric: last_value(series)
            for (metric, gpu), series in each.use.items()
            if not gpu and is_known(series)
        },
        "usage": each.usage,
        "currency": each.currency,
    }
