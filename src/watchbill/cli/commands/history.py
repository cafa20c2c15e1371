"""`history` and `tree`: what a workload went through, and what it is made of."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import Place, find_workload
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.formats import DOCUMENTS, AnswerFormat
from watchbill.cli.output.humanize import NONE, grouped, instant, moment, span
from watchbill.cli.output.table import Cell, Row, lines
from watchbill.cli.output.terminal import PHASE_COLOURS, safe


@asks_server
async def history(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show the phases that a workload went through, the oldest first."""
    place = Place(project=project, cluster=cluster, is_deleted=deleted)
    workload = await find_workload(session.client, name, place)
    spells = await session.client.history(UUID(workload["id"]))
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"history": spells}))
        return
    now = datetime.now(UTC)
    headers = None if no_headers else SPELL_HEADERS
    for line in lines(headers, spell_rows(spells, now), session.terminal):
        session.terminal.print(line)
    if workload.get("deletedAt"):
        for line in _end(workload, now).splitlines():
            session.terminal.remark(line)


SPELL_HEADERS = ["PHASE", "FROM", "LASTED", "MESSAGE"]


def spell_rows(spells: Sequence[JSON], now: datetime) -> list[Row]:
    return [
        [
            Cell(spell["phase"], PHASE_COLOURS.get(spell["phase"])),
            moment(spell["startedAt"], now),
            _lasted(spell, now),
            str(spell.get("phaseMessage") or NONE),
        ]
        for spell in spells
    ]


def _end(workload: JSON, now: datetime) -> str:
    waited = span(workload.get("totalPendingTimeSeconds") or 0)
    ran = span(workload.get("totalRunningTimeSeconds") or 0)
    return (
        f"It was deleted {moment(workload['deletedAt'], now)}. In all it waited {waited} and ran {ran}.\n"
        f"hint: `watchbill describe {workload['id']}` shows all that is kept of it"
    )


def _lasted(spell: JSON, now: datetime) -> str:
    started, ended = instant(spell["startedAt"]), instant(spell.get("endedAt"))
    if started is None:
        return NONE
    return span(ended - started) if ended else f"{span(now - started)} so far"


@asks_server
async def tree(
    session: CommandContext,
    name: options.Named,
    output: options.Output = AnswerFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
) -> None:
    """Show the parts that a workload is made of."""
    import asyncio

    place = Place(project=project, cluster=cluster, is_deleted=deleted)
    workload = await find_workload(session.client, name, place)
    workload_id = UUID(workload["id"])
    elements, counts = await asyncio.gather(
        session.client.elements(workload_id), session.client.element_count(workload_id)
    )
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"elements": elements}))
        return
    session.terminal.print(f"{safe(workload['name'])} ({safe(workload['type'])})")
    for line in branches(elements):
        session.terminal.print(line)
    if not elements:
        session.terminal.remark("It has no parts that are known.")
    missing = counts["totalElementsCount"] - counts["storedElementsCount"]
    if missing > 0:
        session.terminal.remark(
            f"{grouped(counts['storedElementsCount'])} of "
            f"{grouped(counts['totalElementsCount'])} parts are stored and shown."
        )


def branches(elements: list[JSON]) -> Iterator[str]:
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
