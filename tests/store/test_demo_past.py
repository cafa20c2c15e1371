"""The past of a new demo: what usage, idle hours and charts say of it is what its workloads lived."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from simulator.model.hardware import total_gpus
from simulator.past.recording import past_samples, record_histories
from simulator.simulation.exporters import Exporters
from simulator.simulation.scenario import Scenario
from simulator.simulation.world import World
from tests.fixtures.clusters import connected_agent
from tests.unit.simulator.test_exporters import DCGM_METRICS, dcgm_page, read
from tests.unit.simulator.test_scenario import new_store
from watchbill.agent.metrics.devices import read_devices
from watchbill.query import Scope, UsageQuery
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account
from watchbill.store.usage.report import usage_report

ALL = Scope(1, is_whole_tenant=True)
WINDOW = timedelta(seconds=10)
HOLDING = ("running", "degraded", "updating")


def make_world(now: float) -> World:
    return Scenario.create(new_store(), seed=11, prefix="t", workloads=60, now=now).world


async def fetch(db: Database, query: str, *parameters: object) -> list[dict[str, Any]]:
    async with db.acquire(1) as connection:
        return [dict(row) for row in await connection.fetch(query, *parameters)]


async def test_usage_shows_what_the_steps_say_and_the_cluster_holds(db: Database) -> None:
    now = float(int(time.time()))
    end = datetime.fromtimestamp(now, UTC)
    agent = await connected_agent(db, end)
    world = make_world(now)
    recorded = await record_histories(
        db, world, agent.identity.cluster_id, seed=1, idle_window=WINDOW, now=now
    )
    (counted,) = await fetch(
        db, "SELECT count(*) AS total, count(deleted_at) AS ended FROM workload"
    )
    assert counted["total"] == recorded
    assert counted["ended"] > 20
    await usage_account(db, 1, end + timedelta(minutes=10))
    query = UsageQuery(
        start=(end - timedelta(days=45)).date(), end=(end + timedelta(days=1)).date()
    )
    totals = (await usage_report(db, ALL, query, None, end)).totals
    (held,) = await fetch(
        db,
        "SELECT sum(allocated_gpu * extract(epoch FROM least(next, deleted_at, $1) - at)) / 3.6e9 AS gpu_hours "
        "FROM (SELECT u.at, u.allocated_gpu, w.deleted_at, lead(u.at) OVER (PARTITION BY w.id ORDER BY u.at) "
        "AS next FROM usage_step u JOIN workload w ON w.id = u.workload_id) AS step "
        "WHERE at < $1",
        (await fetch(db, "SELECT min(last_contact_at) - interval '10 min' AS at FROM cluster"))[0][
            "at"
        ],
    )
    assert totals.allocated_gpu_hours == pytest.approx(float(held["gpu_hours"]), rel=1e-6)
    assert totals.idle_gpu_hours is not None
    assert 0 < totals.idle_gpu_hours < totals.allocated_gpu_hours
    assert totals.pending_gpu_hours > 0
    assert totals.gap_gpu_hours == 0
    assert await fetch(db, "SELECT FROM usage_day WHERE idle_gpu < 0") == []
    await check_live_workloads(db, world, now)
    days = await fetch(
        db, "SELECT day, sum(allocated_gpu) / 3.6e12 AS hours FROM usage_day GROUP BY day"
    )
    assert len(days) >= 25
    assert max(float(day["hours"]) for day in days) <= 24 * total_gpus(world.nodes.values())


async def check_live_workloads(db: Database, world: World, now: float) -> None:
    """Of those that hold GPUs now the store says what the cluster holds; none of the others lives."""
    rows = await fetch(db, "SELECT id, deleted_at, running_ms, allocated_gpu FROM workload")
    live = {str(row["id"]): row for row in rows if row["deleted_at"] is None}
    assert live.keys() <= world.workloads.keys()
    for uid, simulated in world.workloads.items():
        devices = sum(len(pod.grant.devices) for pod in simulated.pods if pod.holds_resources)
        if (
            simulated.stage in HOLDING
            and devices
            and not any(p.grant.group for p in simulated.pods)
        ):
            assert live[uid]["allocated_gpu"] == devices * 10**6
    gone = [row for row in rows if row["deleted_at"] is not None]
    assert all(row["deleted_at"].timestamp() < now for row in gone)
    assert all(row["running_ms"] > 0 for row in gone)
    assert not {str(row["id"]) for row in gone} & world.workloads.keys()


def test_samples_are_what_the_exporters_would_have_reported() -> None:
    now = 1_790_000_000.0
    world = make_world(now)
    reported: Counter[str] = Counter()
    moment = now - 1100.0  # the tenth from the end
    result = Exporters(world, clock=lambda: moment)
    busy = {
        device.name: device.utilization
        for node in world.nodes.values()
        if node.pool.gpus
        for device in read_devices(read(dcgm_page(result, node), DCGM_METRICS)).values()
    }
    for past in past_samples(world, now=now):
        width = len(past.series)
        assert len(past.figures) == width * len(past.at)
        if len(past.at) < 10:
            continue
        assert past.at[-10].timestamp() == moment
        row = past.figures[-10 * width : -9 * width]
        for (kind, label), figure in zip(past.series, row, strict=True):
            if kind == "GPU_UTILIZATION" and label:
                assert figure == pytest.approx(busy[label], abs=0.51)
                reported[label] += 1
    assert len(reported) > 50
