"""How far a tenant's usage is accounted, and how it is begun anew."""

from datetime import UTC, datetime

from watchbill.store.postgres.database import Database

FORGOTTEN_AT = datetime(1970, 1, 2, tzinfo=UTC)
FORGOTTEN_BEFORE = datetime(1970, 1, 3, tzinfo=UTC)
"""Some instant between them stands for the last round where all is to be accounted anew, another one each time:
so a round that began before does not pass for one that accounted all of it."""
LAST_ROUND = "SELECT last_at FROM upkeep WHERE task = $1"
ACCOUNTING_LOCK = 0x777573  # any number that only this uses


async def usage_last_round(db: Database, tenant_id: int) -> datetime | None:
    """When the last round began that accounted every cluster; None before the first one."""
    async with db.acquire(tenant_id) as connection:
        last: datetime | None = await connection.fetchval(LAST_ROUND, f"usage {tenant_id}")
    return last


async def usage_finish(db: Database, tenant_id: int, now: datetime, last: datetime | None) -> None:
    """Every cluster of the tenant was accounted: deletions before this round need not be looked for again.

    Unless since `last`, the round before, another one was finished, or all was to be accounted anew.
    """
    async with db.acquire(tenant_id) as connection:
        await connection.execute(
            "INSERT INTO upkeep AS u VALUES ($1, $2) ON CONFLICT (task) DO UPDATE SET last_at = $2 "
            "WHERE u.last_at = $3",
            f"usage {tenant_id}",
            now,
            last,
        )


async def usage_rebuild(db: Database, tenant_id: int) -> int:
    """Forget the accounts of workloads whose steps are still there; the next rounds make them anew.

    Accounts of workloads that are gone altogether stay. Returns how many workloads are to be accounted.
    """
    async with db.transaction(tenant_id) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", ACCOUNTING_LOCK, tenant_id)
        known = "SELECT DISTINCT workload_id FROM usage_step WHERE tenant_id = $1"
        await connection.execute(
            f"DELETE FROM usage_day WHERE tenant_id = $1 AND workload_id IN ({known})", tenant_id
        )
        await connection.execute(
            "INSERT INTO upkeep VALUES ($1, $2::timestamptz + random() * interval '1 hour') "
            "ON CONFLICT (task) DO UPDATE SET last_at = excluded.last_at",
            f"usage {tenant_id}",
            FORGOTTEN_AT,
        )
        rows = await connection.fetch(
            f"DELETE FROM usage_state WHERE tenant_id = $1 AND workload_id IN ({known}) "
            "RETURNING workload_id",
            tenant_id,
        )
    return len(rows)
