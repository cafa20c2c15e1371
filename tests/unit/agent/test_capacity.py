"""Capacity of node pools: what new pods can have, and what is there and cannot be had."""

from typing import Any
from uuid import UUID

import pytest

from tests.unit.agent.test_cache import Filled, made
from watchbill.agent.cache.nodes import NodePools
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import AcceleratorCount, NodePoolCapacity, UnusableGpus

GPU = "nvidia.com/gpu"
SETTINGS = DeriveSettings(cluster_id=UUID(int=1))


def node(
    name: str,
    capacity: dict[str, str],
    allocatable: dict[str, str] | None = None,
    *,
    ready: str = "True",
    cordoned: bool = False,
    **labels: str,
) -> dict[str, Any]:
    status = {
        "capacity": capacity,
        "allocatable": capacity if allocatable is None else allocatable,
        "conditions": [{"type": "Ready", "status": ready}],
    }
    result = made("Node", name, namespace="", status=status)
    result["metadata"]["labels"] = {f"{GPU}.{key}": value for key, value in labels.items()}
    return result | {"spec": {"unschedulable": True} if cordoned else {}}


def pool(*nodes: dict[str, Any]) -> NodePoolCapacity:
    filled = Filled()
    for each in nodes:
        filled.put(each)
    (result,) = NodePools(filled.cache.cluster, SETTINGS).capacities()
    return result


def test_gpus_that_new_pods_cannot_have_are_distinguished() -> None:
    eight = {GPU: "8"}
    result = pool(
        node("a", eight),
        node("b", eight, {GPU: "7"}),
        node("c", eight, ready="Unknown"),
        node("d", eight, cordoned=True),
        node("e", {"amd.com/gpu": "8"}, {"amd.com/gpu": "6"}),
    )
    assert (result.nodes, result.gpus) == (5, 15)
    assert result.unusable_gpus == UnusableGpus(cordoned=8, unreachable=8, lost=1)
    assert result.accelerators == (AcceleratorCount(type="AMD GPU", usable=6, unusable=2),)


def test_five_physical_gpus_however_they_are_cut_read_five() -> None:
    result = pool(
        node("a", {GPU: "1"}),
        node("b", {GPU: "4"}, replicas="4", product="Tesla-T4-SHARED"),
        node("c", {f"{GPU}.shared": "10"}, **{"replicas": "10", "sharing-strategy": "mps"}),
        node("d", {GPU: "7"}, product="NVIDIA-H100-NVL-MIG-1g.12gb"),
        node("e", {GPU: "0", "nvidia.com/mig-3g.20gb": "2"}),
    )
    assert (result.gpus, result.unusable_gpus) == (5, None)


def test_cards_that_are_offered_several_times_over_count_once() -> None:
    card = "GPU-{},10,32768,100,NVIDIA-Tesla V100,0,true:"
    split = node("a", {GPU: "20"}, {GPU: "10"})
    split["metadata"]["annotations"] = {
        "hami.io/node-nvidia-register": card.format(1) + card.format(2)
    }
    odd = node("b", {"cpu": "8"})
    odd["metadata"]["annotations"] = None
    result = pool(split, odd)
    assert (result.gpus, result.gpu_memory_bytes) == (1, 32768 * 2**20)
    assert result.unusable_gpus == UnusableGpus(cordoned=0, unreachable=0, lost=1)


@pytest.mark.parametrize("count", ["-3", "1e50", "many", "9" * 30])
def test_a_node_whose_units_are_not_known_makes_its_pool_unknown_and_no_other(count: str) -> None:
    assert pool(node("a", {GPU: "8"}), node("b", {f"{GPU}.shared": "4"})).gpus is None
    impossible = pool(node("a", {GPU: "8"}), node("b", {GPU: count}))
    assert (impossible.nodes, impossible.gpus) == (2, 8.0), "it is told by name"
    assert pool(node("a", {GPU: "8"}), node("b", {"example.com/nic": count})).gpus == 8


def test_the_memory_of_slices_and_shared_gpus_is_that_of_the_cards() -> None:
    gib = 1024**3
    shared = node("a", {GPU: "4"}, replicas="4", product="Tesla-T4-SHARED", memory="16384")
    assert pool(shared).gpu_memory_bytes == 16 * gib
    single = node("a", {GPU: "7"}, product="NVIDIA-H100-NVL-MIG-1g.12gb", memory="11264")
    assert pool(single).gpu_memory_bytes == 7 * 11 * gib
