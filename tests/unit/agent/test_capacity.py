"""Capacity of node pools: what new pods can have, and what is there and cannot be had."""

from typing import Any
from uuid import UUID

import pytest

from tests.unit.agent.test_cache import Filled, made
from watchbill.agent.cache.node_pools import NodePools
from watchbill.agent.cache.watched_kinds import DEVICE_ROLES, WatchRole
from watchbill.kinds.objects.device_slices import MAX_DEVICES, MAX_SLICES
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


def offered(node: str, *devices: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A ResourceSlice of NVIDIA's driver."""
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1} | spec.pop("pool", {})
    own = {"driver": "gpu.nvidia.com", "nodeName": node, "pool": pool, "devices": list(devices)}
    name = f"{node}-{pool['generation']}-{spec.pop('suffix', 'x')}"
    return made("ResourceSlice", name, group="resource.k8s.io/v1", namespace="", spec=own | spec)


def device(name: str, **attributes: str) -> dict[str, Any]:
    words = {key: {"string": value} for key, value in attributes.items()}
    memory = {} if attributes["type"] == "mig" else {"memory": {"value": "81920Mi"}}
    return {"name": name, "attributes": words, "capacity": memory}


def gpu(number: int, uuid: str) -> dict[str, Any]:
    return device(f"gpu-{number}", type="gpu", uuid=uuid, productName="NVIDIA H100 80GB HBM3")


def mig(name: str, parent: str, profile: str = "3g.40gb") -> dict[str, Any]:
    own = {"type": "mig", "uuid": f"MIG-{name}", "parentUUID": parent, "profile": profile}
    return device(name, **own, productName="NVIDIA H100 80GB HBM3")


def bare(name: str, **more: Any) -> dict[str, Any]:
    """A node whose kubelet counts no GPUs."""
    return node(name, {"cpu": "64"}, **more)


def test_five_physical_gpus_of_drivers_read_five_in_whatever_forms_they_are_offered() -> None:
    shared = gpu(0, "GPU-d") | {"allowMultipleAllocations": True}
    result = pool(
        *(bare(name) for name in "abcd"),
        offered("a", gpu(0, "GPU-a0"), gpu(1, "GPU-a1")),
        offered("b", mig("gpu-0-mig-9-0-4", "GPU-b"), mig("gpu-0-mig-9-4-4", "GPU-b")),
        offered("c", gpu(0, "GPU-c"), *(mig(f"gpu-0-mig-1g10gb-19-{n}", "GPU-c") for n in "0123")),
        offered("d", shared),
    )
    assert (result.nodes, result.gpus, result.unusable_gpus) == (4, 5, None)


def test_what_a_driver_offers_and_a_kubelet_counts_is_the_same() -> None:
    result = pool(node("a", {GPU: "2"}), offered("a", gpu(0, "GPU-0"), gpu(1, "GPU-1")))
    assert result.gpus == 2


def test_gpus_of_drivers_bring_their_memory_and_those_with_a_taint_are_lost() -> None:
    broken = gpu(1, "GPU-1") | {"taints": [{"key": "xid", "effect": "NoExecute"}]}
    result = pool(bare("a"), offered("a", gpu(0, "GPU-0"), broken))
    assert (result.gpus, result.gpu_memory_bytes) == (1, 80 * 1024**3)
    assert result.unusable_gpus == UnusableGpus(cordoned=0, unreachable=0, lost=1)


def test_a_pool_that_is_told_in_part_is_not_known_and_its_last_generation_counts() -> None:
    half = offered("a", gpu(0, "GPU-0"), pool={"resourceSliceCount": 2})
    assert pool(bare("a"), half).gpus is None
    rest = offered("a", gpu(1, "GPU-1"), pool={"resourceSliceCount": 2}, suffix="y")
    assert pool(bare("a"), half, rest).gpus == 2
    newer = offered("a", gpu(0, "GPU-0"), pool={"generation": 2})
    assert pool(bare("a"), half, rest, newer).gpus == 1
    nameless = device("gpu-0", type="gpu", productName="NVIDIA L4")
    assert pool(bare("a"), offered("a", nameless)).gpus is None


