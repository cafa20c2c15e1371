"""The one repair: an agent lists what it has, the server answers what is missing here and deletes the rest.

Deletion is inferred here and nowhere else, and only for rows whose witness lies inside what the agent listed
completely. What is too much at once waits until a second, later inventory agrees (`held_deletions.py`).
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from watchbill.errors import Conflict, TooLarge
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    Covered,
    InventoryBegin,
    InventoryBegun,
    InventoryCommit,
    InventoryCommitted,
    InventoryEntries,
    InventoryMissing,
)
from watchbill.store.ingest.held_deletions import ROWS_AT_ONCE, absence_confirm
from watchbill.store.ingest.problems import problems_forget
from watchbill.store.ingest.stream import stream_check
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.document import DOCUMENT_FORMAT
from watchbill.store.workloads.quotas import MAX_LIVE_WORKLOADS

MAX_ENTRIES = 2 * MAX_LIVE_WORKLOADS
"""Of one inventory: an agent that was taken over has ever new ids, and never commits."""

_Kind = tuple[str, str]
"""Group and kind."""

_UNLISTED = (
    "SELECT w.id, w.updated_at, w.witness_group, w.witness_kind, w.witness_namespace FROM workload w "
    "WHERE w.tenant_id = $1 AND w.cluster_id = $2 AND w.deleted_at IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM inventory_entry e WHERE e.tenant_id = $1 "
    "AND e.inventory_id = $3 AND e.workload_id = w.id OFFSET 0)"
)
"""Each workload is looked up among the entries, whatever is known of their number: tables that just began to
fill have no statistics, and a join would hold every workload against every entry (`OFFSET 0` makes it none)."""

_INSERT_ENTRIES = (
    "INSERT INTO inventory_entry (tenant_id, inventory_id, workload_id) "
    "SELECT $1, $2, e.id FROM unnest($3::uuid[], $4::text[]) AS e(id, namespace) "
    "WHERE e.namespace IS NULL OR EXISTS (SELECT 1 FROM workload w WHERE w.tenant_id = $1 "
    "AND w.id = e.id AND w.witness_namespace = e.namespace) "
    "ON CONFLICT DO NOTHING"
)
"""An owner that some namespace names keeps no workload of another namespace."""


_COUNT_ENTRIES = (
    "SELECT count(*) FROM (SELECT FROM inventory_entry "
    "WHERE tenant_id = $1 AND inventory_id = $2 LIMIT $3) AS e"
)


async def inventory_begin(
    db: Database, agent: AgentIdentity, request: InventoryBegin, now: datetime
) -> InventoryBegun:
    """Open an inventory; one that was open is forgotten."""
    inventory_id = uuid4()
    async with db.transaction(agent.tenant_id) as connection:
        await stream_check(connection, agent, request.stream_id)
        await _forget(connection, agent)
        await connection.execute(
            "INSERT INTO inventory (tenant_id, cluster_id, id, stream_id, coverage, started_at) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            agent.tenant_id,
            agent.cluster_id,
            inventory_id,
            request.stream_id,
            msgspec.json.encode(request.coverage),
            now,
        )
    return InventoryBegun(inventory_id=inventory_id)


async def inventory_entries(
    db: Database, agent: AgentIdentity, request: InventoryEntries
) -> InventoryMissing:
    """Note entries, in any order and as often as they come. Answers which records the server does not have.
    Raises TooLarge beyond `MAX_ENTRIES`."""
    async with db.transaction(agent.tenant_id) as connection:
        await stream_check(connection, agent, request.stream_id)
        await _open(connection, agent, request.inventory_id)
        ids = [entry.id for entry in request.entries]
        noted = await connection.fetchval(
            _COUNT_ENTRIES, agent.tenant_id, request.inventory_id, MAX_ENTRIES
        )
        if noted + len(ids) > MAX_ENTRIES:
            raise TooLarge(f"The inventory holds more than {MAX_ENTRIES} entries.")
        await connection.execute(
            _INSERT_ENTRIES,
            agent.tenant_id,
            request.inventory_id,
            ids,
            [entry.namespace for entry in request.entries],
        )
        rows = await connection.fetch(
            "SELECT id, record_hash FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[]) "
            "AND cluster_id = $3 AND deleted_at IS NULL AND document_format = $4",
            agent.tenant_id,
            ids,
            agent.cluster_id,
            DOCUMENT_FORMAT,
        )
    stored = {row["id"]: row["record_hash"].hex() for row in rows}
    return InventoryMissing(
        missing=tuple(
            entry.id for entry in request.entries if stored.get(entry.id) != entry.record_hash
        )
    )


async def inventory_commit(
    db: Database, agent: AgentIdentity, request: InventoryCommit, now: datetime
) -> InventoryCommitted:
    """Delete what the inventory proves absent. Raises Conflict where entries are missing: begin anew."""
    async with db.transaction(agent.tenant_id) as connection:
        await stream_check(connection, agent, request.stream_id)
        coverage = await _open(connection, agent, request.inventory_id)
        counted = await connection.fetchval(
            "SELECT count(*) FROM inventory_entry WHERE tenant_id = $1 AND inventory_id = $2",
            agent.tenant_id,
            request.inventory_id,
        )
        if counted < request.count:
            raise Conflict(
                f"The inventory holds {counted} entries, {request.count} were announced."
            )
        absent = _absent(connection, agent, request.inventory_id, coverage)
        deleted, held = await absence_confirm(connection, agent, request.inventory_id, absent, now)
        if coverage:
            await problems_forget(connection, agent, request.inventory_id)
        await connection.execute(
            "UPDATE cluster SET last_message_at = $3, "
            "last_inventory_at = CASE WHEN $4 THEN $3 ELSE last_inventory_at END, "
            "digest_difference = CASE WHEN $4 THEN NULL ELSE digest_difference END "
            "WHERE tenant_id = $1 AND id = $2",
            agent.tenant_id,
            agent.cluster_id,
            now,
            bool(coverage),
        )
        await _forget(connection, agent)
    return InventoryCommitted(deleted=deleted, held=held)


async def _open(
    connection: Connection, agent: AgentIdentity, inventory_id: UUID
) -> tuple[Covered, ...]:
    """The coverage of the open inventory. Raises Conflict when another is open, or none."""
    coverage = await connection.fetchval(
        "SELECT coverage FROM inventory WHERE tenant_id = $1 AND cluster_id = $2 AND id = $3",
        agent.tenant_id,
        agent.cluster_id,
        inventory_id,
    )
    if coverage is None:
        raise Conflict("This inventory is not open any more; begin a new one.")
    return msgspec.json.decode(coverage, type=tuple[Covered, ...])


async def _absent(
    connection: Connection,
    agent: AgentIdentity,
    inventory_id: UUID,
    coverage: tuple[Covered, ...],
) -> AsyncIterator[list[Row]]:
    """Some at a time, each once, however often its kind is named; sets, since an agent chooses how many names
    there are."""
    everywhere = {_kind(covered) for covered in coverage if _is_everywhere(covered)}
    within = _namespaces(
        (covered, covered.namespaces or ()) for covered in coverage if not _is_everywhere(covered)
    )
    unproven = _namespaces((covered, covered.all_but or ()) for covered in coverage)

    def is_covered(row: Row) -> bool:
        kind, namespace = (row["witness_group"], row["witness_kind"]), row["witness_namespace"]
        is_proven = kind in everywhere or namespace in within[kind]
        return is_proven and namespace not in unproven[kind]

    cursor = await connection.cursor(_UNLISTED, agent.tenant_id, agent.cluster_id, inventory_id)
    while rows := await cursor.fetch(ROWS_AT_ONCE):
        yield list(filter(is_covered, rows))


def _kind(covered: Covered) -> _Kind:
    return covered.group, covered.kind


def _is_everywhere(covered: Covered) -> bool:
    """But for `all_but`."""
    return covered.all_but is not None or covered.namespaces is None


def _namespaces(kinds: Iterable[tuple[Covered, Sequence[str]]]) -> defaultdict[_Kind, set[str]]:
    by_kind: defaultdict[_Kind, set[str]] = defaultdict(set)
    for covered, namespaces in kinds:
        by_kind[_kind(covered)].update(namespaces)
    return by_kind


async def _forget(connection: Connection, agent: AgentIdentity) -> None:
    await connection.execute(
        "DELETE FROM inventory_entry WHERE tenant_id = $1 AND inventory_id IN "
        "(SELECT id FROM inventory WHERE tenant_id = $1 AND cluster_id = $2)",
        agent.tenant_id,
        agent.cluster_id,
    )
    await connection.execute(
        "DELETE FROM inventory WHERE tenant_id = $1 AND cluster_id = $2",
        agent.tenant_id,
        agent.cluster_id,
    )
