"""`describe`: everything that is known of one workload, in sections."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.commands.history import (
    EVENT_COLUMNS,
    PHASE_COLUMNS,
    event_row,
    phase_rows,
    tree_lines,
)
from watchbill.cli.commands.pods import POD_COLUMNS, pod_lines, pod_rows
from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    ColumnView,
    allocated_gpus,
    idle_gpus,
    note_stale_clusters,
    requested_gpus,
)
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    format_count,
    format_duration,
    format_number,
    format_time,
)
from watchbill.cli.output.kubectl import kubectl_lines
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    PHASE_COLOURS,
    AnswerFormat,
    Cell,
    Terminal,
    padded,
    safe,
    table_lines,
)
from watchbill.cli.workload_use import life_usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchbill.client import Client
    from watchbill.responses.contract import PodsResponse, WorkloadResponse
    from watchbill.responses.usage import UsageFigures
    from watchbill.responses.workloads import HistoryResponse, PhaseInterval
    from watchbill.workload import Element, Endpoint, Topology

SHOWN_PHASES = 8
SHOWN_PODS = 10
SHOWN_ELEMENTS = 20
SHOWN_EVENTS = 10
SECTIONS = frozenset({"general", "compute", "pods", "events", "networks"})
GeneralSection = Annotated[
    bool | None, typer.Option(show_default=False, help="What it is, its phases, why it is pending.")
]
ComputeSection = Annotated[
    bool | None, typer.Option(show_default=False, help="Its requested and allocated resources.")
]
PodsSection = Annotated[
    bool | None, typer.Option(show_default=False, help="Its elements and pods.")
]
EventsSection = Annotated[
    bool | None, typer.Option(show_default=False, help="Its Kubernetes events.")
]
NetworksSection = Annotated[bool | None, typer.Option(show_default=False, help="Its endpoints.")]
_LABEL_CELLS = 24

Facts = Mapping[str, Any]


@server_command
async def describe(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    general: GeneralSection = None,
    compute: ComputeSection = None,
    pods: PodsSection = None,
    events: EventsSection = None,
    networks: NetworksSection = None,
) -> None:
    """Show everything that is known about one workload, live or deleted. Flags choose sections: only those
    named, or all but those named with `--no-`."""
    scope = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    document = await find_workload(session.client, name, scope)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](document.raw))
        return
    sections = chosen_sections(
        general=general, compute=compute, pods=pods, events=events, networks=networks
    )
    await print_description(session, document.workload, sections=sections)


def chosen_sections(**chosen: bool | None) -> frozenset[str]:
    """Those that are named, else all but those that are not wanted."""
    named = frozenset(name for name, is_wanted in chosen.items() if is_wanted)
    return named or frozenset(name for name, is_wanted in chosen.items() if is_wanted is None)


async def print_description(
    session: CommandContext,
    workload: "WorkloadResponse",
    *,
    sections: frozenset[str] = SECTIONS,
    max_elements: int = SHOWN_ELEMENTS,
    max_events: int = SHOWN_EVENTS,
) -> None:
    """The workload, and what takes requests of its own: endpoints, phases, elements, pods and events."""
    import asyncio

    client, terminal = session.client, session.terminal
    view, details = await asyncio.gather(
        load_view(session),
        load_details(client, workload, max_elements=max_elements, max_events=max_events),
    )
    note_stale_clusters(terminal, view, [workload])
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "general": lambda: _general(workload, details, view, terminal),
        "compute": lambda: _section("Resources", _resources(workload, details), terminal),
        "networks": lambda: _endpoints(details, terminal),
        "pods": lambda: _parts(workload, details, view, terminal),
        "events": lambda: _events(workload, details, view, terminal),
    }
    lines = [line for name, part in parts.items() if name in sections for line in part()]
    for line in lines[1:] if lines[:1] == [""] else lines:
        terminal.print(line)
    if sections == SECTIONS:
        for line in kubectl_lines(workload, details.elements, view):
            terminal.print(line)


def _general(
    workload: "WorkloadResponse", details: "WorkloadDetails", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    """Sections of `label  value` lines; a value without content is left out."""
    for title, facts in (
        ("", _identity(workload, view)),
        ("Phase", _phase(workload, view)),
        ("Container", _container(workload)),
        ("Incomplete data", _limits(workload, view)),
    ):
        yield from _section(title, facts, terminal)
    yield from _reasons(workload, terminal)
    yield from _conditions(workload, view, terminal)
    yield from _phases(details, workload, view, terminal)


def _parts(
    workload: "WorkloadResponse", details: "WorkloadDetails", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    yield from _elements(details, workload, terminal)
    yield from _pods(details, workload, view, terminal)


def _events(
    workload: "WorkloadResponse", details: "WorkloadDetails", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    """What Kubernetes reported, without the phases, which have a section of their own."""
    records = [record for record in details.records.records if record.spec.event is not None]
    if not records:
        return
    yield from ("", terminal.coloured("Events", "bold"))
    rows = [event_row(record, view.now) for record in records]
    yield from table_lines(header_row(*EVENT_COLUMNS), rows, terminal, indent="  ")
    if details.records.next_offset is not None:
        yield f"  (more: `watchbill events {workload.id}`)"


def _section(title: str, facts: Facts, terminal: Terminal) -> Iterator[str]:
    shown = {label: value for label, value in facts.items() if value not in (None, "", NONE)}
    if not shown:
        return
    if title:
        yield from ("", terminal.coloured(title, "bold"))
    for label, value in shown.items():
        cell = value if isinstance(value, Cell) else Cell(str(value))
        text = terminal.coloured(safe(cell.text), cell.colour)
        yield f"{'  ' if title else ''}{padded(label, _LABEL_CELLS - (2 if title else 0))}{text}"


def _identity(workload: "WorkloadResponse", view: ColumnView) -> Facts:
    framework = workload.distributed_framework
    cluster = view.cluster_name(workload.cluster_id)
    return {
        "Name": workload.name,
        "Type": f"{workload.type} ({framework})" if framework else workload.type,
        "Category": workload.category,
        "Id": workload.id,
        "Project": workload.project_name,
        "Department": workload.department_name,
        "Namespace": workload.namespace,
        "Cluster": _named(cluster, workload.cluster_id),
        "Owner": workload.submitted_by,
        "Priority": _named(workload.priority_class_name, workload.priority),
        "Preemptible": _yes(workload.preemptible),
        "Application": workload.ai_application_name,
        "Created": format_time(workload.created_at, view.now),
        "Completed": format_time(workload.completed_at, view.now),
        "Deleted": format_time(workload.deleted_at, view.now),
    }


def _phase(workload: "WorkloadResponse", view: ColumnView) -> Facts:
    return {
        "Phase": Cell(workload.phase, PHASE_COLOURS.get(workload.phase)),
        "Since": format_time(workload.phase_updated_at, view.now),
        "Message": workload.phase_message,
        "Total pending time": format_duration(workload.total_pending_time_seconds),
        "Total running time": format_duration(workload.total_running_time_seconds),
    }


def _resources(workload: "WorkloadResponse", details: "WorkloadDetails") -> Facts:
    requested, allocated = workload.workload_requested_resources, workload.allocated_resources
    pods, idle = workload.requested_pods.number, idle_gpus(workload)
    cpu = requested.cpu and requested.cpu.request
    memory = requested.cpu_memory and requested.cpu_memory.request
    return {
        "Pods running": f"{workload.running_pods}" + (f" of {pods}" if pods is not None else ""),
        "GPUs": f"{requested_gpus(workload)} requested, {allocated_gpus(workload)} allocated",
        "Idle GPUs": "not measured" if idle == "?" else idle,
        "GPU-hours so far": _hours(details.usage, details.currency),
        "CPU cores": _amounts(format_number(cpu), allocated.cpu),
        "Memory": _amounts(memory or NONE, allocated.cpu_memory),
        "Other resources": ", ".join(
            f"{resource.quantity or '?'} {resource.resource}"
            for resource in requested.extended_resources
        ),
        "Requested node pools": ", ".join(workload.requested_node_pools),
        "Current node pools": ", ".join(workload.current_node_pools),
        "Topology": _topology(workload.topology) if workload.topology else "",
    }


def _hours(usage: "UsageFigures | None", currency: str | None) -> str:
    """Of its whole life, as in `watchbill usage`, whose newest ten minutes are not counted yet."""
    if usage is None:
        return "not known"
    idle = (
        "idle not measured" if usage.idle_gpu_hours is None else f"{usage.idle_gpu_hours:,.1f} idle"
    )
    parts = [f"{usage.allocated_gpu_hours:,.1f} allocated", idle]
    parts += [f"{usage.pending_gpu_hours:,.1f} pending"] if usage.pending_gpu_hours else []
    parts += [f"{usage.cost:,.2f} {currency}"] if usage.cost is not None else []
    return ", ".join(parts)


def _amounts(requested: str, allocated: float | str | None) -> str:
    if requested == NONE and not allocated:
        return NONE
    return f"{requested} requested, {format_number(allocated or 0)} allocated"


def _topology(topology: "Topology") -> str:
    actual = topology.actual_placement
    requested = topology.required_placement or topology.preferred_placement
    parts = [
        topology.name or "",
        f"requested {requested}" if requested else "",
        f"placed in {actual.level} {actual.value}" if actual else "",
    ]
    return ", ".join(part for part in parts if part)


def _container(workload: "WorkloadResponse") -> Facts:
    variables = sorted(workload.environment_variables.items())
    return {
        "Images": ", ".join(workload.images),
        "Command": workload.command,
        "Arguments": workload.arguments,
        **{f"${safe(name)}": value or '""' for name, value in variables},
    }


def _limits(workload: "WorkloadResponse", view: ColumnView) -> Facts:
    extra = workload.extra
    between = extra.deleted_between
    return {
        "Observed until": format_time(extra.observed_until, view.now)
        if extra.observed_until
        else None,
        "Owner object": "cannot be read by the agent: it may be part of a larger workload"
        if extra.is_owner_unreadable
        else None,
        "Truncated": ", ".join(extra.truncated),
        "Deletion": "not observed; it happened between "
        f"{format_time(between.not_before, view.now)} and {format_time(between.not_after, view.now)}"
        if between
        else None,
    }


def _reasons(workload: "WorkloadResponse", terminal: Terminal) -> Iterator[str]:
    reasons = workload.extra.pending_reasons
    if reasons:
        yield from ("", terminal.coloured("Why it is pending", "bold"))
    for reason in reasons:
        yield f"  {safe(reason.user_message or reason.message)}"
    if reasons:
        yield "  (the evidence: `watchbill why`)"


def _conditions(
    workload: "WorkloadResponse", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    if not workload.conditions:
        return
    yield from ("", terminal.coloured("Conditions", "bold"))
    rows = [
        [
            condition.type,
            condition.status,
            condition.reason or NONE,
            format_time(condition.last_transition_time, view.now),
            condition.message or NONE,
        ]
        for condition in workload.conditions
    ]
    headers = header_row("type", "status", "reason", "lastTransitionTime", "message")
    yield from table_lines(headers, rows, terminal, indent="  ")


def _named(name: object, value: object) -> str:
    """`name (value)`, or the one that there is."""
    if name and value not in (None, "") and str(name) != str(value):
        return f"{name} ({value})"
    return str(name or ("" if value is None else value))


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


@dataclass(frozen=True, slots=True)
class WorkloadDetails:
    """`element_count`: all elements that there are, also those that are not stored."""

    endpoints: "Sequence[Endpoint]"
    phases: "Sequence[PhaseInterval]"
    elements: "Sequence[Element]"
    element_count: int
    pods: "PodsResponse"
    records: "HistoryResponse"
    usage: "UsageFigures | None"
    currency: str | None


async def load_details(
    client: "Client", workload: "WorkloadResponse", *, max_elements: int, max_events: int
) -> WorkloadDetails:
    import asyncio

    stored = asyncio.gather(
        client.endpoints(workload.id),
        client.history(workload.id),
        client.elements(workload.id, most=max_elements),
        client.element_count(workload.id),
        client.pods(workload.id, is_deleted=workload.deleted_at is not None),
        client.event_history(workload.id, most=max_events),
    )
    from watchbill.client.selection import failing_first

    usage = life_usage(client, workload, datetime.now(UTC))
    (endpoints, history, elements, counts, pods, records), used = await asyncio.gather(
        stored, usage
    )
    return WorkloadDetails(
        endpoints.endpoints,
        history.history,
        elements,
        counts.total_elements_count,
        failing_first(pods, SHOWN_PODS),
        records,
        *used,
    )


def _endpoints(details: WorkloadDetails, terminal: Terminal) -> Iterator[str]:
    if not details.endpoints:
        return
    yield from ("", terminal.coloured("Endpoints", "bold"))
    rows = [
        [endpoint.url or _host(endpoint), endpoint.protocol or NONE]
        for endpoint in details.endpoints
    ]
    yield from table_lines(None, rows, terminal, indent="  ")


def _host(endpoint: "Endpoint") -> str:
    host = endpoint.host or NONE
    return f"{host}:{endpoint.port}" if endpoint.port else host


def _phases(
    details: WorkloadDetails, workload: "WorkloadResponse", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    if not details.phases:
        return
    yield from ("", terminal.coloured("Phases", "bold"))
    shown = details.phases[-SHOWN_PHASES:]
    rows = phase_rows(shown, view.now, workload.extra.observed_until)
    yield from table_lines(header_row(*PHASE_COLUMNS), rows, terminal, indent="  ")
    earlier = len(details.phases) - len(shown)
    if earlier:
        yield f"  ({format_count(earlier)} earlier: `watchbill history {workload.id}`)"


def _pods(
    details: WorkloadDetails, workload: "WorkloadResponse", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    if not details.pods.pods:
        return
    yield from ("", terminal.coloured("Pods", "bold"))
    rows = pod_rows(details.pods.pods, view.now)
    yield from pod_lines(POD_COLUMNS, rows, terminal, indent="  ")
    if details.pods.next_offset is not None:
        yield f"  (more: `watchbill pods {workload.id}`)"


def _elements(
    details: WorkloadDetails, workload: "WorkloadResponse", terminal: Terminal
) -> Iterator[str]:
    if not details.elements:
        return
    yield from ("", terminal.coloured("Elements", "bold"))
    for line in tree_lines(details.elements):
        yield f"  {line}"
    if details.element_count > len(details.elements):
        yield (
            f"  ({format_count(len(details.elements))} of {format_count(details.element_count)}: "
            f"`watchbill tree {workload.id}`)"
        )