def test_a_driver_says_nothing_of_the_gpus_of_another_node() -> None:
    """As the scheduler has it: of a pool's name only slices of the node count, if these are the whole pool."""
    own = offered("b", gpu(0, "GPU-b"), mig("own-name", "GPU-b"))
    for claimed in (
        {"name": "b", "generation": 10**18},
        {"name": "b", "resourceSliceCount": 10**9},
        {"name": "b"},
    ):
        filled = Filled()
        foreign = mig("own-name", "GPU-a", "1g.10gb")
        objects = (bare("b"), own, offered("a", foreign, pool=claimed, suffix="z"))
        for each in objects:
            filled.put(each)
        (counted,) = NodePools(filled.cache.cluster, SETTINGS).capacities()
        assert counted.gpus == 1
        profiles = filled.cache.cluster.device_profiles["gpu.nvidia.com", "b"]
        assert profiles == {"own-name": "3g.40gb"}


def test_slices_of_a_pool_of_two_nodes_are_counted_together() -> None:
    shared = {"name": "rack", "resourceSliceCount": 2}
    nodes = (bare("a"), bare("b"))
    first, second = (offered(name, gpu(0, f"GPU-{name}"), pool=shared) for name in "ab")
    assert pool(*nodes, first).gpus is None
    assert pool(*nodes, first, second).gpus == 2
    replaced = offered("b", gpu(0, "GPU-b"), pool={"name": "rack", "generation": 2})
    assert pool(*nodes, first, replaced).gpus == 1, "the next generation has nothing on a"


def test_of_a_node_with_hundreds_of_slices_nothing_is_known() -> None:
    slices = [
        offered("a", gpu(0, f"GPU-{number}"), pool={"name": f"p{number}"}, suffix=f"{number}")
        for number in range(MAX_SLICES + 1)
    ]
    assert pool(bare("a"), *slices[1:]).gpus == MAX_SLICES
    assert pool(bare("a"), *slices).gpus is None


