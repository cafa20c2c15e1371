"""`history` and `tree`: what a workload went through, and what it is made of."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import LookupScope, find_workload
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.humanize import (
    NONE,
    format_count,
    format_duration,
    format_time,
    parse_time,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    PHASE_COLOURS,
    AnswerFormat,
    Cell,
    Row,
    safe,
    table_lines,
)


@server_command
async def history(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show the phases of a workload, oldest first."""
    place = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = await find_workload(session.client, name, place)
    spells = await session.client.history(UUID(workload["id"]))
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"history": spells}))
        return
    now = datetime.now(UTC)
    headers = None if no_headers else PHASE_HEADERS
    for line in table_lines(headers, phase_rows(spells, now), session.terminal):
        session.terminal.print(line)
    if workload.get("deletedAt"):
        for line in _end(workload, now).splitlines():
            session.terminal.note(line)


PHASE_HEADERS = ["PHASE", "FROM", "LASTED", "MESSAGE"]


def phase_rows(spells: Sequence[JSON], now: datetime) -> list[Row]:
    return [
        [
            Cell(spell["phase"], PHASE_COLOURS.get(spell["phase"])),
            format_time(spell["startedAt"], now),
            _lasted(spell, now),
            str(spell.get("phaseMessage") or NONE),
        ]
        for spell in spells
    ]


def _end(workload: JSON, now: datetime) -> str:
    waited = format_duration(workload.get("totalPendingTimeSeconds") or 0)
    ran = format_duration(workload.get("totalRunningTimeSeconds") or 0)
    return (
        f"Deleted {format_time(workload['deletedAt'], now)}. "
        f"Total pending time {waited}, total running time {ran}.\n"
        f"hint: `watchbill describe {workload['id']}` shows everything that is kept of it"
    )


def _lasted(spell: JSON, now: datetime) -> str:
    started, ended = parse_time(spell["startedAt"]), parse_time(spell.get("endedAt"))
    if started is None:
        return NONE
    return format_duration(ended - started) if ended else f"{format_duration(now - started)} so far"


@server_command
async def tree(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
) -> None:
    """Show the elements of a workload: roles, replicas, pods."""
    import asyncio

    place = LookupScope(project=project, cluster=cluster, is_deleted=deleted)
    workload = await find_workload(session.client, name, place)
    workload_id = UUID(workload["id"])
    elements, counts = await asyncio.gather(
        session.client.elements(workload_id), session.client.element_count(workload_id)
    )
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"elements": elements}))
        return
    session.terminal.print(f"{safe(workload['name'])} ({safe(workload['type'])})")
    for line in tree_lines(elements):
        session.terminal.print(line)
    if not elements:
        session.terminal.note("It has no known elements.")
    missing = counts["totalElementsCount"] - counts["storedElementsCount"]
    if missing > 0:
        session.terminal.note(
            f"{format_count(counts['storedElementsCount'])} of "
            f"{format_count(counts['totalElementsCount'])} elements are stored and shown."
        )


def tree_lines(elements: list[JSON]) -> Iterator[str]:
    """One line an element, below its parent; one whose parent is not among them stands at the top."""
    known = {element["id"] for element in elements}
    below: dict[str | None, list[JSON]] = {}
    for element in elements:
        parent = element.get("parentId")
        below.setdefault(parent if parent in known else None, []).append(element)
    last_ids = {children[-1]["id"] for children in below.values()}
    shown: set[str] = set()
    for root in (*below.get(None, []), *elements):  # the second: parents in a ring have no top
        pending = [(root, "")]
        while pending:
            element, stem = pending.pop()
            if element["id"] in shown:
                continue
            shown.add(element["id"])
            is_last = element["id"] in last_ids
            yield f"{stem}{'└─ ' if is_last else '├─ '}{_element(element)}"
            stem += "   " if is_last else "│  "
            pending += [(child, stem) for child in reversed(below.get(element["id"], []))]


def _element(element: JSON) -> str:
    kind = ((element.get("kubernetesRef") or {}).get("gvk") or {}).get("kind")
    return safe(element["name"]) + (f" ({safe(kind)})" if kind else "")
