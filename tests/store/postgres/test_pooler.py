"""Behind PgBouncer: session and transaction mode work and keep tenants apart, statement mode is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import connected_agent
from tests.fixtures.pgbouncer import pgbouncer
from tests.fixtures.records import START, upsert, workload
from watchbill.errors import Invalid, Unavailable
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.backup import write_backup
from watchbill.store.postgres.database import Database, check_pooler
from watchbill.store.postgres.migrate import migrate
from watchbill.store.workloads.workloads import workload_count, workload_export

SCOPE = Scope(1, is_whole_tenant=True)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Database]:
    db = await Database.open(url, pool_size=3, **options)
    yield db
    await db.close()


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_reads_writes_and_limits_behind_it(
    debian_engine: Engine, private_dir: Path, mode: str
) -> None:
    database_url = await fresh_database(debian_engine)
    async with pgbouncer(private_dir, database_url, mode) as url, opened(url) as db:
        assert (await check_pooler(url, None)).is_pooled
        await migrate(url)
        assert not db.can_listen
        agent = await connected_agent(db, START)
        await agent.send(upsert(workload(1)), upsert(workload(2)), now=START)
        assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 2
        documents = [
            document
            async for batch in workload_export(db, SCOPE, WorkloadQuery(), START)
            for document in batch
        ]
        assert len(documents) == 2
        async with db.acquire(1) as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "5s"
            assert await connection.fetchval("SELECT current_user") == "watchbill_app"


async def test_an_empty_database_is_migrated_through_it(
    debian_engine: Engine, private_dir: Path
) -> None:
    name = f"empty_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(debian_engine.database("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    async with pgbouncer(private_dir, debian_engine.database(name), "transaction") as url:
        await asyncio.gather(migrate(url), migrate(url))
        async with opened(url) as db:
            await db.check_ready()


async def test_one_backend_for_all_never_mixes_tenants(
    debian_engine: Engine, private_dir: Path
) -> None:
    """Every transaction of every server runs in the same backend, one after the other."""
    database_url = await fresh_database(debian_engine)
    owner = await asyncpg.connect(database_url)
    await owner.execute("INSERT INTO tenant (id, name) VALUES (2, 'second'), (3, 'third')")
    await owner.close()
    async with (
        pgbouncer(private_dir, database_url, "transaction", pool_size=1) as url,
        opened(url) as first,
        opened(url) as second,
    ):
        for tenant_id in (1, 2, 3):
            agent = await connected_agent(first, START, number=tenant_id, tenant_id=tenant_id)
            await agent.send(
                *[upsert(workload(10 * tenant_id + n)) for n in range(tenant_id)], now=START
            )

        async def ask(db: Database, tenant_id: int) -> None:
            for _ in range(20):
                async with db.acquire(tenant_id) as connection:
                    for _ in range(2):
                        rows = await connection.fetch("SELECT tenant_id FROM workload")
                        assert [row["tenant_id"] for row in rows] == [tenant_id] * tenant_id
                        await asyncio.sleep(0)

        async def ask_without_a_tenant(db: Database) -> None:
            for number in range(20):
                async with db.by_handle("client_id", f"nobody-{number}") as connection:
                    assert await connection.fetchval("SELECT count(*) FROM workload") == 0

        await asyncio.gather(
            *(ask(db, tenant_id) for db in (first, second) for tenant_id in (1, 2, 3)),
            *(ask_without_a_tenant(db) for db in (first, second)),
        )
        async with asyncio.timeout(60):
            stray = await asyncpg.connect(url, statement_cache_size=0)
        left = await stray.fetchrow(
            "SELECT current_user AS role, current_setting('watchbill.tenant_id', true) AS tenant"
        )
        await stray.close()
        assert (left["role"], left["tenant"] or "") == ("owner", "")


async def test_statement_mode_is_refused_with_words(
    debian_engine: Engine, private_dir: Path
) -> None:
    database_url = await fresh_database(debian_engine)
    async with pgbouncer(private_dir, database_url, "statement") as url:
        for refused in (migrate(url), check_pooler(url, None)):
            with pytest.raises(Unavailable) as raised:
                await refused
            assert "pool_mode" in (raised.value.details or "")


async def test_a_direct_address_must_be_direct(debian_engine: Engine, private_dir: Path) -> None:
    database_url = await fresh_database(debian_engine)
    async with pgbouncer(private_dir, database_url, "transaction") as url:
        with pytest.raises(Invalid, match="WATCHBILL_DATABASE_DIRECT_URL"):
            await check_pooler(url, url)
        # pg_dump would leave its role, which sees past row security, on a connection that others get
        with pytest.raises(Invalid, match="pooler in transaction mode"):
            await write_backup(url, private_dir / "backup")
        assert not (private_dir / "backup").exists()
        assert (await check_pooler(url, database_url)).is_pooled
        assert not (await check_pooler(database_url, None)).is_pooled
