"""Migrations of a database with several tenants, made by a superuser, whom no policy holds back."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic import command

from tests.conftest import Engine
from watchbill.store.postgres.migrate import migrate

BEFORE = "0016"
"""The revision before pods are counted, and usage by day of whole clusters."""
FIRST, SECOND = 76, 77
_ONE_OF_EACH = """
INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, jsonb_object_agg(a.attname,
    CASE WHEN a.attname = 'tenant_id' THEN to_jsonb($1::int)
        WHEN a.attname = 'document' THEN to_jsonb('{{"a":1'::text)
        WHEN a.atttypid = 'timestamptz'::regtype THEN to_jsonb($2::timestamptz)
        WHEN a.attname = 'day' THEN to_jsonb('2026-11-01'::text)
        WHEN a.atttypid = 'uuid'::regtype THEN to_jsonb($3::uuid)
        ELSE to_jsonb(1) END))).*
FROM pg_attribute a WHERE a.attrelid = '{table}'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attnotnull
"""


async def test_each_tenant_keeps_its_own(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"tenants_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(embedded_engine.database("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url, upgrade = embedded_engine.database(name), command.upgrade
    monkeypatch.setattr(command, "upgrade", lambda config, _: upgrade(config, BEFORE))
    await migrate(url)
    connection = await asyncpg.connect(url)
    for tenant_id in (FIRST, SECOND):
        await connection.execute(
            "INSERT INTO tenant (id, name) VALUES ($1, $2)", tenant_id, f"t{tenant_id}"
        )
        await connection.execute(
            "INSERT INTO project (tenant_id, id, cluster_id, key, name) VALUES ($1, 1, $2, 'a', 'a')",
            tenant_id,
            UUID(int=tenant_id),
        )
        row = (tenant_id, datetime(2026, 11, 1, tenant_id - FIRST, tzinfo=UTC), UUID(int=tenant_id))
        for table in ("workload", "workload_pod", "usage_day"):
            await connection.execute(_ONE_OF_EACH.format(table=table), *row)
    monkeypatch.setattr(command, "upgrade", upgrade)
    await migrate(url)
    for table in ("usage_cluster_day", "usage_project_month"):
        days = await connection.fetch(f"SELECT tenant_id, cluster_id FROM {table} ORDER BY 1")
        assert [tuple(day) for day in days] == [(n, UUID(int=n)) for n in (FIRST, SECOND)], table
    stored = await connection.fetch("SELECT tenant_id, bytes FROM stored_pod_bytes ORDER BY 1")
    assert [tuple(row) for row in stored] == [(n, 200 + len('{"a":1')) for n in (FIRST, SECOND)]
    created = await connection.fetch(
        "SELECT p.created_at = w.created_at FROM project p JOIN workload w USING (tenant_id)"
    )
    assert [row[0] for row in created] == [True, True]
    await connection.close()
