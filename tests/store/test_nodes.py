"""Nodes in the database: what heartbeats bring of them, and what the pods on them hold."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, all_nodes, node, pod, record, upsert, workload
from watchbill.cluster_node import MAX_NODES, DeviceWorkload, NodeDevice, NodeTaint
from watchbill.protocol import Delete, Heartbeat, KindState, NodeChanges
from watchbill.query import NodeQuery, Scope, parse_node_filters
from watchbill.responses.nodes import NodeResponse
from watchbill.scheduler_queue import SchedulerQueue
from watchbill.store.fleet import nodes
from watchbill.store.fleet.clusters import cluster_delete
from watchbill.store.fleet.nodes import node_count, node_list
from watchbill.store.ingest import node_write
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.workload import AllocatedResources

SCOPE = Scope(1, is_whole_tenant=True)
GIB = 1024**3


async def listed(db: Database, scope: Scope = SCOPE, **members: Any) -> list[NodeResponse]:
    return (await node_list(db, scope, NodeQuery(**members), START)).nodes


async def names(db: Database, **members: Any) -> list[str]:
    return [each.name for each in await listed(db, **members)]


def held(
    gpu: float | None, cpu: float | None = None, memory: str | None = None
) -> AllocatedResources:
    return AllocatedResources(gpu=gpu, extended_resources=(), cpu=cpu, cpu_memory=memory)


@pytest.fixture
async def agent(db: Database) -> Agent:
    return await connected_agent(db, START)


async def test_a_node_is_answered_as_it_was_reported(db: Database, agent: Agent) -> None:
    reported = node(taints=(NodeTaint(key="dedicated", effect="NoSchedule"),), is_cordoned=True)
    reply = await agent.send_nodes(all_nodes(reported), START)
    assert not reply.wants_nodes
    (stored,) = await listed(db)
    for name in reported.__struct_fields__:
        assert getattr(stored, name) == getattr(reported, name), name
    assert (stored.cluster_uuid, stored.updated_at) == (agent.identity.cluster_id, START)
    assert (stored.is_partial, stored.workloads, stored.allocated.gpus) == (False, (), 0.0)


async def test_differences_and_what_they_must_start_from(db: Database, agent: Agent) -> None:
    first = all_nodes(node("a"), node("b"))
    await agent.send_nodes(first, START)
    second = NodeChanges(digest="d2", since=first.digest, changed=(node("c"),), removed=("a",))
    assert not (await agent.send_nodes(second, START)).wants_nodes
    assert await names(db) == ["b", "c"]
    stale = NodeChanges(digest="d3", since=first.digest, changed=(node("d"),))
    assert (await agent.send_nodes(stale, START)).wants_nodes
    assert await names(db) == ["b", "c"]
    nothing_new = NodeChanges(digest="d2", since="d2")
    assert not (await agent.send_nodes(nothing_new, START)).wants_nodes
    begun = NodeChanges(digest="d4", changed=(node("e"),), names=("b", "e"))
    await agent.send_nodes(begun, START)
    assert await names(db) == ["b", "e"]


async def test_a_server_that_got_nothing_asks(db: Database, agent: Agent) -> None:
    assert (await agent.send_nodes(NodeChanges(digest="x", since="x"), START)).wants_nodes


@pytest.mark.parametrize(
    ("state", "kept"), [("complete", []), ("failing", ["a"]), ("listing", ["a"])]
)
async def test_an_agent_that_went_back_to_a_version_without_nodes_leaves_none(
    db: Database, agent: Agent, state: Any, kept: list[str]
) -> None:
    """It reads them all and tells none; one that cannot read them now only keeps silent."""
    await agent.send_nodes(all_nodes(node("a")), START)
    kinds = (KindState(group="", kind="Node", state=state, since=START),)
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, kinds=kinds)
    await heartbeat_apply(db, agent.identity, beat, START)
    assert await names(db) == kept
    nothing_new = NodeChanges(digest=all_nodes(node("a")).digest, since=all_nodes(node("a")).digest)
    assert (await agent.send_nodes(nothing_new, START)).wants_nodes is (not kept)


async def test_no_more_nodes_than_there_may_be(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = node_write._DROP_EXCESS.replace(str(MAX_NODES), "3")
    monkeypatch.setattr(node_write, "_DROP_EXCESS", statement)
    await agent.send_nodes(all_nodes(*(node(f"n{n}") for n in range(5))), START)
    assert len(await listed(db)) == 3


async def test_what_pods_hold_of_a_node_by_hand(db: Database, agent: Agent) -> None:
    """0.5 + 2 GPUs of one workload and 1 of another; what ended, waits or is gone holds nothing."""
    await agent.send_nodes(all_nodes(node("a"), node("b")), START)
    single = [
        pod(1, node_name="a", allocated_resources=held(0.5, 1.5, "3Gi")),
        pod(2, node_name="a", allocated_resources=held(2.0, 0.1, "500M")),
        pod(3, node_name="b", allocated_resources=held(8.0)),
        pod(4, node_name="a", k8s_phase="Succeeded", allocated_resources=held(4.0)),
        pod(5, node_name=None, allocated_resources=None),
    ]
    await agent.send(upsert(workload(1, name="first"), pods=single), now=START)
    two = [pod(6, node_name="a", allocated_resources=held(1.0))]
    await agent.send(upsert(workload(2, name="second"), pods=two), now=START)
    three = [pod(7, node_name="a", allocated_resources=held(1.0))]
    gone = upsert(workload(3), pods=three)
    await agent.send(gone, now=START)
    await agent.send(Delete(id=gone.record.workload.id, deleted_at=START), now=START)
    a, b = await listed(db)
    assert a.allocated.gpus == 3.5
    assert a.allocated.cpu_cores == 1.6
    assert a.allocated.cpu_memory_bytes == 3 * GIB + 500_000_000
    assert [(each.name, each.pods, each.gpus) for each in a.workloads] == [
        ("first", 2, 2.5),
        ("second", 1, 1.0),
    ]
    assert (b.allocated.gpus, b.workloads_total) == (8.0, 1)


async def test_a_name_with_nul_stops_no_list(db: Database, agent: Agent) -> None:
    await agent.send_nodes(all_nodes(node("a\0b"), node("c")), START)
    assert await names(db) == ["a\ufffdb", "c"]


async def test_of_many_workloads_on_a_node_the_first_are_read(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 + 2 + 3 GPUs; the sums are those of all."""
    monkeypatch.setattr(nodes, "SHOWN_WORKLOADS", 2)
    await agent.send_nodes(all_nodes(node("a")), START)
    for number in (1, 2, 3):
        pods = [pod(number, node_name="a", allocated_resources=held(float(number), 0.5))]
        await agent.send(upsert(workload(number, gpus=float(number)), pods=pods), now=START)
    (stored,) = await listed(db, is_brief=True)
    assert (stored.allocated.gpus, stored.allocated.cpu_cores) == (6.0, 1.5)
    assert ([each.gpus for each in stored.workloads], stored.workloads_total) == ([3.0, 2.0], 3)
    assert (stored.conditions, stored.taints) == ((), ())


