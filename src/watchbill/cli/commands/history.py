"""`history`, `events` and `tree`: phases of a workload, what Kubernetes reported about it, its elements."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import LookupScope, find_workload, load_view
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import note_stale_clusters
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    format_age,
    format_count,
    format_duration,
    format_time,
)
from watchbill.cli.output.terminal import (
    PHASE_COLOURS,
    TABLE_DOCUMENTS,
    Cell,
    Row,
    TableFormat,
    safe,
    table_document,
    table_lines,
)

if TYPE_CHECKING:
    from uuid import UUID

    from watchbill.responses.contract import WorkloadResponse
    from watchbill.responses.workloads import HistoryRecord, PhaseInterval
    from watchbill.workload import Element

PHASE_COLUMNS = ("phase", "startedAt", "lasted", "message")


@server_command
async def history(
    session: CommandContext,
    name: options.Named,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show the phases of a workload, oldest first."""
    scope = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = (await find_workload(session.client, name, scope)).workload
    answer = await session.client.history(workload.id)
    if output in TABLE_DOCUMENTS:
        from watchbill.responses.workloads import PhaseInterval

        session.terminal.write(table_document(output, answer, PhaseInterval))
        return
    now = session.now()
    headers = None if no_headers else header_row(*PHASE_COLUMNS)
    rows = phase_rows(answer.history, now, workload.extra.observed_until)
    for line in table_lines(headers, rows, session.terminal):
        session.terminal.print(line)
    if workload.extra.observed_until is not None:
        note_stale_clusters(session.terminal, await load_view(session), [workload])
    if workload.deleted_at is not None:
        for line in _end(workload, now):
            session.terminal.note(line)


def phase_rows(
    phases: "Sequence[PhaseInterval]", now: datetime, observed_until: datetime | None
) -> list[Row]:
    """`observed_until`: of a cluster that is not observed, when it last was: its phases are known so far."""
    return [
        [
            Cell(interval.phase, PHASE_COLOURS.get(interval.phase)),
            format_time(interval.started_at, now),
            _lasted(interval, observed_until or now),
            interval.phase_message or NONE,
        ]
        for interval in phases
    ]


def _lasted(interval: "PhaseInterval", until: datetime) -> str:
    if interval.ended_at is None:
        return f"{format_duration(max(until - interval.started_at, timedelta()))} so far"
    return format_duration(interval.ended_at - interval.started_at)


def _end(workload: "WorkloadResponse", now: datetime) -> Iterator[str]:
    yield (
        f"Deleted {format_time(workload.deleted_at, now)}. "
        f"Total pending time {format_duration(workload.total_pending_time_seconds)}, "
        f"total running time {format_duration(workload.total_running_time_seconds)}."
    )
    yield f"hint: `watchbill describe {workload.id}` shows everything that is kept of it"


SHOWN_EVENTS = 50
EVENT_COLUMNS = ("age", "type", "reason", "object", "count", "message")


@server_command
async def events(
    session: CommandContext,
    name: options.Named,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show a workload's Kubernetes events and phase changes, newest first.

    The newest 200 events of the last 14 days are kept, also of a deleted workload.
    """
    from watchbill.client.selection import PAGE

    scope = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = (await find_workload(session.client, name, scope)).workload
    most = limit or (PAGE if output in TABLE_DOCUMENTS else SHOWN_EVENTS)
    answer = await session.client.event_history(workload.id, most=most)
    if output in TABLE_DOCUMENTS:
        from watchbill.responses.workloads import HistoryRecord

        listed = {"records": answer.records}
        session.terminal.write(table_document(output, listed, HistoryRecord))
    else:
        rows = [event_row(record, session.now()) for record in answer.records]
        headers = None if no_headers else header_row(*EVENT_COLUMNS)
        for line in table_lines(headers, rows, session.terminal):
            session.terminal.print(line)
    if answer.next_offset is not None:
        newest = f"The newest {format_count(len(answer.records))}"
        session.terminal.note(f"{newest}; --limit shows more.")


def event_row(record: "HistoryRecord", now: datetime) -> Row:
    age = format_age(record.meta.creation_timestamp, now)
    event, update = record.spec.event, record.spec.phase_update
    if event is not None:
        involved = event.involved_object
        colour = PHASE_COLOURS.get("Failed") if event.type == "Warning" else None
        about = f"{involved.kind}/{involved.name}"
        count = format_count(event.count)
        return [age, Cell(event.type, colour), event.reason, about, count, event.message]
    phase = "" if update is None else update.phase.value
    message = "" if update is None else update.phase_message
    return [age, "Phase", Cell(phase, PHASE_COLOURS.get(phase)), NONE, NONE, message or NONE]


@server_command
async def tree(
    session: CommandContext,
    name: options.Named,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
) -> None:
    """Show the elements of a workload: roles, replicas, pods."""
    import asyncio

    scope = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = (await find_workload(session.client, name, scope)).workload
    elements, counts = await asyncio.gather(
        session.client.elements(workload.id), session.client.element_count(workload.id)
    )
    if output in TABLE_DOCUMENTS:
        from watchbill.workload import Element

        session.terminal.write(table_document(output, {"elements": elements}, Element))
        return
    session.terminal.print(f"{safe(workload.name)} ({safe(workload.type)})")
    for line in tree_lines(elements):
        session.terminal.print(line)
    if not elements:
        session.terminal.note("It has no known elements.")
    if counts.total_elements_count > counts.stored_elements_count:
        session.terminal.note(
            f"{format_count(counts.stored_elements_count)} of "
            f"{format_count(counts.total_elements_count)} elements are stored and shown."
        )


def tree_lines(elements: "Sequence[Element]") -> Iterator[str]:
    """One line an element, below its parent; one whose parent is not among them stands at the top."""
    known = {element.id for element in elements}
    children: dict[UUID | None, list[Element]] = {}
    for element in elements:
        parent = element.parent_id if element.parent_id in known else None
        children.setdefault(parent, []).append(element)
    last_ids = {siblings[-1].id for siblings in children.values()}
    shown: set[UUID] = set()
    for root in (*children.get(None, []), *elements):  # the second: parents in a ring have no top
        pending = [(root, "")]
        while pending:
            element, stem = pending.pop()
            if element.id in shown:
                continue
            shown.add(element.id)
            is_last = element.id in last_ids
            yield f"{stem}{'└─ ' if is_last else '├─ '}{_title(element)}"
            stem += "   " if is_last else "│  "
            pending += [(child, stem) for child in reversed(children.get(element.id, []))]


def _title(element: "Element") -> str:
    kind = element.kubernetes_ref.gvk.kind if element.kubernetes_ref else ""
    return safe(element.name) + (f" ({safe(kind)})" if kind else "")
