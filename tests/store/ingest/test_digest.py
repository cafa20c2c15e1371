"""Agent and server compare one number; what differs from the last comparison leads to an inventory."""

from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, upsert, workload
from tests.store.ingest.test_inventory import JOBS, SCOPE, take
from watchbill.protocol import Heartbeat, Upsert, digest_of
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database

NOW = START + timedelta(minutes=2)
MINUTES = (NOW + timedelta(minutes=5 * number) for number in count())
FALSIFY = "UPDATE workload SET record_hash = '\\x00112233445566778899aabbccddeeff' WHERE id = $1"


async def is_inventory_due(
    agent: Agent, *held: Upsert, seq: int | None = None, now: datetime | None = None
) -> bool:
    """What the server answers to an agent that holds these records, each time some minutes later."""
    agent_now = now or next(MINUTES)
    beat = Heartbeat(
        stream_id=agent.stream_id,
        seq=agent.seq if seq is None else seq,
        digest=digest_of(item.record_hash for item in held),
    )
    return (await heartbeat_apply(agent.db, agent.identity, beat, agent_now)).resync


async def falsify(db: Database, number: int) -> None:
    async with db.acquire(1) as connection:
        await connection.execute(FALSIFY, UUID(int=number))


def test_a_digest_does_not_depend_on_order() -> None:
    hashes = [upsert(workload(number)).record_hash for number in range(1, 4)]
    assert digest_of(hashes) == digest_of(reversed(hashes)) != digest_of(hashes[:2])
    assert int(digest_of([])) == 0


async def test_a_row_that_changed_by_itself_leads_to_one_inventory(db: Database) -> None:
    agent = await connected_agent(db, START)
    held = [upsert(workload(number)) for number in range(1, 4)]
    await agent.send(*held, now=START)
    assert not await is_inventory_due(agent, *held)
    assert not await is_inventory_due(agent, *held)
    await falsify(db, 2)
    assert await is_inventory_due(agent, *held)
    missing, _ = await take(db, agent, held, JOBS)
    assert missing == (UUID(int=2),)
    await agent.send(held[1], now=NOW)
    assert not await is_inventory_due(agent, *held)
    (cluster,) = await cluster_list(db, SCOPE, NOW)
    assert cluster.digest_mismatches == 1
    assert cluster.digest_compared_at is not None


async def test_rows_that_the_agent_cannot_know_are_no_mismatch(db: Database) -> None:
    """After its restart it may not read the kind of one workload, which stays."""
    agent = await connected_agent(db, START)
    known, unreadable = upsert(workload(1)), upsert(workload(2))
    await agent.send(known, unreadable, now=START)
    await agent.hello(START)
    assert not await is_inventory_due(agent, known)
    assert not await is_inventory_due(agent, known)
    changed = upsert(workload(1, name="renamed"))
    await agent.send(changed, now=NOW)
    assert not await is_inventory_due(agent, changed)
    await falsify(db, 2)
    assert await is_inventory_due(agent, changed)


async def test_nothing_is_compared_while_a_batch_is_on_its_way(db: Database) -> None:
    agent = await connected_agent(db, START)
    held = upsert(workload(1))
    await agent.send(held, now=START)
    assert not await is_inventory_due(agent, held)
    assert await is_inventory_due(agent, seq=0), "the agent does not know of its own batch"
    (cluster,) = await cluster_list(db, SCOPE, NOW)
    assert cluster.digest_mismatches == 0


async def test_an_agent_that_asks_all_the_time_has_few_comparisons(db: Database) -> None:
    """Each reads every live row; what differs shows with the next one."""
    agent = await connected_agent(db, START)
    held = upsert(workload(1))
    await agent.send(held, now=START)
    assert not await is_inventory_due(agent, held, now=NOW)
    await falsify(db, 1)
    for seconds in range(1, 30):
        assert not await is_inventory_due(agent, held, now=NOW + timedelta(seconds=seconds))
    (cluster,) = await cluster_list(db, SCOPE, NOW)
    assert cluster.digest_compared_at == NOW
    assert await is_inventory_due(agent, held, now=NOW + timedelta(seconds=30))
