"""What a cluster may store: bytes of workloads, pods, events, nodes and queues. The rest is refused."""

from datetime import datetime, timedelta

import msgspec

from tests.api.access.test_agent_limits import room
from tests.fixtures.clusters import connected_agent
from tests.fixtures.large_items import NOW, flapping
from tests.fixtures.records import all_nodes, node, pod, upsert, workload
from tests.fixtures.serving import Served
from tests.store.test_events import event
from watchbill.metric_types import MetricType
from watchbill.protocol import (
    Batch,
    Delete,
    Heartbeat,
    Measured,
    NodeChanges,
    Reading,
    RefusedItem,
    Scrape,
    Upsert,
)
from watchbill.query import Scope
from watchbill.scheduler_queue import SchedulerQueue
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest import stream
from watchbill.store.metrics.measured import measured_purge
from watchbill.store.workloads import quotas
from watchbill.store.workloads.deletion import workload_purge


async def stored(database: Served, number: int = 1) -> int:
    clusters = await cluster_list(
        database.db, Scope(1, is_whole_tenant=True), NOW, most_bytes=10**6
    )
    (cluster,) = (each for each in clusters if each.name == f"cluster-{number}")
    assert cluster.stored_bytes_limit == 10**6
    assert cluster.stored_bytes is not None
    return cluster.stored_bytes


_COUNTED = """
SELECT (SELECT sum(octet_length(document) + coalesce(octet_length(details), 0)) FROM workload
    WHERE cluster_id = $1)
+ (SELECT coalesce(sum(octet_length(e)), 0) FROM workload_elements l
    JOIN workload w ON w.id = l.workload_id, unnest(l.elements) AS e WHERE w.cluster_id = $1)
+ (SELECT sum(100 + coalesce(octet_length(message), 0)) FROM phase_transition t
    JOIN workload w ON w.id = t.workload_id WHERE w.cluster_id = $1)
+ (SELECT coalesce(sum(200 + octet_length(p.document)), 0) FROM workload_pod p
    JOIN workload w ON w.id = p.workload_id WHERE w.cluster_id = $1)
+ (SELECT coalesce(sum(200 + octet_length(concat(message, reason, source, object_name))), 0)
    FROM workload_event e JOIN workload w ON w.id = e.workload_id WHERE w.cluster_id = $1)
+ (SELECT coalesce(sum(150 + octet_length(s.gpu_by_model::text)), 0) FROM usage_step s
    JOIN workload w ON w.id = s.workload_id WHERE w.cluster_id = $1)
+ (SELECT 150 * count(*) FROM usage_sample s JOIN workload w ON w.id = s.workload_id
    WHERE w.cluster_id = $1)
+ (SELECT coalesce(sum(200 + octet_length(document)), 0) FROM cluster_node WHERE cluster_id = $1)
+ (SELECT coalesce(sum(octet_length(queue::text)), 0) FROM
    (SELECT cluster_id, queue FROM project UNION ALL SELECT cluster_id, queue FROM department) AS u
    WHERE cluster_id = $1)
"""


def queues(count: int, name: str) -> tuple[SchedulerQueue, ...]:
    return tuple(
        SchedulerQueue(unit="project", key=f"q{n}", name=name, scheduler="KAI", department_key="d")
        for n in range(count)
    )


