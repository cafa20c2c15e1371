"""What is kept of objects, and what of the cluster counts as a change."""

import json
import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.kubernetes.agent_objects import chain, made, pod
from tests.unit.agent.test_owner_tree import ListenerRecorder
from watchbill.agent.cache.cache import Cache, CacheSettings, ResourceSink, sink_for
from watchbill.agent.cache.node_pools import NodePools
from watchbill.agent.cache.watched_kinds import WatchedKind, WatchRole, root_kinds, watched_kinds
from watchbill.agent.kubernetes.client import ServedResource
from watchbill.agent.kubernetes.watch_stream import read_head
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import Heartbeat, NodePoolCapacity
from watchbill.store.ingest import messages

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEFINITIONS = load_definitions()
WANTED = {wanted.key: wanted for wanted in watched_kinds(DEFINITIONS)}


class Filled:
    """A cache, fed through the sinks as reflectors do."""

    def __init__(self) -> None:
        self.listener = ListenerRecorder()
        settings = CacheSettings(
            excluded_namespaces=frozenset({"kube-system"}),
            pod_annotations=frozenset(),
            root_kinds=root_kinds(DEFINITIONS),
            exporter_namespaces=frozenset({"gpu-operator"}),
        )
        self.cache = Cache(settings, self.listener)
        self._sinks: dict[GroupKind, ResourceSink] = {}

    def put(self, *objs: dict[str, Any]) -> None:
        for obj in objs:
            body = json.dumps(obj).encode()
            self.sink(obj).put(read_head(body), body)

    def remove(self, obj: dict[str, Any]) -> None:
        self.sink(obj).remove(obj["metadata"]["uid"], NOW)

    def touched_by(self, *objs: dict[str, Any]) -> set[str]:
        self.listener.changed.clear()
        self.put(*objs)
        return set(self.listener.changed)

    def sink(self, obj: dict[str, Any]) -> ResourceSink:
        group, _, version = obj["apiVersion"].rpartition("/")
        key = GroupKind(group, obj["kind"])
        if key not in self._sinks:
            resource = ServedResource(group, version, obj["kind"], obj["kind"].lower() + "s")
            wanted = WANTED.get(key) or WatchedKind(key, WatchRole.OWNER)
            self._sinks[key] = sink_for(wanted, resource, self.cache, lambda: None)
        return self._sinks[key]


def root_uid(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["uid"])


def test_owners_are_kept_without_what_nobody_reads() -> None:
    filled = Filled()
    root, middle, member = chain()
    root["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "s3cret",
        "a": "b",
    }
    filled.put(root, middle, member)
    gathered = filled.cache.gather(root_uid(root))
    kept = json.dumps(gathered.root)
    assert "managedFields" not in kept
    assert "s3cret" not in kept
    assert gathered.root["metadata"]["annotations"] == {"a": "b"}
    assert gathered.root["spec"] == root["spec"]
    (between,) = gathered.children
    assert "spec" not in between, "of an owned ReplicaSet the chain is all that counts"
    assert [pod.name for pod in gathered.pods] == [member["metadata"]["name"]]


def test_list_items_get_their_kind() -> None:
    filled = Filled()
    root, *_ = chain()
    filled.put(root)
    body = json.dumps({k: v for k, v in root.items() if k not in ("kind", "apiVersion")}).encode()
    filled.sink(root).put(read_head(body), body)
    gathered = filled.cache.gather(root_uid(root))
    assert (gathered.root["apiVersion"], gathered.root["kind"]) == ("apps/v1", "Deployment")


def test_a_bare_pod_is_a_whole_root() -> None:
    filled = Filled()
    single = pod("single")
    filled.put(single)
    gathered = filled.cache.gather(root_uid(single))
    assert gathered.root["spec"] == single["spec"]
    assert len(gathered.pods) == 1
    filled.remove(single)
    assert not filled.cache._bare
    assert not filled.cache.owner_tree.groups


def test_a_pod_update_that_changes_nothing_touches_nobody() -> None:
    filled = Filled()
    objs = chain()
    filled.put(*objs)
    member = json.loads(json.dumps(objs[2]))
    member["metadata"]["resourceVersion"] = "999"
    assert filled.touched_by(member) == set()
    member["status"]["phase"] = "Failed"
    assert filled.touched_by(member) == {root_uid(objs[0])}


def test_a_gone_root_is_flagged_until_its_pods_are_gone() -> None:
    filled = Filled()
    root, middle, member = chain()
    filled.put(root, middle, member)
    filled.remove(root)
    filled.remove(middle)
    gathered = filled.cache.gather(root_uid(root))
    assert gathered.is_root_gone
    assert gathered.root["metadata"]["name"] == "web"
    filled.remove(member)
    assert filled.listener.deleted == [root_uid(root)]


