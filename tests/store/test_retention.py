"""Each tenant keeps its history for as long as its own days say."""

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.maintenance import purge_old
from watchbill.protocol import Delete
from watchbill.settings.retention import Retention, RetentionDays
from watchbill.store.identity.audit import AuditEvent, audit_write
from watchbill.store.postgres.database import Database

DEFAULT = RetentionDays(deleted=90, metrics=7, audit=365, usage=400)
SHORT = RetentionDays(deleted=30, metrics=2, audit=30, usage=30)
DAYS = (1, 5, 40, 100)
"""Ages of what is stored, before NOW."""
NOW = START + timedelta(days=110)


async def test_one_tenant_keeps_less_and_the_other_loses_nothing(
    database_url: str, db: Database
) -> None:
    owner = await asyncpg.connect(database_url)
    await owner.execute("INSERT INTO tenant (id, name) VALUES (2, 'research')")
    await owner.close()
    for tenant_id in (1, 2):
        await _fill(db, tenant_id)
    await purge_old(db, Retention(DEFAULT, {"research": SHORT}), now=NOW)
    assert await _kept(db, 1) == {
        "workload": [1, 5, 40],
        "measured_sample": [1, 5],
        "audit_event": [1, 5, 40, 100],
        "usage_day": [1, 5, 40, 100],
    }
    assert await _kept(db, 2) == {
        "workload": [1, 5],
        "measured_sample": [1],
        "audit_event": [1, 5],
        "usage_day": [1, 5],
    }


async def _fill(db: Database, tenant_id: int) -> None:
    """A deleted workload, a sample, an audit event and a day of usage of each age."""
    agent = await connected_agent(db, START, number=tenant_id, tenant_id=tenant_id)
    for days in sorted(DAYS, reverse=True):
        at, number = NOW - timedelta(days=days), 1000 * tenant_id + days
        await agent.send(upsert(workload(number)), now=at)
        await agent.send(Delete(id=UUID(int=number), deleted_at=at), now=at)
        await audit_write(db, tenant_id, [_event(tenant_id, at)])
        async with db.transaction(tenant_id) as connection:
            await connection.execute("SELECT measured_partitions($1, 36500)", at.date())
            await connection.execute(
                "INSERT INTO measured_sample VALUES ($1, $2, $3, $3, 1, ARRAY[1.0])",
                tenant_id,
                UUID(int=number),
                at,
            )
            sums = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_day'::regclass "
                "AND attnum > 0 AND attnotnull AND atttypid = 'bigint'::regtype"
            )
            names = [row["attname"] for row in sums]
            await connection.execute(
                "INSERT INTO usage_day (tenant_id, day, workload_id, cluster_id, project_id, "
                f"{', '.join(names)}) VALUES ($1, $2, $3, $4, 1{', 1' * len(names)})",
                tenant_id,
                at.date(),
                UUID(int=number),
                agent.identity.cluster_id,
            )


def _event(tenant_id: int, at: datetime) -> AuditEvent:
    return AuditEvent(
        tenant_id=tenant_id,
        at=at,
        last_at=at,
        count=1,
        subject_kind="user",
        subject="ada@example.com",
        operation="get_workloads",
        target="",
        rules=(),
        address="",
        outcome=200,
        request_id="",
        details="",
    )


async def _kept(db: Database, tenant_id: int) -> dict[str, list[int]]:
    """By table, the ages in days of what is left."""
    moments = {
        "workload": "deleted_at",
        "measured_sample": "at",
        "audit_event": "at",
        "usage_day": "day",
    }
    kept = {}
    async with db.acquire(tenant_id) as connection:
        for table, column in moments.items():
            rows = await connection.fetch(f"SELECT {column}::date AS day FROM {table}")
            kept[table] = sorted((NOW.date() - row["day"]).days for row in rows)
    return kept