async def test_stored_bytes_follow_every_change(server: Served) -> None:
    agents = [await connected_agent(server.db, NOW, number=number) for number in (1, 2)]
    later = NOW + timedelta(days=100)

    async def is_exact() -> None:
        for number, agent in enumerate(agents, start=1):
            async with server.db.acquire(1) as connection:
                counted = await connection.fetchval(_COUNTED, agent.identity.cluster_id)
            assert await stored(server, number) == (counted or 0)

    for round_ in range(20):
        for number, agent in enumerate(agents):
            made = [workload(100 * number + n, name="x" * (n + round_)) for n in range(1, 8)]
            pods = [pod(n, message="x" * (n + round_)) for n in range(1 + round_ % 5)]
            items = [upsert(each, pods=pods) for each in made]
            reported = [event(round_ % 7, workload_id=100 * number + 1, count=1 + round_)]
            await agent.send(*items, flapping(100 * number + 20, 5), now=NOW, events=reported)
            await agent.send(Delete(id=made[round_ % 7].id, deleted_at=NOW), now=NOW)
            await agent.send_nodes(
                all_nodes(*(node(f"n{n}", node_pool="x" * round_) for n in range(round_ % 4))), NOW
            )
            await agent.beat(NOW, queues=queues(2 + round_ % 3, "x" * round_))
    await is_exact()
    assert await workload_purge(server.db, 1, keep=timedelta(days=1), now=later)
    await is_exact()
    async with server.db.acquire(1) as connection:
        await agents[0].send(upsert(workload(1)), now=NOW)
        for table in ("stored_bytes", "stored_pod_bytes"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") < 150
        for table in (
            *("workload_elements", "phase_transition", "workload_pod", "workload_event"),
            *("usage_step", "usage_sample"),
        ):
            await connection.execute(f"DELETE FROM {table}")
        for table in ("workload", "cluster_node", "project", "department"):
            await connection.execute(f"DELETE FROM {table}")
    assert [await stored(server, number) for number in (1, 2)] == [0, 0]


async def test_samples_count_until_their_day_is_forgotten(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    await agent.send(upsert(workload(1)), now=NOW)
    before = await stored(server)
    readings = tuple(Reading(MetricType.CPU_USAGE_CORES, 1.0, f"c{n}") for n in range(10))

    async def tell(minute: int, most_bytes: int, *, now: datetime = NOW, number: int = 1) -> None:
        scrape = Scrape(
            at=now - timedelta(minutes=minute),
            counted_since=NOW,
            workloads=(Measured(workload(number).id, readings),),
        )
        agent.seq += 1
        batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=(), scrapes=(scrape,))
        await stream.batch_apply(server.db, agent.identity, batch, now, most_bytes=most_bytes)

    names = 100 + sum(len(f"CPU_USAGE_CORES|c{n}") for n in range(10))
    for number, added in enumerate((names + 180, 180), start=1):
        await tell(number, 10**9)
        before += added
        assert await stored(server) == before
    await tell(3, 1)
    await tell(4, 10**9, number=2)
    assert await stored(server) == before, "nothing is kept of a workload that nobody reported"
    await tell(0, 10**9, now=NOW + timedelta(days=1))
    before += names + 180
    assert await stored(server) == before, "names stay as long as they are used"
    await measured_purge(server.db, 1, days=7, now=NOW + timedelta(days=8))
    assert await stored(server) == before - names - 2 * 180
    await measured_purge(server.db, 1, days=7, now=NOW + timedelta(days=9))
    assert await stored(server) == before - 2 * names - 3 * 180


async def test_samples_leave_room_for_pods(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    await agent.send(upsert(workload(1)), now=NOW)
    most = 1_000_000
    async with server.db.acquire(1) as connection:
        await connection.execute(
            "INSERT INTO measured_bytes (tenant_id, cluster_id, day, bytes) VALUES (1, $1, $2, $3)",
            agent.identity.cluster_id,
            NOW.date(),
            most * 4 // 10,
        )
    measured = Measured(workload(1).id, (Reading(MetricType.CPU_USAGE_CORES, 1.0),))
    agent.seq += 1
    batch = Batch(
        stream_id=agent.stream_id,
        seq=agent.seq,
        items=(upsert(workload(1), pods=[pod(1)]),),
        events=(event(1),),
        scrapes=(Scrape(at=NOW, counted_since=NOW, workloads=(measured,)),),
    )
    await stream.batch_apply(server.db, agent.identity, batch, NOW, most_bytes=most)
    async with server.db.acquire(1) as connection:
        tables = ("workload_pod", "workload_event", "measured_sample")
        counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    assert counts == [1, 1, 0]


async def test_without_room_no_node_is_written_and_later_all_are(server: Served) -> None:
    """Of 5,000 nodes of 32 KiB none counted."""
    agent = await connected_agent(server.db, NOW)

    async def tell(changes: NodeChanges, most_bytes: int) -> bool:
        beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq, nodes=changes)
        return (
            await stream.heartbeat_apply(
                server.db, agent.identity, beat, NOW, most_bytes=most_bytes
            )
        ).wants_nodes

    async def names() -> list[str]:
        return [each["name"] for each in (await server.get("/api/v1/nodes")).json["nodes"]]

    async def message() -> str:
        (cluster,) = (await server.get("/api/v1/clusters")).json
        return " ".join(kind["message"] for kind in cluster["kinds"])

    first, second, third = (all_nodes(*map(node, letters)) for letters in ("a", "ab", "b"))
    assert not await tell(first, 1)
    assert await stored(server) > 200
    for _ in range(2):
        since = msgspec.structs.replace(second, since=first.digest, names=())
        assert not await tell(since, 1), "nothing is asked for that there is no room for"
        assert await names() == ["a"]
        assert "WATCHBILL_CLUSTER_STORED_BYTES" in await message()
    gone = NodeChanges(digest=third.digest, since=second.digest, removed=("a",))
    assert not await tell(gone, 1)
    assert await tell(NodeChanges(digest=third.digest, since=third.digest), 10**9)
    assert not await tell(third, 10**9)
    assert (await names(), await message()) == (["b"], "")


async def test_a_cluster_stores_so_many_bytes_live_and_deleted(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)

    async def send(*items: Upsert | Delete) -> tuple[str, ...]:
        agent.seq += 1
        batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=items)
        reply = await stream.batch_apply(server.db, agent.identity, batch, NOW, most_bytes=30_000)
        return tuple(refused.reason for refused in reply.refused)

    number = 0
    while not (reasons := await send(upsert(workload(number := number + 1)))):
        await send(Delete(id=workload(number).id, deleted_at=NOW))
        assert number < 30, "deleted workloads count"
    assert "WATCHBILL_CLUSTER_STORED_BYTES" in reasons[0]
    assert "WATCHBILL_DELETED_RETENTION_DAYS" in reasons[0]
    assert 30_000 <= await stored(server) < 40_000
    assert await room(server, agent, most_bytes=30_000) == 0
    assert await room(server, agent) == quotas.MAX_RETRIES
    other = await connected_agent(server.db, NOW, number=2)
    assert (await other.send(upsert(workload(900)), now=NOW)).refused == ()
    await workload_purge(server.db, 1, keep=timedelta(days=1), now=NOW + timedelta(days=100))
    assert not await send(upsert(workload(number))), "there is room again"


