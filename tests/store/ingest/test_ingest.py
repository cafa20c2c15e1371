"""Batches: applied once, in order, with the cursor; one bad item never holds up the rest."""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, pod, record, upsert, workload
from watchbill.errors import Conflict, Forbidden, Invalid, Superseded, Unavailable
from watchbill.protocol import (
    Batch,
    BatchItem,
    Delete,
    Heartbeat,
    HelloRequest,
    KindState,
    Upsert,
    Witness,
)
from watchbill.query import Scope, WorkloadQuery
from watchbill.responses.fleet import Cluster
from watchbill.store.fleet.clusters import cluster_delete, cluster_list
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.usage_steps import usage_list
from watchbill.store.workloads.workloads import (
    element_count,
    element_list,
    endpoint_list,
    phase_interval_list,
    workload_count,
    workload_get,
    workload_list,
)
from watchbill.tracing.tracing import Tracing
from watchbill.workload import Element, PendingSchedulingMessage, Phase

SCOPE = Scope(1, is_whole_tenant=True)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


async def shown(db: Database, number: int = 1, *, at: timedelta = minutes(60)) -> dict[str, object]:
    reply = await workload_get(db, SCOPE, UUID(int=number), START + at)
    assert reply is not None
    document: dict[str, object] = msgspec.json.decode(reply.body)
    return document


async def test_a_record_comes_back_as_the_contract_wants_it(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START + minutes(1))
    row = await shown(db)
    assert row["id"] == str(UUID(int=1))
    assert row["tenantId"] == 1
    assert row["clusterId"] == str(agent.identity.cluster_id)
    assert row["deletedAt"] is None
    assert row["updatedAt"] == "2026-11-20T08:01:00Z"
    assert row["projectId"] == "2"
    assert row["departmentId"] == "1"
    assert "phaseMessage" not in row
    assert row["datasources"] == []
    # The clock of a running total stands still at the cluster's last contact.
    assert row["totalRunningTimeSeconds"] == 60
    assert row["totalPendingTimeSeconds"] == 0


async def test_a_batch_is_applied_once(db: Database) -> None:
    agent = await connected_agent(db, START)
    batch = Batch(stream_id=agent.stream_id, seq=1, items=(upsert(workload()),))
    first = await batch_apply(db, agent.identity, batch, START)
    changed = Batch(stream_id=agent.stream_id, seq=1, items=(upsert(workload(name="other")),))
    assert await batch_apply(db, agent.identity, changed, START + minutes(1)) == first
    assert (await shown(db))["name"] == "llama-sft-1"


async def test_a_gap_says_what_was_expected(db: Database) -> None:
    agent = await connected_agent(db, START)
    agent.seq = 4
    with pytest.raises(Conflict) as caught:
        await agent.send(upsert(workload()), now=START)
    assert caught.value.details == "1"
    assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 0


async def test_only_the_newest_stream_may_write(db: Database) -> None:
    old = await connected_agent(db, START)
    first = old.stream_id
    restarted = HelloRequest(protocol=1, agent_version="test")
    await stream_open(db, old.identity, restarted, START + minutes(0.1))
    with pytest.raises(Superseded):
        await old.send(upsert(workload()), now=START + minutes(0.2))
    with pytest.raises(Superseded):
        beat = Heartbeat(stream_id=old.stream_id, seq=0)
        await heartbeat_apply(db, old.identity, beat, START + minutes(0.2))
    (cluster,) = await cluster_list(db, SCOPE, START + minutes(0.2))
    assert cluster.takeovers == 0, "a restart takes over from nobody"
    assert cluster.last_takeover_at is None
    back = HelloRequest(protocol=1, agent_version="test", previous_stream_id=first)
    await stream_open(db, old.identity, back, START + minutes(0.3))
    (cluster,) = await cluster_list(db, SCOPE, START + minutes(0.3))
    assert cluster.takeovers == 1, "both are alive"
    assert cluster.last_takeover_at == START + minutes(0.3)


