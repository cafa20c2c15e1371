"""`why`: why a workload is pending, or the status of one that is not. Only what the server has evidence for.

Without a name: everything that is pending and the reason of each, the longest pending first.
"""

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    COLUMNS,
    TABLE_ROWS,
    ColumnView,
    allocated_gpus,
    note_stale_clusters,
)
from watchbill.cli.output.headers import HEADERS
from watchbill.cli.output.humanize import (
    NONE,
    format_age,
    format_count,
    format_duration,
    format_number,
    format_time,
    plural,
)
from watchbill.cli.output.kubectl import kubectl_lines
from watchbill.cli.output.terminal import (
    PHASE_COLOURS,
    TABLE_DOCUMENTS,
    Row,
    TableFormat,
    Terminal,
    safe,
    table_document,
    table_lines,
    width,
)

if TYPE_CHECKING:
    from watchbill.responses.contract import WorkloadResponse
    from watchbill.workload import Condition, PendingReason

KUBECTL_ELEMENTS = 20
"""Enough to find a pod among them."""
NO_REASON = "no scheduler and no queue has given a reason yet"
_COLUMNS = ("name", "type", "project", "owner", "gpu")
_TABLE = (
    *("name", "type", "project", "owner", "gpusRequestedAndAllocated"),
    *("phaseUpdatedAt", "reason"),
)
_CONDITIONS = ("condition", "reason", "lastTransitionTime", "message")
_SOURCES = {
    "kai": "KAI scheduler",
    "kueue": "Kueue",
    "volcano": "Volcano",
    "scheduler": "the Kubernetes scheduler",
}


