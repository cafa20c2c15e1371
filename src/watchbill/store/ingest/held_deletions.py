"""Deletions that an inventory infers and that are too many at once to be applied without a second look.

They wait, each with its own time, until a later inventory finds the same workloads absent, or an administrator
decides: released ones are deleted, refused ones stay until they are seen again or released.
"""

from datetime import datetime, timedelta
from uuid import UUID

from watchbill.identity import AgentIdentity
from watchbill.protocol import Delete
from watchbill.query import Scope
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.deletion import workload_delete

SECOND_LOOK_AFTER = timedelta(seconds=60)
"""An inventory sooner than this may be wrong in the same way as the first."""
SUSPECT_SHARE = 0.30
SUSPECT_ROWS = 50

_HELD = (
    "SELECT h.workload_id AS id, h.held_at, w.updated_at FROM held_deletion h "
    "JOIN workload w ON w.tenant_id = h.tenant_id AND w.id = h.workload_id "
    "WHERE h.tenant_id = $1 AND h.cluster_id = $2 AND w.cluster_id = $2 AND w.deleted_at IS NULL"
)

_END = (
    "DELETE FROM held_deletion h WHERE tenant_id = $1 AND cluster_id = $2 AND (workload_id = ANY($3::uuid[]) "
    "OR EXISTS (SELECT FROM inventory_entry e WHERE e.tenant_id = $1 AND e.inventory_id = $4 "
    "AND e.workload_id = h.workload_id) "
    "OR NOT EXISTS (SELECT FROM workload w WHERE w.tenant_id = $1 AND w.id = h.workload_id "
    "AND w.cluster_id = $2 AND w.deleted_at IS NULL))"
)
"""Those that are decided, that the inventory lists, or that are gone by another way."""


async def absence_confirm(
    connection: Connection,
    agent: AgentIdentity,
    inventory_id: UUID,
    absent: list[Row],
    now: datetime,
) -> tuple[list[Delete], bool]:
    """What to delete of the workloads that an inventory finds absent, and whether others of them wait.

    Waiting concerns only the workloads that wait. One that is seen again waits no more; one of which the
    inventory says nothing waits on, and a later one of the same coverage would say no more of it. What waits
    since a time to come, for the clock was set back, begins to wait now.
    """
    tenant_id, cluster_id = agent.tenant_id, agent.cluster_id
    held = {
        row["workload_id"]: row
        for row in await connection.fetch(
            "SELECT workload_id, held_at, refused_at FROM held_deletion "
            "WHERE tenant_id = $1 AND cluster_id = $2",
            tenant_id,
            cluster_id,
        )
        if row["refused_at"] is not None or row["held_at"] <= now
    }
    known = [row for row in absent if row["id"] in held]
    fresh = [row for row in absent if row["id"] not in held]
    waiting = [row for row in known if held[row["id"]]["refused_at"] is None]
    confirmed = [row for row in waiting if now - held[row["id"]]["held_at"] >= SECOND_LOOK_AFTER]
    deletes = [_delete(row, held[row["id"]]["held_at"]) for row in confirmed]
    decided = [row["id"] for row in (*confirmed, *fresh)]
    await connection.execute(_END, tenant_id, cluster_id, decided, inventory_id)
    if await _is_suspect(connection, tenant_id, cluster_id, len(fresh)):
        await connection.execute(
            "INSERT INTO held_deletion (tenant_id, cluster_id, workload_id, held_at) "
            "SELECT $1, $2, id, $4 FROM unnest($3::uuid[]) AS id",
            tenant_id,
            cluster_id,
            [row["id"] for row in fresh],
            now,
        )
        return deletes, True
    deletes += [_delete(row, now) for row in fresh]
    return deletes, len(waiting) > len(confirmed)


def _delete(row: Row, deleted_at: datetime) -> Delete:
    not_before = min(row["updated_at"], deleted_at)
    return Delete(id=row["id"], deleted_at=deleted_at, not_before=not_before)


async def _is_suspect(
    connection: Connection, tenant_id: int, cluster_id: UUID, absent: int
) -> bool:
    """Whether so much would go at once that a second look is due."""
    if absent <= SUSPECT_ROWS:
        return False
    live = await connection.fetchval(
        "SELECT count(*) FROM workload "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND deleted_at IS NULL",
        tenant_id,
        cluster_id,
    )
    return bool(absent > SUSPECT_SHARE * live)


async def held_release(db: Database, scope: Scope, cluster_id: UUID, now: datetime) -> int:
    """Delete what waits and was not seen since. Returns how many workloads were deleted."""
    async with db.transaction(scope.tenant_id) as connection:
        if not await _lock(connection, scope, cluster_id):
            return 0
        rows = await connection.fetch(
            f"{_HELD} AND w.updated_at <= h.held_at", scope.tenant_id, cluster_id
        )
        deletes = [_delete(row, row["held_at"]) for row in rows]
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