async def beat(db: Database, agent: Agent, now: datetime, age: float | None) -> Cluster:
    """The cluster after a heartbeat, and after a restart of its agent, which alone proves nothing."""
    pods: Literal["complete", "failing"] = "complete" if age == 0 else "failing"
    state = KindState(group="", kind="Pod", state=pods, since=START, message="Unauthorized")
    message = Heartbeat(
        stream_id=agent.stream_id, seq=agent.seq, kinds=(state,), observed_seconds_ago=age
    )
    await heartbeat_apply(db, agent.identity, message, now)
    await agent.hello(now)
    (cluster,) = await cluster_list(db, SCOPE, now)
    return cluster


async def test_an_agent_that_cannot_read_its_cluster_is_not_connected(db: Database) -> None:
    agent = await connected_agent(db, START)
    assert (await beat(db, agent, START, 0)).state == "connected"
    await agent.send(upsert(workload()), now=START)
    blind = await beat(db, agent, START + minutes(2), 90)
    assert (blind.state, blind.last_contact_at) == ("degraded", START + minutes(0.5))
    assert blind.reason == "Its agent cannot read pods (failing): Unauthorized"
    await agent.send(upsert(workload(name="other")), now=START + minutes(3))
    lost = await beat(db, agent, START + minutes(6), None)
    assert (lost.state, lost.last_contact_at) == ("disconnected", START + minutes(0.5))
    assert lost.last_message_at == START + minutes(6)
    assert not lost.gaps
    well = await beat(db, agent, START + minutes(7), 0)
    assert (well.state, well.reason) == ("connected", None)
    assert (well.gaps[0].from_at, well.gaps[0].to_at) == (START + minutes(0.5), START + minutes(7))


async def test_another_protocol_is_refused_with_what_to_do(db: Database) -> None:
    agent = await connected_agent(db, START)
    with pytest.raises(Invalid, match="protocol 1"):
        await stream_open(db, agent.identity, HelloRequest(protocol=2, agent_version="9"), START)


