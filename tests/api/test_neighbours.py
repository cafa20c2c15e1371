"""One tenant's haste and another's patience: turns, and what a flood moves."""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import aiohttp
import pytest

from tests.api.serving import SETTINGS, fill, serving
from tests.conftest import Engine, fresh_database
from watchbill.api import limits
from watchbill.api.limits import MOST_WAITING, READS_AT_ONCE, TENANT_SHARE, Turns
from watchbill.errors import TooMany
from watchbill.store.access import account_create, administrator_rule
from watchbill.store.administration import tenant_create
from watchbill.store.database import Database

RATE = 40
ASKED = 30
LEAST_TURNS = 10
MOST_TURNS = 25
TOLERATED = 1.2


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


async def test_many_accounts_of_one_tenant_share_its_rate(embedded_engine: Engine) -> None:
    settings = replace(SETTINGS, requests_burst=2, requests_per_second=1)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        tokens = [await served.account(("viewer", "tenant", "1")) for _ in range(6)]
        answers = await asyncio.gather(*(served.get("/api/v1/me", token=t) for t in tokens * 2))
        admitted = [one.status for one in answers].count(200)
        assert 2 * TENANT_SHARE <= admitted <= 2 * TENANT_SHARE + 1
        _, second_id, second_secret = await tenant_create(
            served.db, "second", now=datetime.now(UTC)
        )
        other = await served.token_of(second_id, second_secret)
        assert (await served.get("/api/v1/me", token=other)).status == 200


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


async def took(session: aiohttp.ClientSession, at: "Neighbours") -> list[float]:
    """Of a caller that keeps well within its rate."""
    url, headers, found = at.url, {"Authorization": f"Bearer {at.patient}"}, []
    for _ in range(ASKED):
        began = time.perf_counter()
        async with session.get(f"{url}/api/v1/workloads?limit=50", headers=headers) as answer:
            await answer.read()
            assert answer.status == 200
        found.append(time.perf_counter() - began)
        await asyncio.sleep(1.2 / RATE)
    return found


def p99(found: list[float]) -> float:
    return sorted(found)[math.ceil(len(found) * 0.99) - 1]


@contextlib.asynccontextmanager
async def flood(url: str, token: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client at ten times the rate, a process of its own: it is the server that is measured, not the client.
    Born asleep: a signal wakes it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.api.flood", url, token, str(10 * RATE)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.sleep(1.5)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def awake(client: asyncio.subprocess.Process | None) -> AsyncIterator[None]:
    if client is not None:
        client.send_signal(signal.SIGCONT)
    await asyncio.sleep(0.3)
    yield
    if client is not None:
        client.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.3)


@dataclass
class Neighbours:
    url: str
    noisy: str
    patient: str


@contextlib.asynccontextmanager
async def neighbours(engine: Engine) -> AsyncIterator[Neighbours]:
    url = await fresh_database(engine)
    db = await Database.open(url, pool_size=3)
    await fill(db, clusters=1, workloads=60)
    now = datetime.now(UTC)
    _, second_id, second_secret = await tenant_create(db, "second", now=now)
    first_id, first_secret = await account_create(db, 1, "flood", (administrator_rule(1),), now=now)
    await db.close()
    async with server_process(url, RATE) as at, aiohttp.ClientSession() as session:

        async def token(client_id: str, secret: str) -> str:
            body = {"grantType": "app_token", "appId": client_id, "appSecret": secret}
            async with session.post(f"{at}/api/v1/token", json=body) as answer:
                return str((await answer.json())["accessToken"])

        yield Neighbours(
            at, await token(first_id, first_secret), await token(second_id, second_secret)
        )


async def test_a_tenant_at_ten_times_its_rate_moves_anothers_p99_little(
    embedded_engine: Engine,
) -> None:
    """Short turns alternate: the flood comes to the patient one's server, or to another one on this machine.
    So both meet what the flood's own processor time does to a small machine, and what else goes on there; what
    differs is the sharing of a server. Where the first comparison fails, there are more turns."""
    quiet: list[float] = []
    elsewhere: list[float] = []
    beside: list[float] = []
    async with (
        neighbours(embedded_engine) as found,
        neighbours(embedded_engine) as other,
        aiohttp.ClientSession() as session,
        flood(found.url, found.noisy) as here,
        flood(other.url, other.noisy) as there,
    ):
        turns = ((None, quiet), (there, elsewhere), (here, beside))
        for turn in range(MOST_TURNS):
            for client, measured in turns:
                async with awake(client):
                    measured += await took(session, found)
            ratio = p99(beside) / p99(elsewhere)
            if turn >= LEAST_TURNS - 1 and ratio <= TOLERATED:
                break
    print(*(f"p99 {p99(one) * 1000:.2f} ms" for one in (quiet, elsewhere, beside)))
    assert ratio <= TOLERATED, [p99(one) for one in (quiet, elsewhere, beside)]
