"""Kubernetes' events of workloads, in the database: counted, bounded, in one line of time with phases."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.protocol import Delete
from watchbill.query import Scope
from watchbill.store.postgres.database import Database
from watchbill.store.workloads import events as store_events
from watchbill.store.workloads.events import EVENT_RETENTION, event_list, event_purge, history_list
from watchbill.workload import InvolvedObject, Phase, WorkloadEvent

SCOPE = Scope(1, is_whole_tenant=True)
SECOND = timedelta(seconds=1)


def event(number: int = 1, *, workload_id: int = 1, at: int = 0, **members: Any) -> WorkloadEvent:
    made: dict[str, Any] = {
        "id": UUID(int=0xE << 64 | number),
        "workload_id": UUID(int=workload_id),
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": f"message {number}",
        "source": "default-scheduler",
        "count": 1,
        "first_at": START,
        "last_at": START + at * SECOND,
        "involved_object": InvolvedObject(
            uid=UUID(int=9), kind="Pod", name="w-0", namespace="team-vision"
        ),
    }
    return WorkloadEvent(**(made | members))


async def send(agent: Agent, *events: WorkloadEvent) -> None:
    await agent.send(now=START, events=events)


async def messages(db: Database, **options: Any) -> list[str]:
    page = await event_list(
        db, SCOPE, UUID(int=1), **({"offset": 0, "limit": 500, "now": START} | options)
    )
    assert page is not None
    return [each.message for each in page.events]


@pytest.fixture
async def agent(db: Database) -> Agent:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START)
    return agent


async def test_an_event_is_reported_once_and_counted(db: Database, agent: Agent) -> None:
    await send(agent, event(1, at=1), event(2, at=2))
    await send(agent, event(1, at=5, count=7, message="again"))
    await send(agent, event(1, at=1))  # an older state of it, after a relist
    page = await event_list(db, SCOPE, UUID(int=1), offset=0, limit=9, now=START)
    assert page is not None
    first, second = page.events
    assert (first.message, first.count, first.created_at) == ("again", 7, START + 5 * SECOND)
    assert first.first_at == START
    assert first.cluster_id == agent.identity.cluster_id
    assert (first.involved_object.kind, first.involved_object.name) == ("Pod", "w-0")
    assert second.message == "message 2"
    assert await messages(db, is_ascending=True) == ["message 2", "again"]


async def test_pages(db: Database, agent: Agent) -> None:
    await send(agent, *(event(number, at=number) for number in range(1, 6)))
    page = await event_list(db, SCOPE, UUID(int=1), offset=2, limit=2, now=START)
    assert page is not None
    assert [each.message for each in page.events] == ["message 3", "message 2"]
    assert page.next_offset == 4
    assert await event_list(db, SCOPE, UUID(int=99), offset=0, limit=2, now=START) is None


async def test_a_cluster_speaks_of_its_own_workloads_alone(db: Database, agent: Agent) -> None:
    other = await connected_agent(db, START, number=2)
    await send(other, event(1), event(2, workload_id=77))
    assert await messages(db) == []


async def test_the_newest_of_a_workload_stay(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = store_events._DROP_EXCESS
    monkeypatch.setattr(store_events, "_DROP_EXCESS", statement.replace("OFFSET 200", "OFFSET 3"))
    await send(agent, *(event(number, at=number) for number in range(1, 8)))
    assert await messages(db) == ["message 7", "message 6", "message 5"]


async def test_events_and_phases_are_one_line_of_time(db: Database, agent: Agent) -> None:
    phases = ((Phase.PENDING, START + 1 * SECOND), (Phase.RUNNING, START + 3 * SECOND))
    await agent.send(upsert(workload(1, name="x"), (Phase.CREATING, START), *phases), now=START)
    await send(agent, event(1, at=2, message="a\0b"))
    page = await history_list(db, SCOPE, UUID(int=1), offset=0, limit=3, now=START)
    assert page is not None
    reported = [
        each.spec.event.message if each.spec.event else each.spec.phase_update
        for each in page.records
    ]
    assert [each.meta.type for each in page.records] == ["PhaseUpdate", "Event", "PhaseUpdate"]
    assert reported[1] == "a\ufffdb"
    assert [each.meta.creation_timestamp for each in page.records] == [
        START + 3 * SECOND,
        START + 2 * SECOND,
        START + 1 * SECOND,
    ]
    assert page.next_offset == 3


async def test_events_outlive_their_workload_and_end_after_two_weeks(
    db: Database, agent: Agent
) -> None:
    await send(agent, event(1))
    await agent.send(Delete(id=UUID(int=1), deleted_at=START), now=START)
    await send(agent, event(2, at=1))
    assert await messages(db) == ["message 2", "message 1"]
    assert await event_purge(db, 1, now=START + EVENT_RETENTION + SECOND) == 1
    assert await messages(db) == ["message 2"]


async def test_times_that_cannot_be_are_left_out(db: Database, agent: Agent) -> None:
    await send(agent, event(1, at=10**9), event(2, first_at=START + SECOND), event(3))
    assert await messages(db) == ["message 3"]
