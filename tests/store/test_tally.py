"""What is tallied, or remembered of what is gone, says what counting says, whatever has happened meanwhile."""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from unittest import mock
from uuid import UUID

import msgspec
import pytest

from tests.conftest import running_server
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import (
    START,
    pod,
    random_transitions,
    random_workload,
    upsert,
    workload,
)
from watchbill.protocol import Delete
from watchbill.query import PodQuery, Scope, WorkloadQuery, parse_filters, parse_pod_filters
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0025_workload_class import (
    KEY as DELETED_KEY,
)
from watchbill.store.postgres.migrations.versions.r0031_queues import FIGURES, KEY
from watchbill.store.workloads import gone_count
from watchbill.store.workloads.deletion import workload_purge
from watchbill.store.workloads.gone_count import GoneCounts, gone_segment_sweep
from watchbill.store.workloads.pod_write import KEEP_GONE, pod_purge
from watchbill.store.workloads.pods import pod_count
from watchbill.store.workloads.tally import tally_rebuild, tally_sweep
from watchbill.store.workloads.workloads import workload_count
from watchbill.workload import Workload
from watchbill.workload_pod import WorkloadPod

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


EVERYTHING = Scope(1, is_whole_tenant=True)
ASKED: tuple[WorkloadQuery | PodQuery, ...] = (
    *(
        WorkloadQuery(is_deleted=True, predicates=parse_filters([filters]))
        for filters in ("priority>=50", "submittedBy!=nobody", "deletedAt>=2020-01-01T00:00:00Z")
    ),
    *(WorkloadQuery(is_deleted=True, search=text) for text in ("a", "llama", "vision")),
    *(PodQuery(is_deleted=True, search=text) for text in (None, "m", "llama", "node-1")),
    PodQuery(is_deleted=True, predicates=parse_pod_filters(["nodeName==node-1"])),
)


async def scopes(db: Database, agents: list[Agent]) -> list[Scope]:
    projects = await db_values(db, "SELECT id FROM project")
    departments = await db_values(db, "SELECT id FROM department")
    return [
        EVERYTHING,
        Scope(1, project_ids=frozenset(projects[::2])),
        Scope(1, department_ids=frozenset(departments[:1])),
        Scope(1, cluster_ids=frozenset({agents[0].identity.cluster_id})),
    ]


async def db_values(db: Database, sql: str) -> list[int]:
    async with db.acquire(1) as connection:
        return [row[0] for row in await connection.fetch(f"{sql} ORDER BY 1")]


async def counted(
    db: Database,
    scope: Scope,
    query: WorkloadQuery | PodQuery,
    now: datetime,
    counts: GoneCounts | None = None,
) -> int:
    if isinstance(query, PodQuery):
        return await pod_count(db, scope, query, now, counts)
    return await workload_count(db, scope, query, now, counts)


def gone_pods(rng: random.Random, workload_number: int) -> list[WorkloadPod]:
    return [
        pod(workload_number * 10 + at, name=f"{name}-{at}", node_name=rng.choice(("node-1", None)))
        for at, name in enumerate(rng.choices(("llama", "vision", "x"), k=rng.randrange(4)))
    ]


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_remembered_of_the_gone_follows_every_change(db: Database, seed: int) -> None:
    """Deletions of any time, pods that end, workloads that come back, move and are renamed, both purges."""
    rng = random.Random(seed)
    agents = [await connected_agent(db, START, number=number) for number in (1, 2)]
    counts = GoneCounts(worth_seconds=0)
    numbers = list(range(1, 25))
    for step in range(10):
        now = NOW + step * timedelta(hours=rng.choice((0, 0, 1, 3)))
        agent = rng.choice(agents)
        chosen = rng.sample(numbers, rng.randint(1, 12))
        long_ago = [now - timedelta(minutes=rng.randrange(60 * 30)) for _ in chosen]
        await agent.send(
            *(
                upsert(random_workload(rng, n), observed_at=at, pods=gone_pods(rng, n))
                for n, at in zip(chosen, long_ago, strict=True)
            ),
            now=now,
        )
        gone = [
            Delete(id=UUID(int=n), deleted_at=at) for n, at in zip(chosen, long_ago, strict=True)
        ]
        await agent.send(*rng.sample(gone, rng.randint(0, len(gone))), now=now)
        if step % 4 == 3:
            await workload_purge(db, 1, keep=timedelta(hours=24), now=now)
            await pod_purge(db, 1, now=now + KEEP_GONE - timedelta(hours=20))
        for scope in await scopes(db, agents):
            for query in ASKED:
                plain = await counted(db, scope, query, now)
                for _ in range(2):
                    assert await counted(db, scope, query, now, counts) == plain, (step, query)


