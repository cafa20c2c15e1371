"""What a round of accounting meets: silences, deletions just before them, and rounds that were cut off."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert
from tests.store.test_usage_changes import FIRST, at, held, hours_by, observed, report, seen
from watchbill import maintenance
from watchbill.protocol import Delete, Heartbeat
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Connection, Database
from watchbill.store.usage import accounting
from watchbill.store.usage.accounting import usage_account
from watchbill.store.usage.rounds import usage_finish, usage_last_round, usage_rebuild


async def test_who_was_deleted_just_before_days_of_silence_is_accounted_to_the_end(
    db: Database,
) -> None:
    """Rounds go on meanwhile, and look for no deletions of days ago; its last minutes were not settled then."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    for hours in (2.0, 5.0):
        await agent.beat(at(hours))
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(5)), now=at(5))
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM cluster_gap")
    for hours in (5, 30, 60):
        await usage_account(db, 1, at(hours))
    await agent.beat(at(61))
    await usage_account(db, 1, at(61.5))
    assert await hours_by(db, "cluster") == {("cluster-1",): 40}


async def test_a_round_that_goes_on_where_the_last_one_was_cut_off_is_not_the_last(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that ran for three days and ended long ago; each round has time for one step of two workloads."""
    agent = await connected_agent(db, FIRST)
    for number in (1, 2):
        await agent.send(upsert(held(number, 8), observed_at=FIRST), now=FIRST)
    for number in (1, 2):
        await agent.send(Delete(id=UUID(int=number), deleted_at=at(72)), now=at(72))
    await observed(db, 240)
    monkeypatch.setattr(accounting, "BATCH_ROWS", 2)
    seconds = iter(range(1000))
    rounds = maintenance.UsageRounds(seconds=2, share=1, elapsed=lambda: float(next(seconds)))
    for _ in range(12):
        await rounds.run(db, at(240))
    assert await hours_by(db, "cluster") == {("cluster-1",): 2 * 8 * 72}


async def test_a_gap_that_is_taken_back_while_it_is_accounted_counts_as_observed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round begins when the agent is back, and the agent says what it observed before the round is done."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await agent.hello(at(10))
    store = accounting._store

    async def tell() -> None:
        beat = Heartbeat(stream_id=agent.stream_id, seq=0, unbroken_seconds=10 * 3600)
        await heartbeat_apply(db, agent.identity, beat, at(10))

    async def interrupted(*arguments: Any) -> None:
        await tell()
        await store(*arguments)

    monkeypatch.setattr(accounting, "_store", interrupted)
    await usage_account(db, 1, at(10))
    monkeypatch.setattr(accounting, "_store", store)
    await tell()
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE cluster SET last_contact_at = $1", at(10 + 1 / 6))
    await usage_account(db, 1, at(10 + 1 / 6))
    page = await report(db, "cluster")
    assert [(row.allocated_gpu_hours, row.gap_gpu_hours) for row in page.rows] == [(80, 0)]


async def test_a_cluster_with_more_than_fits_into_a_round_is_done_in_a_later_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four workloads, of which each round of five minutes has time for two."""
    agent = await connected_agent(db, FIRST)
    for number in range(1, 5):
        await agent.send(upsert(held(number, 8), observed_at=FIRST), now=FIRST)
    monkeypatch.setattr(accounting, "BATCH_ROWS", 2)
    seconds = iter(range(1000))
    rounds = maintenance.UsageRounds(seconds=2, share=1, elapsed=lambda: float(next(seconds)))
    finished = set()
    for number in range(15):
        await observed(db, 2 + number / 12)
        await rounds.run(db, at(2 + number / 12))
        finished.add(await usage_last_round(db, 1))
    assert at(2) in finished, "the round in which it began, not that in which it was done"
    assert len(finished) > 2, "the next one is done, too"
    await observed(db, 4 + 1 / 6)
    await usage_account(db, 1, at(4 + 1 / 6))
    assert await hours_by(db, "cluster") == {("cluster-1",): 4 * 8 * 4}


async def test_what_comes_late_while_it_is_accounted_is_counted_in_the_next_round(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight GPUs from the start; that they are two since 30:00 arrives in the middle of the second round."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    store = accounting._store

    async def interrupted(*arguments: Any) -> None:
        await seen(agent, 30, 2)
        await store(*arguments)

    for hours, stores in ((60, store), (61, interrupted), (62, store)):
        monkeypatch.setattr(accounting, "_store", stores)
        await observed(db, hours + 1 / 6)
        await usage_account(db, 1, at(hours + 1 / 6))
    assert await hours_by(db, "cluster") == {("cluster-1",): 8 * 30 + 2 * 32}


class RoundsBetween(Database):
    """A database on which another server finishes a round before each transaction of this one."""

    def __init__(self, db: Database, now: datetime) -> None:
        super().__init__(db._pool, None)
        self.db = db
        self.now = now

    @asynccontextmanager
    async def transaction(self, tenant_id: int) -> AsyncIterator[Connection]:
        await usage_finish(self.db, tenant_id, self.now, None)
        async with self.db.transaction(tenant_id) as connection:
            yield connection


async def test_a_round_that_ends_while_all_is_marked_does_not_pass_for_all(db: Database) -> None:
    """What ended long before is accounted to its end, day by day."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(60)), now=at(60))
    await observed(db, 240)
    await usage_account(db, 1, at(240))
    await usage_rebuild(RoundsBetween(db, at(240)), 1)
    assert (await report(db)).accounted_until is None
    await usage_account(db, 1, at(240))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 60
