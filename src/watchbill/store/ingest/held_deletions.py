"""Deletions that an inventory infers and that are too many at once to be applied without a second look.

They wait, each with its own time, until a later inventory finds the same workloads absent, or an administrator
decides: released ones are deleted, refused ones stay until they are seen again or released.
"""

from array import array
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from watchbill.identity import AgentIdentity
from watchbill.protocol import Delete
from watchbill.query import Scope
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.deletion import workload_delete

SECOND_LOOK_AFTER = timedelta(seconds=60)
"""An inventory sooner than this may be wrong in the same way as the first."""
SUSPECT_SHARE = 0.30
SUSPECT_ROWS = 50
ROWS_AT_ONCE = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
log = structlog.get_logger(__name__)

_HELD = (
    "SELECT h.workload_id AS id, h.held_at, w.updated_at FROM held_deletion h "
    "CROSS JOIN LATERAL (SELECT updated_at, cluster_id, deleted_at FROM workload "
    "WHERE tenant_id = h.tenant_id AND id = h.workload_id OFFSET 0) w "
    "WHERE h.tenant_id = $1 AND h.cluster_id = $2 AND w.cluster_id = $2 AND w.deleted_at IS NULL"
)
"""Each is looked up by its id, whatever is known of their number, as in an inventory's commit."""

_END = "DELETE FROM held_deletion WHERE tenant_id = $1 AND cluster_id = $2 AND workload_id = ANY($3::uuid[])"
_END_SEEN = (
    "DELETE FROM held_deletion h WHERE tenant_id = $1 AND cluster_id = $2 AND ("
    "EXISTS (SELECT FROM inventory_entry e WHERE e.tenant_id = $1 AND e.inventory_id = $3 "
    "AND e.workload_id = h.workload_id) "
    "OR (SELECT w.cluster_id = $2 AND w.deleted_at IS NULL FROM workload w "
    "WHERE w.tenant_id = $1 AND w.id = h.workload_id) IS NOT TRUE)"
)
"""Those that the inventory lists, or that are gone by another way."""


