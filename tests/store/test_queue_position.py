"""Where a pending workload stands among those of its project, by priority and time waited."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.protocol import Upsert
from watchbill.query import Scope
from watchbill.scheduler_queue import AdmissionOrder, AdmissionPlace, SchedulerQueue
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


def lq(key: str, *places: tuple[int, int]) -> SchedulerQueue:
    """A LocalQueue whose ClusterQueue has twelve waiting."""
    listed = tuple(AdmissionPlace(id=UUID(int=number), ahead=ahead) for number, ahead in places)
    order = AdmissionOrder(waiting=12, places=listed)
    return SchedulerQueue(
        unit="project", key=key, name=key, scheduler="Kueue", admission_order=order
    )


async def test_kueues_own_order_goes_before_what_is_counted(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(
        *(pending(number, minute=number, project_name="a/lq") for number in (1, 2, 3)),
        pending(4, minute=0, project_name="b/lq"),
        now=NOW,
    )
    # Kueue has 1 fifth and 2 first; 3 it does not name; 4 is named by a queue that is not its own.
    await agent.beat(NOW, queues=(lq("a/lq", (1, 4), (2, 0), (4, 1)), lq("b/lq")))
    by_kueue = {"others": 11, "source": "Kueue"}
    expected = {
        1: by_kueue | {"ahead": 4},
        2: by_kueue | {"ahead": 0},
        3: {"ahead": 2, "others": 2},
        4: {"ahead": 0, "others": 0},
    }
    documents = {number: await document_of(db, number) for number in expected}
    positions = {n: each["additionalFields"]["queuePosition"] for n, each in documents.items()}
    assert positions == expected
    alone = Scope(1, project_ids=frozenset({int(documents[1]["projectId"])}))
    seen = (await document_of(db, 1, alone))["additionalFields"]["queuePosition"]
    assert seen == expected[1]


async def test_another_order_is_no_change_of_the_project(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(pending(1, minute=0, project_name="a/lq"), now=START)

    async def updated() -> object:
        async with db.acquire(1) as connection:
            return await connection.fetchval(
                "SELECT updated_at FROM project WHERE tenant_id = $1 AND key = 'a/lq'", 1
            )

    await agent.beat(START, queues=(lq("a/lq", (1, 4)),))
    await agent.beat(NOW, queues=(lq("a/lq", (1, 3)),))
    position = (await document_of(db, 1))["additionalFields"]["queuePosition"]
    assert (position["ahead"], await updated()) == (3, START)
    stopped = msgspec.structs.replace(lq("a/lq"), not_ready_message="stopped", admission_order=None)
    await agent.beat(NOW, queues=(stopped,))
    position = (await document_of(db, 1))["additionalFields"]["queuePosition"]
    assert (position, await updated()) == ({"ahead": 0, "others": 0}, NOW)
