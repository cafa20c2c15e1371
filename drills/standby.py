"""Reads from a standby that falls behind, is gone and comes back: none fails, none is older than it may be."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp

from drills.processes import (
    Postgres,
    administrator,
    folder,
    free_port,
    postgres,
    standby_of,
    until,
    until_ready,
    watchbill_server,
)
from drills.traffic import Traffic, busy, traffic

STALENESS_SECONDS = 2.0


async def standby_reads() -> str:
    """Raises AssertionError, TimeoutError."""
    with folder() as root:
        async with postgres(root) as primary:
            login = await administrator(primary.url("watchbill"))
            async with standby_of(root, primary) as standby:
                return await _reads(root, primary, standby, login)


async def _reads(root: Path, primary: Postgres, standby: Postgres, login: tuple[str, str]) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {
        "WATCHBILL_DATABASE_READ_URL": standby.url("watchbill"),
        "WATCHBILL_READ_STALENESS_SECONDS": str(STALENESS_SECONDS),
    }
    async with watchbill_server(root, primary.url("watchbill"), port, **environ).running():
        await until_ready(url)
        async with traffic(url, login, root) as running:
            async with busy(running):
                await _is_read(url, running, by_standby=True)
                await standby.execute("SELECT pg_wal_replay_pause()")
                await _is_read(url, running, by_standby=False)
                await standby.execute("SELECT pg_wal_replay_resume()")
                await _is_read(url, running, by_standby=True)
                await standby.child.stop(signal.SIGQUIT)
                await _is_read(url, running, by_standby=False)
                standby.child.start()
                back = await _is_read(url, running, by_standby=True)
                await asyncio.sleep(2)
            await running.check()
        readers = running.readers
        assert not readers.failures, readers.failures[:5]
        return (
            f"{readers.requests} requests, none failed; read from the primary while the standby was behind or "
            f"gone, from the standby {back:.1f} s after its start; {len(running.cluster.pods)} workloads, "
            "none lost or doubled"
        )


async def _is_read(url: str, running: Traffic, *, by_standby: bool) -> float:
    """Seconds until reads come from where they should. Raises AssertionError for one that is too old."""
    headers = {"Authorization": f"Bearer {await running.client.token()}"}

    async def is_so() -> bool:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{url}/api/v1/workloads/count") as answer,
        ):
            stale = answer.headers.get("X-Staleness-Seconds")
        if stale is not None:
            assert re.fullmatch(r"[0-9]+\.[0-9]", stale), stale
            assert float(stale) <= STALENESS_SECONDS, stale
        return (stale is not None) == by_standby

    where = "standby" if by_standby else "primary"
    return await until(is_so, seconds=60, what=f"reads come from the {where}")
