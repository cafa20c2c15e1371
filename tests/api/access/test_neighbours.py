"""One tenant's haste and another's patience: turns and rates, by counts. What a flood moves in time is measured
by `python -m bench.neighbours`."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import HARDLY, SETTINGS, serving
from watchbill.api import limits
from watchbill.api.limits import CONCURRENT_READS, MAX_QUEUED, TENANT_SHARE, ConcurrencyLimiter
from watchbill.errors import TooMany
from watchbill.store.identity.administration import tenant_create


async def test_a_tenant_takes_turns_and_others_do_not_wait_for_it() -> None:
    turns, going, most = ConcurrencyLimiter(2, "reads"), 0, 0

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
        async with turns.hold(2):
            pass  # had it to wait, nothing would ever release its turn
    assert turns._queues == {}


async def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUE_SECONDS", 0.02)
    turns = ConcurrencyLimiter(1, "reads")
    async with turns.hold(1):
        with pytest.raises(TooMany) as late:
            async with turns.hold(1):
                pass
        assert late.value.retry_after_seconds == 1


async def test_the_queue_has_an_end() -> None:
    turns = ConcurrencyLimiter(1, "reads")
    async with turns.hold(1):
        waiting = [asyncio.create_task(_held(turns)) for _ in range(MAX_QUEUED)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            async with turns.hold(1):
                pass
    await asyncio.gather(*waiting)
    assert CONCURRENT_READS == 8


async def test_many_accounts_of_one_tenant_share_its_rate(embedded_engine: Engine) -> None:
    settings = replace(SETTINGS, requests_burst=2, requests_per_second=HARDLY)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        tokens = [await served.account(("viewer", "tenant", "1")) for _ in range(6)]
        answers = await asyncio.gather(*(served.get("/api/v1/me", token=t) for t in tokens * 2))
        admitted = [answer.status for answer in answers].count(200)
        assert admitted == 2 * TENANT_SHARE
        _, second_id, second_secret = await tenant_create(
            served.db, "second", now=datetime.now(UTC)
        )
        other = await served.token_of(second_id, second_secret)
        assert (await served.get("/api/v1/me", token=other)).status == 200


async def test_haste_costs_the_hasty_alone(embedded_engine: Engine) -> None:
    """Ten times the rate is refused for the most part; the patient tenant is never."""
    settings = replace(SETTINGS, requests_burst=5, requests_per_second=HARDLY)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        hasty = await served.token()
        _, client_id, secret = await tenant_create(served.db, "second", now=datetime.now(UTC))
        patient = await served.token_of(client_id, secret)
        path = "/api/v1/workloads?limit=50"
        flood = [asyncio.create_task(served.get(path, token=hasty)) for _ in range(100)]
        for _ in range(5):
            assert (await served.get(path, token=patient)).status == 200
        statuses = [result.status for result in await asyncio.gather(*flood)]
        assert set(statuses) == {200, 429}
        assert statuses.count(429) >= 80


async def _held(turns: ConcurrencyLimiter) -> None:
    async with turns.hold(1):
        pass
