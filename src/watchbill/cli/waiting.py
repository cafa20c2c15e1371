"""`why` without a name: everything that is pending and the reason of each, the longest waiting first."""

import asyncio

from watchbill.cli.columns import COLUMNS, JSON, member
from watchbill.cli.failure import refuse
from watchbill.cli.find import Place, filters_of, view_of
from watchbill.cli.listing import TABLE_ROWS
from watchbill.cli.session import Session
from watchbill.cli.staleness import remark_silent_clusters
from watchbill.cli.table import Row, lines
from watchbill.cli.words import grouped, since

NO_REASON = "no scheduler and no queue has given a reason yet"
_HEADERS = ("NAME", "TYPE", "PROJECT", "OWNER", "GPU(R/A)", "WAITS", "WHY")
_COLUMNS = ("name", "type", "project", "owner", "gpu")


async def print_waiting(
    session: Session, place: Place, *, limit: int | None, has_headers: bool
) -> None:
    from watchbill.client import Selection

    if place.is_deleted:
        refuse("Nothing that is deleted waits.", hint="name one: `watchbill why NAME --deleted`")
    client, terminal = session.client, session.terminal
    filters = ("phase==Pending", *await filters_of(client, place))
    selection = Selection(filters=filters, sort_by="phaseUpdatedAt")
    shown = limit or TABLE_ROWS
    (view, clusters), found = await asyncio.gather(
        view_of(client), client.workloads(selection, most=shown)
    )
    if not found:
        terminal.remark("Nothing that you may see is pending here.")
        return
    rows: list[Row] = [
        [
            *(COLUMNS[name].shown(one, view) for name in _COLUMNS),
            since(one["phaseUpdatedAt"], view.now),
            reason(one),
        ]
        for one in found
    ]
    for line in lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    remark_silent_clusters(terminal, clusters, found, view.now)
    if len(found) >= shown and (count := await client.workload_count(selection)) > shown:
        terminal.remark(f"{grouped(shown)} of {grouped(count)} shown (--limit N for more)")
    terminal.remark("hint: `watchbill why NAME` gives the evidence")


def reason(workload: JSON) -> str:
    """The dominant one: the server tells it first."""
    first: JSON = next(iter(member(workload, ("additionalFields", "pendingReasons")) or ()), {})
    told = first.get("userMessage") or first.get("message") or workload.get("phaseMessage")
    return str(told or NO_REASON)
