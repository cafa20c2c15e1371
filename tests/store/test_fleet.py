"""The fleet's figures: now and in the series they are what the workloads of the scope add up to."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import upsert, workload
from watchbill.metrics.cluster import cluster_outcomes
from watchbill.metrics.source import FailedType, Measurement, MetricsQuery, Reason
from watchbill.protocol import Delete, Heartbeat, NodePoolCapacity
from watchbill.query import Scope
from watchbill.store.fleet import fleet as fleet_module
from watchbill.store.fleet.fleet import (
    WAIT_BOUNDS,
    fleet_now,
    fleet_record,
    fleet_series,
    instants,
    last_instant,
    median_of,
)
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.workload import Phase

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ALL = Scope(1, is_whole_tenant=True)
FIRST = Scope(1, cluster_ids=frozenset({UUID(int=0xC0 << 64 | 1)}))


async def send_capacity(agent: Agent, gpus: float, now: datetime) -> None:
    pools = (NodePoolCapacity(node_pool="a100", nodes=1, gpus=gpus),)
    beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq, kinds=(), node_pools=pools)
    await heartbeat_apply(agent.db, agent.identity, beat, now)


@pytest_asyncio.fixture
async def fleet(db: Database) -> Database:
    """Two clusters, two projects in the first, one in the second; two wait, three failed lately."""
    first, second = [await connected_agent(db, NOW, number=number) for number in (1, 2)]
    waits = [
        upsert(
            workload(number, gpus=0, phase=Phase.PENDING, project_name=project),
            (Phase.PENDING, NOW - timedelta(seconds=seconds)),
        )
        for number, project, seconds in ((1, "vision", 60), (2, "vision", 600), (3, "nlp", 6000))
    ]
    failures = [
        upsert(workload(number, gpus=0, phase=Phase.FAILED), (Phase.FAILED, NOW - age))
        for number, age in (
            (10, timedelta(hours=1)),
            (11, timedelta(hours=23)),
            (12, timedelta(hours=25)),
            (13, timedelta(hours=2)),
        )
    ]
    await first.send(
        *waits,
        *failures,
        upsert(workload(20, gpus=2.5, project_name="nlp")),
        upsert(workload(21, gpus=4, idle_allocated_gpus=1.5, idle_gpus=1)),
        now=NOW,
    )
    await first.send(Delete(id=UUID(int=13), deleted_at=NOW - timedelta(minutes=1)), now=NOW)
    await second.send(upsert(workload(30, gpus=8, project_name="far")), now=NOW)
    await send_capacity(first, 16, NOW)
    return db


async def test_an_agent_that_has_not_seen_its_nodes_yet_tells_no_capacity(db: Database) -> None:
    agent = await connected_agent(db, NOW)
    beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq, kinds=(), node_pools=())
    await heartbeat_apply(db, agent.identity, beat, NOW)
    assert (await fleet_now(db, ALL, NOW)).gpus.total is None
    await send_capacity(agent, 0.0, NOW)
    assert (await fleet_now(db, ALL, NOW)).gpus.total == 0


async def project_scope(db: Database, *names: str) -> Scope:
    async with db.acquire(1) as connection:
        rows = await connection.fetch("SELECT id FROM project WHERE name = ANY($1)", list(names))
    return Scope(1, project_ids=frozenset(row["id"] for row in rows))


async def test_now_adds_up_within_every_scope(fleet: Database) -> None:
    everything = await fleet_now(fleet, ALL, NOW)
    assert everything.workloads == 9
    assert everything.phases == {"Pending": 3, "Failed": 3, "Running": 3}
    assert everything.gpus.allocated == 14.5
    assert (everything.gpus.measured, everything.gpus.idle) == (4, 1.5)
    assert everything.gpus.total is None, "the second cluster has not told its capacity"
    assert (everything.pending.count, everything.pending.median_wait_seconds) == (3, 600)
    assert everything.failed_in_last_day == 3, "the deleted one too, the old one not"

    first = await fleet_now(fleet, FIRST, NOW)
    assert (first.workloads, first.gpus.allocated, first.gpus.total) == (8, 6.5, 16)

    nlp = await fleet_now(fleet, await project_scope(fleet, "nlp"), NOW)
    assert nlp.phases == {"Pending": 1, "Running": 1}
    assert nlp.gpus.allocated == 2.5
    assert nlp.gpus.idle is None, "allocated and unmeasured"
    assert nlp.gpus.total is None, "a cluster's capacity is no measure for a part of it"
    assert (nlp.pending.median_wait_seconds, nlp.failed_in_last_day) == (6000, 0)

    nothing = await fleet_now(fleet, Scope(1), NOW)
    assert (nothing.workloads, nothing.gpus.allocated, nothing.gpus.idle) == (0, 0, 0)
    assert nothing.pending.median_wait_seconds is None


async def test_the_series_has_what_now_had(fleet: Database) -> None:
    at = last_instant(NOW)
    assert await fleet_record(fleet, 1, at)
    for scope in (ALL, FIRST, await project_scope(fleet, "nlp", "far"), Scope(1)):
        now_figures = await fleet_now(fleet, scope, NOW)
        series = await fleet_series(fleet, scope, start=NOW - timedelta(hours=1), end=NOW, now=NOW)
        (kept,) = series.moments
        assert (kept.at, kept.phases, kept.gpus) == (at, now_figures.phases, now_figures.gpus)
        assert kept.failed_in_last_day == now_figures.failed_in_last_day
        exact, read = now_figures.pending.median_wait_seconds, kept.pending.median_wait_seconds
        if exact is None:
            assert read is None
        else:
            assert read is not None
            assert 0.7 * exact <= read <= 1.42 * exact


async def test_a_cluster_over_time_is_its_part_of_the_series(fleet: Database) -> None:
    """Recorded at one instant: the samples of the ten minutes after it have it, the others nothing."""
    at = last_instant(NOW)
    assert await fleet_record(fleet, 1, at)
    (cluster_id,) = FIRST.cluster_ids
    types = ("ALLOCATED_GPU", "TOTAL_GPU", "UNALLOCATED_GPU", "WORKLOADS_COUNT", "GPU_QUOTA")
    query = MetricsQuery(
        types=types,
        start=at - timedelta(minutes=10),
        end=at + timedelta(minutes=20),
        number_of_samples=6,
    )
    later = at + timedelta(minutes=30)
    *known, unsupported = await cluster_outcomes(fleet, 1, cluster_id, query, later)
    assert unsupported == FailedType(type="GPU_QUOTA", reason=Reason.UNSUPPORTED)
    steps = [timedelta(minutes=minutes) for minutes in (0, 5, 10)]
    for outcome, value in zip(known, ("6.5", "16", "9.5", "8"), strict=True):
        assert isinstance(outcome, Measurement)
        assert [(sample.at - at, sample.value) for sample in outcome.samples] == [
            (step, value) for step in steps
        ]
    divided = await cluster_outcomes(fleet, 1, cluster_id, query, later, group_by="Category")
    assert {type(outcome) for outcome in divided} == {FailedType}


async def test_an_instant_is_recorded_once_by_whoever_comes_first(fleet: Database) -> None:
    at = last_instant(NOW)
    written = await asyncio.gather(*(fleet_record(fleet, 1, at) for _ in range(4)))
    assert sum(written) == 1
    assert not await fleet_record(fleet, 1, at)
    async with fleet.acquire(1) as connection:
        assert await connection.fetchval("SELECT count(*) FROM fleet_cluster") == 2


async def test_what_is_too_old_is_forgotten_and_what_was_missed_is_absent(fleet: Database) -> None:
    minutes = timedelta(minutes=1)
    for at in (NOW - timedelta(days=32), NOW - 10 * minutes, NOW):
        await fleet_record(fleet, 1, at)
    series = await fleet_series(fleet, ALL, start=NOW - 30 * minutes, end=NOW, now=NOW)
    assert [moment.at for moment in series.moments] == [NOW - 10 * minutes, NOW]
    async with fleet.acquire(1) as connection:
        kept = await connection.fetch("SELECT DISTINCT at FROM fleet_project ORDER BY at")
    assert [row["at"] for row in kept] == [NOW - 10 * minutes, NOW]


async def test_no_cluster_no_record(db: Database) -> None:
    assert not await fleet_record(db, 1, NOW)


async def test_who_may_not_see_a_tenant_sees_no_series(fleet: Database, database_url: str) -> None:
    await fleet_record(fleet, 1, NOW)
    owner = await asyncpg.connect(database_url)
    await owner.execute("INSERT INTO tenant (id, name) VALUES (2, 'second')")
    await owner.close()
    other = Scope(2, is_whole_tenant=True)
    series = await fleet_series(fleet, other, start=NOW - timedelta(hours=1), end=NOW, now=NOW)
    assert series.moments == []


@pytest.mark.parametrize("hours", [1 / 12, 1, 24, 7 * 24, 30 * 24])
def test_a_series_never_has_more_than_its_most_points(hours: float) -> None:
    end = NOW + timedelta(seconds=17)
    step, wanted = instants(end - timedelta(hours=hours), end)
    assert step % 300 == 0
    assert 1 <= len(wanted) <= 301
    assert all(at.timestamp() % step == 0 for at in wanted)


def test_the_median_of_counts() -> None:
    assert median_of({}) is None
    for seconds in (1.5, 60.0, 7200.0, 1_000_000.0):
        bucket = sum(1 for bound in WAIT_BOUNDS if bound <= seconds)
        result = median_of({bucket: 5})
        assert result is not None
        assert 0.7 * seconds <= result <= 1.42 * seconds
    assert median_of({0: 1}) == 0.5


async def project_rows(db: Database) -> list[int]:
    async with db.acquire(1) as connection:
        rows = await connection.fetch("SELECT count(*) FROM fleet_project GROUP BY at ORDER BY at")
    return [row["count"] for row in rows]


async def test_a_cluster_of_many_projects_is_counted_less_often_and_the_last_counts_stand(
    fleet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 projects took 26 GB in 30 days. The first cluster has two projects here, the others one."""
    monkeypatch.setattr(fleet_module, "ROWS_PER_INSTANT", 1)
    step = timedelta(minutes=5)
    agent = await connected_agent(fleet, NOW, number=3)
    for number in range(6):
        now = NOW + number * step
        await agent.send(upsert(workload(100 + number, gpus=1, project_name="far")), now=now)
        assert await fleet_record(fleet, 1, now)
    assert await project_rows(fleet) == [4, 2, 4, 2, 4, 2]
    end = NOW + 5 * step
    series = await fleet_series(fleet, ALL, start=NOW, end=end, now=end)
    assert [moment.workloads for moment in series.moments] == [10, 11, 12, 13, 14, 15]
    assert [moment.pending.count for moment in series.moments] == [3] * 6
    first = await fleet_series(fleet, FIRST, start=NOW, end=end, now=end)
    assert [moment.workloads for moment in first.moments] == [8] * 6
    nlp = await project_scope(fleet, "nlp")
    part = await fleet_series(fleet, nlp, start=NOW, end=end, now=end)
    assert [moment.gpus.allocated for moment in part.moments] == [2.5] * 6


async def test_after_a_silence_every_cluster_is_counted_anew(
    fleet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "ROWS_PER_INSTANT", 1)
    for minutes in (0, 10):
        assert await fleet_record(fleet, 1, NOW + timedelta(minutes=minutes))
    assert await project_rows(fleet) == [3, 3]
    end = NOW + timedelta(minutes=10)
    series = await fleet_series(fleet, ALL, start=NOW, end=end, now=end)
    assert [moment.at for moment in series.moments] == [NOW, end], "what was missed is absent"


def test_so_many_projects_are_counted_so_often() -> None:
    assert fleet_module._step_of(1_001) == timedelta(minutes=10)
    assert fleet_module._step_of(20_000) == timedelta(minutes=100)
    assert fleet_module._step_of(10**9) == timedelta(days=1)