@server_command
async def why(
    session: CommandContext,
    name: options.MaybeNamed = None,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Explain why a workload is pending, with the evidence; or show its status.

    Without a name: all pending workloads, each with the reason, the longest pending first.
    """
    import asyncio

    scope = LookupScope(
        project=project, cluster=cluster, is_deleted=deleted, is_everywhere=everywhere
    )
    if name is None:
        await print_pending(session, scope, output, limit=limit, has_headers=not no_headers)
        return
    workload = (await find_workload(session.client, name, scope)).workload
    if output in TABLE_DOCUMENTS:
        session.terminal.write(table_document(output, evidence(workload)))
        return
    view, elements = await asyncio.gather(
        load_view(session), session.client.elements(workload.id, most=KUBECTL_ELEMENTS)
    )
    for line in explanation(workload, view, session.terminal):
        session.terminal.print(line)
    for line in kubectl_lines(workload, elements, view):
        session.terminal.print(line)
    note_stale_clusters(session.terminal, view, [workload])
    if workload.phase == "Pending" and workload.deleted_at is None and workload.project_name:
        project = shlex.quote(f"project=={workload.project_name}")
        session.terminal.note(
            f"hint: `watchbill usage --since 7d --by day --filter {project}` shows its pending GPU-hours"
        )


async def print_pending(
    session: CommandContext,
    scope: LookupScope,
    output: TableFormat,
    *,
    limit: int | None,
    has_headers: bool,
) -> None:
    import asyncio

    from watchbill.client import Selection

    if scope.is_deleted:
        usage_error(
            "A deleted workload is not pending.", hint="name one: `watchbill why NAME --deleted`"
        )
    client, terminal = session.client, session.terminal
    filters = ("phase==Pending", *await scope_filters(client, scope))
    selection = Selection(filters=filters, sort_by="phaseUpdatedAt")
    if output in TABLE_DOCUMENTS:
        pending = await client.workloads(selection, most=limit)
        listed = {"workloads": [evidence(workload) for workload in pending]}
        terminal.write(table_document(output, listed, PENDING_MEMBERS))
        return
    shown = limit or TABLE_ROWS
    view, workloads = await asyncio.gather(
        load_view(session), client.workloads(selection, most=shown)
    )
    if not workloads:
        terminal.note("No pending workloads visible to you.")
        note_stale_clusters(terminal, view, workloads)
        return
    rows: list[Row] = [
        [
            *(COLUMNS[name].show(workload, view) for name in _COLUMNS),
            format_age(workload.phase_updated_at, workload.extra.observed_until or view.now),
            dominant_reason(workload),
        ]
        for workload in workloads
    ]
    headers = [HEADERS[member] for member in _TABLE] if has_headers else None
    for line in pending_lines(headers, rows, terminal):
        terminal.print(line)
    note_stale_clusters(terminal, view, workloads)
    if len(workloads) >= shown and (count := await client.workload_count(selection)) > shown:
        terminal.note(f"{format_count(shown)} of {format_count(count)} shown (--limit N for more)")
    terminal.note("hint: `watchbill why NAME` shows the evidence")


def pending_lines(
    headers: list[str] | None, rows: Sequence[Row], terminal: Terminal
) -> Iterator[str]:
    """The reason, which stands last, goes below its row where a terminal has no room for it beside: cut to a
    few letters it says nothing."""
    whole = table_lines(headers, rows, Terminal())
    if terminal.columns is None or max(map(width, whole)) <= terminal.columns:
        yield from table_lines(headers, rows, terminal)
        return
    lines = table_lines(headers and headers[:-1], [row[:-1] for row in rows], terminal)
    if headers is not None:
        yield lines.pop(0)
    reasons = table_lines(None, [row[-1:] for row in rows], terminal, indent="    ")
    for line, reason in zip(lines, reasons, strict=True):
        yield line
        yield reason


PENDING_MEMBERS = (
    *("id", "name", "type", "projectName", "clusterId", "submittedBy", "phase", "phaseMessage"),
    *("phaseUpdatedAt", "totalPendingTimeSeconds", "totalRunningTimeSeconds", "pendingReasons"),
    "conditions",
)
"""Of the evidence, what every pending workload may have."""


def evidence(workload: "WorkloadResponse") -> dict[str, Any]:
    """For programs, under the API's names: what the explanation is made of, the dominant reason first."""
    facts = {
        "id": workload.id,
        "name": workload.name,
        "type": workload.type,
        "projectName": workload.project_name,
        "clusterId": workload.cluster_id,
        "submittedBy": workload.submitted_by,
        "phase": workload.phase,
        "phaseMessage": workload.phase_message,
        "phaseUpdatedAt": workload.phase_updated_at,
        "completedAt": workload.completed_at,
        "deletedAt": workload.deleted_at,
        "totalPendingTimeSeconds": workload.total_pending_time_seconds,
        "totalRunningTimeSeconds": workload.total_running_time_seconds,
        "observedUntil": workload.extra.observed_until,
        "queuePosition": workload.extra.queue_position,
        "pendingReasons": workload.extra.pending_reasons,
        "conditions": workload.conditions,
    }
    return {name: value for name, value in facts.items() if value is not None}


def dominant_reason(workload: "WorkloadResponse") -> str:
    """The server lists it first."""
    for reason in workload.extra.pending_reasons[:1]:
        return reason.user_message or reason.message
    return workload.phase_message or NO_REASON


def explanation(
    workload: "WorkloadResponse", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    yield _headline(workload, view, terminal)
    if workload.deleted_at is not None:
        yield f"It was deleted {format_time(workload.deleted_at, view.now)}."
    elif workload.extra.observed_until is not None:
        until = format_time(workload.extra.observed_until, view.now)
        yield f"Its cluster was observed until {until}: what follows is as of then."
    if workload.phase == "Pending" and workload.deleted_at is None:
        yield from _pending(workload, view)
    else:
        yield from _status(workload, view)
    yield from _conditions(workload, view, terminal)


def _headline(workload: "WorkloadResponse", view: ColumnView, terminal: Terminal) -> str:
    cluster = view.cluster_name(workload.cluster_id)
    who = f"{safe(workload.name)} ({safe(workload.type)})"
    where = f"in project {safe(workload.project_name or NONE)} on cluster {safe(cluster)}"
    phase = terminal.coloured(workload.phase, PHASE_COLOURS.get(workload.phase))
    if workload.deleted_at is not None:
        return f"{who} {where} was {phase} when it was deleted."
    until = workload.extra.observed_until
    if until is not None:
        lasted = format_age(workload.phase_updated_at, until)
        return f"{who} {where} had been {phase} for {lasted} when its cluster was last observed."
    return f"{who} {where} has been {phase} for {format_age(workload.phase_updated_at, view.now)}."


def _pending(workload: "WorkloadResponse", view: ColumnView) -> Iterator[str]:
    reasons = workload.extra.pending_reasons
    if not reasons:
        if workload.phase_message:
            yield f"Message: {safe(workload.phase_message)}"
        yield "No scheduler and no queue has given a reason yet."
    yield from _queue(workload)
    for position, reason in enumerate(reasons):
        yield ""
        yield ("Because: " if position == 0 else "Also: ") + safe(
            reason.user_message or reason.message or reason.reason
        )
        yield from _evidence(reason, view)


def _queue(workload: "WorkloadResponse") -> Iterator[str]:
    """As its scheduler tells it, else counted by the server from what it knows."""
    position = workload.extra.queue_position
    if position is None or not position.others:
        return
    if position.source is not None:
        yield (
            f"Ahead of it in {position.source}'s own order: {format_count(position.ahead)} of "
            f"{plural(position.others, 'other')} waiting in its ClusterQueue."
        )
    else:
        yield (
            f"Ahead of it by priority and time waited: {format_count(position.ahead)} of "
            f"{plural(position.others, 'other workload')} pending in its project; "
            "its scheduler may order them differently."
        )


def _evidence(reason: "PendingReason", view: ColumnView) -> Iterator[str]:
    pool = f", for node pool {reason.node_pool}" if reason.node_pool else ""
    facts = {
        "source": _SOURCES.get(reason.source, reason.source) + pool,
        "since": format_time(reason.since, view.now),
        "reason": reason.reason,
        "original": reason.message,
    }
    for label, value in facts.items():
        if value and value != NONE:
            yield f"  {label:<14}{safe(value)}"


def _status(workload: "WorkloadResponse", view: ColumnView) -> Iterator[str]:
    """Of a workload that is not pending."""
    if workload.phase_message:
        yield f"Message: {safe(workload.phase_message)}"
    if workload.completed_at is not None:
        yield f"It ended {format_time(workload.completed_at, view.now)}."
    elif workload.deleted_at is None:
        yield from _running(workload)
    yield (
        f"Total pending time {format_duration(workload.total_pending_time_seconds)}, "
        f"total running time {format_duration(workload.total_running_time_seconds)}."
    )


def _running(workload: "WorkloadResponse") -> Iterator[str]:
    requested, gpus = workload.requested_pods.number, workload.allocated_resources.gpu
    of_requested = f" of {requested}" if requested is not None else ""
    yield (
        f"{workload.running_pods}{of_requested} pods running, {allocated_gpus(workload)} GPUs allocated."
    )
    if gpus is None:
        yield "The labels of its nodes do not say what part of a GPU it holds."
    elif gpus and workload.idle_allocated_gpus is None:
        yield "GPU use is not measured: idle GPUs are unknown."
    elif gpus and workload.idle_allocated_gpus:
        yield f"{format_number(workload.idle_allocated_gpus)} GPUs idle."


def _conditions(
    workload: "WorkloadResponse", view: ColumnView, terminal: Terminal
) -> Iterator[str]:
    """Those with a message, the latest first."""
    conditions = [condition for condition in workload.conditions if condition.message]
    if not conditions:
        return
    conditions.sort(key=_changed_at, reverse=True)
    yield from ("", "Conditions with a message:")
    rows = [
        [
            f"{condition.type}={condition.status}",
            condition.reason or NONE,
            format_age(condition.last_transition_time, view.now),
            condition.message or NONE,
        ]
        for condition in conditions
    ]
    headers = [HEADERS[member] for member in _CONDITIONS]
    yield from table_lines(headers, rows, terminal, indent="  ")


def _changed_at(condition: "Condition") -> datetime:
    return condition.last_transition_time or datetime.min.replace(tzinfo=UTC)