def test_of_a_node_with_thousands_of_devices_nothing_is_known() -> None:
    """Each change of one slice sums up all devices of the node."""
    slices = [
        offered("a", *(gpu(n, f"GPU-{pool_}-{n}") for n in range(128)), pool={"name": pool_})
        for pool_ in map(str, range(MAX_DEVICES // 128))
    ]
    more = offered("a", gpu(0, "GPU-0"), pool={"name": "more"})
    assert pool(bare("a"), *slices).gpus == MAX_DEVICES
    assert pool(bare("a"), *slices, more).gpus is None


def test_only_nodes_whose_devices_changed_are_derived_again() -> None:
    """A driver that may write in a pool of all nodes could have everything derived again and again."""
    shared = {"name": "rack", "resourceSliceCount": 2}
    filled, changed = Filled(), []
    first, second = (offered(name, gpu(0, name), pool=shared) for name in "ab")
    for each in (bare("a"), bare("b"), first, second):
        filled.put(each)
    filled.cache.cluster.changed = lambda _, node: changed.append(node)

    def put(*devices: dict[str, Any], **parts: Any) -> list[str]:
        changed.clear()
        filled.put(first | {"spec": first["spec"] | {"devices": list(devices)} | parts})
        return sorted(changed)

    assert put(gpu(0, "a"), gpu(1, "c")) == ["a"]
    assert put(gpu(0, "a"), gpu(1, "c") | {"name": "renamed"}) == []
    newer = first["spec"]["pool"] | {"generation": 9}
    assert put(gpu(0, "a"), gpu(1, "c"), pool=newer) == ["a", "b"], "b is of the one before"


def test_a_gpu_for_virtual_machines_is_the_one_at_its_place_on_the_bus() -> None:
    bus = {"resource.kubernetes.io/pciBusID": {"string": "0000:17:00.0"}}
    whole, passed = gpu(0, "GPU-0"), device("gpu-vfio-0", type="vfio")
    for each in (whole, passed):
        each["attributes"] |= bus
    assert pool(bare("a"), offered("a", whole, passed)).gpus == 1
    assert pool(bare("a"), offered("a", passed)).gpus == 1


def test_drivers_of_other_vendors_offer_accelerators_of_their_types() -> None:
    card = {"name": "gpu-0", "attributes": {"type": {"string": "amdgpu"}}}
    part = {"name": "gpu-1", "attributes": {"type": {"string": "amdgpu-partition"}}}
    result = pool(bare("a"), offered("a", card, part, driver="gpu.amd.com"))
    assert result.gpus == 0
    assert result.accelerators == (
        AcceleratorCount(type="AMD GPU", usable=1, unusable=0),
        AcceleratorCount(type="AMD GPU partition", usable=1, unusable=0),
    )


def taint_rule(effect: str = "NoSchedule", **selector: str) -> dict[str, Any]:
    spec = {"deviceSelector": selector, "taint": {"key": "broken", "effect": effect}}
    return made("DeviceTaintRule", "rule", group="resource.k8s.io/v1beta2", namespace="", spec=spec)


@pytest.mark.parametrize(
    ("rule", "usable", "lost"),
    [
        (taint_rule(driver="gpu.nvidia.com", pool="a", device="gpu-1"), 1, 1),
        (taint_rule("NoExecute", pool="a"), 0, 2),
        (taint_rule(), 0, 2),
        (taint_rule(device="gpu-1", pool="b"), 2, None),
        (taint_rule("None", pool="a"), 2, None),
        (
            made("DeviceTaintRule", "r", spec={"taint": {"effect": "NoSchedule"}}, namespace=""),
            2,
            None,
        ),
        (taint_rule(pool="a", deviceClassName="gpu.nvidia.com"), None, None),
    ],
)
def test_rules_that_taint_devices_make_them_lost_until_they_go(
    rule: dict[str, Any], usable: int | None, lost: int | None
) -> None:
    """By `deviceSelector`: what is not set matches all; without a selector nothing matches."""
    rule["apiVersion"] = "resource.k8s.io/v1beta2"
    filled = Filled()
    for each in (bare("a"), rule, offered("a", gpu(0, "GPU-0"), gpu(1, "GPU-1"))):
        filled.put(each)
    pools = NodePools(filled.cache.cluster, SETTINGS)
    (tainted,) = pools.capacities()
    assert tainted.gpus == usable
    assert (
        tainted.unusable_gpus.lost if tainted.unusable_gpus and usable is not None else None
    ) == lost
    filled.remove(rule)
    (free,) = pools.capacities()
    assert (free.gpus, free.unusable_gpus) == (2, None)


def test_what_slices_and_rules_would_say_is_unknown_until_they_are_read() -> None:
    """A node that says it has GPUs which its kubelet does not count; others go on as before."""
    filled = Filled()
    cluster = filled.cache.cluster
    for role in DEVICE_ROLES:
        cluster.note_read(role, is_read=False)
    filled.put(bare("a"), node("b", {GPU: "4"}, product="NVIDIA-L4"))
    pools = NodePools(cluster, SETTINGS)
    assert pools.capacities()[0].gpus == 4
    filled.put(bare("c", product="NVIDIA-L4"))
    assert (pools.capacities()[0].gpus, pools.capacities()[0].gpu_memory_bytes) == (None, None)
    slice_ = offered("c", gpu(0, "GPU-0"))
    filled.put(slice_)
    assert pools.capacities()[0].gpus is None, "a rule may taint it"
    cluster.note_read(WatchRole.DEVICE_TAINT_RULE, is_read=True)
    assert pools.capacities()[0].gpus == 5
    filled.remove(slice_)
    assert pools.capacities()[0].gpus is None
    cluster.note_read(WatchRole.DEVICE_SLICE, is_read=True)
    assert pools.capacities()[0].gpus == 4


def test_other_accelerators_with_a_taint_are_told_as_unusable() -> None:
    chips = [{"name": f"tpu-{number}", "attributes": {}} for number in range(4)]
    chips[3]["taints"] = [{"key": "broken", "effect": "NoSchedule"}]
    result = pool(bare("a"), offered("a", *chips, driver="tpu.google.com"))
    assert result.accelerators == (AcceleratorCount(type="TPU", usable=3, unusable=1),)
    gaudi = [{"name": f"accel{number}", "attributes": {}} for number in range(8)]
    result = pool(bare("a"), offered("a", *gaudi, driver="gaudi.intel.com"))
    assert result.accelerators == (AcceleratorCount(type="Gaudi", usable=8, unusable=0),)


def test_a_slice_of_counters_alone_belongs_to_the_pool() -> None:
    """Partitionable devices: the counters that parts take from stand in a slice of their own."""
    two = {"resourceSliceCount": 2}
    counters = offered("a", pool=two, suffix="c", sharedCounters=[{"name": "gpu-0-counters"}])
    parts = [gpu(0, "GPU-0"), *(mig(f"gpu-0-mig-1g10gb-19-{n}", "GPU-0", "1g.10gb") for n in "01")]
    assert pool(bare("a"), counters, offered("a", *parts, pool=two)).gpus == 1


def in_pool(name: str, label: str) -> dict[str, Any]:
    labeled = bare(name)
    labeled["metadata"]["labels"] = {"kai.scheduler/node-pool": label, "rack": name}
    return labeled


def selecting(member: str, key: str, *values: str) -> dict[str, Any]:
    term = {member: [{"key": key, "operator": "In", "values": list(values)}]}
    return {"nodeSelector": {"nodeSelectorTerms": [term]}}


def several_terms(number: int) -> dict[str, Any]:
    """More than Kubernetes takes; each is held against every node."""
    (term,) = selecting("matchExpressions", "rack", "z")["nodeSelector"]["nodeSelectorTerms"]
    return {"nodeSelector": {"nodeSelectorTerms": [term] * number}}


@pytest.mark.parametrize(
    ("where", "x", "y"),
    [
        ({"allNodes": True}, None, None),
        (selecting("matchExpressions", "rack", "a"), 3, 0),
        (selecting("matchFields", "metadata.name", "a", "b"), 3, 0),
        (selecting("matchExpressions", "kai.scheduler/node-pool", "y"), 0, 3),
        (selecting("matchExpressions", "rack", "b", "c"), None, None),
        (selecting("matchExpressions", "rack", "z"), 0, 0),
        (selecting("matchExpressions", "rack", "a", *map(str, range(1_000))), 3, 0),
        (selecting("matchExpressions", "rack", *map(str, range(1_025))), None, None),
        (several_terms(16), 0, 0),
        (several_terms(17), None, None),
    ],
)
@pytest.mark.parametrize("is_by_device", [False, True])
def test_devices_of_no_single_node_count_where_one_pool_of_nodes_alone_can_use_them(
    where: dict[str, Any], x: int | None, y: int | None, is_by_device: bool
) -> None:
    gpus = [gpu(number, f"GPU-{number}") for number in range(3)]
    nowhere: dict[str, Any] = {"nodeName": "", "pool": {"name": "fabric"}}
    if is_by_device:
        gpus = [each | where for each in gpus]
        slice_ = offered("a", *gpus, **nowhere, perDeviceNodeSelection=True)
    else:
        slice_ = offered("a", *gpus, **nowhere, **where)
    filled = Filled()
    for each in (in_pool("a", "x"), in_pool("b", "x"), slice_, in_pool("c", "y")):
        filled.put(each)
    pools = NodePools(filled.cache.cluster, SETTINGS)
    assert [each.gpus for each in pools.capacities()] == [x, y]
    filled.remove(slice_)
    assert [each.gpus for each in pools.capacities()] == [0, 0]


def test_devices_of_one_slice_that_name_their_nodes_count_there() -> None:
    by_device = {"nodeName": "", "pool": {"name": "rack"}, "perDeviceNodeSelection": True}
    first, second = gpu(0, "GPU-0") | {"nodeName": "a"}, gpu(1, "GPU-1") | {"nodeName": "b"}
    filled = Filled()
    for each in (in_pool("a", "x"), in_pool("b", "y"), offered("r", first, second, **by_device)):
        filled.put(each)
    pools = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert [each.gpus for each in pools] == [1, 1]


def test_slices_before_the_current_version_and_those_that_go() -> None:
    filled = Filled()
    old = gpu(0, "GPU-0")
    early = {"name": "gpu-0", "basic": {"attributes": old["attributes"], "capacity": {}}}
    early_slice = offered("a", early)
    filled.put(bare("a"))
    filled.put(early_slice)
    (before,) = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert filled.cache.cluster.node_labels["a"]["nvidia.com/gpu.product"] == (
        "NVIDIA-H100-80GB-HBM3"
    )
    filled.remove(early_slice)
    (after,) = NodePools(filled.cache.cluster, SETTINGS).capacities()
    assert (before.gpus, after.gpus) == (1, 0)
    assert "nvidia.com/gpu.product" not in filled.cache.cluster.node_labels["a"]
