"""Deletion is inferred from complete inventories alone, and never too much of it at once."""

import re
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, record, upsert, workload
from watchbill.errors import Conflict, TooLarge
from watchbill.protocol import (
    Covered,
    Delete,
    InventoryBegin,
    InventoryCommit,
    InventoryCommitted,
    InventoryEntries,
    InventoryEntry,
    Upsert,
    Witness,
)
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest import held_deletions, inventory, problems
from watchbill.store.ingest.held_deletions import SECOND_LOOK_AFTER, held_refuse, held_release
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit, inventory_entries
from watchbill.store.postgres.database import Database
from watchbill.store.workloads import deletion, row
from watchbill.store.workloads.deletion import WITHDRAWABLE_FOR
from watchbill.store.workloads.workloads import workload_count, workload_get
from watchbill.tracing.tracing import Tracing

SCOPE = Scope(1, is_whole_tenant=True)
JOB = ("kubeflow.org", "PyTorchJob")
JOBS = Covered(*JOB)
LATER = START + timedelta(minutes=1)
SECOND = LATER + SECOND_LOOK_AFTER


async def live(db: Database) -> int:
    return await workload_count(db, SCOPE, WorkloadQuery(), LATER)


async def take(
    db: Database,
    agent: Agent,
    present: list[Upsert],
    *coverage: Covered,
    count: int | None = None,
    now: datetime = LATER,
) -> tuple[tuple[UUID, ...], InventoryCommitted]:
    begun = await inventory_begin(
        db, agent.identity, InventoryBegin(stream_id=agent.stream_id, coverage=coverage), LATER
    )
    entries = tuple(
        InventoryEntry(id=entry.record.workload.id, record_hash=entry.record_hash)
        for entry in present
    )
    missing = await inventory_entries(
        db,
        agent.identity,
        InventoryEntries(
            stream_id=agent.stream_id, inventory_id=begun.inventory_id, entries=entries
        ),
    )
    committed = await inventory_commit(
        db,
        agent.identity,
        InventoryCommit(
            stream_id=agent.stream_id,
            inventory_id=begun.inventory_id,
            count=len(present) if count is None else count,
        ),
        now,
    )
    return missing.missing, committed


async def test_an_owner_that_a_namespace_names_keeps_only_workloads_of_that_namespace(
    db: Database,
) -> None:
    """Somebody's pod names a workload elsewhere that is gone, as an owner of a kind that cannot be read."""
    agent = await connected_agent(db, START)
    own, foreign = (
        upsert(msgspec.structs.replace(record(workload(number)), witness=Witness(*JOB, namespace)))
        for number, namespace in ((1, "own"), (2, "foreign"))
    )
    await agent.send(own, foreign, now=START)
    begun = await inventory_begin(
        db, agent.identity, InventoryBegin(stream_id=agent.stream_id, coverage=(JOBS,)), LATER
    )
    entries = tuple(InventoryEntry(UUID(int=number), "", "own") for number in (1, 2))
    await inventory_entries(
        db,
        agent.identity,
        InventoryEntries(
            stream_id=agent.stream_id, inventory_id=begun.inventory_id, entries=entries
        ),
    )
    committed = await inventory_commit(
        db,
        agent.identity,
        InventoryCommit(stream_id=agent.stream_id, inventory_id=begun.inventory_id, count=0),
        LATER,
    )
    assert committed.deleted == 1
    assert await live(db) == 1
    kept = await workload_get(db, SCOPE, UUID(int=1), LATER)
    assert kept is not None


async def test_what_is_missing_is_named_and_what_is_gone_is_deleted(db: Database) -> None:
    agent = await connected_agent(db, START)
    kept, gone, new = (upsert(workload(number)) for number in (1, 2, 3))
    await agent.send(kept, gone, now=START)
    changed = upsert(workload(1, name="renamed"))
    missing, committed = await take(db, agent, [changed, new], JOBS)
    assert set(missing) == {UUID(int=1), UUID(int=3)}
    assert (committed.deleted, committed.held) == (1, False)
    assert await live(db) == 1
    reply = await workload_get(db, SCOPE, UUID(int=2), LATER)
    assert reply is not None
    document = msgspec.json.decode(reply.body)
    assert document["additionalFields"]["deletedBetween"] == {
        "notBefore": "2026-11-20T08:00:00Z",
        "notAfter": document["deletedAt"],
    }


