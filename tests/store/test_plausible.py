"""What an agent that was taken over may claim: nothing that breaks or falsifies the answers of others."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import record, upsert, workload
from watchbill.protocol import Batch, Delete, Measured, Reading, Scrape
from watchbill.query import Scope, WorkloadQuery
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


def elements(count: int, name: str = "worker") -> Any:
    made = tuple(
        Element(id=UUID(int=0xE0000 + n), name=name, hierarchy_level=1) for n in range(count)
    )
    return upsert(record(workload(1), elements=made, elements_total=count))


HOSTILE: dict[str, Any] = {
    **{
        f"{what} {at.year}{'' if at.tzinfo else ' naive'}": item
        for at in (FAR, FIRST, NAIVE, NOW + timedelta(days=2))
        for what, item in {
            "created": upsert(workload(1, created_at=at)),
            "completed": upsert(workload(1, completed_at=at)),
            "entered a phase": upsert(workload(1), (Phase.RUNNING, at)),
            "deleted": Delete(id=UUID(int=1), deleted_at=at),
        }.items()
    },
    "guaranteed for ever": upsert(workload(1, guaranteed_runtime_ends_at=FAR)),
    "guaranteed without an offset": upsert(workload(1, guaranteed_runtime_ends_at=NAIVE)),
    "too many phases": upsert(workload(1), *[(Phase.RUNNING, NOW)] * (MAX_TRANSITIONS + 1)),
    "too many elements": elements(MAX_RECORD_ELEMENTS + 1),
    "elements with endless names": elements(3, "x" * 500_000),
    "an endless name": upsert(workload(1, name="x" * 300_000)),
    "endless variables": upsert(workload(1, environment_variables={"A": "x" * 300_000})),
    "fewer elements than none": upsert(record(workload(1), elements_total=-1)),
    "fewer GPUs than none": upsert(workload(1, gpus=-1.0)),
    "more GPUs than can be counted": upsert(workload(1, gpus=1e300)),
    "fewer idle GPUs than none": upsert(workload(1, idle_allocated_gpus=-1.0)),
    "fewer pods than none": upsert(workload(1, running_pods=-1)),
    "GPUs held by nobody": upsert(
        workload(1, allocated_resources=AllocatedResources(gpu=-2.0, extended_resources=()))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_cannot_be_is_refused_alone(db: Database, name: str) -> None:
    agent = await connected_agent(db, NOW)
    reply = await agent.send(HOSTILE[name], upsert(workload(2)), now=NOW)
    assert [item.id for item in reply.refused] == [UUID(int=1)]
    assert reply.refused[0].reason.startswith(("A ", "The "))
    scope, query = Scope(1, is_whole_tenant=True), WorkloadQuery()
    assert await workload_count(db, scope, query, NOW) == 1


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
    assert MAX_RECORD_ELEMENTS <= MAX_RECORD_ELEMENTS
    assert (
        f"The record is larger than {validation.DOCUMENT_BYTES >> 10} KiB." == validation.TOO_LARGE
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
