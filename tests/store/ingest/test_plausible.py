"""What an agent that was taken over may claim: nothing that breaks or falsifies the answers of others."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import record, upsert, workload
from tests.store.test_isolation import READS
from watchbill.kinds.derivation.elements import MAX_ELEMENTS
from watchbill.protocol import (
    Batch,
    Delete,
    Measured,
    NodePoolCapacity,
    Reading,
    Scrape,
)
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.fleet.fleet import fleet_now, fleet_record
from watchbill.store.ingest.stream import batch_apply
from watchbill.store.postgres.database import Database
from watchbill.store.workloads import validation
from watchbill.store.workloads.validation import MAX_RECORD_ELEMENTS, MAX_TRANSITIONS
from watchbill.store.workloads.workloads import workload_count
from watchbill.workload import AllocatedResources, Element, Phase

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
NAIVE = datetime(2026, 11, 23)  # noqa: DTZ001


def usage(**members: object) -> Any:
    made = record(workload(1))
    return upsert(
        msgspec.structs.replace(made, usage=msgspec.structs.replace(made.usage, **members))
    )


def elements(count: int, name: str = "worker") -> Any:
    made = tuple(
        Element(id=UUID(int=0xE0000 + n), name=name, hierarchy_level=1) for n in range(count)
    )
    return upsert(record(workload(1), elements=made, elements_total=count))


TIMES = (FAR, FIRST, NAIVE, NOW + timedelta(days=2), datetime(1970, 1, 1, tzinfo=UTC))
IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    **{
        f"{member} {at.year}{'' if at.tzinfo else ' naive'}": (item, member)
        for at in TIMES
        for member, item in {
            "createdAt": upsert(workload(1, created_at=at), (Phase.RUNNING, NOW)),
            "completedAt": upsert(workload(1, completed_at=at)),
            "times of phases": upsert(workload(1), (Phase.RUNNING, at), observed_at=NOW),
            "observedAt": upsert(workload(1), (Phase.RUNNING, NOW), observed_at=at),
        }.items()
    },
    "guaranteed for ever": (
        upsert(workload(1, guaranteed_runtime_ends_at=FAR)),
        "guaranteedRuntimeEndsAt",
    ),
    "guaranteed without an offset": (
        upsert(workload(1, guaranteed_runtime_ends_at=NAIVE)),
        "guaranteedRuntimeEndsAt",
    ),
    "fewer elements than none": (
        upsert(record(workload(1), elements_total=-1)),
        "number of elements",
    ),
    "fewer GPUs than none": (upsert(workload(1, gpus=-1.0)), "gpuMillionths"),
    "more GPUs than can be counted": (upsert(workload(1, gpus=1e300)), "gpuMillionths"),
    "fewer idle GPUs than none": (
        upsert(workload(1, idle_allocated_gpus=-1.0)),
        "idleAllocatedGpus",
    ),
    "more idle GPUs than there are": (
        upsert(workload(1, idle_allocated_gpus=1e300)),
        "idleAllocatedGpus",
    ),
    "a priority beyond numbers": (upsert(workload(1, priority=10**12)), "priority"),
    "fewer pods than none": (upsert(workload(1, running_pods=-1)), "runningPods"),
    "GPUs held by nobody": (
        upsert(
            workload(1, allocated_resources=AllocatedResources(gpu=-2.0, extended_resources=()))
        ),
        "allocatedResources",
    ),
    "cores beyond counting": (usage(cpu_request_cores=1e50), "cpuRequestCores"),
    "memory beyond counting": (usage(cpu_memory_limit_bytes=10**50), "cpuMemoryLimitBytes"),
    "GPU memory beyond counting": (
        usage(gpu_memory_request_bytes=2**62),
        "gpuMemoryRequestBytes",
    ),
}
SCOPE = Scope(1, is_whole_tenant=True)


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_an_impossible_member_is_left_out_and_reported(db: Database, name: str) -> None:
    """The workload stays, the agent need not send it again, and whoever runs the cluster can see why."""
    agent = await connected_agent(db, NOW)
    item, member = IMPOSSIBLE[name]
    assert (await agent.send(item, upsert(workload(2)), now=NOW)).refused == ()
    assert await workload_count(db, SCOPE, WorkloadQuery(), NOW) == 2
    (cluster,) = await cluster_list(db, SCOPE, NOW)
    assert [refused.id for refused in cluster.refused] == [UUID(int=1)]
    assert member in cluster.refused[0].reason
    await read_all(db)
    await agent.send(upsert(workload(1, name="sound")), now=NOW)
    (cluster,) = await cluster_list(db, SCOPE, NOW)
    assert cluster.refused == ()


async def read_all(db: Database) -> None:
    for read in READS.values():
        await read(db, SCOPE)
    assert await fleet_record(db, 1, NOW)


@pytest.mark.parametrize("at", TIMES)
async def test_a_deletion_at_an_impossible_time_is_one_all_the_same(
    db: Database, at: datetime
) -> None:
    agent = await connected_agent(db, NOW)
    await agent.send(upsert(workload(1)), now=NOW)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at), now=NOW)
    assert await workload_count(db, SCOPE, WorkloadQuery(), NOW) == 0


async def test_a_capacity_that_was_stored_before_breaks_nothing(db: Database) -> None:
    agent = await connected_agent(db, NOW)
    pool = NodePoolCapacity(node_pool="hostile", nodes=1, gpus=1e308)
    async with db.acquire(1) as connection:
        await connection.execute(
            "UPDATE cluster SET node_pools = $1 WHERE id = $2",
            msgspec.json.encode([pool]),
            agent.identity.cluster_id,
        )
    assert (await fleet_now(db, SCOPE, NOW)).gpus.total is None
    await read_all(db)


UNSTORABLE: dict[str, Any] = {
    "too many phases": upsert(workload(1), *[(Phase.RUNNING, NOW)] * (MAX_TRANSITIONS + 1)),
    "too many elements": elements(MAX_RECORD_ELEMENTS + 1),
    "elements with endless names": elements(3, "x" * 500_000),
    "an endless name": upsert(workload(1, name="x" * 300_000)),
    "endless variables": upsert(workload(1, environment_variables={"A": "x" * 300_000})),
}


@pytest.mark.parametrize("name", UNSTORABLE)
async def test_what_cannot_be_stored_is_refused_alone(db: Database, name: str) -> None:
    agent = await connected_agent(db, NOW)
    reply = await agent.send(UNSTORABLE[name], upsert(workload(2)), now=NOW)
    assert [item.id for item in reply.refused] == [UUID(int=1)]
    assert reply.refused[0].reason.startswith(("A ", "The "))
    assert await workload_count(db, SCOPE, WorkloadQuery(), NOW) == 1


async def test_an_honest_agents_extremes_are_taken(db: Database) -> None:
    agent = await connected_agent(db, NOW)
    honest = (
        upsert(workload(1, created_at=datetime(2014, 6, 6, tzinfo=UTC))),
        upsert(workload(2, created_at=NOW + timedelta(hours=1)), (Phase.RUNNING, NOW)),
        upsert(workload(3, guaranteed_runtime_ends_at=NOW + timedelta(days=365))),
        upsert(workload(4, environment_variables={"A": "x" * 100_000})),
        elements(MAX_RECORD_ELEMENTS, "x" * 253),
    )
    assert (await agent.send(*honest, now=NOW)).refused == ()
    assert MAX_ELEMENTS <= MAX_RECORD_ELEMENTS
    assert (
        f"The record is larger than {validation.MAX_DOCUMENT_BYTES >> 10} KiB."
        == validation.TOO_LARGE
    )


@pytest.mark.parametrize("at", [FAR, FIRST, NAIVE])
async def test_scrapes_of_no_possible_time_are_left_out(db: Database, at: datetime) -> None:
    agent = await connected_agent(db, NOW)
    reading = (Reading("GPU_UTILIZATION", 50.0, "0"),)
    measured = (Measured(id=UUID(int=1), readings=reading),)
    scrapes = tuple(
        Scrape(at=when, counted_since=since, workloads=measured)
        for when, since in ((at, NOW), (NOW, at))
    )
    batch = Batch(stream_id=agent.stream_id, seq=1, items=(upsert(workload(1)),), scrapes=scrapes)
    assert (await batch_apply(db, agent.identity, batch, NOW)).refused == ()
    async with db.acquire(1) as connection:
        assert await connection.fetchval("SELECT count(*) FROM measured_sample") == 0


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("nan")])
async def test_readings_beyond_counting_are_left_out(db: Database, value: float) -> None:
    agent = await connected_agent(db, NOW)
    readings = (Reading("GPU_UTILIZATION", value, "0"), Reading("GPU_UTILIZATION", 50.0, "1"))
    scrape = Scrape(
        at=NOW, counted_since=NOW, workloads=(Measured(id=UUID(int=1), readings=readings),)
    )
    items = (upsert(workload(1)),)
    batch = Batch(stream_id=agent.stream_id, seq=1, items=items, scrapes=(scrape,))
    await batch_apply(db, agent.identity, batch, NOW)
    async with db.acquire(1) as connection:
        stored = await connection.fetchval('SELECT "values" FROM measured_sample')
    assert stored == [50.0]