async def test_the_middle_is_remembered_until_something_in_it_changes(db: Database) -> None:
    """Each of these was seen to be noticed; what is deleted now leaves what is remembered as it is."""
    agent = await connected_agent(db, START)
    pods = [pod(number, name=f"trainer-{number}") for number in range(4)]
    made = [workload(number, project_name="vision") for number in range(30)]
    for number, each in enumerate(made):
        at = NOW - timedelta(hours=number)
        await agent.send(upsert(each, observed_at=at, pods=pods), now=at)
        await agent.send(Delete(id=each.id, deleted_at=at), now=at)
    query, counts = PodQuery(is_deleted=True, search="trainer"), GoneCounts(worth_seconds=0)

    async def lie() -> None:
        """Of what is remembered, so that it shows whether it is used."""
        await counted(db, EVERYTHING, query, NOW, counts)
        middle = counts.get(EVERYTHING, query)
        assert middle is not None
        assert middle.count > 0
        counts.put(EVERYTHING, query, replace(middle, count=middle.count + 1000))

    with mock.patch.object(gone_count, "MAX_AROUND", 3):
        await counted(db, EVERYTHING, query, NOW, counts)
        assert counts.get(EVERYTHING, query) is None, "too much lies around the middle"
    await lie()
    assert await counted(db, EVERYTHING, query, NOW, counts) == 1120
    new = workload(99)
    await agent.send(upsert(new, observed_at=NOW, pods=pods), now=NOW)
    await agent.send(Delete(id=new.id, deleted_at=NOW), now=NOW)
    assert await counted(db, EVERYTHING, query, NOW, counts) == 1124
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE gone_segment SET version = version + 1")
    assert await counted(db, EVERYTHING, query, NOW, counts) == 124
    changes = (
        "UPDATE workload SET name = 'other' WHERE id = $1",
        "UPDATE workload SET project_id = project_id + 1 WHERE id = $1",
        "UPDATE workload_pod SET node_name = 'elsewhere' WHERE workload_id = $1",
        "UPDATE workload_pod SET deleted_at = NULL WHERE workload_id = $1 AND id = $2",
        "DELETE FROM workload_pod WHERE workload_id = $1 AND id = $2",
    )
    gone = 0
    for change in changes:
        await lie()
        async with db.transaction(1) as connection:
            arguments = [made[10].id, pods[gone].id][: change.count("$")]
            await connection.execute(change, *arguments)
        gone += change.endswith("id = $2")
        assert await counted(db, EVERYTHING, query, NOW, counts) == 124 - gone, change


async def deleted_each_hour(agent: Agent) -> None:
    """Eight workloads with a pod each, one an hour."""
    for number in range(8):
        at = START + timedelta(hours=number)
        await agent.send(upsert(workload(number), observed_at=at, pods=[pod(1)]), now=at)
        await agent.send(Delete(id=UUID(int=number), deleted_at=at), now=at)


async def test_many_versions_become_one_that_none_was(db: Database) -> None:
    agent = await connected_agent(db, START)
    await deleted_each_hour(agent)
    versions = "SELECT version FROM gone_segment"
    before = await db_values(db, versions)
    with mock.patch.object(gone_count, "MAX_VERSIONS", len(before)):
        await gone_segment_sweep(db, 1, now=NOW + timedelta(days=3))
        assert await db_values(db, versions) == before
    with mock.patch.object(gone_count, "MAX_VERSIONS", len(before) - 1):
        await gone_segment_sweep(db, 1, now=NOW + timedelta(days=3))
    swept = await db_values(db, versions)
    assert len(swept) == 2, "one of workloads, one of pods"
    assert not set(swept) & {*before, sum(before)}


async def test_what_changed_is_noticed_after_its_version_was_swept_away(db: Database) -> None:
    """What was deleted before the first version has none."""
    agent = await connected_agent(db, START)
    await deleted_each_hour(agent)
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM gone_segment")
    query, counts, now = PodQuery(is_deleted=True), GoneCounts(worth_seconds=0), START
    now += timedelta(hours=7)
    assert await counted(db, EVERYTHING, query, now, counts) == 8
    assert counts.get(EVERYTHING, query) is not None
    async with db.transaction(1) as connection:
        for number in (3, 7):
            await connection.execute(
                "DELETE FROM workload_pod WHERE workload_id = $1", UUID(int=number)
            )
    with mock.patch.object(gone_count, "MAX_VERSIONS", 1):
        await gone_segment_sweep(db, 1, now=NOW + timedelta(days=3))
    assert await counted(db, EVERYTHING, query, now, counts) == 6
