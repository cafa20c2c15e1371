"""What an agent claims and cannot be (quantities, texts, phases, nesting) is left out, or refused alone."""

import json
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.api.access.test_agent_limits import credential, post
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.large_items import NOW, flapping, nested
from tests.fixtures.records import node, record, upsert, workload
from tests.fixtures.serving import Served
from watchbill.errors import Invalid
from watchbill.maintenance import record_fleets
from watchbill.protocol import (
    MAX_BYTES,
    MAX_GPUS,
    Batch,
    Heartbeat,
    Measured,
    NodePoolCapacity,
    Reading,
    Scrape,
)
from watchbill.query import Scope
from watchbill.scheduler_queue import MAX_QUEUE_BYTES, SchedulerQueue
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest import messages, stream
from watchbill.store.ingest.left_out import MAX_REASON_CHARACTERS, MAX_REASONS, LeftOut
from watchbill.store.workloads.validation import (
    MAX_BATCH_READINGS,
    MAX_BATCH_TRANSITIONS,
    valid_scrape,
    valid_scrapes,
)
from watchbill.workload import GPU_MILLIONTHS, MAX_STEPS


async def fleet_is_fine(served: Served) -> None:
    for path in ("/api/v1/fleet", "/api/v1/clusters", "/api/v1/workloads", "/metrics"):
        assert (await served.get(path)).status == 200, path
    for kind in ("GPU_ALLOCATION", "IDLE_ALLOCATED_GPUS", "WORKLOADS_COUNT"):
        path = f"/api/v1/workloads/telemetry?telemetryType={kind}&groupBy=ClusterId"
        assert (await served.get(path)).status == 200, path
    await record_fleets(served.db, NOW - timedelta(seconds=NOW.timestamp() % 300))


@pytest.mark.parametrize("gpus", [1e308, -1.0, MAX_GPUS + 1])
async def test_a_capacity_that_cannot_be_is_left_out_and_reported(
    server: Served, gpus: float
) -> None:
    agent = await connected_agent(server.db, NOW)
    pools = (
        NodePoolCapacity(node_pool="a100", nodes=1, gpus=gpus),
        NodePoolCapacity(node_pool="h100", nodes=1, gpus=8.0),
    )
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, node_pools=pools)
    assert messages.decode_heartbeat(msgspec.json.encode(beat)).beat.node_pools == pools[1:]
    await receive(server, agent, nodePools=json.loads(msgspec.json.encode(pools)))
    (shown,) = (await server.get("/api/v1/clusters")).json
    assert [pool["nodePool"] for pool in shown["nodePools"]] == ["h100"]
    (state,) = shown["kinds"]
    assert (state["kind"], state["state"]) == ("Node", "failing")
    assert state["message"].startswith("1 node pools cannot be and are left out: a100: Expected")
    await fleet_is_fine(server)


def test_only_node_pools_are_left_out_of_a_heartbeat() -> None:
    fine = Heartbeat(stream_id="x", seq=3, backlog=2, observed_seconds_ago=1.5)
    received = messages.decode_heartbeat(msgspec.json.encode(fine))
    assert (received.beat, received.left_out) == (fine, LeftOut())
    with pytest.raises(Invalid):
        messages.decode_heartbeat(b'{"streamId":"x","seq":-1}')


