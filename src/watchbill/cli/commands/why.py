"""`why` without a name: everything that is pending and the reason of each, the longest waiting first.

`why`: why a workload waits, or what is true of one that does not. Only what the server has evidence for.
"""

from collections.abc import Iterator
from typing import Any

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    COLUMNS,
    JSON,
    TABLE_ROWS,
    ColumnView,
    note_stale_clusters,
    stale_clusters,
    stale_note,
    value_at,
)
from watchbill.cli.output.humanize import (
    NONE,
    format_age,
    format_count,
    format_duration,
    format_number,
    format_time,
    parse_time,
)
from watchbill.cli.output.terminal import PHASE_COLOURS, Row, Terminal, safe, table_lines

NO_REASON = "no scheduler and no queue has given a reason yet"
_HEADERS = ("NAME", "TYPE", "PROJECT", "OWNER", "GPU(R/A)", "PENDING", "REASON")
_COLUMNS = ("name", "type", "project", "owner", "gpu")


async def print_pending(
    session: CommandContext, place: LookupScope, *, limit: int | None, has_headers: bool
) -> None:
    import asyncio

    from watchbill.client import Selection

    if place.is_deleted:
        usage_error(
            "A deleted workload is not pending.", hint="name one: `watchbill why NAME --deleted`"
        )
    client, terminal = session.client, session.terminal
    filters = ("phase==Pending", *await scope_filters(client, place))
    selection = Selection(filters=filters, sort_by="phaseUpdatedAt")
    shown = limit or TABLE_ROWS
    (view, clusters), found = await asyncio.gather(
        load_view(client), client.workloads(selection, most=shown)
    )
    if not found:
        terminal.note("No pending workloads visible to you.")
        return
    rows: list[Row] = [
        [
            *(COLUMNS[name].shown(one, view) for name in _COLUMNS),
            format_age(one["phaseUpdatedAt"], view.now),
            dominant_reason(one),
        ]
        for one in found
    ]
    for line in table_lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    note_stale_clusters(terminal, clusters, found, view.now)
    if len(found) >= shown and (count := await client.workload_count(selection)) > shown:
        terminal.note(f"{format_count(shown)} of {format_count(count)} shown (--limit N for more)")
    terminal.note("hint: `watchbill why NAME` shows the evidence")


def dominant_reason(workload: JSON) -> str:
    """The dominant one: the server tells it first."""
    first: JSON = next(iter(value_at(workload, ("additionalFields", "pendingReasons")) or ()), {})
    told = first.get("userMessage") or first.get("message") or workload.get("phaseMessage")
    return str(told or NO_REASON)


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
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Explain why a workload is pending, with the evidence; or show its status.

    Without a name: everything that is pending, a line each with the reason, the longest waiting first.
    """
    place = LookupScope(
        project=project, cluster=cluster, is_deleted=deleted, is_everywhere=everywhere
    )
    if name is None:
        await print_pending(session, place, limit=limit, has_headers=not no_headers)
        return
    workload = await find_workload(session.client, name, place)
    view, clusters = await load_view(session.client)
    for line in explanation(workload, view, session.terminal):
        session.terminal.print(line)
    for silent in stale_clusters(clusters, [workload]):
        session.terminal.note(stale_note(silent, view.now))


def explanation(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    yield _headline(workload, view, terminal)
    if workload.get("deletedAt"):
        yield f"It was deleted {format_time(workload['deletedAt'], view.now)}."
    if workload["phase"] == "Pending" and not workload.get("deletedAt"):
        yield from _pending(workload, view)
    else:
        yield from _status(workload, view)
    yield from _conditions(workload, view, terminal)


def _headline(workload: JSON, view: ColumnView, terminal: Terminal) -> str:
    cluster_id = str(workload.get("clusterId", ""))
    cluster = view.cluster_names.get(cluster_id, cluster_id)
    phase = workload["phase"]
    who = f"{safe(workload['name'])} ({safe(workload['type'])})"
    where = f"in project {safe(workload.get('projectName') or NONE)} on cluster {safe(cluster)}"
    coloured = terminal.coloured(safe(phase), PHASE_COLOURS.get(phase))
    if workload.get("deletedAt"):
        return f"{who} {where} was {coloured} when it was deleted."
    return (
        f"{who} {where} has been {coloured} for {format_age(workload['phaseUpdatedAt'], view.now)}."
    )


def _pending(workload: JSON, view: ColumnView) -> Iterator[str]:
    reasons = (workload.get("additionalFields") or {}).get("pendingReasons") or []
    if not reasons:
        message = workload.get("phaseMessage")
        if message:
            yield f"Message: {safe(message)}"
        yield "No scheduler and no queue has given a reason yet."
        return
    for position, pending_reason in enumerate(reasons):
        yield ""
        yield ("Because: " if position == 0 else "Also: ") + safe(
            pending_reason.get("userMessage")
            or pending_reason.get("message")
            or pending_reason.get("reason")
        )
        yield from _evidence(pending_reason, view)


def _evidence(pending_reason: JSON, view: ColumnView) -> Iterator[str]:
    source = str(pending_reason.get("source", ""))
    pool = pending_reason.get("nodePool")
    facts: dict[str, Any] = {
        "source": _SOURCES.get(source, source) + (f", for node pool {pool}" if pool else ""),
        "since": format_time(pending_reason.get("since"), view.now),
        "reason": pending_reason.get("reason"),
        "original": pending_reason.get("message"),
    }
    for label, value in facts.items():
        if value and value != NONE:
            yield f"  {label:<14}{safe(value)}"


def _status(workload: JSON, view: ColumnView) -> Iterator[str]:
    """How a workload that does not wait stands."""
    if workload.get("phaseMessage"):
        yield f"Message: {safe(workload['phaseMessage'])}"
    completed = workload.get("completedAt")
    if completed:
        yield f"It ended {format_time(completed, view.now)}."
    else:
        yield from _running(workload)
    waited = workload.get("totalPendingTimeSeconds") or 0
    ran = workload.get("totalRunningTimeSeconds") or 0
    yield f"Total pending time {format_duration(waited)}, total running time {format_duration(ran)}."


def _running(workload: JSON) -> Iterator[str]:
    if workload.get("deletedAt"):
        return
    wanted = value_at(workload, ("requestedPods", "number"))
    of_wanted = f" of {wanted}" if wanted is not None else ""
    gpus = value_at(workload, ("allocatedResources", "gpu")) or 0
    yield f"{workload.get('runningPods', 0)}{of_wanted} pods running, {format_number(gpus)} GPUs allocated."
    idle = workload.get("idleAllocatedGpus")
    if gpus and idle is None:
        yield "GPU use is not measured: idle GPUs are unknown."
    elif gpus and idle:
        yield f"{format_number(idle)} GPUs idle."


def _conditions(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    """The conditions that have something to say, the latest first."""
    told = [one for one in workload.get("conditions") or [] if one.get("message")]
    if not told:
        return
    told.sort(key=_changed_at, reverse=True)
    yield from ("", "Conditions with a message:")
    rows = [
        [
            f"{one.get('type')}={one.get('status')}",
            str(one.get("reason") or NONE),
            format_age(one.get("lastTransitionTime"), view.now),
            str(one["message"]),
        ]
        for one in told
    ]
    for line in table_lines(["CONDITION", "REASON", "AGE", "MESSAGE"], rows, terminal):
        yield f"  {line}"


def _changed_at(condition: JSON) -> float:
    at = parse_time(condition.get("lastTransitionTime"))
    return at.timestamp() if at else 0.0
