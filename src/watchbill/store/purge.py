"""Forgets what was deleted longer ago than it is kept for, from every table."""

from datetime import datetime, timedelta

from watchbill.store.database import Database

BATCH = 1_000
_CHILDREN = ("workload_elements", "phase_transition", "usage_sample", "measured_sample")


async def purge_deleted(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Remove workloads deleted before `now - keep`, some at a time. Returns how many went."""
    purged = 0
    while True:
        async with db.transaction(tenant_id) as connection:
            ids = [
                row["id"]
                for row in await connection.fetch(
                    "SELECT id FROM workload WHERE tenant_id = $1 AND deleted_at < $2 "
                    "ORDER BY deleted_at LIMIT $3 FOR UPDATE SKIP LOCKED",
                    tenant_id,
                    now - keep,
                    BATCH,
                )
            ]
            for table in _CHILDREN:
                await connection.execute(
                    f"DELETE FROM {table} WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[])",
                    tenant_id,
                    ids,
                )
            await connection.execute(
                "DELETE FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])", tenant_id, ids
            )
        purged += len(ids)
        if len(ids) < BATCH:
            return purged


async def tenant_ids(db: Database) -> list[int]:
    """All tenants; their names and rows stay behind their own locks."""
    async with db.acquire(0) as connection:
        rows = await connection.fetch("SELECT id FROM tenant ORDER BY id")
    return [row["id"] for row in rows]
