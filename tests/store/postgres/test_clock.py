"""Retention goes by the database's clock; a clock that jumps removes nothing."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.errors import Conflict
from watchbill.protocol import Delete
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.clock import HOLD, RetentionClock
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.deletion import workload_purge
from watchbill.store.workloads.workloads import workload_count


@pytest.mark.parametrize("skew", [timedelta(days=100), -timedelta(hours=3), timedelta(minutes=6)])
async def test_a_clock_apart_from_the_databases_is_refused(db: Database, skew: timedelta) -> None:
    clock = RetentionClock(db)
    for check in (clock.check, clock.purge_time):
        with pytest.raises(Conflict, match=r"ahead of|behind"):
            await check(datetime.now(UTC) + skew)


async def test_it_is_the_databases_time_that_counts(db: Database) -> None:
    ours = datetime.now(UTC) + timedelta(minutes=2)
    assert await RetentionClock(db).purge_time(ours) < ours


class Elapsed:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_after_a_long_pause_nothing_is_removed_for_a_day(
    db: Database, database_url: str
) -> None:
    """As after a jump of the database's own clock, which looks the same."""
    elapsed = Elapsed()
    clock = RetentionClock(db, elapsed=elapsed)
    await clock.purge_time(datetime.now(UTC))
    owner = await asyncpg.connect(database_url)
    await owner.execute("UPDATE upkeep SET last_at = last_at - interval '100 days'")
    await owner.close()
    for hours in (0, 1, 23):
        elapsed.seconds = hours * 3600.0
        with pytest.raises(Conflict, match="100 days ago"):
            await clock.purge_time(datetime.now(UTC))
    elapsed.seconds = HOLD.total_seconds()
    await clock.purge_time(datetime.now(UTC))
    await clock.purge_time(datetime.now(UTC))


async def test_a_cluster_whose_clock_is_behind_loses_no_history(db: Database) -> None:
    """It says that the workload was deleted 100 days ago; it was reported now."""
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START + timedelta(days=100))
    now = START + timedelta(days=100)
    await agent.send(Delete(id=workload(1).id, deleted_at=START), now=now)
    deleted = WorkloadQuery(is_deleted=True)
    assert await workload_purge(db, 1, keep=timedelta(days=90), now=now) == 0
    assert await workload_count(db, Scope(1, is_whole_tenant=True), deleted, now) == 1
    later = now + timedelta(days=91)
    assert await workload_purge(db, 1, keep=timedelta(days=90), now=later) == 1
