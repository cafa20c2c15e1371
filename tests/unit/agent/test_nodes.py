"""Nodes as the agent tells them: what Kubernetes says of a node, in the contract's words."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.unit.agent.test_cache import Filled
from tests.unit.agent.test_capacity import GPU, bare, gpu, node, offered, taint_rule
from watchbill import background
from watchbill.agent.cache.nodes import NodeReports
from watchbill.cluster_node import MAX_NODE_BYTES, ClusterNode, GpuInfo, NodeTaint, node_bytes
from watchbill.kinds.objects.settings import DeriveSettings

SETTINGS = DeriveSettings(cluster_id=UUID(int=1))


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-20T08:00:00Z",
        "lastHeartbeatTime": "2026-11-23T12:00:00Z",
    }


def presented(made: dict[str, Any]) -> ClusterNode:
    filled = Filled()
    filled.put(made)
    (nodes,) = NodeReports(filled.cache.cluster, SETTINGS).current().values()
    return nodes.node


def test_a_node_is_reported_as_kubernetes_states_it() -> None:
    made = node(
        "gpu-7",
        {GPU: "8", "cpu": "96", "memory": "2Ti"},
        {GPU: "7", "cpu": "95500m", "memory": "2000Gi"},
        cordoned=True,
        product="NVIDIA-H100-80GB-HBM3",
        memory="81559",
        clique="a9e1d5c2-63f7-4f7c-9d7e-1f9b6a6d0c11.4",
    )
    made["metadata"] |= {
        "uid": "6ff0e2a2-1c52-4f0e-9d70-2f3a5f5b1a01",
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    made["metadata"]["labels"]["kai.scheduler/node-pool"] = "h100"
    made["spec"]["taints"] = [
        {"key": "dedicated", "value": "research", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "odd", "effect": "Sometimes"},
    ]
    made["status"]["conditions"] = [
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    nodes = presented(made)
    assert nodes.id == UUID("6ff0e2a2-1c52-4f0e-9d70-2f3a5f5b1a01")
    assert (nodes.name, nodes.status, nodes.node_pool) == ("gpu-7", "Ready", "h100")
    assert (nodes.is_cordoned, nodes.is_schedulable, nodes.is_in_default_pool) == (
        True,
        False,
        False,
    )
    assert nodes.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert nodes.gpu_info == GpuInfo(gpu_type="NVIDIA-H100-80GB-HBM3", gpu_count=8)
    assert (nodes.gpu_memory_bytes, nodes.gpu_sharing) == (81559 * 1024**2, None)
    assert (nodes.capacity.gpus, nodes.allocatable.gpus) == (8.0, 7.0)
    assert (nodes.capacity.cpu_cores, nodes.allocatable.cpu_cores) == (96.0, 95.5)
    assert nodes.capacity.cpu_memory_bytes == 2 * 1024**4
    assert nodes.nv_link_domain_uid == "a9e1d5c2-63f7-4f7c-9d7e-1f9b6a6d0c11"
    assert nodes.nv_link_clique_id == "4"
    assert nodes.taints == (
        NodeTaint(key="dedicated", effect="NoSchedule", value="research"),
        NodeTaint(key="node.kubernetes.io/unschedulable", effect="NoSchedule"),
    )
    assert [(each.type, each.status) for each in nodes.conditions] == [
        ("MemoryPressure", "False"),
        ("Ready", "True"),
    ]


@pytest.mark.parametrize(
    ("ready", "status"), [("True", "Ready"), ("False", "NotReady"), ("Unknown", "Unknown")]
)
def test_the_status_is_the_condition_ready(ready: str, status: str) -> None:
    assert presented(node("a", {}, ready=ready)).status == status


def test_a_node_without_conditions_labels_or_gpus() -> None:
    made = node("new", {"cpu": "4"})
    del made["status"]["conditions"]
    nodes = presented(made)
    assert (nodes.status, nodes.node_pool, nodes.is_in_default_pool) == ("Unknown", "default", True)
    assert (nodes.gpu_info, nodes.gpu_memory_bytes, nodes.capacity.gpus) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("labels", "resource", "sharing"),
    [
        ({"replicas": "4", "product": "Tesla-T4-SHARED"}, GPU, "time-slicing"),
        ({"replicas": "10", "sharing-strategy": "mps"}, f"{GPU}.shared", "mps"),
        ({}, "nvidia.com/mig-3g.20gb", "mig"),
        ({}, "nvidia.com/mig-1g.24gb", "mig"),  # of an unknown size
        ({}, "nvidia.com/mig-9x", "mig"),
        ({}, GPU, None),
    ],
)
def test_how_gpus_are_shared(labels: dict[str, str], resource: str, sharing: str | None) -> None:
    assert presented(node("a", {resource: "8"}, **labels)).gpu_sharing == sharing


def test_gpus_that_cannot_be_counted_are_not_known() -> None:
    nodes = presented(node("a", {f"{GPU}.shared": "4"}))
    assert (nodes.gpu_info, nodes.capacity.gpus, nodes.allocatable.gpus) == (None, None, None)


def test_a_heartbeat_of_the_kubelet_changes_nothing_and_a_condition_does() -> None:
    filled = Filled()
    made = node("a", {GPU: "8"})
    made["status"]["conditions"] = [condition("Ready", "True", "KubeletReady")]
    filled.put(made)
    nodes = NodeReports(filled.cache.cluster, SETTINGS)
    first = nodes.current()["a"]
    assert nodes.current()["a"] is first
    made["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-23T12:05:00Z"
    filled.put(made)
    assert nodes.current()["a"].hash == first.hash
    made["status"]["conditions"][0] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    filled.put(made)
    assert nodes.current()["a"].node.status == "Unknown"
    filled.remove(made)
    assert nodes.current() == {}


def test_devices_that_a_driver_offers_after_the_node_was_read_are_told() -> None:
    """Kubelets write their nodes every five minutes: slices are read after them, and change without."""
    filled = Filled()
    filled.put(bare("a"))
    nodes = NodeReports(filled.cache.cluster, SETTINGS)
    assert nodes.current()["a"].node.capacity.gpus == 0
    slice_, rule = offered("a", gpu(0, "GPU-0"), gpu(1, "GPU-1")), taint_rule(device="gpu-1")
    seen = []
    for change, obj in (
        (filled.put, slice_),
        (filled.put, rule),
        (filled.remove, rule),
        (filled.remove, slice_),
    ):
        change(obj)
        seen.append(nodes.current()["a"].node)
    assert [each.capacity.gpus for each in seen] == [2, 2, 2, 0]
    assert [each.allocatable.gpus for each in seen] == [2, 1, 2, 0]
    assert [each.gpu_info and each.gpu_info.gpu_type for each in seen] == [
        *["NVIDIA-H100-80GB-HBM3"] * 3,
        None,
    ]


async def test_nodes_are_presented_in_slices_before_they_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "SLICE_SECONDS", 0.0)
    filled = Filled()
    made = [node(name, {GPU: "8"}) for name in ("a", "b", "c")]
    filled.put(*made)
    nodes = NodeReports(filled.cache.cluster, SETTINGS)
    preparing = asyncio.create_task(nodes.prepare())
    await asyncio.sleep(0)
    assert not preparing.done(), "others have their turn after the first"
    filled.remove(made[1])
    await preparing
    first = nodes.current()
    assert list(first) == ["a", "c"]
    await nodes.prepare()
    assert all(nodes.current()[name] is each for name, each in first.items()), "nothing changed"


def test_hostile_names_and_messages_are_bounded() -> None:
    made = node("a", {GPU: "8"})
    made["metadata"]["labels"] |= {
        "kai.scheduler/node-pool": "p\0" * 5_000,
        f"{GPU}.product": "é" * 5_000,
    }
    made["status"]["conditions"] = [
        condition(f"C\0{n}" * 200, "True", "R" * 9_000, "password=hunter2 " + "ü" * 9_000)
        for n in range(500)
    ]
    made["spec"]["taints"] = [
        {"key": "k" * 9_000, "value": f"{n}" * 9_000, "effect": "NoExecute"} for n in range(500)
    ]
    nodes = presented(made)
    assert len(node_bytes(nodes)) <= MAX_NODE_BYTES
    assert "hunter2" not in str(nodes)
    assert "\0" not in nodes.node_pool
