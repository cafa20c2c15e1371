"""From the word that a person typed to the one thing it means, or an error that says what to type."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.connection.errors import Ambiguous, usage_error
from watchbill.cli.output.columns import JSON, ColumnView, select_columns
from watchbill.cli.output.terminal import Terminal, table_lines
from watchbill.errors import NotFound

if TYPE_CHECKING:
    from watchbill.client import Client

CANDIDATES = 20
_CANDIDATE_COLUMNS = "id,type,phase,project,namespace,cluster,age,deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupScope:
    """Where to look."""

    project: str | None = None
    cluster: str | None = None
    is_deleted: bool = False
    is_everywhere: bool = False
    """Then the project does not count, as with kubectl's -A."""


async def scope_filters(client: "Client", place: LookupScope) -> tuple[str, ...]:
    """As items of filterBy."""
    found = []
    if place.project is not None and not place.is_everywhere:
        found.append(filter_item("projectName", place.project))
    if place.cluster is not None:
        found.append(filter_item("clusterId", (await find_cluster(client, place.cluster))["id"]))
    return tuple(found)


def filter_item(field: str, value: str, operator: str = "==") -> str:
    """One item of filterBy whose value is taken as it is, commas and all."""
    if not value:
        usage_error(f"An empty {field} matches nothing.")
    return json.dumps([f"{field}{operator}{value}"], ensure_ascii=False)


async def find_workload(client: "Client", word: str, place: LookupScope) -> JSON:
    """The whole document, by id or by name: a live one before deleted ones. Raises NotFound, Ambiguous."""
    workload_id = _as_id(word)
    if workload_id is not None:
        return await client.workload_get(workload_id)
    from watchbill.client import Selection

    filters = (filter_item("name", word), *await scope_filters(client, place))
    for is_deleted in (False, True) if not place.is_deleted else (True,):
        selection = Selection(
            filters=filters, is_deleted=is_deleted, sort_by="createdAt", is_descending=True
        )
        page = await client.workload_list(selection, limit=CANDIDATES)
        if len(page.workloads) > 1:
            is_cut = page.next_offset is not None
            raise await _ambiguous(client, word, page.workloads, is_cut=is_cut)
        if page.workloads:
            return await client.workload_get(UUID(page.workloads[0]["id"]))
    raise await _absent(client, word, place)


async def find_cluster(client: "Client", word: str) -> JSON:
    """By id or name. Raises NotFound, naming the clusters that there are."""
    clusters = await client.clusters()
    for cluster in clusters:
        if word in (cluster["id"], cluster["name"]):
            return cluster
    names = ", ".join(cluster["name"] for cluster in clusters)
    raise NotFound(
        f"There is no cluster '{word}'.",
        details=f"clusters: {names}" if names else "no cluster is registered yet",
    )


async def load_view(client: "Client") -> tuple[ColumnView, list[JSON]]:
    """Now, with the names of the clusters; and the clusters."""
    clusters = await client.clusters()
    names = {cluster["id"]: cluster["name"] for cluster in clusters}
    return ColumnView(datetime.now(UTC), names), clusters


def _as_id(word: str) -> UUID | None:
    try:
        return UUID(word) if len(word) == 36 else None
    except ValueError:
        return None


async def _ambiguous(
    client: "Client", word: str, workloads: list[JSON], *, is_cut: bool
) -> Ambiguous:
    view, _ = await load_view(client)
    columns = select_columns(_CANDIDATE_COLUMNS, ())
    rows = [[column.shown(workload, view) for column in columns] for workload in workloads]
    many = f"The newest {CANDIDATES} of more" if is_cut else str(len(workloads))
    return Ambiguous(
        f"'{word}' is the name of {'more than ' if is_cut else ''}{len(workloads)} workloads.",
        candidates=(
            *table_lines([column.header for column in columns], rows, Terminal()),
            *((f"{many} are listed.",) if is_cut else ()),
        ),
        details="name one by its id, or narrow with --project or --cluster",
    )


async def _absent(client: "Client", word: str, place: LookupScope) -> NotFound:
    import asyncio

    from watchbill.client import Selection

    where = f" in project '{place.project}'" if place.project is not None else ""
    live, gone = await asyncio.gather(
        client.workload_list(Selection(search=word), limit=3),
        client.workload_list(Selection(search=word, is_deleted=True), limit=3),
    )
    names = dict.fromkeys(found["name"] for found in (*live.workloads, *gone.workloads))
    near = f"found with that text: {', '.join(names)}\n" if names else ""
    return NotFound(
        f"There is no workload named '{word}'{where}, neither live nor deleted.",
        details=f"{near}list what there is with `watchbill get --search TEXT`, or with --deleted",
    )
