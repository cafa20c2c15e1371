"""How a server ends: it leaves the load balancer first, and can be ended while it is still starting."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import asyncpg

from tests.conftest import Engine, fresh_database
from watchbill.serve import Started, serve
from watchbill.settings.server import ServerSettings
from watchbill.store.postgres import migrate


async def test_a_draining_server_serves_but_is_not_ready(embedded_engine: Engine) -> None:
    stop = asyncio.Event()
    started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
    settings = ServerSettings(
        data_dir=Path("/nonexistent"),
        database_url=await fresh_database(embedded_engine),
        port=0,
        drain_seconds=3600,
    )
    task = asyncio.create_task(serve(settings, stop=stop, ready=started.set_result))
    url = (await started).url
    async with aiohttp.ClientSession(url) as http:
        assert (await http.get("/readyz")).status == 200
        stop.set()
        while (answer := await http.get("/readyz")).status == 200:
            await asyncio.sleep(0.01)
        assert answer.status == 503
        assert (await answer.json())["message"] == "The server is stopping."
        assert (await http.get("/healthz")).status == 200
        assert (await http.get("/api/v1/workloads")).status == 401, "it goes on serving"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_start_that_waits_for_a_lock_says_so_and_can_be_ended(
    embedded_engine: Engine,
) -> None:
    url = await fresh_database(embedded_engine)
    other = await asyncpg.connect(url)
    await other.execute("SELECT pg_advisory_lock($1)", migrate._LOCK)
    process = subprocess.Popen(
        [sys.executable, "-m", "watchbill", "server", "--port", "0", "--database-url", url],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert process.stderr is not None
    line = await asyncio.to_thread(process.stderr.readline)
    assert "waiting for another server's migration" in line
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    process.stderr.close()
    await other.close()


async def test_no_process_outlives_a_server_that_was_killed(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchbill", "server", "--port", "0", "--database-url", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert b"answers at" in await process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = (Path("/proc") / pid for pid in children)
    assert b"watchbill.ingest_process" in (child / "cmdline").read_bytes()
    process.kill()
    await process.wait()
    while child.exists() and " Z " not in (child / "stat").read_text():
        await asyncio.sleep(0.01)
