"""The sections of `describe` that take questions of their own: endpoints, phases and parts of a workload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.columns import JSON, View
from watchbill.cli.structure import SPELL_HEADERS, branches, spell_rows
from watchbill.cli.table import lines
from watchbill.cli.terminal import Terminal
from watchbill.cli.text import safe
from watchbill.cli.words import NONE, grouped

if TYPE_CHECKING:
    from watchbill.client import Client

SPELLS = 8
PARTS = 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`part_count`: all parts that there are, also those that are not stored."""

    endpoints: list[JSON]
    spells: list[JSON]
    parts: list[JSON]
    part_count: int


async def surroundings(client: "Client", workload: JSON, *, most_parts: int) -> Surroundings:
    import asyncio

    workload_id = UUID(workload["id"])
    endpoints, spells, parts, counts = await asyncio.gather(
        client.endpoints(workload_id),
        client.history(workload_id),
        client.elements(workload_id, most=most_parts),
        client.element_count(workload_id),
    )
    return Surroundings(endpoints["endpoints"], spells, parts, counts["totalElementsCount"])


def around(found: Surroundings, workload: JSON, view: View, terminal: Terminal) -> Iterator[str]:
    yield from _endpoints(found, terminal)
    yield from _phases(found, workload, view, terminal)
    yield from _parts(found, workload, terminal)


def _endpoints(found: Surroundings, terminal: Terminal) -> Iterator[str]:
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
    for line in lines(None, rows, terminal):
        yield f"  {line}"


def _host(endpoint: JSON) -> str:
    host, port = endpoint.get("host") or NONE, endpoint.get("port")
    return f"{host}:{port}" if port else host


def _phases(found: Surroundings, workload: JSON, view: View, terminal: Terminal) -> Iterator[str]:
    if not found.spells:
        return
    yield from ("", terminal.coloured("Phases", "bold"))
    shown = found.spells[-SPELLS:]
    for line in lines(SPELL_HEADERS, spell_rows(shown, view.now), terminal):
        yield f"  {line}"
    earlier = len(found.spells) - len(shown)
    if earlier:
        yield f"  ({grouped(earlier)} earlier: `watchbill history {workload['id']}`)"


def _parts(found: Surroundings, workload: JSON, terminal: Terminal) -> Iterator[str]:
    if not found.parts:
        return
    yield from ("", terminal.coloured("Parts", "bold"))
    for line in branches(found.parts):
        yield f"  {line}"
    if found.part_count > len(found.parts):
        yield (
            f"  ({grouped(len(found.parts))} of {grouped(found.part_count)}: "
            f"`watchbill tree {safe(workload['id'])}`)"
        )
