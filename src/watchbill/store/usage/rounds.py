"""How far a tenant's usage is accounted, and how it is begun anew."""

from datetime import UTC, datetime
from uuid import UUID

from watchbill.store.postgres.database import Connection, Database

FORGOTTEN_BEFORE = datetime(1970, 1, 3, tzinfo=UTC)
"""What a version before wrote as the last round where all was to be accounted anew."""
_MARK = datetime(1970, 1, 1, tzinfo=UTC)
"""What is rewound so far is accounted anew from its first step on."""
_MARK_ROWS = 1000
_LAST_ROUND = "SELECT last_at FROM upkeep WHERE task = $1"
ACCOUNTING_LOCK = 0x777573  # any number that only this uses
_LOCK = "SELECT pg_advisory_xact_lock($2, $1)"
_IS_MARKED = "EXISTS (SELECT 1 FROM usage_state WHERE tenant_id = $1 AND rewind_at <= $2)"


async def usage_last_round(db: Database, tenant_id: int) -> datetime | None:
    """When the last round began that accounted every cluster; None before the first one."""
    async with db.acquire(tenant_id) as connection:
        last: datetime | None = await connection.fetchval(_LAST_ROUND, f"usage {tenant_id}")
    return last


async def usage_complete_at(connection: Connection, tenant_id: int) -> datetime | None:
    """When the last round began that left nothing out; None until all is accounted, for the first time or
    anew."""
    last: datetime | None = await connection.fetchval(_LAST_ROUND, f"usage {tenant_id}")
    if last is None or last < FORGOTTEN_BEFORE:
        return None
    is_marked = await connection.fetchval(f"SELECT {_IS_MARKED}", tenant_id, _MARK)
    return None if is_marked else last


async def usage_finish(db: Database, tenant_id: int, now: datetime, last: datetime | None) -> None:
    """Every cluster of the tenant was accounted: deletions before this round need not be looked for again.

    Unless since `last`, the round before, another one was finished, or all was to be accounted anew.
    """
    task = f"usage {tenant_id}"
    async with db.transaction(tenant_id) as connection:
        await connection.execute(_LOCK, tenant_id, ACCOUNTING_LOCK)
        if last is not None:
            await connection.execute(
                "UPDATE upkeep SET last_at = $2 WHERE task = $1 AND last_at = $3", task, now, last
            )
            return
        await connection.execute(
            f"INSERT INTO upkeep SELECT $3, $4 WHERE NOT {_IS_MARKED} ON CONFLICT DO NOTHING",
            *(tenant_id, _MARK, task, now),
        )


async def usage_rebuild(db: Database, tenant_id: int) -> int:
    """Have all that has steps accounted anew: the next rounds do it, workload by workload.

    Each step of it is short and stays done, so it may be stopped and begun again. Until a workload's turn
    comes its sums stay as they were; those of workloads that are gone altogether stay for good. Returns how
    many workloads are to be accounted.
    """
    marked, after = 0, UUID(int=0)
    while True:
        async with db.transaction(tenant_id) as connection:
            await connection.execute(_LOCK, tenant_id, ACCOUNTING_LOCK)
            # A round that saw none of these marks may have been finished since the ones before.
            await connection.execute("DELETE FROM upkeep WHERE task = $1", f"usage {tenant_id}")
            ids = [
                row["workload_id"]
                for row in await connection.fetch(
                    "SELECT workload_id FROM usage_state WHERE tenant_id = $1 AND workload_id > $2 "
                    "ORDER BY workload_id LIMIT $3 FOR UPDATE",
                    *(tenant_id, after, _MARK_ROWS),
                )
            ]
            rows = await connection.fetch(
                "UPDATE usage_state s SET rewind_at = $3 WHERE tenant_id = $1 "
                "AND workload_id = ANY($2::uuid[]) AND EXISTS (SELECT 1 FROM usage_step u "
                "WHERE u.tenant_id = $1 AND u.workload_id = s.workload_id) RETURNING 1",
                *(tenant_id, ids, _MARK),
            )
        marked += len(rows)
        if len(ids) < _MARK_ROWS:
            return marked
        after = ids[-1]