async def test_idle_gpus_are_split_as_the_pods_are(db: Database, agent: Agent) -> None:
    """Of four GPUs on two nodes two are idle: half of what each node holds. The other is not measured."""
    await agent.send_nodes(all_nodes(node("a"), node("b"), node("c")), START)
    pods = [
        pod(1, node_name="a", allocated_resources=held(3.0)),
        pod(2, node_name="b", allocated_resources=held(1.0)),
    ]
    made = workload(1, gpus=4.0, idle_allocated_gpus=2.0)
    await agent.send(upsert(made, pods=pods), now=START)
    other = [pod(3, node_name="c", allocated_resources=held(1.0))]
    await agent.send(upsert(workload(2, gpus=1.0), pods=other), now=START)
    assert [each.idle_allocated_gpus for each in await listed(db)] == [1.5, 0.5, None]


async def test_what_is_not_known_is_not_summed(db: Database, agent: Agent) -> None:
    await agent.send_nodes(all_nodes(node("a")), START)
    pods = [
        pod(1, node_name="a", allocated_resources=held(None, 1.0)),
        pod(2, node_name="a", allocated_resources=held(1.0, 1.0)),
    ]
    await agent.send(upsert(workload(1), pods=pods), now=START)
    (stored,) = await listed(db)
    assert (stored.allocated.gpus, stored.allocated.cpu_cores) == (None, 2.0)
    assert stored.workloads[0].gpus is None


async def test_nodes_of_one_name_in_two_clusters_hold_their_own(db: Database, agent: Agent) -> None:
    other = await connected_agent(db, START, number=2)
    for number, each in enumerate((agent, other), 1):
        await each.send_nodes(all_nodes(node("a")), START)
        pods = [pod(number, node_name="a", allocated_resources=held(float(number)))]
        await each.send(upsert(workload(number), pods=pods), now=START)
    stored = {each.cluster_uuid: each.allocated.gpus for each in await listed(db)}
    assert stored == {agent.identity.cluster_id: 1.0, other.identity.cluster_id: 2.0}
    assert await names(db, cluster_id=other.identity.cluster_id) == ["a"]
    assert await cluster_delete(db, SCOPE, other.identity.cluster_id, START)
    assert await node_count(db, SCOPE, NodeQuery(), START) == 1


async def test_who_sees_a_project_sees_its_share_alone(db: Database, agent: Agent) -> None:
    taint = NodeTaint(key="dedicated", effect="NoSchedule", value="speech")
    await agent.send_nodes(all_nodes(node("a", taints=(taint,)), node("b")), START)
    for number, (project, name) in enumerate(
        [("vision", "a"), ("speech", "a"), ("speech", "b")], 1
    ):
        made = record(workload(number, project_name=project))
        pods = [pod(number, node_name=name, allocated_resources=held(float(number)))]
        await agent.send(upsert(made, pods=pods), now=START)
    async with db.acquire(1) as connection:
        project_id = await connection.fetchval("SELECT id FROM project WHERE name = 'vision'")
    scope = Scope(1, project_ids=frozenset({project_id}))
    (stored,) = await listed(db, scope)
    assert (stored.name, stored.is_partial, stored.allocated.gpus) == ("a", True, 1.0)
    assert [each.project_name for each in stored.workloads] == ["vision"]
    assert stored.taints == ()
    assert "kubelet" not in msgspec.json.encode(stored).decode()
    assert await node_count(db, scope, NodeQuery(), START) == 1
    assert await listed(db, Scope(1)) == []


