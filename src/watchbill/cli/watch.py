"""`get --watch`: the list as it is, then a line for every workload that changes, is deleted or leaves it."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.connection.lookup import load_view
from watchbill.cli.connection.session import CommandContext
from watchbill.cli.output.columns import ColumnView, TableColumn
from watchbill.cli.output.formats import NAMES
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import format_count
from watchbill.cli.output.terminal import Cell, safe, table_lines
from watchbill.errors import NotFound, TooMany, Unavailable

if TYPE_CHECKING:
    from watchbill.client import Client, Selection
    from watchbill.client.transport import StreamEvent
    from watchbill.responses.contract import WorkloadResponse

CONCURRENT_REQUESTS = 8
MAX_LINES = 100
"""Of one event; more changed workloads than these are counted, not shown."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)
_COLOURS = {"deleted": "dim", "left": "dim"}


async def watch_workloads(
    session: CommandContext,
    selection: "Selection",
    columns: Sequence[TableColumn],
    *,
    limit: int,
    name_or_id: str | None,
) -> None:
    """Until it is interrupted. A stream that breaks is opened again; then everything is shown anew.

    `name_or_id`: one of them a line, and nothing else.
    """
    tries = 0
    screen = _Screen(session, selection, columns, limit=limit, name_or_id=name_or_id)
    while True:
        try:
            async for event in session.client.stream(selection):
                await screen.show(event)
                tries = 0
        except (Unavailable, TooMany) as error:
            if not screen.has_shown:
                raise
            session.terminal.note(f"note: {error.message} Trying again.")
        await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
        tries += 1


class _Screen:
    """What was shown so far decides whether headers come again."""

    def __init__(
        self,
        session: CommandContext,
        selection: "Selection",
        columns: Sequence[TableColumn],
        *,
        limit: int,
        name_or_id: str | None,
    ) -> None:
        self._session = session
        self._selection = selection
        self._columns = columns
        self._limit = limit
        self._name = NAMES[name_or_id] if name_or_id is not None else None
        self._view: ColumnView | None = None
        self._known: set[UUID] = set()
        """What was shown; only of that can it be shown that it left."""
        self.has_shown = False

    async def show(self, event: "StreamEvent") -> None:
        from watchbill.responses.workloads import StreamChange

        if isinstance(event.data, StreamChange):
            await self._changes(event.data.changed, event.data.gone)
        elif event.name in ("ready", "resync"):
            await self._everything(is_again=self.has_shown)
            self.has_shown = True
        sys.stdout.flush()

    async def _everything(self, *, is_again: bool) -> None:
        client, terminal = self._session.client, self._session.terminal
        if is_again:
            terminal.note("note: changes were missed; this is the list now:")
        self._view = await load_view(self._session)
        workloads = await client.workloads(self._selection, most=self._limit)
        self._print([("", workload) for workload in workloads], has_headers=not is_again)
        if len(workloads) >= self._limit:
            count = await client.workload_count(self._selection)
            if count > self._limit:
                terminal.note(
                    f"{format_count(self._limit)} of {format_count(count)} shown; changes to all of them follow"
                )

    async def _changes(self, changed: Sequence[UUID], gone: Sequence[UUID]) -> None:
        events = [("changed", workload_id) for workload_id in changed]
        events += [("left", workload_id) for workload_id in gone if workload_id in self._known]
        if len(events) > MAX_LINES:
            self._session.terminal.note(
                f"note: {format_count(len(events))} workloads changed at once, "
                f"{format_count(MAX_LINES)} of them are shown"
            )
        workloads = await _load(self._session.client, events[:MAX_LINES])
        self._view = await load_view(self._session)
        self._print(workloads, has_headers=False)

    def _print(
        self, entries: "Sequence[tuple[str, WorkloadResponse]]", *, has_headers: bool
    ) -> None:
        terminal, view = self._session.terminal, self._view
        self._known.update(workload.id for event, workload in entries if event in ("", "changed"))
        self._known.difference_update(
            workload.id for event, workload in entries if event in _COLOURS
        )
        assert view is not None, "the view comes with the first list"
        if self._name is not None:
            for _, workload in entries:
                terminal.print(safe(self._name(workload)))
            return
        headers = (
            [*header_row("event"), *(column.header for column in self._columns)]
            if has_headers
            else None
        )
        rows = [
            [
                Cell(event, _COLOURS.get(event)),
                *(column.show(workload, view) for column in self._columns),
            ]
            for event, workload in entries
        ]
        if rows or headers:
            for line in table_lines(headers, rows, terminal):
                terminal.print(line)


async def _load(
    client: "Client", events: Sequence[tuple[str, UUID]]
) -> "list[tuple[str, WorkloadResponse]]":
    """Each workload as it is by now; one that is out of sight meanwhile is left out."""
    slots = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def load(event: str, workload_id: UUID) -> "tuple[str, WorkloadResponse] | None":
        async with slots:
            try:
                workload = (await client.workload_get(workload_id)).workload
            except NotFound:
                return None
        is_deleted = event == "left" and workload.deleted_at is not None
        return ("deleted" if is_deleted else event), workload

    loaded = await asyncio.gather(*(load(event, workload_id) for event, workload_id in events))
    return [entry for entry in loaded if entry is not None]
