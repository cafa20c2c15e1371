"""Metrics of one pod: its own samples among several, its workload's while it is the only one."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest_asyncio
from msgspec.structs import replace

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import pod, record, upsert, workload
from watchbill.metrics.pods_and_nodes import pod_outcomes
from watchbill.metrics.source import FailedType, Measurement, MetricsQuery
from watchbill.protocol import Heartbeat, KindState, Measured, Reading, Scrape
from watchbill.query import Scope
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALL = Scope(1, is_whole_tenant=True)
ONE, FIRST, SECOND = UUID(int=1), UUID(int=11), UUID(int=12)


def sampled(minute: int, subject: UUID, *readings: Reading, of: UUID | None = None) -> Scrape:
    return Scrape(
        at=AT + minute * MINUTE, counted_since=AT, workloads=(Measured(subject, readings, of),)
    )


@pytest_asyncio.fixture
async def agent(db: Database) -> Agent:
    """From 12:00 one pod, from 12:05 two, from 12:10 the second alone."""
    made = await connected_agent(db, AT)
    entry = record(workload(1, created_at=AT))
    first, second = (
        pod(number, created_at=AT + minute * MINUTE) for number, minute in ((11, 0), (12, 5))
    )
    for minute, pods in ((0, [first]), (5, [first, second]), (10, [second])):
        usage = replace(entry.usage, pod_count=len(pods))
        now = AT + minute * MINUTE
        await made.send(upsert(replace(entry, usage=usage), observed_at=now, pods=pods), now=now)
    kinds = tuple(
        KindState(group="metrics", kind=kind, state=state, since=AT)
        for kind, state in (("DCGM exporter", "complete"), ("kubelet", "absent"))
    )
    beat = Heartbeat(stream_id=made.stream_id, seq=made.seq, kinds=kinds)
    later = AT + 15 * MINUTE
    await heartbeat_apply(db, made.identity, beat, later)
    busy = "GPU_UTILIZATION"
    await made.send(
        now=later,
        scrapes=(
            sampled(3, ONE, Reading(busy, 3.0)),
            sampled(7, ONE, Reading(busy, 50.0), Reading(busy, 90.0, "GPU-2")),
            sampled(7, FIRST, Reading(busy, 10.0), of=ONE),
            sampled(
                7,
                SECOND,
                *(Reading(busy, 90.0), Reading(busy, 80.0, "GPU-2"), Reading(busy, 100.0, "GPU-3")),
                Reading("GPU_SM_ACTIVITY_PER_GPU", 42.5, "GPU-2"),
                of=ONE,
            ),
            sampled(13, ONE, Reading(busy, 13.0)),
            sampled(13, SECOND, Reading("GPU_SM_ACTIVITY_PER_GPU", 44.0, "GPU-2"), of=ONE),
        ),
    )
    return made


async def points(agent: Agent, pod_id: UUID, name: str, scope: Scope = ALL) -> Any:
    """Points by label: minute and value."""
    query = MetricsQuery(
        types=(name,), start=AT - MINUTE, end=AT + 14 * MINUTE, number_of_samples=15
    )
    outcomes = await pod_outcomes(agent.db, scope, ONE, pod_id, query, AT + 15 * MINUTE)
    if outcomes is None:
        return None
    if isinstance(outcomes[0], FailedType):
        return str(outcomes[0].reason)
    return {
        each.labels.get("gpu", ""): [
            ((point.at - AT) // MINUTE, point.value) for point in each.samples
        ]
        for each in outcomes
        if isinstance(each, Measurement)
    }


async def test_the_only_pod_has_what_its_workload_has(agent: Agent) -> None:
    assert await points(agent, FIRST, "GPU_UTILIZATION") == {
        "": [(3, "3"), (4, "3"), (7, "10"), (8, "10")]
    }


async def test_among_several_each_has_its_own(agent: Agent) -> None:
    """At 13 the second is alone again, so what its workload has is its own."""
    assert await points(agent, SECOND, "GPU_UTILIZATION") == {
        "": [(7, "90"), (8, "90"), (13, "13"), (14, "13")]
    }
    assert await points(agent, SECOND, "GPU_UTILIZATION_PER_GPU") == {
        "GPU-2": [(7, "80"), (8, "80")],
        "GPU-3": [(7, "100"), (8, "100")],
    }


async def test_single_devices_are_reported_of_the_only_pod_too(agent: Agent) -> None:
    assert await points(agent, SECOND, "GPU_SM_ACTIVITY_PER_GPU") == {
        "GPU-2": [(7, "42.5"), (8, "42.5"), (13, "44"), (14, "44")]
    }


async def test_what_nothing_measures_is_reported(agent: Agent) -> None:
    assert await points(agent, FIRST, "CPU_USAGE_CORES") == "unsupported"
    assert await points(agent, FIRST, "GPU_SWAP_MEMORY_BYTES_PER_GPU") == "unsupported"
    assert await points(agent, FIRST, "GPU_MEMORY_USAGE_BYTES") == {"": []}


async def test_a_pod_is_in_scope_where_its_workload_is(agent: Agent) -> None:
    assert await points(agent, UUID(int=99), "GPU_UTILIZATION") is None
    assert await points(agent, FIRST, "GPU_UTILIZATION", Scope(1)) is None
    assert await points(agent, FIRST, "GPU_UTILIZATION", Scope(2, is_whole_tenant=True)) is None


async def test_another_cluster_writes_no_samples_of_a_pod(db: Database, agent: Agent) -> None:
    """Neither of a workload that it does not have, nor under the id of another's pod as of its own workload."""
    other = await connected_agent(db, AT, number=2)
    await other.send(upsert(workload(2), pods=[pod(11)]), now=AT)
    for of in (ONE, UUID(int=2)):
        strange = sampled(5, FIRST, Reading("GPU_UTILIZATION", 77.0), of=of)
        await other.send(now=AT + 15 * MINUTE, scrapes=(strange,))
    assert "77" not in str(await points(agent, FIRST, "GPU_UTILIZATION"))
