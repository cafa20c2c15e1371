"""An agent that was taken over sends whatever it likes: every member of every message, one after the other. It
is refused or believed, but nothing of it is a failure of ours, and no answer to anybody breaks."""

import copy
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.serving import DETAILED_ID, Served, detailed
from watchbill.errors import WatchbillError
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    Batch,
    Covered,
    Heartbeat,
    HelloRequest,
    InventoryBegin,
    InventoryCommit,
    KindState,
    Measured,
    NodePoolCapacity,
    Reading,
    Scrape,
)
from watchbill.requests import decode_json
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database

NOW = datetime.now(UTC)
HOSTILE: tuple[Any, ...] = (
    *(-1, 2**31, 2**63 - 1, 2**70, 1e308, True, None, [], {}),
    *("\x00", "x" * 70_000, "'; DROP TABLE workload; --\x1b[2J"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "NaN"),
)
READS = (
    "/api/v1/workloads?limit=500&sortBy=allocatedGPU",
    "/api/v1/workloads/export?format=csv",
    "/api/v1/workloads/idle",
    "/api/v1/workloads/facets?fields=phase,type,projectName",
    "/api/v1/workloads/telemetry?telemetryType=GPU_ALLOCATION&groupBy=CurrentNodepools",
    "/api/v1/fleet",
    "/api/v1/clusters",
    f"/api/v1/workloads/{DETAILED_ID}",
    f"/api/v1/workloads/{DETAILED_ID}/elements",
    f"/api/v1/workloads/{DETAILED_ID}/endpoints",
    f"/api/v1/workloads/{DETAILED_ID}/phases",
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in it."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*path, key))


def hostile(message: Any) -> Iterator[dict[str, Any]]:
    """The message with one member after the other made hostile; the stream stays the agent's own."""
    sent: dict[str, Any] = json.loads(msgspec.json.encode(message))
    for path in paths(sent):
        for value in HOSTILE:
            made = copy.deepcopy(sent)
            parent = made
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            yield made


def batch(stream_id: str) -> Batch:
    readings = (Reading("GPU_UTILIZATION", 0.5, "0"), Reading("CPU_USAGE_CORES", 5.0))
    scrape = Scrape(at=NOW, counted_since=NOW, workloads=(Measured(DETAILED_ID, readings),))
    return Batch(stream_id=stream_id, seq=1, items=(detailed(),), scrapes=(scrape,))


async def survives(
    served: Served, message: Any, apply: Callable[[dict[str, Any]], Awaitable[Any]]
) -> tuple[int, int]:
    """How many hostile messages were taken, and how many refused. Any error that is not one of ours fails."""
    taken = refused = 0
    for made in hostile(message):
        try:
            await apply(made)
            taken += 1
        except WatchbillError:
            refused += 1
            continue
        if taken % 100 == 0:
            await reads(served)
    await reads(served)
    return taken, refused


async def reads(served: Served) -> None:
    for path in READS:
        answer = await served.get(path)
        assert answer.status in (200, 404), (path, answer.body)
        assert answer.status == 200 or str(DETAILED_ID) in path, path


async def inventory(
    db: Database, agent: AgentIdentity, begin: InventoryBegin, now: datetime
) -> None:
    """One that lists nothing, to its end: only there its coverage is read."""
    begun = await inventory_begin(db, agent, begin, now)
    commit = InventoryCommit(stream_id=begin.stream_id, inventory_id=begun.inventory_id, count=0)
    await inventory_commit(db, agent, commit, now)


async def test_every_member_of_a_batch(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    seq = 0

    async def apply(made: dict[str, Any]) -> None:
        nonlocal seq
        made |= {"streamId": agent.stream_id, "seq": seq + 1}
        batch = decode_json(json.dumps(made).encode(), Batch)
        await batch_apply(server.db, agent.identity, batch, NOW)
        seq += 1

    taken, refused = await survives(server, batch(agent.stream_id), apply)
    print(taken, refused)
    assert taken > 300
    assert refused > 300


async def test_every_member_of_a_heartbeat_and_an_inventory(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    kind = KindState(group="batch", kind="Job", state="complete", since=NOW, message="fine")
    pool = NodePoolCapacity(node_pool="a100", nodes=3, gpus=24.0, gpu_memory_bytes=10**9)
    covered = Covered(group="batch", kind="Job", namespaces=("team-a",), all_but=("team-b",))
    calls: tuple[tuple[Any, Any], ...] = (
        (heartbeat_apply, Heartbeat(stream_id="", seq=0, kinds=(kind,), node_pools=(pool,))),
        (inventory, InventoryBegin(stream_id="", coverage=(covered,))),
    )
    for call, message in calls:

        async def apply(made: dict[str, Any], call: Any = call, message: Any = message) -> None:
            sent = decode_json(json.dumps(made).encode(), type(message))
            sent = msgspec.structs.replace(sent, stream_id=agent.stream_id)
            await call(server.db, agent.identity, sent, NOW)

        taken, refused = await survives(server, message, apply)
        assert taken, call
        assert refused, call


async def test_a_credential_of_one_cluster_is_worth_nothing_in_another(server: Served) -> None:
    """Neither its stream, nor its inventory, nor an id that lives there."""
    first = await connected_agent(server.db, NOW, number=1)
    second = await connected_agent(server.db, NOW, number=2)
    await first.send(detailed(), now=NOW)
    begun = await inventory_begin(
        server.db, first.identity, InventoryBegin(stream_id=first.stream_id, coverage=()), NOW
    )
    assert begun.inventory_id
    stolen = batch(first.stream_id)
    unknown = AgentIdentity(1, uuid4())
    elsewhere = AgentIdentity(2, first.identity.cluster_id)
    for identity in (second.identity, unknown, elsewhere):
        with pytest.raises(WatchbillError):
            await batch_apply(server.db, identity, stolen, NOW)
    reply = await second.send(detailed(), now=NOW)
    assert [refusal.id for refusal in reply.refused] == [DETAILED_ID]
    document = (await server.get(f"/api/v1/workloads/{DETAILED_ID}")).json
    assert document["clusterId"] == str(first.identity.cluster_id)
    again = HelloRequest(protocol=1, agent_version="test")
    assert (await stream_open(server.db, second.identity, again, NOW)).cluster_name == "cluster-2"
