"""Devices that belong to no single node: those that pods hold are where these pods are."""

from typing import Any

import pytest

from tests.unit.agent.test_cache import Filled
from tests.unit.agent.test_capacity import SETTINGS, gpu, in_pool, mig, offered, selecting
from tests.unit.agent.test_related import claiming, resource_claim
from watchbill.agent.cache.node_pools import NodePools
from watchbill.agent.cache.nodes import NodeReports
from watchbill.protocol import AcceleratorCount

Json = dict[str, Any]
FABRIC: Json = {"nodeName": "", "pool": {"name": "fabric"}, "allNodes": True}
GIB = 1024**3


def cluster(*devices: Json, **parts: Any) -> Filled:
    """Nodes a and b in the node pool x, c in y; all can use devices of the pool fabric."""
    filled = Filled()
    filled.put(in_pool("a", "x"), in_pool("b", "x"), in_pool("c", "y"))
    filled.put(offered("a", *devices, **FABRIC | parts))
    return filled


def on(node: str, name: str, *claims: str, **more: Any) -> Json:
    pod = claiming(name, *claims, **more)
    pod["spec"]["nodeName"] = node
    return pod


def given(name: str, devices: list[str], *pods: Json, driver: str = "gpu.nvidia.com") -> Json:
    """A claim that was given devices of the pool fabric, reserved for pods."""
    results = [
        {"request": "gpus", "driver": driver, "pool": "fabric", "device": device}
        for device in devices
    ]
    claim = resource_claim(name, *pods)
    claim["status"]["allocation"] = {"devices": {"results": results}}
    return claim


def pools(filled: Filled) -> list[float | None]:
    return [each.gpus for each in NodePools(filled.cache.cluster, SETTINGS).capacities()]


def nodes(filled: Filled) -> list[float | None]:
    reports = NodeReports(filled.cache.cluster, SETTINGS).current()
    return [each.node.capacity.gpus for each in reports.values()]


@pytest.mark.parametrize(
    ("holding", "by_pool", "by_node"),
    [
        ([], [None, None], [0, 0, 0]),
        ([("a", ["gpu-0", "gpu-1"]), ("c", ["gpu-2"])], [2, 1], [2, 0, 1]),
        ([("a", ["gpu-0"]), ("b", ["gpu-1"]), ("c", ["gpu-2"])], [2, 1], [1, 1, 1]),
        # One is free: it may go to a node of either pool.
        ([("a", ["gpu-0", "gpu-1"])], [None, None], [2, 0, 0]),
        # Of no slice that is there.
        ([("a", ["gpu-9"])], [None, None], [0, 0, 0]),
    ],
)
def test_held_devices_count_where_the_pods_are(
    holding: list[tuple[str, list[str]]], by_pool: list[float | None], by_node: list[float | None]
) -> None:
    filled = cluster(*(gpu(number, f"GPU-{number}") for number in range(3)))
    for number, (node, devices) in enumerate(holding):
        pod = on(node, f"pod-{number}", f"claim-{number}")
        filled.put(pod, given(f"claim-{number}", devices, pod))
    assert pools(filled) == by_pool
    assert nodes(filled) == by_node


def test_what_is_held_changes_with_its_pods() -> None:
    filled = cluster(gpu(0, "GPU-0"), mig("gpu-0-mig-1g10gb-19-2", "GPU-0", "1g.10gb"))
    pod = on("c", "pod", "claim")
    reports, capacity = (
        NodeReports(filled.cache.cluster, SETTINGS),
        NodePools(filled.cache.cluster, SETTINGS),
    )

    def counts() -> tuple[list[float | None], list[float | None]]:
        return (
            [each.gpus for each in capacity.capacities()],
            [each.node.capacity.gpus for each in reports.current().values()],
        )

    waits = pod | {"spec": pod["spec"] | {"nodeName": ""}}
    filled.put(waits, given("claim", ["gpu-0-mig-1g10gb-19-2"], pod))
    assert counts() == ([None, None], [0, 0, 0]), "no node has it yet"
    filled.put(pod)
    assert counts() == ([0, 1], [0, 0, 1]), "a slice of it is held: it is there"
    filled.put(pod | {"status": {"phase": "Succeeded"}})
    assert counts() == ([None, None], [0, 0, 0])
    filled.put(pod)
    assert counts() == ([0, 1], [0, 0, 1])
    filled.put(given("claim", [], pod))
    assert counts() == ([None, None], [0, 0, 0])
    filled.put(given("claim", ["gpu-0"], pod))
    filled.remove(given("claim", ["gpu-0"], pod))
    assert counts() == ([None, None], [0, 0, 0])
    assert not filled.cache.related._given._claims


