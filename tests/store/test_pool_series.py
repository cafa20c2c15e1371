"""Metrics of clusters and node pools over time, and what nodes use now, by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import all_nodes, node, pod, upsert, workload
from watchbill.maintenance import record_fleets
from watchbill.metrics.cluster import cluster_outcomes
from watchbill.metrics.source import FailedType, Measurement, MetricsQuery, Outcome
from watchbill.protocol import Measured, Reading, Scrape
from watchbill.store.fleet import series as module
from watchbill.store.metrics.node_usage import NodeUsage, node_usage_list
from watchbill.store.postgres.database import Database
from watchbill.workload import AllocatedResources

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
GIB = 1024.0**3
CLUSTER_ID = UUID(int=0xC0 << 64 | 1)
A, B, C = (node(name) for name in ("a", "b", "c"))


def scrape(seconds: float, *measured: tuple[UUID, dict[str, float]]) -> Scrape:
    return Scrape(
        at=AT + timedelta(seconds=seconds),
        counted_since=AT - timedelta(hours=1),
        workloads=tuple(
            Measured(node_id, tuple(Reading(kind, value) for kind, value in figures.items()))
            for node_id, figures in measured
        ),
    )


@pytest_asyncio.fixture
async def agent(db: Database) -> Agent:
    """Two nodes of eight A100 in one pool, of which one is measured; one of two H100, cordoned, in another."""
    made = await connected_agent(db, AT)
    h100 = node(
        "c",
        node_pool="h100",
        is_cordoned=True,
        capacity=type(A.capacity)(gpus=2.0, cpu_cores=10.0, cpu_memory_bytes=100),
    )
    await made.send_nodes(all_nodes(A, B, h100), AT)
    held = AllocatedResources(gpu=3.0, extended_resources=())
    for number, nodes in ((1, "ab"), (2, "a"), (3, "c")):
        pods = [
            pod(10 * number + place, node_name=name, allocated_resources=held)
            for place, name in enumerate(nodes)
        ]
        await made.send(upsert(workload(number, gpus=3.0 * len(nodes)), pods=pods), now=AT)
    gpus = {"GPU_UTILIZATION": 40.0, "GPU_MEMORY_USAGE_BYTES": 160 * GIB}
    await made.send(
        now=AT,
        scrapes=(
            scrape(-60, (A.id, {"CPU_USAGE_CORES": 1000.0})),
            scrape(
                -30, (A.id, gpus | {"CPU_USAGE_CORES": 1720.0, "CPU_MEMORY_USAGE_BYTES": 2.0**38})
            ),
            scrape(-10, (C.id, {"GPU_UTILIZATION": 100.0, "CPU_MEMORY_USAGE_BYTES": 50.0})),
        ),
    )
    return made


def values(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], Any]:
    """By type and group, the last value; what failed as its reason."""
    return {
        (each.type, "" if isinstance(each, FailedType) else dict(each.groups).get(GROUP, "")): (
            str(each.reason)
            if isinstance(each, FailedType)
            else each.samples[-1].value
            if each.samples
            else None
        )
        for each in outcomes
        if isinstance(each, (FailedType, Measurement))
    }


GROUP = "Nodepool"


async def asked(db: Database, *types: str, **choice: Any) -> dict[tuple[str, str], Any]:
    query = MetricsQuery(
        types=types,
        start=AT - timedelta(minutes=5),
        end=AT + timedelta(minutes=5),
        number_of_samples=2,
    )
    later = AT + timedelta(minutes=5)
    return values(await cluster_outcomes(db, 1, CLUSTER_ID, query, later, **choice))


async def test_what_nodes_use_now(agent: Agent) -> None:
    """720 core-seconds in 30 seconds are 24 cores; a single sample tells no rate, an old one nothing."""
    ids = [A.id, B.id, C.id]
    assert await node_usage_list(agent.db, 1, ids, AT) == {
        A.id: NodeUsage(40.0, 160 * GIB, 24.0, 2.0**38),
        C.id: NodeUsage(100.0, None, None, 50.0),
    }
    assert await node_usage_list(agent.db, 1, ids, AT + timedelta(minutes=3)) == {}
    assert await node_usage_list(agent.db, 2, ids, AT) == {}, "another tenant's"


async def test_a_node_pool_by_hand(agent: Agent) -> None:
    """Of 16 GPUs nine are held, by two workloads. One node of two is measured: its 24 of 96 cores are 25 %."""
    await record_fleets(agent.db, AT)
    assert await asked(
        agent.db,
        *("TOTAL_GPU_NODES", "TOTAL_GPU", "ALLOCATED_GPU", "UNALLOCATED_GPU", "WORKLOADS_COUNT"),
        *("GPU_UTILIZATION", "GPU_MEMORY_UTILIZATION", "CPU_UTILIZATION", "CPU_MEMORY_UTILIZATION"),
        *("GPU_QUOTA", "AVG_WORKLOAD_WAIT_TIME"),
        node_pool="a100",
    ) == {
        ("TOTAL_GPU_NODES", ""): "2",
        ("TOTAL_GPU", ""): "16",
        ("ALLOCATED_GPU", ""): "9",
        ("UNALLOCATED_GPU", ""): "7",
        ("WORKLOADS_COUNT", ""): "2",
        ("GPU_UTILIZATION", ""): "40",
        ("GPU_MEMORY_UTILIZATION", ""): "25",
        ("CPU_UTILIZATION", ""): "25",
        ("CPU_MEMORY_UTILIZATION", ""): "25",
        ("GPU_QUOTA", ""): "unsupported",
        ("AVG_WORKLOAD_WAIT_TIME", ""): "unsupported",
    }


async def test_pools_add_up_to_their_cluster_and_are_distinguished(agent: Agent) -> None:
    """(8 × 40 % + 2 × 100 %) / 10 are 52 %; a cordoned node has nothing that new pods can have."""
    await record_fleets(agent.db, AT)
    types = ("GPU_UTILIZATION", "TOTAL_GPU_NODES", "TOTAL_GPU")
    whole = await asked(agent.db, *types[:2])
    assert whole == {("GPU_UTILIZATION", ""): "52", ("TOTAL_GPU_NODES", ""): "3"}
    assert await asked(agent.db, *types, group_by="Nodepool") == {
        ("GPU_UTILIZATION", "a100"): "40",
        ("GPU_UTILIZATION", "h100"): "100",
        ("TOTAL_GPU_NODES", "a100"): "2",
        ("TOTAL_GPU_NODES", "h100"): "1",
        ("TOTAL_GPU", "a100"): "16",
        ("TOTAL_GPU", "h100"): "0",
    }
    assert set((await asked(agent.db, *types, group_by="Category")).values()) == {"unsupported"}


async def test_projects_hold_what_their_workloads_do(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "GROUP", "Project")
    await agent.send(upsert(workload(4, gpus=1.0, project_name="speech")), now=AT)
    await record_fleets(agent.db, AT)
    answer = await asked(
        agent.db, "ALLOCATED_GPU", "WORKLOADS_COUNT", "TOTAL_GPU", group_by="Project"
    )
    async with agent.db.acquire(1) as connection:
        rows = await connection.fetch("SELECT name, id::text FROM project")
    number = {row["name"]: row["id"] for row in rows}
    assert answer == {
        ("ALLOCATED_GPU", number["vision"]): "12",
        ("ALLOCATED_GPU", number["speech"]): "1",
        ("WORKLOADS_COUNT", number["vision"]): "3",
        ("WORKLOADS_COUNT", number["speech"]): "1",
        ("TOTAL_GPU", ""): "unsupported",
    }


async def test_only_so_many_pools_are_recorded_and_old_ones_forgotten(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_POOLS", 1)
    await record_fleets(agent.db, AT - timedelta(days=31))
    await record_fleets(agent.db, AT)
    async with agent.db.acquire(1) as connection:
        rows = await connection.fetch("SELECT at, node_pool FROM fleet_node_pool")
    assert [(row["at"], row["node_pool"]) for row in rows] == [(AT, "a100")]


async def test_what_is_not_known_of_a_node_is_not_known_of_its_pool(db: Database) -> None:
    made = await connected_agent(db, AT)
    unknown = type(A.capacity)()
    await made.send_nodes(all_nodes(A, node("b", allocatable=unknown, capacity=unknown)), AT)
    await record_fleets(db, AT)
    answer = await asked(db, "TOTAL_GPU", "ALLOCATED_GPU", "UNALLOCATED_GPU", node_pool="a100")
    assert list(answer.values()) == [None, "0", None]


async def test_a_pools_name_that_no_column_holds_stops_no_other_clusters_figures(
    db: Database,
) -> None:
    hostile, other = [await connected_agent(db, AT, number=number) for number in (1, 2)]
    await hostile.send_nodes(all_nodes(node("a", node_pool="a\0b")), AT)
    await other.send_nodes(all_nodes(node("b")), AT)
    await record_fleets(db, AT)
    async with db.acquire(1) as connection:
        rows = await connection.fetch("SELECT node_pool FROM fleet_node_pool ORDER BY cluster_id")
    assert [row["node_pool"] for row in rows] == ["a\ufffdb", "a100"]
