"""What is filled in later is what would have been recorded at the time."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import upsert, workload
from tests.store.test_fleet import send_capacity
from watchbill.protocol import Delete
from watchbill.query import Scope
from watchbill.store.fleet.backfill import fleet_backfill
from watchbill.store.fleet.fleet import STEP_SECONDS, FleetSeries, fleet_record, fleet_series
from watchbill.store.metrics.measured import (
    PastSamples,
    measured_backfill,
    measured_list,
    measured_purge,
    partitions_make,
)
from watchbill.store.postgres.database import Database
from watchbill.workload import Phase

FIRST = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STEP = timedelta(seconds=STEP_SECONDS)
END = FIRST + 40 * STEP
ALL = Scope(1, is_whole_tenant=True)


async def send_phase(
    agent: Agent, number: int, phase: Phase, at: datetime, **members: object
) -> None:
    made = workload(number, phase=phase, k8s_phase=phase, created_at=FIRST, **members)
    await agent.send(upsert(made, (phase, at), observed_at=at), now=at)  # type: ignore[arg-type]


async def series(db: Database) -> FleetSeries:
    return await fleet_series(db, ALL, start=FIRST, end=END, now=END)


async def test_it_fills_what_would_have_been_recorded(db: Database) -> None:
    """Waiting, running with idle GPUs, failed, deleted: recorded at every instant, forgotten, filled again."""
    agent = await connected_agent(db, FIRST)
    lived = {
        0: [(1, Phase.PENDING, {"gpus": 0}), (2, Phase.RUNNING, {"gpus": 4, "idle_gpus": None})],
        3: [(3, Phase.PENDING, {"gpus": 0, "project_name": "nlp"})],
        9: [(1, Phase.RUNNING, {"gpus": 8, "idle_allocated_gpus": 0.0, "idle_gpus": 0})],
        14: [(1, Phase.RUNNING, {"gpus": 8, "idle_allocated_gpus": 2.5, "idle_gpus": 2})],
        20: [(1, Phase.FAILED, {"gpus": 0, "idle_allocated_gpus": 0.0, "idle_gpus": 0})],
    }
    for number in range(40):
        at = FIRST + number * STEP + STEP / 2
        await send_capacity(agent, 16, FIRST + number * STEP)
        await fleet_record(db, 1, FIRST + number * STEP)
        for workload_number, phase, members in lived.get(number, []):
            await send_phase(agent, workload_number, phase, at, **members)
        if number == 30:
            await agent.send(Delete(id=UUID(int=2), deleted_at=at), now=at)
    recorded = await series(db)
    assert len(recorded.moments) == 40
    async with db.acquire(1) as connection:
        for table in ("fleet_cluster", "fleet_project"):
            await connection.execute(f"DELETE FROM {table} WHERE extract(minute FROM at) <> 0")
    assert len((await series(db)).moments) < 5
    await fleet_backfill(db, 1, start=FIRST, end=END)
    assert (await series(db)).moments == recorded.moments


async def test_samples_filled_in_are_read_like_those_that_came(db: Database) -> None:
    agent = await connected_agent(db, END)
    await send_phase(agent, 1, Phase.RUNNING, END, gpus=2)
    moments = [END - timedelta(seconds=100 * index) for index in range(9, 0, -1)]
    series = [("GPU_UTILIZATION", ""), ("GPU_UTILIZATION", "GPU-a"), ("GPU_UTILIZATION", "GPU-b")]
    past = PastSamples(
        workload_id=UUID(int=1),
        counted_since=moments[0],
        series=series,
        at=moments,
        figures=[float(10 * row + column) for row in range(9) for column in range(3)],
    )
    await partitions_make(db, moments[0], moments[-1])
    for _ in range(2):  # what is there already stays
        async with db.transaction(1) as connection:
            await measured_backfill(connection, 1, past)
    points = await measured_list(
        db,
        1,
        UUID(int=1),
        after=moments[0] - STEP,
        until=END,
        origin=moments[0],
        step=timedelta(seconds=50),
        types={"GPU_UTILIZATION"},
        max_labels=10,
    )
    assert [point.at for point in points] == moments
    assert dict(points[4].figures) == {series[0]: 40.0, series[1]: 41.0, series[2]: 42.0}


async def test_those_that_find_a_partition_missing_at_once_make_it_once(db: Database) -> None:
    """As the simulated clusters of a demo do, each beside its agent."""
    last = FIRST + timedelta(days=3)
    await asyncio.gather(
        *(partitions_make(db, FIRST, last) for _ in range(3)),
        measured_purge(db, 1, days=7, now=FIRST),
    )
    async with db.acquire(1) as connection:
        made = await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'measured_sample'::regclass"
        )
    assert made == 6, "of the four days and of the one on each side"
