"""What a unit of a resource is on a node, by hand from what device plugins and feature discovery write."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.makers import container, pod, root, workload
from watchbill.kinds.objects.gpu_units import (
    accelerators,
    gpu_model,
    gpus_of,
    physical_gpus,
    unit_of,
)
from watchbill.kinds.objects.objects import ClusterObjects

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-"
Labels = dict[str, str]


def labels(**values: str) -> Labels:
    """`count`, `replicas`, … as labels of `nvidia.com/gpu`; `strategy` and `config` as those of MIG."""
    names = {"strategy": "nvidia.com/mig.strategy", "config": "nvidia.com/mig.config"}
    names |= {"sharing": f"{GPU}.sharing-strategy", "slices": f"{GPU}.slices.gi"}
    return {names.get(name, f"{GPU}.{name}"): value for name, value in values.items()}


H100 = "NVIDIA-H100-80GB-HBM3"
SLICED = labels(count="1", replicas="4", sharing="time-slicing", product="Tesla-T4-SHARED")
SINGLE = labels(
    count="14", replicas="1", strategy="single", slices="1", product="NVIDIA-H100-NVL-MIG-1g.12gb"
)


@pytest.mark.parametrize(
    ("resource", "node", "share"),
    [
        (GPU, {}, 1),
        (GPU, labels(product=H100, replicas="1", sharing="none", strategy="single"), 1),
        (GPU, SLICED, Fraction(1, 4)),
        (GPU, labels(replicas="4", sharing="time-slicing"), Fraction(1, 4)),
        (GPU, labels(replicas="8", sharing="mps", product="Tesla-T4"), Fraction(1, 8)),
        (f"{GPU}.shared", labels(replicas="4", sharing="time-slicing"), Fraction(1, 4)),
        (GPU, SINGLE, Fraction(1, 7)),
        (
            GPU,
            labels(strategy="single", product="NVIDIA-A30-MIG-2g.12gb", slices="2"),
            Fraction(1, 2),
        ),
        (GPU, labels(strategy="single", product="NVIDIA-H200-MIG-1g.18gb.me"), Fraction(1, 7)),
        (
            GPU,
            labels(strategy="single", product="NVIDIA-B200-MIG-3g.90gb-SHARED", replicas="2"),
            Fraction(3, 14),
        ),
        (GPU, labels(strategy="single", config="all-1g.12gb"), Fraction(1, 7)),
        (GPU, labels(strategy="single", config="all-disabled"), 1),
        (f"{MIG}1g.10gb", {}, Fraction(1, 7)),
        (f"{MIG}2g.12gb", {}, Fraction(1, 2)),
        (f"{MIG}1c.3g.40gb", {}, Fraction(1, 7)),
        (f"{MIG}3g.40gb.shared", {f"{MIG}3g.40gb.replicas": "3"}, Fraction(1, 7)),
        (GPU, {"cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, Fraction(1, 7)),
        (
            GPU,
            {
                "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing",
                "cloud.google.com/gke-max-shared-clients-per-gpu": "3",
            },
            Fraction(1, 3),
        ),
        ("nvidia.com/pgpu", {}, 1),
        # H200 (141 GB), B200 (180 GB), GB200 (186 GB), GH200 (96 GB), H100 NVL (94 GB), RTX PRO 6000 (96 GB)
        (f"{MIG}1g.18gb", labels(product="NVIDIA-H200"), Fraction(1, 7)),
        (f"{MIG}1g.35gb", labels(product="NVIDIA-H200"), Fraction(1, 7)),
        (f"{MIG}4g.71gb", labels(product="NVIDIA-H200"), Fraction(4, 7)),
        (f"{MIG}7g.141gb", labels(product="NVIDIA-H200"), 1),
        (f"{MIG}1g.23gb.me", labels(product="NVIDIA-B200"), Fraction(1, 7)),
        (f"{MIG}3g.90gb", labels(product="NVIDIA-B200"), Fraction(3, 7)),
        (f"{MIG}2g.47gb", labels(product="NVIDIA-GB200"), Fraction(2, 7)),
        (f"{MIG}3g.93gb.shared", {f"{MIG}3g.93gb.replicas": "2"}, Fraction(3, 14)),
        (f"{MIG}1g.24gb", labels(product="NVIDIA-GH200-480GB"), Fraction(1, 7)),
        (f"{MIG}3g.47gb", labels(product="NVIDIA-H100-NVL"), Fraction(3, 7)),
        (f"{MIG}1g.24gb", labels(product="NVIDIA-RTX-PRO-6000-Blackwell"), Fraction(1, 4)),
        (f"{MIG}1g.24gb", labels(product="NVIDIA-RTX-PRO-5000-Blackwell"), Fraction(1, 2)),
        (f"{MIG}1g.24gb", {}, None),
        (f"{MIG}2g.48gb", labels(product="NVIDIA-RTX-PRO-6000-Blackwell"), Fraction(1, 2)),
        (f"{MIG}2g.48gb", labels(product="NVIDIA-RTX-PRO-5000-Blackwell"), Fraction(1)),
        (f"{MIG}2g.48gb", {}, None),
        (GPU, labels(strategy="single", product="NVIDIA-GB200-MIG-7g.186gb"), 1),
        (GPU, labels(strategy="single", product="NVIDIA-A30-MIG-1g.6gb.me"), Fraction(1, 4)),
        (
            f"{GPU}.shared",
            labels(replicas="16", sharing="mps", product="NVIDIA-L40S"),
            Fraction(1, 16),
        ),
        # A virtual machine's passed-through GPUs, by chip.
        ("nvidia.com/GH100_H100_SXM5_80GB", {}, 1),
        ("nvidia.com/TU104GL_Tesla_T4", {}, 1),
    ],
)
def test_a_unit_is_its_part_of_a_gpu(resource: str, node: Labels, share: Fraction | int) -> None:
    unit = unit_of(resource, node)
    assert unit is not None
    assert unit.gpus == share


@pytest.mark.parametrize(
    ("resource", "node"),
    [
        (f"{GPU}.shared", {}),
        (f"{GPU}.shared", labels(replicas="1")),
        (GPU, labels(sharing="time-slicing")),
        (GPU, labels(product="Tesla-T4-SHARED")),
        (GPU, labels(product="Tesla-T4-SHARED", replicas="1")),
        *(
            (GPU, labels(replicas=odd, sharing="mps"))
            for odd in ("0", "-4", "1e50", "four", "", "٤")
        ),
        (GPU, labels(replicas="99999999999999999999")),
        (GPU, labels(replicas="8", sharing="none")),
        (GPU, labels(strategy="single")),
        (GPU, labels(strategy="single", product="NVIDIA-A100-PCIE-40GB-MIG-INVALID")),
        (GPU, labels(strategy="single", product=H100, slices="1")),
        (GPU, SINGLE | labels(slices="3")),
        (GPU, SINGLE | labels(slices="many")),
        (GPU, labels(strategy="mixed", product="NVIDIA-H100-NVL-MIG-1g.12gb")),
        (GPU, labels(strategy="single", config="custom")),
        (f"{MIG}3g.40gb.shared", {}),
        (f"{MIG}3g", {}),
        (f"{MIG}4c.3g.40gb", {}),
        ("nvidia.com/GRID_T4-2Q", {}),
        ("nvidia.com/NVIDIA_A100-1-5C", {}),
    ],
)
def test_where_labels_do_not_tell_the_part_is_not_known(resource: str, node: Labels) -> None:
    assert gpus_of([(resource, 1)], node) is None
    assert physical_gpus([(resource, 1)], node) is None
    assert physical_gpus([(resource, 0)], node) == 0


# Offers of one physical GPU, or of several, with the labels that go with them.
NODES: list[tuple[dict[str, int], Labels, int]] = [
    ({GPU: 1}, labels(count="1", product=H100), 1),
    ({GPU: 4}, SLICED, 1),
    ({f"{GPU}.shared": 8}, labels(count="2", replicas="4", sharing="mps", product=H100), 2),
    ({GPU: 14}, SINGLE, 2),
    ({GPU: 4}, labels(strategy="single", product="NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"), 2),
    ({GPU: 4}, labels(strategy="single", product="NVIDIA-H100-80GB-HBM3-MIG-1g.20gb"), 1),
    ({GPU: 4}, labels(strategy="single", product="NVIDIA-A30-MIG-1g.6gb"), 1),
    ({GPU: 0, f"{MIG}3g.40gb": 2}, labels(strategy="mixed"), 1),
    ({GPU: 2, f"{MIG}1g.10gb": 7, f"{MIG}3g.40gb": 2}, labels(strategy="mixed"), 4),
    ({f"{MIG}3g.20gb": 14}, labels(strategy="mixed", count="7"), 7),
    ({f"{MIG}2g.12gb": 2}, labels(strategy="mixed", product="NVIDIA-A30"), 1),
    # Of eight, two are cut: 1 + 6 slices of 7, and 3 + 4 of 7; the others are whole.
    (
        {GPU: 6, f"{MIG}1g.23gb": 1, f"{MIG}3g.90gb": 3, f"{MIG}4g.90gb": 1},
        labels(strategy="mixed", count="8", product="NVIDIA-B200"),
        8,
    ),
    ({GPU: 28}, labels(strategy="single", product="NVIDIA-GB200-MIG-1g.23gb", slices="1"), 4),
    ({GPU: 16}, labels(strategy="single", product="NVIDIA-H200-MIG-3g.71gb", slices="3"), 8),
    (
        {GPU: 6},
        labels(strategy="single", product="NVIDIA-A30-MIG-2g.12gb-SHARED", replicas="3"),
        1,
    ),
    ({GPU: 0, "nvidia.com/GH100_H100_SXM5_80GB": 8}, {}, 8),
    # A count that cannot be is not believed.
    ({f"{MIG}1g.10gb": 7}, labels(strategy="mixed", count="1e50"), 1),
    ({f"{MIG}1g.10gb": 7}, labels(strategy="mixed", count="9999"), 1),
    ({"amd.com/gpu": 8, "google.com/tpu": 4, "cpu": 64}, {}, 0),
]


@given(st.lists(st.tuples(st.sampled_from(NODES), st.data()), max_size=6))
def test_a_fleet_of_any_nodes_reads_its_physical_gpus_and_no_more_are_held(
    nodes: list[tuple[tuple[dict[str, int], Labels, int], Any]],
) -> None:
    capacity, held = Fraction(0), Fraction(0)
    for (offer, node, _), data in nodes:
        count = physical_gpus(offer.items(), node)
        taken = [(name, data.draw(st.integers(0, units))) for name, units in offer.items()]
        share = gpus_of(taken, node)
        assert count is not None
        assert share is not None
        assert 0 <= share <= count
        capacity, held = capacity + count, held + share
    assert capacity == sum(physical for (_, _, physical), _ in nodes)
    assert held <= capacity


KEYS = (
    *(
        f"{GPU}.{name}"
        for name in ("replicas", "sharing-strategy", "product", "count", "memory", "slices.gi")
    ),
    *("nvidia.com/mig.strategy", "nvidia.com/mig.config", f"{MIG}1g.10gb.replicas"),
    *("cloud.google.com/gke-gpu-partition-size", "cloud.google.com/gke-max-shared-clients-per-gpu"),
)
ODD = st.one_of(
    st.sampled_from(
        ["0", "-1", "1e50", "nan", "none", "single", "mixed", "all-9g.1gb", "X-MIG-0g.5gb"]
    ),
    st.sampled_from(["mps", "8", "NVIDIA-A30-MIG-1g.6gb-SHARED", "-SHARED", "-MIG-", "1" * 80]),
    st.text(max_size=20),
)


@given(st.dictionaries(st.sampled_from(KEYS), ODD), st.integers(-5, 10**30))
def test_whatever_labels_claim_a_unit_is_a_part_of_a_gpu_or_not_known(
    node: Labels, amount: int
) -> None:
    for resource in (GPU, f"{GPU}.shared", f"{MIG}1g.10gb", f"{MIG}1g.10gb.shared"):
        unit = unit_of(resource, node)
        assert unit is not None
        assert unit.gpus is None or 0 < unit.gpus <= 1
        share, count = (
            gpus_of([(resource, amount)], node),
            physical_gpus([(resource, amount)], node),
        )
        assert share is None or 0 <= share <= 1_000_000
        assert share is None or count is None or share <= count


def test_accelerators_of_others_have_a_type_and_are_no_gpus() -> None:
    offered: list[tuple[str, int]] = [
        ("amd.com/gpu", 8),
        ("gpu.intel.com/i915", 2),
        ("gpu.intel.com/xe", 1),
        ("gpu.intel.com/i915_monitoring", 1),
        ("google.com/tpu", 4),
        ("habana.ai/gaudi", 8),
        ("aws.amazon.com/neuron", 16),
        ("aws.amazon.com/neurondevice", 16),
        ("aws.amazon.com/neuroncore", 32),
    ]
    assert accelerators(offered, (GPU,)) == {
        "AMD GPU": 8,
        "Intel GPU": 3,
        "TPU": 4,
        "Gaudi": 8,
        "Neuron": 16,
        "NeuronCore": 32,
    }
    assert gpus_of(offered, {}) == 0


def test_a_partition_of_an_amd_gpu_is_no_gpu() -> None:
    """An MI300X in mode CPX is eight of them, however its resource is named; in mode SPX it is one GPU."""
    assert accelerators([("amd.com/cpx_nps4", 64)], (GPU,)) == {"AMD GPU partition": 64}
    assert accelerators([("amd.com/spx_nps1", 8)], (GPU,)) == {"AMD GPU": 8}
    mode = "amd.com/gpu.compute-memory-partition"
    eight = [("amd.com/gpu", 8)]
    assert accelerators(eight, (GPU,), {mode: "cpx_nps1"}) == {"AMD GPU partition": 8}
    assert accelerators(eight, (GPU,), {mode: "spx_nps1"}) == {"AMD GPU": 8}


@pytest.mark.parametrize(
    ("resource", "node", "held"),
    [
        (GPU, SLICED, 0.5),
        (GPU, SINGLE, 0.285714),
        (f"{GPU}.shared", labels(replicas="4"), 0.5),
        (f"{GPU}.shared", {}, None),
    ],
)
def test_a_workload_holds_what_its_nodes_say(
    resource: str, node: Labels, held: float | None
) -> None:
    parts = [container(resources={"limits": {resource: "1"}})]
    pods = [pod(number, spec_containers=parts) for number in (1, 2)]
    cluster = ClusterObjects(node_labels={"node-1": node})
    result = workload(root("apps/v1", "Deployment"), pods, cluster=cluster)
    assert result.allocated_resources.gpu == held
    assert result.idle_allocated_gpus is None


def test_memory_asked_for_on_a_node_that_tells_no_size_is_no_known_number_of_gpus() -> None:
    result = workload(root("v1", "Pod"), [pod(1, meta_annotations={"gpu-memory": "4000"})])
    assert result.allocated_resources.gpu is None


@pytest.mark.parametrize(
    ("labels", "model"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "NVIDIA-H100-80GB-HBM3"),
        ({"nvidia.com/gpu.product": "Tesla-T4-SHARED"}, "Tesla-T4"),
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}, "NVIDIA-A100-SXM4-40GB"),
        (
            {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED"},
            "NVIDIA-A100-SXM4-40GB",
        ),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}, "nvidia-tesla-t4"),
        ({"nvidia.com/gpu.product": ["H100"], "k8s.amazonaws.com/accelerator": "h100"}, "h100"),
        ({}, ""),
    ],
)
def test_the_model_is_the_same_however_a_gpu_is_cut(labels: dict[str, object], model: str) -> None:
    assert gpu_model(labels) == model
