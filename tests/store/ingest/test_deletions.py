"""A deletion that nobody saw as it happened carries the interval in which it did; problems go with it."""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, record, upsert, workload
from watchbill.protocol import Delete, Heartbeat, Upsert, Witness
from watchbill.query import Scope
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.workloads import workload_get

SCOPE = Scope(1, is_whole_tenant=True)
ID = UUID(int=1)


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def with_one_workload(db: Database) -> Agent:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START)
    return agent


async def delete(
    agent: Agent, deleted_at: datetime, now: datetime, not_before: datetime | None = None
) -> dict[str, str] | None:
    """The interval that the deleted workload then carries."""
    await agent.send(Delete(id=ID, deleted_at=deleted_at, not_before=not_before), now=now)
    reply = await workload_get(agent.db, SCOPE, ID, now)
    assert reply is not None
    document = msgspec.json.decode(reply.body)
    assert document["deletedAt"] is not None
    result: dict[str, str] | None = document["additionalFields"].get("deletedBetween")
    return result


def interval(begins: str, ends: str) -> dict[str, str]:
    return {"notBefore": f"2026-11-20T{begins}Z", "notAfter": f"2026-11-20T{ends}Z"}


async def test_one_that_was_seen_is_exact(db: Database) -> None:
    agent = await with_one_workload(db)
    assert await delete(agent, later(10), later(12)) is None


async def test_after_the_agent_stood_still_it_happened_at_some_time_meanwhile(db: Database) -> None:
    """Stopped for 120 s; everything that it missed is stamped with the time of its awakening."""
    agent = await with_one_workload(db)
    assert await delete(agent, later(120), later(120)) == interval("08:00:00", "08:02:00")


async def test_a_heartbeat_that_comes_first_changes_nothing(db: Database) -> None:
    agent = await with_one_workload(db)
    beat = Heartbeat(stream_id=agent.stream_id, seq=1)
    await heartbeat_apply(db, agent.identity, beat, later(120))
    assert await delete(agent, later(121), later(125)) == interval("08:00:00", "08:02:01")


async def test_an_agent_that_was_only_cut_off_saw_it(db: Database) -> None:
    agent = await with_one_workload(db)
    assert await delete(agent, later(30), later(120)) is None


async def test_long_after_a_silence_times_are_exact_again(db: Database) -> None:
    agent = await with_one_workload(db)
    beat = Heartbeat(stream_id=agent.stream_id, seq=1)
    for seconds in range(120, 300, 15):
        await heartbeat_apply(db, agent.identity, beat, later(seconds))
    assert await delete(agent, later(299), later(300)) is None


async def test_what_the_agent_knows_itself_counts(db: Database) -> None:
    agent = await with_one_workload(db)
    result = await delete(agent, later(30), later(31), not_before=later(20))
    assert result == interval("08:00:20", "08:00:30")


async def test_an_interval_that_cannot_be_is_left_out(db: Database) -> None:
    agent = await with_one_workload(db)
    assert await delete(agent, later(30), later(31), not_before=later(40)) is None


async def test_a_batch_that_ends_a_silence_records_it(db: Database) -> None:
    agent = await with_one_workload(db)
    await agent.send(now=later(120))
    (cluster,) = await cluster_list(db, SCOPE, later(120))
    assert [(gap.from_at, gap.to_at) for gap in cluster.gaps] == [(START, later(120))]


async def test_what_is_rejected_is_listed_until_its_workload_ends(db: Database) -> None:
    """In the message that tells of it, in a later one, or where no inventory has it any more."""
    agent = await connected_agent(db, START)
    witness = Witness(group="a\0b", kind="Pod", namespace="team")

    def monstrous(number: int) -> Upsert:
        return upsert(record(workload(number), witness=witness))

    def end(number: int) -> Delete:
        return Delete(id=UUID(int=number), deleted_at=later(60))

    async def listed() -> set[int]:
        (cluster,) = await cluster_list(db, SCOPE, START)
        return {item.id.int for item in cluster.refused}

    await agent.send(upsert(workload(4)), upsert(workload(6)), now=START)
    reply = await agent.send(
        *map(monstrous, range(1, 7)),
        end(2),
        end(4),
        Delete(id=UUID(int=6), deleted_at=later(60), is_owner_unreadable=True),
        now=later(60),
    )
    assert {item.id.int for item in reply.refused} == set(range(1, 7))
    assert await listed() == {1, 3, 5, 6}, "2 and 4 have ended; 6 goes on, its owner unread"
    await agent.send(end(3), now=later(120))
    assert await listed() == {1, 5, 6}
    await agent.take_inventory((5, 6), now=later(180))
    assert await listed() == {5, 6}