async def test_devices_name_the_workloads_that_hold_them_within_the_scope(
    db: Database, agent: Agent
) -> None:
    """To who sees a project only the own devices, without the other workload that shares one of them."""
    first, second, gone = (DeviceWorkload(id=UUID(int=number)) for number in (1, 2, 3))
    devices = (
        NodeDevice(id="GPU-a", index="0", is_idle=True, workloads=(first,)),
        NodeDevice(id="GPU-b", index="1", workloads=(first, second)),
        NodeDevice(id="GPU-c", index="2", is_idle=False, workloads=(second,)),
        NodeDevice(id="GPU-d", index="3", workloads=(gone,)),
        NodeDevice(id="GPU-e", index="4"),
    )
    await agent.send_nodes(all_nodes(node("a", devices=devices)), START)
    for number, project in ((1, "vision"), (2, "speech")):
        made = record(workload(number, name=f"w{number}", project_name=project))
        pods = [pod(number, node_name="a", allocated_resources=held(1.0))]
        await agent.send(upsert(made, pods=pods), now=START)

    def holders(answer: NodeResponse) -> dict[str, list[tuple[str | None, str | None]]]:
        return {
            each.id: [(workload.name, workload.project_name) for workload in each.workloads]
            for each in answer.devices
        }

    (whole,) = await listed(db)
    own, others = ("w1", "vision"), ("w2", "speech")
    assert holders(whole) == {
        "GPU-a": [own],
        "GPU-b": [own, others],
        "GPU-c": [others],
        "GPU-d": [],
        "GPU-e": [],
    }
    assert [each.is_idle for each in whole.devices] == [True, None, False, None, None]
    async with db.acquire(1) as connection:
        project_id = await connection.fetchval("SELECT id FROM project WHERE name = 'vision'")
    (part,) = await listed(db, Scope(1, project_ids=frozenset({project_id})))
    assert holders(part) == {"GPU-a": [own], "GPU-b": [own]}
    other = await connected_agent(db, START, number=2)
    await other.send_nodes(all_nodes(node("far", devices=devices[:1])), START)
    far = await listed(db, cluster_id=other.identity.cluster_id)
    assert holders(far[0]) == {"GPU-a": []}, "an id of another cluster's workload tells no name"


async def test_filters_order_search_and_pages(db: Database, agent: Agent) -> None:
    nodes = [
        node("b", status="NotReady", node_pool="h100"),
        node("a", gpu_info=None, node_pool="cpu"),
        node("C%", nv_link_domain_uid="d", nv_link_clique_id="1"),
    ]
    await agent.send_nodes(all_nodes(*nodes), START)
    for text, expected in [
        ("status==NotReady", ["b"]),
        ("nodePool=@100", ["C%", "b"]),
        ("gpuType!=x", ["C%", "a", "b"]),
        ("gpuType=^nvidia", ["C%", "b"]),
        ("nvLinkDomainUid==d,nvLinkCliqueId==1", ["C%"]),
        (f"clusterUuid=={agent.identity.cluster_id}", ["C%", "a", "b"]),
        ("name==a,name==b", ["a", "b"]),
    ]:
        assert await names(db, predicates=parse_node_filters([text])) == expected, text
    assert await names(db, sort_by="gpuType") == ["C%", "b", "a"]
    assert await names(db, sort_by="name", is_descending=True) == ["b", "a", "C%"]
    assert await names(db, search="c%") == ["C%"]
    assert await names(db, search="\0") == []
    page = await node_list(db, SCOPE, NodeQuery(limit=2), START)
    assert ([each.name for each in page.nodes], page.next_offset) == (["C%", "a"], 2)


async def test_a_node_says_how_old_what_is_reported_of_it_is(db: Database, agent: Agent) -> None:
    await agent.send_nodes(all_nodes(node()), START)
    for seconds, state in ((59, "connected"), (60, "degraded"), (300, "disconnected")):
        page = await node_list(db, SCOPE, NodeQuery(), START + timedelta(seconds=seconds))
        assert [(each.cluster_state, each.data_as_of) for each in page.nodes] == [(state, START)]


async def test_a_creation_that_no_column_holds_refuses_no_heartbeat(
    db: Database, agent: Agent
) -> None:
    before_the_first_year = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
    await agent.send_nodes(all_nodes(node("a", created_at=before_the_first_year)), START)
    assert await names(db) == ["a"]
    queue = SchedulerQueue(
        unit="project", key="q", name="q", scheduler="KAI", created_at=before_the_first_year
    )
    await agent.beat(START, queues=(queue,))
    async with db.acquire(1) as connection:
        assert await connection.fetchval("SELECT max(created_at) FROM project") > START