async def test_a_capacity_that_was_stored_before_breaks_nobody(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    connection = await asyncpg.connect(server.db._listening_url)
    await connection.execute(
        "UPDATE cluster SET node_pools = $1 WHERE id = $2",
        b'[{"nodePool":"a100","nodes":1,"gpus":1e308}]',
        agent.identity.cluster_id,
    )
    await connection.close()
    await fleet_is_fine(server)


BEYOND: dict[str, dict[str, Any]] = {
    "pod_count": {"pod_count": 2**31 - 1},
    "gpu_millionths": {"gpu_millionths": 2**62},
    "gpu_memory_request_bytes": {"gpu_memory_request_bytes": 2**62},
    "cpu_memory_request_bytes": {"cpu_memory_request_bytes": MAX_BYTES + 1},
    "cpu_request_cores": {"cpu_request_cores": 1e308},
    "cpu_limit_cores": {"cpu_limit_cores": -1.0},
}


@pytest.mark.parametrize("name", BEYOND)
async def test_a_quantity_larger_than_any_clusters_is_left_out_alone(
    server: Served, name: str
) -> None:
    """The workload stays, and the cluster's state names what its record lacks."""
    agent = await connected_agent(server.db, NOW)
    items = []
    for number in range(1, 4):
        item = upsert(workload(number))
        usage = msgspec.structs.replace(item.record.usage, **BEYOND[name])
        record = msgspec.structs.replace(item.record, usage=usage)
        items.append(msgspec.structs.replace(item, record=record))
    reply = await agent.send(*items, upsert(workload(9)), now=NOW)
    assert reply.refused == ()
    assert (await server.get("/api/v1/workloads/count")).json == {"count": 4}
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert {problem.id for problem in cluster.refused} == {workload(n).id for n in range(1, 4)}
    await fleet_is_fine(server)


async def test_the_largest_quantities_that_are_taken_can_be_summed(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    items = []
    for number in range(1, 101):
        made = replace_gpus(workload(number), float(MAX_GPUS))
        item = upsert(made)
        usage = msgspec.structs.replace(
            item.record.usage,
            gpu_millionths=MAX_GPUS * GPU_MILLIONTHS,
            gpu_memory_request_bytes=MAX_BYTES,
            cpu_memory_request_bytes=MAX_BYTES,
        )
        record = msgspec.structs.replace(
            item.record, usage=usage, gpu_millionths_by_node_pool={"a": MAX_GPUS * GPU_MILLIONTHS}
        )
        items.append(msgspec.structs.replace(item, record=record))
    reply = await agent.send(*items, now=NOW)
    assert reply.refused == ()
    await fleet_is_fine(server)


def replace_gpus(made: Any, gpus: float) -> Any:
    allocated = msgspec.structs.replace(made.allocated_resources, gpu=gpus)
    return msgspec.structs.replace(made, allocated_resources=allocated)


def test_figures_that_cannot_be_are_left_out_of_a_scrape() -> None:
    def scrape(*readings: Reading) -> Scrape:
        return Scrape(at=NOW, counted_since=NOW, workloads=(Measured(workload(1).id, readings),))

    fine = Reading("GPU_UTILIZATION", 0.5, "0")
    hostile = [replace_value(fine, value) for value in (1e308, -1.0, float("inf"), float("nan"))]
    long = Reading("GPU_UTILIZATION", 0.5, "x" * 201)
    assert valid_scrape(scrape(fine, *hostile, long), NOW) == scrape(fine)
    late = msgspec.structs.replace(scrape(fine), at=NOW + timedelta(days=2))
    assert valid_scrape(late, NOW) is None


def replace_value(reading: Reading, value: float) -> Reading:
    return msgspec.structs.replace(reading, value=value)


async def test_texts_that_no_index_takes_refuse_their_item_alone(server: Served) -> None:
    """Random letters of four bytes do not compress, and an index takes 2.7 KiB."""
    agent = await connected_agent(server.db, NOW)
    text = "".join(chr(0x10000 + (n * 7919) % 0xFFFF) for n in range(3_000))
    items = []
    names = ("name", "project_name", "department_name", "type", "namespace", "category")
    for number, member in enumerate(names, start=1):
        items.append(upsert(msgspec.structs.replace(workload(number), **{member: text})))
    for number, member in enumerate(("project_key", "department_key"), start=10):
        item = upsert(workload(number))
        items.append(
            msgspec.structs.replace(
                item, record=msgspec.structs.replace(item.record, **{member: text})
            )
        )
    items.append(upsert(workload(20)))
    reply = await agent.send(*items, now=NOW)
    assert workload(20).id not in {refused.id for refused in reply.refused}
    await fleet_is_fine(server)


async def test_phases_of_a_batch_are_bounded_and_the_newest_stay(server: Served) -> None:
    """400 items of 1,000 phases each took seconds in which nobody else was answered."""
    agent = await connected_agent(server.db, NOW)
    reply = await agent.send(*(flapping(n, 1_000) for n in range(1, 21)), now=NOW)
    assert reply.refused == ()
    assert (await server.get("/api/v1/workloads/count")).json == {"count": 20}
    async with server.db.acquire(1) as connection:
        stored = await connection.fetchval("SELECT count(*) FROM phase_transition")
    assert stored <= MAX_BATCH_TRANSITIONS + 20
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert len(cluster.refused) == 15
    assert "phases" in cluster.refused[0].reason


async def test_steps_of_a_workload_are_bounded(server: Served) -> None:
    """An honest agent keeps 1,000 of a workload; this one names it twice with 3,000 each."""
    agent = await connected_agent(server.db, NOW)
    made = record(workload(1))
    steps = tuple(
        msgspec.structs.replace(
            made.step(NOW - timedelta(seconds=number)), requested_gpu=number % 7 * 1_000_000
        )
        for number in range(6_000, 0, -1)
    )
    first = msgspec.structs.replace(upsert(workload(1), observed_at=NOW), steps=steps[3_000:])
    reply = await agent.send(
        msgspec.structs.replace(first, steps=steps[:3_000]),
        first,
        upsert(workload(2)),
        now=NOW,
    )
    assert reply.refused == ()
    async with server.db.acquire(1) as connection:
        stored = await connection.fetch(
            "SELECT at FROM usage_step WHERE workload_id = $1", made.workload.id
        )
    assert 1_000 <= len(stored) <= MAX_STEPS + 2
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert [refusal.id for refusal in cluster.refused] == [made.workload.id]
    assert "steps" in cluster.refused[0].reason


def test_readings_of_a_batch_are_bounded() -> None:
    readings = tuple(Reading("GPU_UTILIZATION", 1.0, str(n)) for n in range(1_000))
    scrapes = [
        Scrape(
            at=NOW,
            counted_since=NOW,
            workloads=tuple(Measured(workload(n).id, readings) for n in range(1, 31)),
        )
    ] * 5
    kept = [m for scrape in valid_scrapes(scrapes, NOW) for m in scrape.workloads]
    assert 20_000 <= sum(len(measured.readings) for measured in kept) <= MAX_BATCH_READINGS


@pytest.mark.parametrize("levels", [33, 100, 500, 900])
async def test_an_item_nested_deeply_is_refused_alone(server: Served, levels: int) -> None:
    token = await credential(server)
    hello = await post(server, token, "hello", b'{"protocol":1,"agentVersion":"x"}')
    deep = upsert(workload(1, additional_fields={"a": "DEEP"}))
    batch = Batch(stream_id=hello.json["streamId"], seq=1, items=(deep, upsert(workload(2))))
    body = msgspec.json.encode(batch).replace(b'"DEEP"', b"[" * levels + b"]" * levels)
    answer = await post(server, token, "batch", body)
    assert answer.status == 200, answer.body
    assert [refused["id"] for refused in answer.json["refused"]] == [str(workload(1).id)]
    assert (await server.get("/api/v1/workloads/count")).json == {"count": 1}


async def test_what_is_nested_as_deep_as_permitted_is_stored(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    reply = await agent.send(upsert(workload(1, additional_fields={"a": nested(31)})), now=NOW)
    assert reply.refused == ()


async def test_a_workload_has_so_many_node_pools(server: Served) -> None:
    """Each is a group of every answer by node pool."""
    agent = await connected_agent(server.db, NOW)
    pools = tuple(f"pool-{n}" for n in range(5_000))
    made = workload(1, current_node_pools=pools, requested_node_pools=pools)
    await agent.send(upsert(made), now=NOW)
    for group in ("CurrentNodepools", "RequestedNodepools"):
        path = f"/api/v1/workloads/telemetry?telemetryType=WORKLOADS_COUNT&groupBy={group}"
        assert len((await server.get(path)).json["values"]) == 100


def test_of_a_node_that_cannot_be_nothing_older_stays() -> None:
    """As of an agent of a later version, with a way to share GPUs that this server does not know."""
    other = json.loads(msgspec.json.encode(node("b"))) | {"gpuSharing": "by-lot"}
    received = messages.decode_heartbeat(
        json.dumps(
            {
                "streamId": "x",
                "seq": 1,
                "nodes": {
                    "digest": "d2",
                    "since": "d1",
                    "changed": [json.loads(msgspec.json.encode(node("a"))), other, {"name": 7}, []],
                    "removed": ["c"],
                },
            }
        ).encode()
    )
    assert received.beat.nodes is not None
    assert [each.name for each in received.beat.nodes.changed] == ["a"]
    assert received.beat.nodes.removed == ("c", "b")
    assert set(received.left_out.nodes) == {"b", ""}


def as_json(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


async def receive(server: Served, agent: Agent, **members: Any) -> dict[str, str]:
    """One heartbeat with these members as they travel; the messages of kinds that are shown then, by kind."""
    body = json.dumps({"streamId": agent.stream_id, "seq": agent.seq, **members}).encode()
    received = messages.decode_heartbeat(body)
    await stream.heartbeat_apply(
        server.db, agent.identity, received.beat, NOW, left_out=received.left_out
    )
    (shown,) = (await server.get("/api/v1/clusters")).json
    assert {kind["state"] for kind in shown["kinds"]} <= {"failing"}
    return {kind["kind"]: kind["message"] for kind in shown["kinds"]}


async def test_why_a_node_is_left_out_is_shown_as_long_as_it_holds(server: Served) -> None:
    """It was shown until the next heartbeat, fifteen seconds later."""
    agent = await connected_agent(server.db, NOW)
    fine, other = as_json(node("a")), as_json(node("b")) | {"gpuSharing": "by-lot"}
    all_nodes = {"digest": "d1", "changed": [fine, other], "names": ["a", "b"]}
    shown = await receive(server, agent, nodes=all_nodes)
    assert shown["Node"].startswith("1 nodes cannot be and are left out: b: Invalid enum value")
    unchanged = {"digest": "d1", "since": "d1"}
    assert await receive(server, agent, nodes=unchanged) == shown
    assert await receive(server, agent) == shown, "nodes cannot be read now"
    more = {"digest": "d2", "since": "d1", "changed": [fine | {"name": "c"}]}
    assert await receive(server, agent, nodes=more) == shown
    gone = {"digest": "d3", "since": "d2", "removed": ["b"]}
    assert await receive(server, agent, nodes=gone) == {}
    await receive(server, agent, nodes={"digest": "d4", "since": "d3", "changed": [other]})
    mended = {"digest": "d5", "since": "d4", "changed": [as_json(node("b"))]}
    assert await receive(server, agent, nodes=mended) == {}
    await receive(server, agent, nodes={"digest": "d6", "since": "d5", "changed": [other]})
    assert await receive(server, agent, nodes={"digest": "d7", "names": ["a"]}) == {}


async def test_one_queue_that_cannot_be_is_left_out_alone(server: Served) -> None:
    """It made a server refuse the whole heartbeat, and with it all that the cluster says."""
    agent = await connected_agent(server.db, NOW)
    fine = as_json(SchedulerQueue(unit="project", key="team-a", name="A", scheduler="KAI"))
    later = fine | {"key": "team-b", "scheduler": "of-a-later-version"}
    large = fine | {"key": "team-c", "name": "x" * MAX_QUEUE_BYTES}
    shown = await receive(server, agent, queues=[fine, later, large, 7])
    assert shown["Queue"].startswith("3 queues cannot be and are left out: team-b: Invalid enum")
    projects = (await server.get("/api/v1/org-unit/projects")).json["projects"]
    assert [project["name"] for project in projects] == ["A"]
    assert await receive(server, agent) == shown
    assert await receive(server, agent, queues=[fine]) == {}


async def test_so_many_reasons_are_kept_of_a_cluster(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    queues = [{"key": f"{n}-{'x' * 490}", "unit": "y" * 10_000} for n in range(300)]
    shown = await receive(server, agent, queues=queues)
    assert shown["Queue"].startswith("200 and more queues cannot be and are left out: 0-x")
    async with server.db.acquire(1) as connection:
        stored = await connection.fetchval("SELECT length(left_out) FROM cluster")
    assert stored < MAX_REASONS * (507 + MAX_REASON_CHARACTERS + 10)
