"""A migration under servers that read, or under a limit of the database: nothing is broken off."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from tests.conftest import Engine
from watchbill.store.postgres import migrate as migration

EARLIER = "0013"
"""Later revisions change `cluster` before `workload`."""


async def test_a_reader_of_two_tables_meets_no_deadlock(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"earlier_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(embedded_engine.database("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    url = embedded_engine.database(name)
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(migration.command, "upgrade", lambda config, _: upgrade(config, EARLIER))
        await migration.migrate(url)
    reader = await asyncpg.connect(url)
    async with reader.transaction():
        await reader.fetch("SELECT id FROM workload")
        migrating = asyncio.create_task(migration.migrate(url))
        async with asyncio.timeout(60):
            while not await admin.fetchval(
                "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE NOT l.granted AND l.relation = $1::oid AND a.datname = $2",
                await reader.fetchval("SELECT 'workload'::regclass::oid"),
                name,
            ):
                assert not migrating.done()
        await reader.fetch("SELECT id FROM cluster")
    await migrating
    assert await reader.fetchval("SELECT version_num FROM alembic_version") != EARLIER
    await reader.close()
    await admin.close()


async def test_no_limit_of_queries_breaks_a_migration_off(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"limited_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(embedded_engine.database("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.execute(f"ALTER DATABASE {name} SET statement_timeout = '30s'")
    await admin.close()
    upgrade, limits = command.upgrade, []

    def upgrade_to_first(config: Config, _: str) -> None:
        limits.append(config.attributes["connection"].scalar(text("SHOW statement_timeout")))
        upgrade(config, "0001")

    monkeypatch.setattr(migration.command, "upgrade", upgrade_to_first)
    await migration.migrate(embedded_engine.database(name))
    assert limits == ["0"]
