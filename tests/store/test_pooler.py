"""Behind PgBouncer: session mode works, a mode that would mix tenants is refused with words."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from tests.conftest import Engine, fresh_database, require
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.errors import Invalid
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.engine import process_owner
from watchbill.store.postgres.migrate import migrate
from watchbill.store.workloads.workloads import workload_count


@asynccontextmanager
async def pgbouncer(folder: Path, database_url: str, mode: str) -> AsyncIterator[str]:
    """The URL of the database behind a PgBouncer of Debian, configured with nothing but what it must have."""
    program = require("PgBouncer")
    owner = process_owner(None)
    parts = urlsplit(database_url)
    host, name = parse_qs(parts.query)["host"][0], parts.path.removeprefix("/")
    sockets = folder / "b"
    sockets.mkdir(mode=0o700)
    owner.give(sockets)
    configuration = sockets / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n{name} = host={host} user=owner\n[pgbouncer]\nauth_type = any\n"
        f"pool_mode = {mode}\nunix_socket_dir = {sockets}\nlisten_port = 6432\n"
    )
    owner.give(configuration)
    process = subprocess.Popen(
        [program, "-q", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **owner.subprocess_arguments(),
    )
    url = f"postgresql://owner@/{name}?host={quote(str(sockets), safe='')}&port=6432"
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await (await asyncpg.connect(url)).close()
                except (OSError, asyncpg.PostgresError):
                    assert process.poll() is None, "PgBouncer ended"
                    await asyncio.sleep(0.05)
                else:
                    break
        yield url
    finally:
        process.kill()
        process.wait(20)


async def test_session_mode_works(debian_engine: Engine, private_dir: Path) -> None:
    database_url = await fresh_database(debian_engine)
    async with pgbouncer(private_dir, database_url, "session") as url:
        await migrate(url)
        db = await Database.open(url, pool_size=2)
        agent = await connected_agent(db, START)
        await agent.send(upsert(workload(1)), now=START)
        scope = Scope(1, is_whole_tenant=True)
        assert await workload_count(db, scope, WorkloadQuery(), START) == 1
        async with db.acquire(1) as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "5s"
        await db.close()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_mode_that_would_mix_tenants_is_refused(
    debian_engine: Engine, private_dir: Path, mode: str
) -> None:
    database_url = await fresh_database(debian_engine)
    async with pgbouncer(private_dir, database_url, mode) as url:
        with pytest.raises(Invalid, match="pooler") as raised:
            await migrate(url)
        assert raised.value.details is not None
        assert "WATCHBILL_DATABASE_URL" in raised.value.details