def test_a_root_is_listed_only_once_its_kind_is() -> None:
    filled = Filled()
    root, *_ = chain()
    filled.put(root)
    assert not filled.cache.gather(root_uid(root)).is_root_listed
    filled.listener.changed.clear()
    filled.cache.mark_listed(GroupKind("apps", "Deployment"))
    assert filled.listener.changed == {root_uid(root)}
    assert filled.cache.gather(root_uid(root)).is_root_listed


def test_pods_may_be_between() -> None:
    """Workers of a group belong to a set that the leader pod owns."""
    filled = Filled()
    root = made("StatefulSet", "leaders", group="apps", spec={})
    leader = pod("leaders-0", root)
    workers = made("StatefulSet", "leaders-0", leader, group="apps", spec={})
    worker = pod("leaders-0-1", workers)
    filled.put(worker, workers, leader, root)
    gathered = filled.cache.gather(root_uid(root))
    assert {pod.name for pod in gathered.pods} == {"leaders-0", "leaders-0-1"}
    assert [child["metadata"]["name"] for child in gathered.children] == ["leaders-0"]


def test_excluded_namespaces_and_reservations_never_come_in() -> None:
    filled = Filled()
    reserving = pod("reserving", namespace="kai-resource-reservation")
    filled.put(pod("hidden", namespace="kube-system"), reserving)
    filled.remove(reserving)
    reserving["metadata"]["annotations"] = {"run.ai/reserve_for_gpu_index": "GPU-1"}
    filled.put(reserving)
    assert not filled.cache.owner_tree.entries


def test_a_pod_that_calls_itself_a_reservation_is_not_hidden() -> None:
    filled = Filled()
    claiming = pod("claiming")
    claiming["metadata"]["annotations"] = {"run.ai/reserve_for_gpu_index": "GPU-1"}
    filled.put(claiming)
    assert filled.cache.is_alive(root_uid(claiming))
    assert not filled.cache.targets.reservations


def test_services_are_gathered_by_selector_and_touch_whom_they_select() -> None:
    filled = Filled()
    here, there = pod("here"), pod("there", namespace="other")
    for each in (here, there):
        each["metadata"]["labels"] = {"app": "web"}
    filled.put(pod("unlabelled"))
    filled.put(here, there)
    service = made("Service", "svc", spec={"selector": {"app": "web"}})
    assert filled.touched_by(service) == {root_uid(here)}
    assert filled.touched_by(service) == set(), "nothing changed"
    assert len(filled.cache.gather(root_uid(here)).services) == 1
    assert not filled.cache.gather(root_uid(there)).services
    filled.remove(service)
    assert not filled.cache.gather(root_uid(here)).services


def test_an_autoscaler_counts_by_its_bounds() -> None:
    filled = Filled()
    root, *_ = chain()
    filled.put(root)
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    scaler = made("HorizontalPodAutoscaler", "h", spec=target, group="autoscaling/v2")
    assert filled.touched_by(scaler) == {root_uid(root)}
    scaler["status"] = {"currentReplicas": 2}
    assert filled.touched_by(scaler) == set()
    (result,) = filled.cache.gather(root_uid(root)).autoscalers
    assert result["spec"] == target
    other = made(
        "HorizontalPodAutoscaler",
        "other",
        spec={"scaleTargetRef": {"name": "else"}},
        group="autoscaling/v2",
    )
    filled.put(other)
    assert len(filled.cache.gather(root_uid(root)).autoscalers) == 1


@pytest.mark.parametrize("is_owned", [True, False])
def test_pod_groups_join_by_owner_or_by_the_pods_word(is_owned: bool) -> None:
    filled = Filled()
    root = made("Job", "train", group="batch", spec={})
    member = pod("train-1", root)
    member["metadata"]["annotations"] = {"pod-group-name": "pg"}
    other = pod("other")
    filled.put(root, member, other)
    group = made("PodGroup", "pg", root if is_owned else None, group="scheduling.run.ai/v2alpha2")
    assert filled.touched_by(group) == {root_uid(root)}
    assert len(filled.cache.gather(root_uid(root)).pod_groups) == 1
    assert not filled.cache.gather(root_uid(other)).pod_groups
    filled.remove(group)
    assert not filled.cache.gather(root_uid(root)).pod_groups


