"""Most updates of a workload find room in their page and touch no index."""

from datetime import timedelta

import asyncpg

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.store.postgres.database import Database

WORKLOADS = 200
ROUNDS = 6


async def test_updates_without_a_change_of_phase_are_hot(database_url: str, db: Database) -> None:
    agent = await connected_agent(db, START)
    for number in range(ROUNDS + 1):
        items = [upsert(workload(item, running_pods=number)) for item in range(1, WORKLOADS + 1)]
        now = START + timedelta(minutes=number)
        assert (await agent.send(*items, now=now)).refused == ()
    await db.close()  # a backend reports its counts when it ends
    owner = await asyncpg.connect(database_url)
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'workload'"
    row = await owner.fetchrow(query)
    while row is None or row["n_tup_upd"] < WORKLOADS * ROUNDS:
        await owner.execute("SELECT pg_sleep(0.05), pg_stat_clear_snapshot()")
        row = await owner.fetchrow(query)
    await owner.close()
    assert row["n_tup_hot_upd"] / row["n_tup_upd"] > 0.6
