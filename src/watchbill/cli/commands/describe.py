"""The sections of `describe` that take questions of their own: endpoints, phases and parts of a workload.

`describe`: everything that is known of one workload, in sections.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from watchbill.cli.commands.history import PHASE_HEADERS, phase_rows, tree_lines
from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    JSON,
    ColumnView,
    idle,
    note_stale_clusters,
    requested_gpus,
    value_at,
)
from watchbill.cli.output.humanize import (
    NONE,
    format_count,
    format_duration,
    format_number,
    format_time,
)
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

if TYPE_CHECKING:
    from watchbill.client import Client

SHOWN_PHASES = 8
SHOWN_ELEMENTS = 20


@dataclass(frozen=True, slots=True)
class WorkloadDetails:
    """`part_count`: all parts that there are, also those that are not stored."""

    endpoints: list[JSON]
    spells: list[JSON]
    parts: list[JSON]
    part_count: int


async def load_details(client: "Client", workload: JSON, *, most_parts: int) -> WorkloadDetails:
    import asyncio

    workload_id = UUID(workload["id"])
    endpoints, spells, parts, counts = await asyncio.gather(
        client.endpoints(workload_id),
        client.history(workload_id),
        client.elements(workload_id, most=most_parts),
        client.element_count(workload_id),
    )
    return WorkloadDetails(endpoints["endpoints"], spells, parts, counts["totalElementsCount"])


def detail_sections(
    found: WorkloadDetails, workload: JSON, view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    yield from _endpoints(found, terminal)
    yield from _phases(found, workload, view, terminal)
    yield from _parts(found, workload, terminal)


def _endpoints(found: WorkloadDetails, terminal: Terminal) -> Iterator[str]:
    if not found.endpoints:
        return
    yield from ("", terminal.coloured("Endpoints", "bold"))
    rows = [
        [
            str(one.get("url") or _host(one)),
            str(one.get("protocol") or NONE),
        ]
        for one in found.endpoints
    ]
    for line in table_lines(None, rows, terminal):
        yield f"  {line}"


def _host(endpoint: JSON) -> str:
    host, port = endpoint.get("host") or NONE, endpoint.get("port")
    return f"{host}:{port}" if port else host


def _phases(
    found: WorkloadDetails, workload: JSON, view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    if not found.spells:
        return
    yield from ("", terminal.coloured("Phases", "bold"))
    shown = found.spells[-SHOWN_PHASES:]
    for line in table_lines(PHASE_HEADERS, phase_rows(shown, view.now), terminal):
        yield f"  {line}"
    earlier = len(found.spells) - len(shown)
    if earlier:
        yield f"  ({format_count(earlier)} earlier: `watchbill history {workload['id']}`)"


def _parts(found: WorkloadDetails, workload: JSON, terminal: Terminal) -> Iterator[str]:
    if not found.parts:
        return
    yield from ("", terminal.coloured("Elements", "bold"))
    for line in tree_lines(found.parts):
        yield f"  {line}"
    if found.part_count > len(found.parts):
        yield (
            f"  ({format_count(len(found.parts))} of {format_count(found.part_count)}: "
            f"`watchbill tree {safe(workload['id'])}`)"
        )


Facts = Mapping[str, Any]
_LABEL_CELLS = 24


@server_command
async def describe(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
) -> None:
    """Show everything that is known of one workload, live or deleted."""
    place = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = await find_workload(session.client, name, place)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](workload))
        return
    await print_description(session, workload)


async def print_description(
    session: CommandContext, workload: JSON, *, most_parts: int = SHOWN_ELEMENTS
) -> None:
    """The whole of it, with what takes questions of its own."""
    import asyncio

    client, terminal = session.client, session.terminal
    (view, clusters), found = await asyncio.gather(
        load_view(client), load_details(client, workload, most_parts=most_parts)
    )
    note_stale_clusters(terminal, clusters, [workload], view.now)
    for line in description(workload, view, terminal):
        terminal.print(line)
    for line in detail_sections(found, workload, view, terminal):
        terminal.print(line)


def description(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    """Sections of `label  value` lines; a value without content is left out."""
    for title, facts in (
        ("", _identity(workload, view)),
        ("Phase", _phase(workload, view, terminal)),
        ("Resources", _resources(workload, view)),
        ("Container", _container(workload)),
        ("Incomplete data", _limits(workload, view)),
    ):
        yield from _section(title, facts, terminal)
    yield from _reasons(workload, view, terminal)
    yield from _conditions(workload, view, terminal)


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


def _identity(workload: JSON, view: ColumnView) -> Facts:
    cluster_id = str(workload.get("clusterId", ""))
    framework = workload.get("distributedFramework")
    return {
        "Name": workload["name"],
        "Type": f"{workload['type']} ({framework})" if framework else workload["type"],
        "Category": workload.get("category"),
        "Id": workload["id"],
        "Project": workload.get("projectName"),
        "Department": workload.get("departmentName"),
        "Namespace": workload.get("namespace"),
        "Cluster": _named(view.cluster_names.get(cluster_id), cluster_id),
        "Owner": workload.get("submittedBy"),
        "Priority": _named(workload.get("priorityClassName"), workload.get("priority")),
        "Preemptible": _yes(workload.get("preemptible")),
        "Application": workload.get("aiApplicationName"),
        "Created": format_time(workload.get("createdAt"), view.now),
        "Completed": format_time(workload.get("completedAt"), view.now),
        "Deleted": format_time(workload.get("deletedAt"), view.now),
    }


def _phase(workload: JSON, view: ColumnView, terminal: Terminal) -> Facts:
    phase = workload["phase"]
    return {
        "Phase": Cell(phase, PHASE_COLOURS.get(phase)),
        "Since": format_time(workload.get("phaseUpdatedAt"), view.now),
        "Message": workload.get("phaseMessage"),
        "Total pending time": format_duration(workload.get("totalPendingTimeSeconds") or 0),
        "Total running time": format_duration(workload.get("totalRunningTimeSeconds") or 0),
    }


def _resources(workload: JSON, view: ColumnView) -> Facts:
    wanted = value_at(workload, ("requestedPods", "number"))
    idle_gpus = idle(workload, view)
    measured = "not measured" if idle_gpus == "?" else idle_gpus
    return {
        "Pods running": f"{workload.get('runningPods', 0)}"
        + (f" of {wanted}" if wanted is not None else ""),
        "GPUs": _asked_and_held(workload, requested_gpus(workload), "gpu"),
        "Idle GPUs": measured,
        "CPU cores": _asked_and_held(
            workload,
            format_number(value_at(workload, ("workloadRequestedResources", "cpu", "request"))),
            "cpu",
        ),
        "Memory": _asked_and_held(
            workload,
            format_number(
                value_at(workload, ("workloadRequestedResources", "cpuMemory", "request"))
            ),
            "cpuMemory",
        ),
        "Other resources": _extended(workload),
        "Requested node pools": ", ".join(workload.get("requestedNodePools") or ()),
        "Current node pools": ", ".join(workload.get("currentNodePools") or ()),
        "Topology": _topology(workload.get("topology")),
    }


def _asked_and_held(workload: JSON, asked: str, name: str) -> str:
    held = value_at(workload, ("allocatedResources", name))
    return (
        f"{asked} requested, {format_number(held or 0)} allocated"
        if asked != NONE or held
        else NONE
    )


def _extended(workload: JSON) -> str:
    found = value_at(workload, ("workloadRequestedResources", "extendedResources")) or ()
    return ", ".join(f"{one['quantity']} {one['resource']}" for one in found)


def _topology(topology: Any) -> str:
    if not isinstance(topology, dict):
        return ""
    actual = topology.get("actualPlacement") or {}
    asked = topology.get("requiredPlacement") or topology.get("preferredPlacement")
    parts = [
        str(topology.get("name") or ""),
        f"requested {asked}" if asked else "",
        f"placed in {actual.get('level')} {actual.get('value')}" if actual else "",
    ]
    return ", ".join(part for part in parts if part)


def _container(workload: JSON) -> Facts:
    variables = workload.get("environmentVariables") or {}
    return {
        "Images": ", ".join(workload.get("images") or ()),
        "Command": workload.get("command"),
        "Arguments": workload.get("arguments"),
        **{f"${safe(name)}": value or '""' for name, value in sorted(variables.items())},
    }


def _limits(workload: JSON, view: ColumnView) -> Facts:
    extra = workload.get("additionalFields") or {}
    between = extra.get("deletedBetween")
    is_hidden = extra.get("isOwnerUnreadable")
    return {
        "Owner": "its owner cannot be read: it may be part of a larger workload"
        if is_hidden
        else None,
        "Truncated": ", ".join(str(one) for one in extra.get("truncated") or ()),
        "Deletion": _between(between, view) if between else None,
    }


def _between(between: Any, view: ColumnView) -> str:
    ends = list(between.values()) if isinstance(between, dict) else list(between)
    return "not observed; it happened between " + " and ".join(
        format_time(str(end), view.now) for end in ends
    )


def _reasons(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    reasons = (workload.get("additionalFields") or {}).get("pendingReasons") or []
    if reasons:
        yield from ("", terminal.coloured("Why it is pending", "bold"))
    for reason in reasons:
        yield f"  {safe(reason.get('userMessage') or reason.get('message'))}"
    if reasons:
        yield "  (the evidence: `watchbill why`)"


def _conditions(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    conditions = workload.get("conditions") or []
    if not conditions:
        return
    yield from ("", terminal.coloured("Conditions", "bold"))
    rows = [
        [
            str(one.get("type", "")),
            str(one.get("status", "")),
            str(one.get("reason") or NONE),
            format_time(one.get("lastTransitionTime"), view.now),
            str(one.get("message") or NONE),
        ]
        for one in conditions
    ]
    for line in table_lines(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows, terminal):
        yield f"  {line}"


def _named(name: Any, value: Any) -> str:
    """`name (value)`, or the one that there is."""
    if name and value not in (None, ""):
        return f"{name} ({value})"
    return str(name or ("" if value is None else value))


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"
