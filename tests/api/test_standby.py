"""Reads from a real standby: their age is stated and bounded, and nobody misses what they know of."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
import pytest_asyncio

from drills.processes import Postgres, folder, postgres, standby_of, until
from tests.conftest import RunningServer, require, running_server
from tests.fixtures.fleet import Fleet
from tests.fixtures.records import upsert
from watchbill.client import AgentClient, Client, Selection
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.migrate import migrate
from watchbill.store.postgres.standby import Standby
from watchbill.tracing.tracing import NO_TRACING

DELAY_MILLISECONDS = 700
"""How late the standby shows each commit; long enough that whoever does not wait for it reads the past."""

BOUND_SECONDS = 5.0


@dataclass(frozen=True)
class Pair:
    primary: Postgres
    standby: Postgres

    @property
    def url(self) -> str:
        return self.primary.url("watchbill")

    @property
    def read_url(self) -> str:
        return self.standby.url("watchbill")


@pytest_asyncio.fixture(scope="module")
async def pair() -> AsyncIterator[Pair]:
    require("PostgreSQL 15")
    with folder() as root:
        async with postgres(root) as primary:
            await migrate(primary.url("watchbill"))
            delay = {"recovery_min_apply_delay": f"{DELAY_MILLISECONDS}ms"}
            async with standby_of(root, primary, settings=delay) as standby:
                yield Pair(primary, standby)


@dataclass
class People:
    """An administrator, and a cluster of their own with its agent."""

    client: Client
    cluster_id: UUID
    fleet: Fleet

    @property
    def selection(self) -> Selection:
        return Selection(filters=(f"clusterId=={self.cluster_id}",))

    async def count(self) -> tuple[int, float | None]:
        """How many workloads the cluster has, and how old that may be; None = as the primary has it."""
        headers = {"Authorization": f"Bearer {await self.client.token()}"}
        url = f"{self.client.url}/api/v1/workloads/count?filterBy=clusterId=={self.cluster_id}"
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
            assert answer.status == 200
            stale = answer.headers.get("X-Staleness-Seconds")
            return (await answer.json())["count"], None if stale is None else float(stale)

    async def wait_for(self, *, stale: bool) -> int:
        """The count of the first answer that comes from the standby, or from the primary."""
        counted = 0

        async def is_so() -> bool:
            nonlocal counted
            counted, staleness = await self.count()
            return (staleness is not None) == stale

        await until(
            is_so, seconds=120, what=f"an answer from the {'standby' if stale else 'primary'}"
        )
        return counted


@asynccontextmanager
async def people(server: RunningServer, name: str) -> AsyncIterator[People]:
    async with Client(server.url, server.client_id, server.client_secret) as client:
        created = await client.cluster_create(name)
        async with AgentClient(server.url, created.credential) as agent:
            fleet = Fleet(agent, datetime.now(UTC))
            await fleet.hello()
            yield People(client, created.id, fleet)


async def test_how_old_an_answer_may_be_is_reported_and_bounded(pair: Pair) -> None:
    options = {"database_read_url": pair.read_url, "read_staleness_seconds": BOUND_SECONDS}
    async with running_server(pair.url, **options) as server, people(server, "bounded") as here:
        await here.fleet.send(upsert(here.fleet.running(1)))
        await here.wait_for(stale=True)
        await pair.standby.execute("SELECT pg_wal_replay_pause()")
        try:
            await here.fleet.send(upsert(here.fleet.running(2)))
            assert await here.wait_for(stale=False) == 2, "the primary has it"
        finally:
            await pair.standby.execute("SELECT pg_wal_replay_resume()")
        assert await here.wait_for(stale=True) == 2
        for _ in range(5):
            _, staleness = await here.count()
            assert staleness is None or staleness <= BOUND_SECONDS


async def test_whoever_gets_a_change_finds_it(pair: Pair) -> None:
    options = {"database_read_url": pair.read_url, "read_staleness_seconds": 600.0}
    async with running_server(pair.url, **options) as server, people(server, "live") as here:
        await here.wait_for(stale=True)
        stream = here.client.stream(here.selection)
        assert (await anext(stream)).name == "ready"
        for number in (11, 12):
            await here.fleet.send(upsert(here.fleet.running(number)))
            event = await anext(stream)
            while event.name != "change":
                event = await anext(stream)
            document = await here.client.workload_get(UUID(int=number))
            assert document.workload.id == UUID(int=number)
            _, staleness = await here.count()
            assert staleness is not None, "read from the standby all the time"
        await stream.aclose()


async def test_whoever_changes_something_sees_it_at_once(pair: Pair) -> None:
    options = {"database_read_url": pair.read_url, "read_staleness_seconds": 600.0}
    async with running_server(pair.url, **options) as server, people(server, "own") as here:
        await here.wait_for(stale=True)
        await here.fleet.send(upsert(here.fleet.running(21)))

        async def is_shown() -> bool:
            return (await here.count())[0] == 1

        await until(is_shown, seconds=120, what="the standby shows the workload")
        await here.client.cluster_delete(here.cluster_id)
        count, staleness = await here.count()
        assert count == 0
        assert staleness is not None, "read from the standby all the time"


async def test_a_standby_that_is_away_or_none_is_left(pair: Pair) -> None:
    """Its own primary is no standby, and nobody answers at an address without a server."""
    for read_url in (pair.url, pair.url.replace("host=", "host=%2Fnowhere")):
        primary = await Database.open(pair.url, pool_size=2)
        read_db = await Database.open_standby(
            read_url, pool_size=2, statement_timeout_seconds=5, tracing=NO_TRACING
        )
        standby = Standby(primary, read_db, max_staleness_seconds=5)
        await standby.check()
        assert standby.read() is None
        await asyncio.wait_for(standby.catch_up(), 60)
        await standby.close()
        await primary.close()


async def test_what_is_shown_is_as_old_as_the_youngest_position_it_reached(pair: Pair) -> None:
    clock = [0.0]
    primary = await Database.open(pair.url, pool_size=2)
    read_db = await Database.open_standby(
        pair.read_url, pool_size=2, statement_timeout_seconds=5, tracing=NO_TRACING
    )
    standby = Standby(primary, read_db, max_staleness_seconds=10, elapsed=lambda: clock[0])
    try:
        assert standby.staleness_seconds() is None, "nothing is known yet"

        async def is_level() -> bool:
            await standby.check()
            return standby.staleness_seconds() == 0

        await until(is_level, seconds=120, what="an idle standby is level with its primary")
        await pair.standby.execute("SELECT pg_wal_replay_pause()")
        await pair.primary.execute("CREATE TABLE written (id int)", database="watchbill")
        for seconds, expected in ((4.0, 4.0), (10.0, 10.0), (11.0, None)):
            clock[0] = seconds
            await standby.check()
            assert standby.staleness_seconds() == expected
            assert (standby.read() is None) == (expected is None)
        await pair.standby.execute("SELECT pg_wal_replay_resume()")
        await until(is_level, seconds=120, what="it has caught up")
    finally:
        await pair.standby.execute("SELECT pg_wal_replay_resume()")
        await pair.primary.execute("DROP TABLE IF EXISTS written", database="watchbill")
        await standby.close()
        await primary.close()


async def test_a_standby_that_dies_fails_no_read(pair: Pair) -> None:
    options = {"database_read_url": pair.read_url, "read_staleness_seconds": 600.0}
    async with running_server(pair.url, **options) as server, people(server, "dying") as here:
        await here.fleet.send(upsert(here.fleet.running(31)))
        await here.wait_for(stale=True)
        await pair.standby.child.stop(signal.SIGQUIT)
        try:
            assert await here.count() == (1, None), "the primary answers in its place"
        finally:
            pair.standby.child.start()
        assert await here.wait_for(stale=True) == 1
