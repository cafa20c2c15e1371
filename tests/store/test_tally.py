"""The tally says of live workloads what counting them says, whatever has happened to them."""

import random
from datetime import timedelta

import msgspec
import pytest

from tests.conftest import running_server
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, random_transitions, random_workload, upsert
from watchbill.protocol import Delete
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0025_workload_class import (
    KEY as DELETED_KEY,
)
from watchbill.store.postgres.migrations.versions.r0031_queues import FIGURES, KEY
from watchbill.store.workloads.deletion import workload_purge
from watchbill.store.workloads.tally import tally_rebuild, tally_sweep
from watchbill.workload import Workload

NOW = START + timedelta(days=2)
COLUMNS = ", ".join(("cluster_id", *KEY))
COUNTED = (
    f"SELECT {COLUMNS}, {', '.join(f'sum({each})' for each in FIGURES.values())} "
    f"FROM workload w WHERE deleted_at IS NULL GROUP BY {COLUMNS}"
)
TALLIED = f"SELECT {COLUMNS}, {', '.join(FIGURES)} FROM workload_tally WHERE workloads <> 0"
OF_DELETED = ", ".join(("cluster_id", *DELETED_KEY))
DELETED = (
    f"SELECT {OF_DELETED}, count(*) FROM workload w WHERE deleted_at IS NOT NULL "
    f"GROUP BY {OF_DELETED}"
)
DELETED_TALLIED = f"SELECT {OF_DELETED}, workloads FROM workload_deleted_tally WHERE workloads <> 0"


async def wrong(db: Database) -> int:
    """Rows that only one has, of what counting says and what a tally says."""
    row_count = 0
    async with db.acquire(1) as connection:
        for counted, tallied in ((COUNTED, TALLIED), (DELETED, DELETED_TALLIED)):
            row_count += await connection.fetchval(
                f"SELECT count(*) FROM (({counted} EXCEPT {tallied}) UNION ALL "
                f"({tallied} EXCEPT {counted})) AS n"
            )
    return row_count


async def tallied(db: Database) -> int:
    async with db.acquire(1) as connection:
        total: int = await connection.fetchval(
            "SELECT coalesce(sum(workloads), 0)::bigint FROM workload_tally"
        )
    return total


async def rows(db: Database, condition: str = "true") -> int:
    async with db.acquire(1) as connection:
        total: int = await connection.fetchval(
            f"SELECT count(*) FROM workload_tally WHERE {condition}"
        )
    return total


@pytest.mark.parametrize("seed", range(6))
async def test_it_follows_every_change(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    agents = [await connected_agent(db, START, number=number) for number in (1, 2)]
    known: list[Workload] = []
    for step in range(25):
        agent = rng.choice(agents)
        items: list[object] = []
        for _ in range(rng.randint(1, 8)):
            # Half of them new, half an id that was here before: changed, or back from the dead.
            same = rng.choice(known).id if known and rng.random() < 0.5 else None
            made = random_workload(rng, same.int if same else rng.getrandbits(128))
            known.append(made)
            items.append(upsert(made, *random_transitions(rng, made)))
        now = NOW + timedelta(minutes=step)
        await agent.send(*items, now=now)  # type: ignore[arg-type]
        gone = rng.sample(known, k=min(len(known), rng.randint(0, 5)))
        await agent.send(*(Delete(id=row.id, deleted_at=now) for row in gone), now=now)
        if step % 7 == 6:
            await workload_purge(db, 1, keep=timedelta(minutes=3), now=now)
        assert await wrong(db) == 0, f"after step {step}"
    assert await tallied(db) > 0


async def test_what_is_empty_is_swept(db: Database) -> None:
    agent = await connected_agent(db, START)
    made = random_workload(random.Random(1), 1)
    await agent.send(upsert(made), now=NOW)
    await agent.send(Delete(id=made.id, deleted_at=NOW), now=NOW)
    assert await rows(db, "workloads = 0") == 1
    await tally_sweep(db, 1)
    assert await rows(db) == 0


async def test_it_can_be_counted_anew(db: Database) -> None:
    agent = await connected_agent(db, START)
    rng = random.Random(2)
    await agent.send(*(upsert(random_workload(rng, number)) for number in range(1, 30)), now=NOW)
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE workload_tally SET workloads = workloads + 3")
    assert await wrong(db) > 0
    await tally_rebuild(db, 1)
    assert await wrong(db) == 0
    assert await tallied(db) == 29


async def test_a_start_can_count_anew(db: Database, database_url: str) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(random_workload(random.Random(4), 4)), now=NOW)
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM workload_tally")
    async with running_server(database_url):
        assert await tallied(db) == 0
    async with running_server(database_url, recounts=True):
        assert await tallied(db) == 1


async def test_names_of_any_length_are_tallied(db: Database) -> None:
    """What is counted by is longer than an index can hold."""
    agent = await connected_agent(db, START)
    made = random_workload(random.Random(3), 3)
    long = msgspec.structs.replace(
        made, current_node_pools=tuple(f"{n}{'ž' * 500}" for n in range(40))
    )
    await agent.send(upsert(long), now=NOW)
    assert await wrong(db) == 0
    assert await tallied(db) == 1
