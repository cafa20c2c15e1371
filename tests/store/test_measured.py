"""Measured samples in the database: what is kept, what is refused, what is forgotten."""

from datetime import datetime, timedelta
from math import inf, nan
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, all_nodes, node, upsert, workload
from watchbill.metric_types import MEASURED_TYPES
from watchbill.protocol import Batch, Delete, Measured, Reading, Scrape
from watchbill.query import NodeQuery, Scope
from watchbill.store.fleet.nodes import node_get, node_list
from watchbill.store.ingest.stream import batch_apply
from watchbill.store.metrics import measured
from watchbill.store.metrics.measured import Point, measured_list, measured_purge, utilization_list
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.deletion import workload_purge

ALL = Scope(1, is_whole_tenant=True)
ONE = UUID(int=1)
LATER = START + timedelta(minutes=10)


def scrape(at: datetime, *readings: Reading, id_: UUID = ONE) -> Scrape:
    return Scrape(at=at, counted_since=START, workloads=(Measured(id_, readings),))


def utilization(value: float, label: str = "") -> Reading:
    return Reading("GPU_UTILIZATION", value, label)


async def send(agent: Agent, *scrapes: Scrape, now: datetime) -> None:
    agent.seq += 1
    batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=(), scrapes=scrapes)
    await batch_apply(agent.db, agent.identity, batch, now)


async def points(
    db: Database,
    *,
    minutes: float = 60,
    step: float = 60,
    max_labels: int = 100,
    node_cluster_id: UUID | None = None,
) -> list[Point]:
    """Of the workload `ONE`, or of the node that has its id."""
    return await measured_list(
        db,
        1,
        ONE,
        node_cluster_id=node_cluster_id,
        after=START,
        until=START + timedelta(minutes=minutes),
        origin=START,
        step=timedelta(seconds=step),
        types=MEASURED_TYPES,
        max_labels=max_labels,
    )


async def one_workload(db: Database) -> Agent:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START)
    return agent


async def test_figures_come_back_as_they_were(db: Database) -> None:
    agent = await one_workload(db)
    at = START + timedelta(seconds=30)
    await send(agent, scrape(at, utilization(12.5), utilization(25, "GPU-1")), now=LATER)
    (result,) = await points(db)
    assert result == Point(
        at, START, {("GPU_UTILIZATION", ""): 12.5, ("GPU_UTILIZATION", "GPU-1"): 25.0}
    )


async def test_utilization_of_several_workloads_is_reported_together(db: Database) -> None:
    agent = await one_workload(db)
    await agent.send(upsert(workload(2)), upsert(workload(3)), now=START)
    first, second = START + timedelta(minutes=1), START + timedelta(minutes=6)
    memory = Reading("GPU_MEMORY_USAGE_BYTES", 1e9, "")
    for at, low, two in ((first, 10, 20), (second, 30, 40)):
        await send(agent, scrape(at, memory, utilization(low), utilization(7, "GPU-1")), now=LATER)
        await send(agent, scrape(at, utilization(two), id_=UUID(int=2)), now=LATER)
    await send(agent, scrape(second, memory, id_=UUID(int=3)), now=LATER)
    instants = [START + timedelta(minutes=minute) for minute in (1, 2, 4, 7)]
    rows = await utilization_list(
        db, 1, [UUID(int=n) for n in (1, 2, 3)], instants=instants, window=timedelta(minutes=2)
    )
    assert rows == {UUID(int=1): [10, 10, None, 30], UUID(int=2): [20, 20, None, 40]}
    assert not await utilization_list(
        db, 2, [ONE], instants=instants, window=timedelta(minutes=2)
    ), "another tenant's"


async def test_each_step_tells_its_first_and_its_last(db: Database) -> None:
    agent = await one_workload(db)
    reported = [
        scrape(START + timedelta(seconds=second), utilization(second))
        for second in range(10, 201, 10)
    ]
    await send(agent, *reported, now=LATER)
    result = [(point.at - START).total_seconds() for point in await points(db)]
    # Steps end at 60, 120, 180: an instant at the end belongs to the step that ends there.
    assert result == [10, 60, 70, 120, 130, 180, 190, 200]