async def test_pods_and_events_take_half_and_hide_no_workload(server: Served) -> None:
    """Beyond it a workload is there without its new pods, the others keep theirs, and the cluster tells it."""
    agent = await connected_agent(server.db, NOW)

    async def send(*items: Upsert | Delete, most_bytes: int = 100_000) -> tuple[RefusedItem, ...]:
        agent.seq += 1
        batch = Batch(
            stream_id=agent.stream_id, seq=agent.seq, items=items, events=(event(agent.seq),)
        )
        reply = await stream.batch_apply(
            server.db, agent.identity, batch, NOW, most_bytes=most_bytes
        )
        return reply.refused

    async def count(table: str) -> int:
        async with server.db.acquire(1) as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))

    first = upsert(workload(1), pods=[pod(n, message="x" * 1_000) for n in range(50)])
    await send(first)
    assert (await count("workload_pod"), await count("workload_event")) == (50, 1)
    second = upsert(workload(2), pods=[pod(60)])
    fewer = upsert(workload(1, name="renamed"), pods=[pod(1, message="changed"), pod(70)])
    assert await send(second, fewer) == ()
    async with server.db.acquire(1) as connection:
        names = await connection.fetch("SELECT name FROM workload ORDER BY id")
        left = await connection.fetch("SELECT id FROM workload_pod WHERE deleted_at IS NULL")
    assert [row["name"] for row in names] == ["renamed", workload(2).name]
    assert [row["id"] for row in left] == [pod(1).id]
    assert await count("workload_event") == 1
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert {refusal.id for refusal in cluster.refused} == {workload(1).id, workload(2).id}
    assert all("WATCHBILL_CLUSTER_STORED_BYTES" in refusal.reason for refusal in cluster.refused)
    await send(second, fewer, most_bytes=10**9)
    async with server.db.acquire(1) as connection:
        left = await connection.fetch("SELECT id FROM workload_pod WHERE deleted_at IS NULL")
        hashes = await connection.fetch("SELECT record_hash FROM workload ORDER BY id")
    assert {row["id"] for row in left} == {pod(n).id for n in (1, 60, 70)}, "there is room again"
    assert [row["record_hash"].hex() for row in hashes] == [fewer.record_hash, second.record_hash]