def test_a_device_that_pods_on_several_nodes_share_is_in_a_node_pool_and_on_no_node() -> None:
    first, second, third = (on(node, f"pod-{node}", "claim") for node in "abc")
    filled = cluster(gpu(0, "GPU-0"))
    filled.put(first, second, third, given("claim", ["gpu-0"], first, second))
    assert pools(filled) == [1, 0]
    assert nodes(filled) == [None, None, 0]
    filled.put(given("claim", ["gpu-0"], first, second, third))
    assert pools(filled) == [None, None]


def test_pods_of_another_namespace_hold_nothing_through_a_claim() -> None:
    filled = cluster(gpu(0, "GPU-0"))
    elsewhere = on("a", "pod", "claim", namespace="other")
    filled.put(elsewhere, given("claim", ["gpu-0"], elsewhere))
    assert (pools(filled), nodes(filled)) == ([None, None], [0, 0, 0])


def test_a_pod_holds_what_a_claim_was_given_for_its_extended_resources() -> None:
    """It does not name the claim that the scheduler makes for these, which is reserved for it."""
    filled = cluster(gpu(0, "GPU-0"))
    pod = on("c", "pod")
    filled.put(pod, given("pod-extended-resources", ["gpu-0"], pod))
    assert (pools(filled), nodes(filled)) == ([0, 1], [0, 0, 1])


def test_what_keeps_pods_from_a_node_or_a_device_keeps_them_from_what_is_held() -> None:
    tainted = gpu(1, "GPU-1") | {"taints": [{"key": "broken", "effect": "NoSchedule"}]}
    filled = cluster(gpu(0, "GPU-0"), tainted)
    cordoned = in_pool("c", "y") | {"spec": {"unschedulable": True}}
    cordoned["metadata"]["uid"] = filled.cache.cluster.node_details["c"].uid
    first, second = on("c", "first", "one"), on("a", "second", "two")
    filled.put(cordoned, first, second)
    filled.put(given("one", ["gpu-0"], first), given("two", ["gpu-1"], second))
    x, y = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert (x.gpus, x.unusable_gpus and x.unusable_gpus.lost) == (0, 1)
    assert (y.gpus, y.unusable_gpus and y.unusable_gpus.cordoned) == (0, 1)
    reports = NodeReports(filled.cache.cluster, SETTINGS).current()
    assert (reports["a"].node.capacity.gpus, reports["a"].node.allocatable.gpus) == (1, 0)


def test_a_node_that_has_no_gpus_of_its_own_tells_those_that_its_pods_hold() -> None:
    filled = cluster(gpu(0, "GPU-0"))
    pod = on("c", "pod", "claim")
    filled.put(pod, given("claim", ["gpu-0"], pod))
    node = NodeReports(filled.cache.cluster, SETTINGS).current()["c"].node
    assert node.gpu_info is not None
    assert (node.gpu_info.gpu_count, node.gpu_info.gpu_type) == (1, "NVIDIA-H100-80GB-HBM3")
    assert node.gpu_memory_bytes == 80 * GIB
    _, y = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert y.gpu_memory_bytes == 80 * GIB


def test_where_one_pool_of_nodes_alone_can_use_devices_they_count_there_held_or_not() -> None:
    gpus = [gpu(number, f"GPU-{number}") for number in range(3)]
    near = selecting("matchExpressions", "rack", "a", "b")
    filled = cluster(*gpus, **near | {"allNodes": None})
    pod = on("b", "pod", "claim")
    filled.put(pod, given("claim", ["gpu-0"], pod))
    assert (pools(filled), nodes(filled)) == ([3, 0], [0, 1, 0])


def test_other_accelerators_that_pods_hold_are_in_the_node_pool_of_their_node() -> None:
    chips = [{"name": f"tpu-{number}", "attributes": {}} for number in range(2)]
    filled = cluster(*chips, driver="tpu.google.com")
    pod = on("c", "pod", "claim")
    filled.put(pod, given("claim", ["tpu-0"], pod, driver="tpu.google.com"))
    x, y = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert x.accelerators == ()
    assert y.accelerators == (AcceleratorCount(type="TPU", usable=1, unusable=0),)


def test_the_pods_of_a_claim_are_looked_up_once_for_all_its_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A claim has two lists that its author fills: what it is reserved for, and what it was given."""
    filled = cluster(*(gpu(number, f"GPU-{number}") for number in range(30)))
    pods = [on("a", f"pod-{number}", "claim") for number in range(3)]
    filled.put(*pods, given("claim", [f"gpu-{number}" for number in range(30)], *pods))
    looked_up: list[str] = []
    nodes_of = filled.cache.cluster.holders.nodes

    def counted(claim: str) -> frozenset[str]:
        looked_up.append(claim)
        return nodes_of(claim)

    holders = filled.cache.cluster.holders._replace(nodes=counted)
    monkeypatch.setattr(filled.cache.cluster, "holders", holders)
    assert pools(filled) == [30, 0]
    assert len(looked_up) == 1