def test_kueue_workloads_join_by_owner() -> None:
    filled = Filled()
    root = made("Job", "train", group="batch", spec={})
    filled.put(root)
    workload = made("Workload", "job-train", root, group="kueue.x-k8s.io/v1beta1", status={"a": 1})
    assert filled.touched_by(workload) == {root_uid(root)}
    (result,) = filled.cache.gather(root_uid(root)).queue_workloads
    assert result["status"] == {"a": 1}


def test_the_newest_failed_creation_is_kept() -> None:
    filled = Filled()
    root = made("Job", "train", group="batch", spec={})
    filled.put(root)
    for number in (1, 2):
        event = made("Event", f"e{number}", reason="FailedCreate", message=f"no {number}")
        event["involvedObject"] = {"uid": root_uid(root)}
        assert filled.touched_by(event) == {root_uid(root)}
    (result,) = filled.cache.gather(root_uid(root)).scheduling_events
    assert result["message"] == "no 2"
    filled.remove(event)
    assert not filled.cache.gather(root_uid(root)).scheduling_events


def test_a_queues_status_touches_nobody_and_its_parent_everyone() -> None:
    filled = Filled()
    single = pod("single")
    filled.put(single)
    queue = made("Queue", "team", group="scheduling.run.ai/v2", spec={"parentQueue": "a"})
    queue["metadata"]["namespace"] = ""
    assert filled.touched_by(queue) == {root_uid(single)}
    queue["status"] = {"allocated": {"gpu": 3}}
    queue["metadata"]["resourceVersion"] = "9"
    assert filled.touched_by(queue) == set()
    assert filled.cache.cluster.queues["team"]["status"] == queue["status"]
    queue["spec"]["parentQueue"] = "b"
    assert filled.touched_by(queue) == {root_uid(single)}


def test_a_nodes_labels_touch_the_workloads_on_it() -> None:
    filled = Filled()
    on, off = pod("on"), pod("off")
    off["spec"]["nodeName"] = "node-2"
    filled.put(on, off)
    node = made("Node", "node-1", namespace="", status={"allocatable": {"nvidia.com/gpu": "4"}})
    node["metadata"]["labels"] = {"kai.scheduler/node-pool": "p"}
    assert filled.touched_by(node) == {root_uid(on)}
    node["status"]["conditions"] = [{"type": "Ready"}]
    assert filled.touched_by(node) == set()
    assert filled.cache.cluster.objects.node_labels["node-1"] == node["metadata"]["labels"]
    filled.remove(node)
    assert not filled.cache.cluster.node_labels