async def test_nothing_outside_the_coverage_is_deleted(db: Database) -> None:
    agent = await connected_agent(db, START)
    deployment = record(
        workload(2), witness=Witness(group="apps", kind="Deployment", namespace="team-vision")
    )
    elsewhere = record(
        workload(3), witness=Witness(group="kubeflow.org", kind="PyTorchJob", namespace="other")
    )
    await agent.send(upsert(workload(1)), upsert(deployment), upsert(elsewhere), now=START)
    _, nothing = await take(db, agent, [])
    assert nothing.deleted == 0
    here = Covered(group="kubeflow.org", kind="PyTorchJob", namespaces=("team-vision",))
    _, committed = await take(db, agent, [], here)
    assert committed.deleted == 1
    assert await live(db) == 2


async def test_another_clusters_workloads_are_untouched(db: Database) -> None:
    first = await connected_agent(db, START, number=1)
    second = await connected_agent(db, START, number=2)
    await first.send(upsert(workload(1)), now=START)
    await second.send(upsert(workload(2)), now=START)
    await take(db, second, [], JOBS)
    assert await live(db) == 1


async def test_what_a_batch_brings_meanwhile_is_present(db: Database) -> None:
    agent = await connected_agent(db, START)
    begun = await inventory_begin(
        db, agent.identity, InventoryBegin(stream_id=agent.stream_id, coverage=(JOBS,)), LATER
    )
    await agent.send(upsert(workload(1)), now=LATER)
    commit = InventoryCommit(stream_id=agent.stream_id, inventory_id=begun.inventory_id, count=0)
    assert (await inventory_commit(db, agent.identity, commit, LATER)).deleted == 0
    assert await live(db) == 1


async def test_a_wrong_count_deletes_nothing(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START)
    with pytest.raises(Conflict):
        await take(db, agent, [], JOBS, count=1)
    assert await live(db) == 1