async def test_what_is_unsound_is_left_out_and_holds_up_nothing(db: Database) -> None:
    agent = await one_workload(db)
    at = START + timedelta(minutes=1)
    readings = [
        Reading("GPU_UTILIZATION", nan),
        Reading("CPU_USAGE_CORES", inf),
        Reading("NO_SUCH_TYPE", 1),
        Reading("CPU_MEMORY_USAGE_BYTES", 1, "x" * 101),
        Reading("CPU_MEMORY_USAGE_BYTES", 1, "a\nb"),
        utilization(7, "GPU-1"),
    ]
    unknown = scrape(at, utilization(1), id_=UUID(int=99))
    ancient = scrape(START - timedelta(days=3), utilization(1))
    early = scrape(LATER + timedelta(hours=1), utilization(9))
    await send(agent, scrape(at, *readings), unknown, ancient, early, now=LATER)
    result = await points(db)
    assert [(point.at, point.figures) for point in result] == [
        (at, {("GPU_UTILIZATION", "GPU-1"): 7.0}),
        # A clock that runs ahead is not believed.
        (LATER, {("GPU_UTILIZATION", ""): 9.0}),
    ]
    async with db.acquire(1) as connection:
        assert await connection.fetchval("SELECT count(*) FROM measured_sample") == 2


async def test_another_clusters_workload_gets_no_samples(db: Database) -> None:
    await one_workload(db)
    other = await connected_agent(db, START, number=2)
    await send(other, scrape(START + timedelta(minutes=1), utilization(1)), now=LATER)
    assert await points(db) == []


async def test_a_node_that_takes_a_workloads_id_gets_no_samples(db: Database) -> None:
    """Neither may another cluster's agent write them, nor its people read them."""
    agent = await one_workload(db)
    other = await connected_agent(db, START, number=2)
    await other.send_nodes(all_nodes(node(id=ONE)), START)
    await send(other, scrape(START + timedelta(minutes=1), utilization(1)), now=LATER)
    assert await points(db) == []
    await send(agent, scrape(START + timedelta(minutes=1), utilization(2)), now=LATER)
    assert [point.figures for point in await points(db)] == [{("GPU_UTILIZATION", ""): 2.0}]
    (stored,) = (await node_list(db, ALL, NodeQuery(), LATER)).nodes
    assert stored.id != ONE
    assert await node_get(db, ALL, ONE, LATER) is None