def test_nodes_take_work_in_proportion_to_their_own_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not nodes times pods: 50,000 pods on 1,500 nodes once took three minutes at the start."""
    filled = Filled()
    pods = [pod(f"p-{number}") for number in range(200)]
    for number, obj in enumerate(pods):
        obj["spec"]["nodeName"] = f"node-{number % 50}"
    filled.put(*pods)
    calls: list[str] = []
    monkeypatch.setattr(filled.listener, "on_change", calls.append)
    monkeypatch.setattr(filled.cache.owner_tree, "pods", None)
    for number in range(50):
        filled.put(made("Node", f"node-{number}", namespace="", status={"allocatable": {}}))
    assert sorted(calls) == sorted(map(root_uid, pods))
    calls.clear()
    filled.remove(pods[0])
    moved = pods[1] | {"spec": pods[1]["spec"] | {"nodeName": "node-0"}}
    filled.put(moved)
    calls.clear()
    node = made("Node", "node-0", namespace="", status={"allocatable": {}})
    node["metadata"]["labels"] = {"a": "b"}
    filled.put(node)
    assert sorted(calls) == sorted(map(root_uid, [moved, *pods[50::50]]))


def offered(gpus: str) -> dict[str, object]:
    units = {"nvidia.com/gpu": gpus}
    return {"capacity": units, "allocatable": units}


@pytest.mark.parametrize(
    ("gpus", "mebibytes"),
    [
        ("9223372036854775807", "81920"),
        ("10001", "81920"),
        ("9" * 5_000, None),
        ("8", "9" * 63),
        ("8", str(2**24 + 1)),
    ],
)
def test_a_node_that_states_what_cannot_be_counts_without_it_and_is_named(
    gpus: str, mebibytes: str | None
) -> None:
    """One such node made every heartbeat of the agent impossible, and with it the agent."""
    filled = Filled()
    settings = DeriveSettings(cluster_id=UUID(int=1))
    for name, stated, memory in (("bad", gpus, mebibytes), ("good", "8", "81920")):
        node = made("Node", name, namespace="", status=offered(stated))
        node["metadata"]["labels"] = {"nvidia.com/gpu.memory": memory} if memory else {}
        filled.put(node)
    [pool] = NodePools(filled.cache.cluster, settings).capacities()
    assert (pool.nodes, pool.gpus) == (2, 8.0)
    assert pool.gpu_memory_bytes == 8 * 81920 * 1024 * 1024
    message = NodePools(filled.cache.cluster, settings).impossible()
    assert message == "1 nodes state impossible GPUs, which are not counted: bad"
    assert messages.decode_heartbeat(
        msgspec.json.encode(Heartbeat(stream_id="x", seq=0, node_pools=(pool,)))
    ).beat.node_pools == (pool,)


def test_capacity_follows_every_change_of_a_node() -> None:
    filled, settings = Filled(), DeriveSettings(cluster_id=UUID(int=1))
    kept, draw = NodePools(filled.cache.cluster, settings), random.Random(13)
    for _ in range(200):
        node = made("Node", f"n{draw.randrange(6)}", namespace="")
        node["metadata"]["labels"] = {"kai.scheduler/node-pool": draw.choice("ab")}
        node["spec"] = {"unschedulable": draw.random() < 0.3}
        node["status"] = offered(draw.choice(("0", "4", "8", "1e50")))
        (filled.put if draw.random() < 0.8 else filled.remove)(node)
        anew = NodePools(filled.cache.cluster, settings)
        assert kept.capacities() == anew.capacities()
        assert kept.impossible() == anew.impossible()


def test_pools_of_many_large_nodes_fit_a_heartbeat() -> None:
    filled = Filled()
    for number in range(120):
        node = made("Node", f"n{number}", namespace="", status=offered("10000"))
        node["metadata"]["labels"] = {"nvidia.com/gpu.memory": str(2**24)}
        filled.put(node)
    settings = DeriveSettings(cluster_id=UUID(int=1))
    beat = Heartbeat(
        stream_id="x", seq=0, node_pools=NodePools(filled.cache.cluster, settings).capacities()
    )
    assert msgspec.json.decode(msgspec.json.encode(beat), type=Heartbeat) == beat
    assert NodePools(filled.cache.cluster, settings).impossible() is None


def test_a_name_that_is_used_again_belongs_to_the_newer_object() -> None:
    filled = Filled()
    first, second = (made("Queue", "q", group="scheduling.run.ai/v2", namespace="") for _ in "ab")
    second["metadata"]["uid"] = "another"
    filled.put(first, second)
    filled.remove(first)
    assert list(filled.cache.cluster.queues) == ["q"]
    filled.remove(second)
    assert not filled.cache.cluster.queues


def test_capacity_by_node_pool() -> None:
    filled = Filled()
    for name, pool, gpus, memory in (
        ("a", "p", "8", "81920"),
        ("b", "p", "8", None),
        ("c", None, "4", "16384"),
        ("d", "cpu", "0", None),
    ):
        node = made("Node", name, namespace="", status={"allocatable": {"nvidia.com/gpu": gpus}})
        labels = {"kai.scheduler/node-pool": pool, "nvidia.com/gpu.memory": memory}
        node["metadata"]["labels"] = {k: v for k, v in labels.items() if v}
        filled.put(node)
    slices = {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-3g.40gb": "2"}
    node = made("Node", "e", namespace="", status={"allocatable": slices | {"memory": "1Ti"}})
    filled.put(
        node | {"metadata": node["metadata"] | {"labels": {"kai.scheduler/node-pool": "mig"}}}
    )
    settings = DeriveSettings(cluster_id=UUID(int=1))
    assert NodePools(filled.cache.cluster, settings).capacities() == (
        NodePoolCapacity(node_pool="cpu", nodes=1, gpus=0.0),
        NodePoolCapacity(
            node_pool="default", nodes=1, gpus=4.0, gpu_memory_bytes=4 * 16384 * 1024 * 1024
        ),
        NodePoolCapacity(node_pool="mig", nodes=1, gpus=4.0),
        NodePoolCapacity(node_pool="p", nodes=2, gpus=16.0),
    )


def test_objects_of_any_shape_are_taken_or_turned_down_as_a_whole() -> None:
    filled = Filled()
    for body in (
        b'{"metadata":{"uid":"u1","name":"n"},"spec":[],"status":7}',
        b'{"metadata":{"uid":"u2","name":"n","ownerReferences":{"a":1},"labels":[]}}',
        b'{"metadata":{"uid":"u3","name":"n","ownerReferences":[{"uid":5},null,"x"]}}',
    ):
        for kind, group in (("Pod", ""), ("Deployment", "apps")):
            obj = made(kind, "x", group=group)
            filled.sink(obj).put(read_head(body), body)
    with pytest.raises(msgspec.DecodeError):
        filled.sink(pod("x")).put(read_head(b"{}"), b"[]")