async def test_an_equal_record_writes_nothing(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    await agent.send(upsert(workload()), now=START + minutes(5))
    assert (await shown(db))["updatedAt"] == "2026-11-20T08:00:00Z"


async def test_an_equal_record_still_brings_its_transitions(db: Database) -> None:
    """Running, preempted and running again between two records: the record is the same, the life is not."""
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    again = upsert(
        workload(),
        (Phase.PENDING, START + minutes(1)),
        (Phase.RUNNING, START + minutes(3)),
    )
    await agent.send(again, now=START + minutes(4))
    row = await shown(db)
    assert row["totalPendingTimeSeconds"] == 120
    assert row["totalRunningTimeSeconds"] == 120
    assert row["phaseUpdatedAt"] == "2026-11-20T08:03:00Z"


async def test_a_retold_history_adds_nothing(db: Database) -> None:
    agent = await connected_agent(db, START)
    reported = [
        (Phase.CREATING, START),
        (Phase.PENDING, START),
        (Phase.INITIALIZING, START),
        (Phase.RUNNING, START + minutes(2)),
    ]
    await agent.send(upsert(workload(), *reported), now=START + minutes(2))
    await agent.hello(START + minutes(3))
    completed = workload(phase=Phase.COMPLETED, k8s_phase="Completed")
    more = [*reported, (Phase.COMPLETED, START + minutes(9))]
    await agent.send(upsert(completed, *more), now=START + minutes(9))
    page = await phase_interval_list(db, SCOPE, UUID(int=1), offset=0, limit=9, now=START)
    assert page is not None
    intervals = page.intervals
    phases = [interval.phase for interval in intervals]
    assert phases == ["Creating", "Pending", "Initializing", "Running", "Completed"]
    assert [interval.ended_at for interval in intervals][-2:] == [START + minutes(9), None]
    assert (await shown(db))["totalRunningTimeSeconds"] == 7 * 60


async def test_deletion_shows_the_last_phase_before_leaving(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    leaving = workload(phase=Phase.DELETING, phase_message="1 pod is left.")
    deleting = upsert(leaving, (Phase.DELETING, START + minutes(5)))
    await agent.send(deleting, now=START + minutes(5))
    assert (await shown(db))["phase"] == "Deleting"
    gone = Delete(id=UUID(int=1), deleted_at=START + minutes(6))
    await agent.send(gone, now=START + minutes(7))
    row = await shown(db)
    assert row["phase"] == "Running"
    assert "phaseMessage" not in row
    assert row["deletedAt"] == "2026-11-20T08:06:00Z"
    assert row["totalRunningTimeSeconds"] == 300
    assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 0
    assert await workload_count(db, SCOPE, WorkloadQuery(is_deleted=True), START) == 1
    page = await phase_interval_list(db, SCOPE, UUID(int=1), offset=0, limit=9, now=START)
    assert page is not None
    intervals = page.intervals
    assert [interval.phase for interval in intervals] == ["Running", "Deleting"]
    assert intervals[-1].ended_at == START + minutes(6)


async def test_a_life_within_one_batch_is_not_dropped(db: Database) -> None:
    agent = await connected_agent(db, START)
    gone = Delete(id=UUID(int=1), deleted_at=START + minutes(0.05))
    await agent.send(upsert(workload()), gone, now=START + minutes(1))
    assert (await shown(db))["deletedAt"] == "2026-11-20T08:00:03Z"


async def test_a_deleted_workload_seen_again_is_revived(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    gone = Delete(id=UUID(int=1), deleted_at=START + minutes(10))
    await agent.send(gone, now=START + minutes(10))
    back = upsert(workload(), (Phase.RUNNING, START), observed_at=START + minutes(15))
    await agent.send(back, now=START + minutes(15))
    await agent.send(now=START + minutes(20))
    row = await shown(db)
    assert row["deletedAt"] is None
    assert row["totalRunningTimeSeconds"] == 15 * 60


async def test_an_id_of_another_cluster_is_refused_alone(db: Database) -> None:
    first = await connected_agent(db, START, number=1)
    second = await connected_agent(db, START, number=2)
    await first.send(upsert(workload(1)), now=START)
    reply = await second.send(upsert(workload(1)), upsert(workload(2)), now=START)
    assert [item.id for item in reply.refused] == [UUID(int=1)]
    assert (await shown(db, 1))["clusterId"] == str(first.identity.cluster_id)
    assert (await shown(db, 2))["clusterId"] == str(second.identity.cluster_id)
    state = {cluster.name: cluster for cluster in await cluster_list(db, SCOPE, START)}
    assert [item.id for item in state["cluster-2"].refused] == [UUID(int=1)]
    # A deletion by the other cluster takes nothing either.
    await second.send(Delete(id=UUID(int=1), deleted_at=START), now=START)
    assert (await shown(db, 1))["deletedAt"] is None


async def test_a_removed_clusters_workload_is_revived_under_the_new_one(db: Database) -> None:
    first = await connected_agent(db, START, number=1)
    await first.send(upsert(workload(1)), now=START)
    assert await cluster_delete(db, SCOPE, first.identity.cluster_id, START + minutes(1))
    assert (await shown(db, 1))["deletedAt"] == "2026-11-20T08:01:00Z"
    second = await connected_agent(db, START, number=2)
    reply = await second.send(upsert(workload(1)), now=START + minutes(2))
    assert reply.refused == ()
    assert (await shown(db, 1))["clusterId"] == str(second.identity.cluster_id)


async def test_one_item_that_cannot_be_stored_is_refused_alone(db: Database) -> None:
    agent = await connected_agent(db, START)
    witness = Witness(group="a\0b", kind="Pod", namespace="team")
    monstrous = upsert(record(workload(2), witness=witness))
    reply = await agent.send(upsert(workload(1)), monstrous, upsert(workload(3)), now=START)
    assert [item.id for item in reply.refused] == [UUID(int=2)]
    # In our own words: the database's would show the row to whoever reads the cluster's state.
    assert reply.refused[0].reason == "A text holds a character that cannot be stored."
    assert await workload_count(db, SCOPE, WorkloadQuery(), START) == 2


async def test_hostile_text_is_stored_and_found(db: Database) -> None:
    agent = await connected_agent(db, START)
    name = "a\0b'; DROP TABLE workload; -- \x1b[2J \u202e %_" + "x" * 5000
    await agent.send(upsert(workload(name=name, submitted_by="\0")), now=START)
    assert (await shown(db))["name"] == name
    page = await workload_list(
        db, DocumentCache(0), SCOPE, WorkloadQuery(search="drop table"), START
    )
    assert len(page.documents) == 1


async def test_elements_and_endpoints_and_messages(db: Database) -> None:
    agent = await connected_agent(db, START)
    elements = tuple(
        Element(id=UUID(int=100 + number), name=f"worker-{number}", hierarchy_level=1)
        for number in range(5)
    )
    message = PendingSchedulingMessage(
        node_pool="a100", phase_reason="OverLimit", reason="limit", org_type="PROJECT"
    )
    made = record(
        workload(),
        elements=elements,
        elements_total=7_000,
        pending_scheduling_messages=(message,),
    )
    await agent.send(upsert(made), now=START)
    assert await element_count(db, SCOPE, UUID(int=1), START) == (7_000, 5)
    page = await element_list(db, SCOPE, UUID(int=1), offset=3, limit=2, now=START)
    assert page is not None
    assert [msgspec.json.decode(e)["name"] for e in page.documents] == ["worker-3", "worker-4"]
    assert page.next_offset is None
    first = await element_list(db, SCOPE, UUID(int=1), offset=0, limit=2, now=START)
    assert first is not None
    assert first.next_offset == 2
    beyond = await element_list(db, SCOPE, UUID(int=1), offset=2**31 - 1, limit=500, now=START)
    assert beyond is not None
    assert (beyond.documents, beyond.next_offset) == ([], None)
    assert b"train.example.com" in (await endpoint_list(db, SCOPE, UUID(int=1), START) or b"")
    (shown_message,) = (await shown(db))["pendingSchedulingMessages"]  # type: ignore[misc]
    assert shown_message["orgType"] == "PROJECT"
    await agent.send(upsert(record(workload(name="plain"))), now=START)
    assert await element_count(db, SCOPE, UUID(int=1), START) == (0, 0)


async def test_usage_keeps_its_steps_only(db: Database) -> None:
    agent = await connected_agent(db, START)
    for minute, pods in ((0, 1), (1, 1), (2, 4), (3, 4), (4, 2)):
        made = record(workload(running_pods=pods, name=f"n{minute}"))
        entry = upsert(made, (Phase.RUNNING, START), observed_at=START + minutes(minute))
        await agent.send(entry, now=START + minutes(minute))
    series = await usage_list(
        db,
        SCOPE,
        UUID(int=1),
        instants=[START + minutes(minute) for minute in (1.5, 2, 3, 3.5, 9, 10)],
        now=START,
    )
    assert series is not None
    steps = [(point.at - START, point.usage.running_pod_count) for point in series.points]
    assert steps == [(minutes(0), 1), (minutes(2), 4), (minutes(4), 2)]
    assert series.end == START + minutes(4)


async def test_an_etag_only_where_nothing_runs(db: Database) -> None:
    agent = await connected_agent(db, START)
    done = workload(2, phase=Phase.COMPLETED)
    await agent.send(upsert(workload(1)), upsert(done), now=START)
    running = await workload_get(db, SCOPE, UUID(int=1), START)
    completed = await workload_get(db, SCOPE, UUID(int=2), START)
    assert running is not None
    assert running.etag is None
    assert completed is not None
    assert completed.etag is not None


async def test_a_silence_is_recorded_as_a_gap(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.hello(START + minutes(10))
    (cluster,) = await cluster_list(db, SCOPE, START + minutes(10.5))
    assert (cluster.state, cluster.since) == ("connected", START + minutes(10))
    assert [(gap.from_at, gap.to_at) for gap in cluster.gaps] == [(START, START + minutes(10))]
    (later,) = await cluster_list(db, SCOPE, START + minutes(12))
    assert (later.state, later.since) == ("degraded", START + minutes(11))
    (last,) = await cluster_list(db, SCOPE, START + minutes(60))
    assert (last.state, last.since) == ("disconnected", START + minutes(15))


@pytest.mark.parametrize("lost_minutes", [0.5, 10])
@pytest.mark.parametrize("first", ["heartbeat", "hello", "another stream"])
async def test_what_a_backup_did_not_hold_is_a_gap(
    db: Database, lost_minutes: float, first: str
) -> None:
    """The agent observed on and has nothing to repeat, since all was acknowledged."""
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    now, acknowledged = START + minutes(lost_minutes), agent.seq + 7
    if first == "heartbeat":
        beat = Heartbeat(stream_id=agent.stream_id, seq=acknowledged, unbroken_seconds=3600)
        assert (await heartbeat_apply(db, agent.identity, beat, now)).resync
    previous = "made since then" if first == "another stream" else agent.stream_id
    request = HelloRequest(
        protocol=1,
        agent_version="test",
        previous_stream_id=previous,
        previous_seq=acknowledged,
    )
    agent.stream_id = (await stream_open(db, agent.identity, request, now)).stream_id
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, unbroken_seconds=3600)
    await heartbeat_apply(db, agent.identity, beat, now)
    async with db.acquire(1) as connection:
        gaps = await connection.fetch(
            "SELECT from_at, coalesce(observed_from, to_at) FROM cluster_gap"
        )
    is_known = first != "another stream" or lost_minutes > 1  # else it may have been taken over
    assert [tuple(gap) for gap in gaps] == ([(START, now)] if is_known else [])


async def test_k8s_phase_keeps_its_own_time(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload()), now=START)
    stopping = workload(phase=Phase.STOPPING, k8s_phase="Running")
    await agent.send(upsert(stopping, (Phase.STOPPING, START + minutes(5))), now=START)
    row = await shown(db)
    assert row["phaseUpdatedAt"] == "2026-11-20T08:05:00Z"
    assert row["k8sPhaseUpdatedAt"] == "2026-11-20T08:00:00Z"


async def test_a_cluster_is_pinned_at_first_sight(db: Database) -> None:
    """An agent that cannot read the UID is let in: it was before there was one."""
    agent = await connected_agent(db, START)

    async def hello(cluster_uid: str) -> None:
        request = HelloRequest(protocol=1, agent_version="test", cluster_uid=cluster_uid)
        await stream_open(db, agent.identity, request, START + minutes(1))

    for cluster_uid in ("", "first", "", "first"):
        await hello(cluster_uid)
    with pytest.raises(Forbidden, match="is second, not first"):
        await hello("second")
    await hello("first")


async def test_a_newer_servers_migration_interrupts_an_older_one_only_once(db: Database) -> None:
    """Connections of its pool know the table's columns of before."""
    agent = await connected_agent(db, START)
    await agent.send(upsert(workload(1)), now=START)
    async with db.acquire(1) as connection:
        await connection.execute("RESET ROLE")
        await connection.execute("ALTER TABLE workload ADD COLUMN newer text")
        await connection.execute("SET ROLE watchbill_app")
    with pytest.raises(Unavailable, match="schema has just changed"):
        await agent.send(upsert(workload(2)), now=START)
    agent.seq -= 1
    await agent.send(upsert(workload(2)), now=START)
    async with db.acquire(1) as connection:
        assert await connection.fetchval("SELECT count(*) FROM workload") == 2


class CountedQueries(Tracing):
    is_on = True

    def __init__(self) -> None:
        self.count = 0

    def record_query(self, sql: str, seconds: float, error: BaseException | None) -> None:
        self.count += not sql.startswith("WITH folded")  # of sums that have become many


async def test_a_batch_takes_as_many_statements_whatever_its_size(
    db: Database, database_url: str
) -> None:
    """Of 20,000 workloads that changed while their server was away, a hundred batches are applied."""
    queries = CountedQueries()
    counted = await Database.open(database_url, pool_size=1, tracing=queries)
    agent = Agent(counted, (await connected_agent(db, START)).identity)
    await agent.hello(START)

    async def statements(*items: BatchItem) -> int:
        queries.count = 0
        assert (await agent.send(*items, now=START)).refused == ()
        return queries.count

    def made(numbers: range, name: str) -> list[Upsert]:
        elements = (Element(id=UUID(int=7), name="worker", hierarchy_level=1),)
        return [
            upsert(
                record(workload(number, name=name), elements=elements, elements_total=1),
                pods=[pod(number)],
            )
            for number in numbers
        ]

    def end(number: int) -> Delete:
        return Delete(id=UUID(int=number), deleted_at=START)

    def life(number: int) -> tuple[Upsert, Delete]:
        """One that ended while the server was away."""
        return *made(range(number, number + 1), "short"), end(number)

    await statements(*made(range(1, 2), "the project's first"))
    taken = [
        (
            await statements(*made(numbers, "new")),
            await statements(*made(numbers, "changed")),
            await statements(*map(end, numbers)),
            await statements(*(item for n in numbers for item in life(1_000 + n))),
        )
        for numbers in (range(2, 4), range(4, 104))
    ]
    await counted.close()
    assert taken[0] == taken[1]