async def test_a_workload_that_takes_a_nodes_id_writes_no_samples_of_it(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send_nodes(all_nodes(node(id=ONE)), START)
    other = await connected_agent(db, START, number=2)
    await other.send(upsert(workload(1)), now=START)
    await other.send_nodes(all_nodes(node(id=ONE)), START)
    await send(other, scrape(START + timedelta(minutes=1), utilization(1)), now=LATER)
    assert await points(db) == []
    await send(agent, scrape(START + timedelta(minutes=1), utilization(2)), now=LATER)
    own = await points(db, node_cluster_id=agent.identity.cluster_id)
    assert [point.figures for point in own] == [{("GPU_UTILIZATION", ""): 2.0}]
    assert await points(db, node_cluster_id=other.identity.cluster_id) == []
    instants = [START + timedelta(minutes=2)]
    window = timedelta(minutes=2)
    assert await points(db) == [], "nor does it read any"
    assert not await utilization_list(db, 1, [ONE], instants=instants, window=window)


async def test_a_workload_that_is_revived_elsewhere_reads_no_samples_of_before(
    db: Database,
) -> None:
    """Whoever knows a deleted workload's id may bring it back in another cluster of the tenant."""
    agent = await one_workload(db)
    await send(agent, scrape(START + timedelta(minutes=1), utilization(2)), now=LATER)
    await agent.send(Delete(id=ONE, deleted_at=LATER), now=LATER)
    assert len(await points(db)) == 1
    other = await connected_agent(db, START, number=2)
    await other.send(upsert(workload(1)), now=LATER)
    assert await points(db) == []
    await send(other, scrape(START + timedelta(minutes=3), utilization(4)), now=LATER)
    assert [point.figures for point in await points(db)] == [{("GPU_UTILIZATION", ""): 4.0}]


async def test_a_batch_reported_twice_is_kept_once(db: Database) -> None:
    agent = await one_workload(db)
    samples = scrape(START + timedelta(minutes=1), utilization(1))
    await send(agent, samples, samples, now=LATER)
    await send(agent, samples, now=LATER)
    assert len(await points(db)) == 1


async def test_days_are_dropped_whole_and_unused_layouts_with_them(db: Database) -> None:
    agent = await one_workload(db)
    await send(agent, scrape(START + timedelta(minutes=1), utilization(1)), now=LATER)
    for days, left in ((7, 1), (8, 0)):
        now = START + timedelta(days=days)
        assert await measured_purge(db, 1, days=7, now=now) == 1
        assert len(await points(db)) == left
    await measured_purge(db, 1, days=7, now=START + timedelta(days=9))
    async with db.acquire(1) as connection:
        assert await connection.fetchval("SELECT count(*) FROM measured_layout") == 0


async def test_a_purged_workload_leaves_no_samples(db: Database) -> None:
    agent = await one_workload(db)
    await send(agent, scrape(START + timedelta(minutes=1), utilization(1)), now=LATER)
    await agent.send(Delete(id=ONE, deleted_at=LATER), now=LATER)
    assert len(await points(db)) == 1, "of a deleted one they stay readable"
    await workload_purge(db, 1, keep=timedelta(0), now=LATER + timedelta(seconds=1))
    assert await points(db) == []


async def stored(database_url: str, layout: int, series: list[str], values: list[float]) -> None:
    """A row as no server of today would store it."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "INSERT INTO measured_layout (tenant_id, id, series, used_on) VALUES (1, $1, $2, $3)",
        layout,
        series,
        START.date(),
    )
    await connection.execute(
        "INSERT INTO measured_sample (tenant_id, workload_id, at, counted_since, layout, "
        '"values") VALUES (1, $1, $2, $3, $4, $5)',
        ONE,
        START + timedelta(seconds=layout),
        START,
        layout,
        values,
    )
    await connection.close()


async def test_of_more_labels_than_are_read_the_whole_remains(
    db: Database, database_url: str
) -> None:
    await one_workload(db)
    await measured_purge(db, 1, days=7, now=START)
    names = ["GPU_UTILIZATION\x1f", *(f"GPU_UTILIZATION\x1f{n}" for n in range(200))]
    await stored(database_url, 1, names, [5.0] * len(names))
    await stored(database_url, 2, names[1:], [5.0] * 200)
    await stored(database_url, 3, [*names, "NO_SUCH_TYPE\x1f"], [1.0])
    whole, parts = await points(db, step=1)
    assert whole.figures == {("GPU_UTILIZATION", ""): 5.0}
    assert len(parts.figures) == 100


async def test_names_in_one_answer_are_bounded_and_the_newest_remain(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row may have a layout of its own, with thousands of long names."""
    monkeypatch.setattr(measured, "MAX_NAMES", 10)
    await one_workload(db)
    await measured_purge(db, 1, days=7, now=START)
    for layout in range(1, 6):
        series = [f"GPU_UTILIZATION\x1f{layout}-{n}" for n in range(4)]
        await stored(database_url, layout, series, [1.0] * 4)
    result = await points(db, step=1)
    assert [(point.at - START).total_seconds() for point in result] == [4, 5]


async def test_samples_are_read_by_steps_however_many_there_are(db: Database) -> None:
    agent = await one_workload(db)
    samples = [scrape(START + timedelta(seconds=n / 10), utilization(n)) for n in range(1, 1201)]
    await send(agent, *samples, now=LATER)
    assert len(await points(db, minutes=2, step=60)) == 4
