"""One tenant's haste and another's patience: turns, and what a flood moves."""

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from tests.api.serving import fill
from tests.conftest import Engine, fresh_database
from watchbill.api import limits
from watchbill.api.limits import MOST_WAITING, READS_AT_ONCE, Turns
from watchbill.errors import TooMany
from watchbill.store.access import account_create, administrator_rule
from watchbill.store.administration import tenant_create
from watchbill.store.database import Database

RATE = 40
ROUNDS = 3
ASKED = 60
TOLERATED = 1.2
NOISE_SECONDS = 0.004
"""What the machine itself moves from one measurement to the next, with other tests beside this one."""


async def test_a_tenant_takes_turns_and_others_do_not_wait_for_it() -> None:
    turns, going, most = Turns(2, "reads"), 0, 0

    async def read(tenant: int) -> None:
        nonlocal going, most
        async with turns.hold(tenant):
            going += 1
            most = max(most, going)
            await asyncio.sleep(0.005)
            going -= 1

    await asyncio.gather(*(read(1) for _ in range(20)))
    assert most == 2
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(turns.hold(1))
        began = time.monotonic()
        async with turns.hold(2):
            assert time.monotonic() - began < 0.1
    assert turns._queues == {}


async def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURN_SECONDS", 0.02)
    turns = Turns(1, "reads")
    async with turns.hold(1):
        with pytest.raises(TooMany) as late:
            async with turns.hold(1):
                pass
        assert late.value.retry_after_seconds == 1


async def test_the_queue_has_an_end() -> None:
    turns = Turns(1, "reads")
    async with turns.hold(1):
        waiting = [asyncio.create_task(_held(turns)) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            async with turns.hold(1):
                pass
    await asyncio.gather(*waiting)
    assert READS_AT_ONCE == 8


async def _held(turns: Turns) -> None:
    async with turns.hold(1):
        pass


@contextlib.asynccontextmanager
async def server_process(url: str, rate: int) -> AsyncIterator[str]:
    """A server in a process of its own, with that rate for every principal."""
    env = dict(os.environ) | {
        "WATCHBILL_REQUESTS_PER_SECOND": str(rate),
        "WATCHBILL_REQUESTS_BURST": str(rate),
        "WATCHBILL_DATABASE_URL": url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchbill", "server", "--port", "0", "--log-level", "warning"),
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield line.split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def p99(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> float:
    """Of a caller that keeps well within its rate."""
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        async with session.get(f"{url}/api/v1/workloads?limit=50", headers=headers) as answer:
            await answer.read()
            assert answer.status == 200
        took.append(time.perf_counter() - began)
        await asyncio.sleep(1.2 / RATE)
    return sorted(took)[int(len(took) * 0.99) - 1]


async def test_a_tenant_at_ten_times_its_rate_moves_anothers_p99_little(
    embedded_engine: Engine,
) -> None:
    """Rounds alternate between quiet and flood, and their medians are compared: one round alone is noise. The
    flood is a process of its own, so that it is the server that is measured, not the client."""
    url = await fresh_database(embedded_engine)
    db = await Database.open(url, pool_size=3)
    await fill(db, clusters=1, workloads=60)
    now = datetime.now(UTC)
    _, second_id, second_secret = await tenant_create(db, "second", now=now)
    first_id, first_secret = await account_create(db, 1, "flood", (administrator_rule(1),), now=now)
    await db.close()
    quiet, flooded = [], []
    async with server_process(url, RATE) as at, aiohttp.ClientSession() as session:

        async def token(client_id: str, secret: str) -> str:
            body = {"grantType": "app_token", "appId": client_id, "appSecret": secret}
            async with session.post(f"{at}/api/v1/token", json=body) as answer:
                return str((await answer.json())["accessToken"])

        noisy = await token(first_id, first_secret)
        headers = {"Authorization": f"Bearer {await token(second_id, second_secret)}"}
        await p99(session, at, headers)
        for _ in range(ROUNDS):
            quiet.append(await p99(session, at, headers))
            flood = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.api.flood", at, noisy, str(10 * RATE)),
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await asyncio.sleep(1.0)
                flooded.append(await p99(session, at, headers))
            finally:
                flood.kill()
                await flood.wait()
    without, within = statistics.median(quiet), statistics.median(flooded)
    print(f"p99 quiet {without * 1000:.1f} ms, beside a flood {within * 1000:.1f} ms")
    assert within <= TOLERATED * without + NOISE_SECONDS, (quiet, flooded)