@pytest.mark.parametrize("rows_at_once", [5_000, 7])
async def test_too_much_at_once_is_held_until_a_second_look(
    db: Database, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """However many rows are read at a time: an agent that lists nothing of 500,000 fills no memory."""
    monkeypatch.setattr(held_deletions, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(inventory, "ROWS_AT_ONCE", rows_at_once)
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    _, first = await take(db, agent, everything[:20], JOBS)
    assert (first.deleted, first.held) == (0, True)
    assert await live(db) == 120
    _, soon = await take(db, agent, everything[:20], JOBS)
    assert (soon.deleted, soon.held) == (0, True), "it may be wrong in the same way"
    _, second = await take(db, agent, everything[:20], JOBS, now=SECOND)
    assert (second.deleted, second.held) == (100, False)
    assert await live(db) == 20
    _, few = await take(db, agent, everything[:3], JOBS, now=SECOND)
    assert (few.deleted, few.held) == (17, False), "no more than 50 at once need no second look"


async def test_a_mass_deletion_takes_statements_of_a_bounded_size(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all 2,000 pods of a namespace at once took longer than a statement may, again and again."""
    monkeypatch.setattr(deletion, "ROWS_AT_ONCE", 40)
    queries = Counted()
    counted = await Database.open(database_url, pool_size=1, tracing=queries)
    agent = Agent(counted, (await connected_agent(db, START)).identity)
    await agent.hello(START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    await take(counted, agent, everything[:20], JOBS)
    _, second = await take(counted, agent, everything[:20], JOBS, now=SECOND)
    await counted.close()
    assert (second.deleted, second.held) == (100, False)
    assert queries.count == 3
    assert await live(db) == 20


class Counted(Tracing):
    """Statements that mark workloads as deleted."""

    is_on = True

    def __init__(self) -> None:
        self.count = 0

    def record_query(self, sql: str, seconds: float, error: BaseException | None) -> None:
        self.count += sql.startswith("UPDATE workload w SET deleted_at")


async def test_what_is_held_since_a_time_to_come_waits_no_longer_than_else(db: Database) -> None:
    """The clock was a year ahead, and was set back."""
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    _, first = await take(db, agent, [], JOBS, now=SECOND + timedelta(days=365))
    assert (first.deleted, first.held) == (0, True)
    _, begun = await take(db, agent, [], JOBS, now=SECOND)
    assert (begun.deleted, begun.held) == (0, True)
    _, second = await take(db, agent, [], JOBS, now=SECOND + timedelta(seconds=75))
    assert (second.deleted, second.held) == (120, False)


async def test_a_second_look_that_finds_them_forgets_the_suspicion(db: Database) -> None:
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    await take(db, agent, [], JOBS)
    await take(db, agent, everything, JOBS)
    _, third = await take(db, agent, [], JOBS)
    assert third.held
    assert await live(db) == 120


async def test_what_never_was_a_workload_leaves_no_trace(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(*(upsert(workload(number, gpus=0)) for number in (1, 2)), now=START)
    await agent.send(withdrawn(1), now=START + WITHDRAWABLE_FOR)
    assert await live(db) == 1
    assert await workload_get(db, SCOPE, UUID(int=1), LATER) is None


def withdrawn(number: int) -> Delete:
    return Delete(id=UUID(int=number), deleted_at=START, never_existed=True)


@pytest.mark.parametrize("gpus", [0, 1])
async def test_what_was_there_for_longer_than_a_mistake_or_held_gpus_stays_on_record(
    db: Database, gpus: int
) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1, gpus=gpus)), now=START)
    moment = timedelta(seconds=0 if gpus else 1)
    await agent.send(withdrawn(1), now=START + WITHDRAWABLE_FOR * (1 - gpus) + moment)
    assert await live(db) == 0
    async with db.acquire(1) as connection:
        kept = await connection.fetchval(
            "SELECT deleted_at FROM workload WHERE id = $1", UUID(int=1)
        )
        assert kept == START
        assert await connection.fetchval("SELECT count(*) FROM usage_step") == 1


async def held(db: Database) -> tuple[int, bool]:
    (cluster,) = await cluster_list(db, SCOPE, SECOND)
    waiting = cluster.held_deletions
    return (waiting.count, waiting.is_refused) if waiting else (0, False)


async def test_only_what_both_inventories_miss_is_deleted(db: Database) -> None:
    """And what is held holds nothing else: single deletions go on meanwhile."""
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    await take(db, agent, everything[:20], JOBS)
    assert await held(db) == (100, False)
    _, second = await take(db, agent, [*everything[:10], *everything[60:]], JOBS, now=SECOND)
    assert (second.deleted, second.held) == (50, False), "40 held before, 10 that went since"
    assert await live(db) == 70
    assert await held(db) == (0, False)


@pytest.mark.parametrize("is_refused", [False, True])
async def test_what_is_held_waits_on_where_an_inventory_says_nothing_of_it(
    db: Database, is_refused: bool
) -> None:
    """One between the two covers other namespaces alone, as while an owner is looked up in this one."""
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    await take(db, agent, everything[:20], JOBS)
    if is_refused:
        await held_refuse(db, SCOPE, agent.identity.cluster_id, LATER)
    elsewhere = msgspec.structs.replace(JOBS, namespaces=("other",))
    _, between = await take(db, agent, everything[:20], elsewhere)
    assert (between.deleted, between.held) == (0, False), "another of this coverage proves no more"
    assert await held(db) == (100, is_refused)
    _, second = await take(db, agent, everything[:20], JOBS, now=SECOND)
    assert (second.deleted, second.held) == ((0, False) if is_refused else (100, False))
    assert await held(db) == ((100, True) if is_refused else (0, False))


async def test_an_inventory_proves_absence_but_where_it_says_that_it_does_not_know(
    db: Database,
) -> None:
    """Of namespaces that no longer exist as well. An older server takes less of it, not more."""
    agent = await connected_agent(db, START)
    of_namespaces = {
        number: upsert(
            msgspec.structs.replace(record(workload(number)), witness=Witness(*JOB, name))
        )
        for number, name in enumerate(("there", "deleted", "waiting"), 1)
    }
    await agent.send(*of_namespaces.values(), now=START)
    with_exceptions = msgspec.structs.replace(JOBS, namespaces=("there",), all_but=("waiting",))
    older = msgspec.structs.replace(with_exceptions, all_but=None)
    assert (await take(db, agent, [], older))[1].deleted == 1
    await agent.send(of_namespaces[1], now=LATER)
    assert (await take(db, agent, [], with_exceptions))[1].deleted == 2
    left = await workload_get(db, SCOPE, UUID(int=3), LATER)
    assert left is not None
    assert msgspec.json.decode(left.body).get("deletedAt") is None


async def test_a_kind_that_is_named_many_times_is_absent_once(db: Database) -> None:
    """By an agent that was taken over: 2,000 kinds for each of 500,000 workloads filled the server's memory."""
    agent = await connected_agent(db, START)
    await agent.send(*(upsert(workload(number)) for number in range(1, 4)), now=START)
    partly = msgspec.structs.replace(JOBS, namespaces=("n",))
    _, committed = await take(db, agent, [], *[JOBS, partly] * 60)
    assert (committed.deleted, committed.held) == (3, False)


async def test_an_administrator_decides_on_what_is_held(db: Database) -> None:
    agent = await connected_agent(db, START)
    everything = [upsert(workload(number)) for number in range(1, 121)]
    await agent.send(*everything, now=START)
    await take(db, agent, [], JOBS)
    assert await held_refuse(db, SCOPE, agent.identity.cluster_id, LATER) == 120
    _, second = await take(db, agent, [], JOBS, now=SECOND)
    assert (second.deleted, second.held) == (0, False)
    assert await held(db) == (120, True)
    await agent.send(upsert(workload(1, name="seen-again")), now=SECOND)
    assert await held_release(db, SCOPE, agent.identity.cluster_id, SECOND) == 119
    assert await live(db) == 1
    assert await held_release(db, SCOPE, agent.identity.cluster_id, SECOND) == 0


async def test_what_an_older_server_stored_is_asked_for_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignored what it did not know, such as pods, and kept the hash all the same."""
    agent, item = await connected_agent(db, START), upsert(workload(1))
    with monkeypatch.context() as older:
        older.setattr(row, "DOCUMENT_FORMAT", row.DOCUMENT_FORMAT - 1)
        await agent.send(item, now=START)
    assert (await take(db, agent, [item]))[0] == (workload(1).id,)
    await agent.send(item, now=LATER)
    assert (await take(db, agent, [item]))[0] == ()


async def test_an_owner_that_was_read_once_outlives_its_pods_while_it_cannot_be(
    db: Database,
) -> None:
    """An agent that starts without the right to jobs knows two of them by their pods alone, and these go."""
    agent = await connected_agent(db, START)
    known = upsert(msgspec.structs.replace(record(workload(1)), witness=Witness(*JOB, "team")))
    await agent.send(known, now=START)
    await agent.hello(START)
    unreadable = [
        upsert(
            msgspec.structs.replace(
                record(workload(number, additional_fields={"isOwnerUnreadable": True})),
                witness=Witness("", "Pod", "team"),
            )
        )
        for number in (1, 2)
    ]
    ends = [
        Delete(id=UUID(int=number), deleted_at=LATER, is_owner_unreadable=True) for number in (1, 2)
    ]
    await agent.send(*unreadable, *ends, now=LATER)
    kept, ended = [await workload_get(db, SCOPE, UUID(int=number), LATER) for number in (1, 2)]
    assert kept is not None
    assert ended is not None
    assert msgspec.json.decode(kept.body).get("deletedAt") is None
    assert msgspec.json.decode(ended.body)["deletedAt"] is not None, "only its pods were ever known"
    await take(db, agent, [], Covered("", "Pod"), count=0)
    assert await live(db) == 1, "that no pod is there proves nothing of it"
    await take(db, agent, [], JOBS, count=0)
    assert await live(db) == 0


async def test_an_inventory_that_never_ends_fills_no_disk(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither stored bytes nor workloads count what an agent only lists."""
    monkeypatch.setattr(inventory, "MAX_ENTRIES", 2)
    agent = await connected_agent(db, START)
    present = [upsert(workload(number)) for number in range(1, 4)]
    with pytest.raises(TooLarge):
        await take(db, agent, present, JOBS)
    assert (await take(db, agent, present[:2], JOBS))[1] == InventoryCommitted(
        deleted=0, held=False
    )


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (inventory._UNLISTED, 3),
        (held_deletions._HELD, 2),
        (held_deletions._END_SEEN, 3),
        (problems._FORGET_PROBLEMS, 3),
    ],
)
async def test_without_statistics_no_workload_is_held_against_every_other(
    db: Database, statement: str, parameters: int
) -> None:
    """As where a first cluster is new: autovacuum looks at tables a minute later."""
    ids = (1, UUID(int=1), UUID(int=2))[:parameters]
    async with db.transaction(1) as connection:
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *ids))
    assert re.search(r"Filter: .*\bid = \w+\.|Filter: .*\.workload_id = ", plan) is None, plan
    assert re.search(r"Index Cond: .*\b(id|workload_id) = \w+\.", plan), plan