class _Fresh:
    """Workloads that are absent for the first time: 24 bytes of each, for an agent may list nothing of many."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._updated = array("q")

    def __len__(self) -> int:
        return len(self._updated)

    def add(self, row: Row) -> None:
        self._ids += row["id"].bytes
        self._updated.append((row["updated_at"] - _EPOCH) // _MICROSECOND)

    def steps(self) -> Iterator[list[tuple[UUID, datetime]]]:
        for first in range(0, len(self), ROWS_AT_ONCE):
            places = range(first, min(first + ROWS_AT_ONCE, len(self)))
            yield [
                (
                    UUID(bytes=bytes(self._ids[16 * place : 16 * place + 16])),
                    _EPOCH + self._updated[place] * _MICROSECOND,
                )
                for place in places
            ]


async def absence_confirm(
    connection: Connection,
    agent: AgentIdentity,
    inventory_id: UUID,
    absent: AsyncIterator[list[Row]],
    now: datetime,
) -> tuple[int, bool]:
    """Delete of the workloads that an inventory finds absent those that are to be. Returns how many they are,
    and whether others of them wait.

    Waiting concerns only the workloads that wait. One that is seen again waits no more; one of which the
    inventory says nothing waits on, and a later one of the same coverage would say no more of it. What waits
    since a time to come, for the clock was set back, begins to wait now.
    """
    fresh = _Fresh()
    deleted = waiting = 0
    async for rows in absent:
        held = await _held(connection, agent, rows, now)
        known = [row for row in rows if row["id"] in held]
        unrefused = [row for row in known if held[row["id"]]["refused_at"] is None]
        confirmed = [
            row for row in unrefused if now - held[row["id"]]["held_at"] >= SECOND_LOOK_AFTER
        ]
        waiting += len(unrefused) - len(confirmed)
        for row in rows:
            if row["id"] not in held:
                fresh.add(row)
        decided = [row["id"] for row in rows if row["id"] not in held]
        decided += [row["id"] for row in confirmed]
        await connection.execute(_END, agent.tenant_id, agent.cluster_id, decided)
        deletes = [
            _delete(row["id"], row["updated_at"], held[row["id"]]["held_at"]) for row in confirmed
        ]
        deleted += await workload_delete(
            connection, agent.tenant_id, agent.cluster_id, deletes, now
        )
    await connection.execute(_END_SEEN, agent.tenant_id, agent.cluster_id, inventory_id)
    if await _is_suspect(connection, agent, len(fresh), deleted):
        log.warning("deletions held", cluster_id=str(agent.cluster_id), absent=len(fresh))
        await _hold(connection, agent, fresh, now)
        return deleted, True
    for step in fresh.steps():
        deletes = [_delete(id_, updated_at, now) for id_, updated_at in step]
        deleted += await workload_delete(
            connection, agent.tenant_id, agent.cluster_id, deletes, now
        )
    return deleted, waiting > 0


async def _held(
    connection: Connection, agent: AgentIdentity, rows: list[Row], now: datetime
) -> dict[UUID, Row]:
    held = await connection.fetch(
        "SELECT workload_id, held_at, refused_at FROM held_deletion "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND workload_id = ANY($3::uuid[])",
        agent.tenant_id,
        agent.cluster_id,
        [row["id"] for row in rows],
    )
    return {
        row["workload_id"]: row
        for row in held
        if row["refused_at"] is not None or row["held_at"] <= now
    }


async def _hold(connection: Connection, agent: AgentIdentity, fresh: _Fresh, now: datetime) -> None:
    for step in fresh.steps():
        await connection.execute(
            "INSERT INTO held_deletion (tenant_id, cluster_id, workload_id, held_at) "
            "SELECT $1, $2, id, $4 FROM unnest($3::uuid[]) AS id",
            agent.tenant_id,
            agent.cluster_id,
            [id_ for id_, _ in step],
            now,
        )


def _delete(id_: UUID, updated_at: datetime, deleted_at: datetime) -> Delete:
    return Delete(id=id_, deleted_at=deleted_at, not_before=min(updated_at, deleted_at))


async def _is_suspect(
    connection: Connection, agent: AgentIdentity, absent: int, deleted: int
) -> bool:
    """Whether so much would go at once that a second look is due; `deleted` were live until just now."""
    if absent <= SUSPECT_ROWS:
        return False
    live = await connection.fetchval(
        "SELECT count(*) FROM workload "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND deleted_at IS NULL",
        agent.tenant_id,
        agent.cluster_id,
    )
    return bool(absent > SUSPECT_SHARE * (live + deleted))


async def held_release(db: Database, scope: Scope, cluster_id: UUID, now: datetime) -> int:
    """Delete what waits and was not seen since. Returns how many workloads were deleted."""
    async with db.transaction(scope.tenant_id) as connection:
        if not await _lock(connection, scope, cluster_id):
            return 0
        rows = await connection.fetch(
            f"{_HELD} AND w.updated_at <= h.held_at", scope.tenant_id, cluster_id
        )
        deletes = [_delete(row["id"], row["updated_at"], row["held_at"]) for row in rows]
        count = await workload_delete(connection, scope.tenant_id, cluster_id, deletes, now)
        await connection.execute(
            "DELETE FROM held_deletion WHERE tenant_id = $1 AND cluster_id = $2",
            scope.tenant_id,
            cluster_id,
        )
    return count


async def held_refuse(db: Database, scope: Scope, cluster_id: UUID, now: datetime) -> int:
    """Keep what waits, whatever later inventories find. Returns how many workloads that are."""
    async with db.transaction(scope.tenant_id) as connection:
        if not await _lock(connection, scope, cluster_id):
            return 0
        rows = await connection.fetch(_HELD, scope.tenant_id, cluster_id)
        await connection.execute(
            "UPDATE held_deletion SET refused_at = coalesce(refused_at, $3) "
            "WHERE tenant_id = $1 AND cluster_id = $2",
            scope.tenant_id,
            cluster_id,
            now,
        )
    return len(rows)


async def _lock(connection: Connection, scope: Scope, cluster_id: UUID) -> bool:
    """Every writer of a cluster's workloads holds its row. False = not there."""
    row = await connection.fetchval(
        "SELECT id FROM cluster WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL "
        "FOR NO KEY UPDATE",
        scope.tenant_id,
        cluster_id,
    )
    return row is not None
