"""Where a pending workload stands among those of its project, by priority and time waited."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.protocol import Upsert
from watchbill.query import Scope
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.workloads import workload_get
from watchbill.workload import Phase

WHOLE = Scope(1, is_whole_tenant=True)
NOW = START + timedelta(hours=1)


def pending(number: int, *, minute: int, priority: int | None = 50, **members: object) -> Upsert:
    since = START + timedelta(minutes=minute)
    made = {"phase": Phase.PENDING, "running_pods": 0, "priority": priority, "created_at": since}
    return upsert(workload(number, **(made | members)))


async def document_of(db: Database, number: int, scope: Scope = WHOLE) -> dict[str, Any]:
    reply = await workload_get(db, scope, UUID(int=number), NOW)
    assert reply is not None
    document: dict[str, Any] = msgspec.json.decode(reply.body)
    return document


async def test_higher_priorities_and_longer_waits_are_ahead(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(
        pending(1, minute=0),
        pending(2, minute=5),
        pending(3, minute=10),
        pending(4, minute=20, priority=100),
        pending(5, minute=1, priority=None),
        pending(6, minute=0, project_name="speech"),
        upsert(workload(7)),
        now=NOW,
    )
    # 4 by its priority, which 5 has neither more nor less of; of all others those that wait longer.
    expected = {1: 1, 2: 3, 3: 4, 4: 1, 5: 1}
    for number, ahead in expected.items():
        position = (await document_of(db, number))["additionalFields"]["queuePosition"]
        assert position == {"ahead": ahead, "others": 4}, number
    alone = await document_of(db, 6)
    assert alone["additionalFields"]["queuePosition"] == {"ahead": 0, "others": 0}
    assert "queuePosition" not in (await document_of(db, 7))["additionalFields"]


async def test_who_sees_a_project_alone_counts_the_same(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(
        pending(1, minute=0),
        pending(2, minute=5),
        pending(3, minute=0, project_name="speech"),
        now=NOW,
    )
    document = await document_of(db, 2)
    project = Scope(1, project_ids=frozenset({int(document["projectId"])}))
    position = document["additionalFields"]["queuePosition"]
    assert position == {"ahead": 1, "others": 1}
    assert (await document_of(db, 2, project))["additionalFields"]["queuePosition"] == position


async def test_projects_of_one_name_in_two_clusters_are_two_queues(db: Database) -> None:
    for number in (1, 2):
        agent = await connected_agent(db, START, number=number)
        await agent.send(pending(number, minute=number), now=NOW)
    position = (await document_of(db, 2))["additionalFields"]["queuePosition"]
    assert position == {"ahead": 0, "others": 0}
