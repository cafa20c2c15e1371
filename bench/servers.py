"""What every bench needs running: a database of its own, filled, and servers on ports of their own."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from bench.data import NOW
from watchbill.identity import ADMINISTRATOR, Rule
from watchbill.store.identity.accounts import account_create
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.embedded import EmbeddedPostgres
from watchbill.store.postgres.migrate import migrate

OUR_SERVER = """
import sys
from pathlib import Path
from watchbill.cli.connection.log_setup import log_to_stderr
from watchbill.settings.server import ServerSettings
from watchbill.serve import run_server
log_to_stderr("info")
run_server(
    ServerSettings(
        data_dir=Path("/nonexistent"), database_url=sys.argv[1], port=int(sys.argv[2]),
        requests_per_second=10**6, requests_burst=10**6,
    ),
    ready=lambda started: None,
)
"""
PEER_SERVER = """
import sys, uvicorn
from bench.peer import build_peer
uvicorn.run(build_peer(sys.argv[1]), port=int(sys.argv[2]), log_level="error", access_log=False)
"""
OURS, PEER = (OUR_SERVER, "/healthz"), (PEER_SERVER, "/openapi.json")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def serving(program: tuple[str, str], database_url: str) -> AsyncIterator[str]:
    """The address of `OURS` or `PEER`, in a process of its own."""
    code, path = program
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, database_url, str(port)],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await answering(url + path)
        yield url
    finally:
        process.terminate()
        process.wait()


async def answering(url: str) -> None:
    """Wait for it. Raises TimeoutError."""
    async with aiohttp.ClientSession() as http:
        for _ in range(300):
            with suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status < 500:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """A new one, removed at the end."""
    folder = tempfile.mkdtemp(prefix="watchbill-bench-", dir="/tmp")
    Path(folder).chmod(0o711)
    server = EmbeddedPostgres(Path(folder))
    try:
        url = await server.start()
        await migrate(url)
        yield url
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def administrator(db: Database) -> tuple[str, str]:
    """Id and secret of an account that sees everything."""
    rule = Rule(role=ADMINISTRATOR, scope_kind="tenant", scope_id="1")
    return await account_create(db, 1, "bench", (rule,), now=NOW)
