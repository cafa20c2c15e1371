"""GPUs of which containers ask for a part, by hand from the documentation of HAMi and Volcano."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.kinds.objects.gpu_units import physical_gpus
from watchbill.kinds.objects.resources import (
    allocated_gpu_bytes,
    allocated_gpus,
    pod_resources,
    requested_gpus,
)
from watchbill.kinds.objects.virtual_gpus import registered_labels

GPU = "nvidia.com/gpu"
MIB = 2**20
V100 = "NVIDIA-Tesla V100-PCIE-32GB"
# Two cards of 32 GiB, each offered ten times over.
HAMI = {
    "hami.io/node-nvidia-register": f"GPU-0055,10,32768,100,{V100},0,true:GPU-0fc3,10,32768,100,{V100},0,true:"
}
HAMI_JSON = {
    "hami.io/node-nvidia-register": '[{"id":"GPU-0055","count":10,"devmem":32768,"devcore":100,'
    '"type":"NVIDIA-NVIDIA H100 80GB HBM3","health":true}]'
}
VOLCANO = {"volcano.sh/node-vgpu-register": f"GPU-0055,10,32768,{V100},false:"}


def asking(*containers: dict[str, str]) -> Any:
    return pod_resources(
        {"containers": [{"resources": {"limits": limits}} for limits in containers]}
    )


def held(node: dict[str, str], *containers: dict[str, str]) -> Fraction | None:
    return allocated_gpus(asking(*containers), {}, registered_labels({}, node), (GPU,))


@pytest.mark.parametrize(
    ("node", "limits", "gpus"),
    [
        (HAMI, {GPU: "1", "nvidia.com/gpumem": "8192"}, Fraction(1, 4)),
        (HAMI, {GPU: "2", "nvidia.com/gpumem": "8192"}, Fraction(1, 2)),
        (
            HAMI,
            {GPU: "1", "nvidia.com/gpumem": "8192", "nvidia.com/gpucores": "60"},
            Fraction(3, 5),
        ),
        (HAMI, {GPU: "2", "nvidia.com/gpumem-percentage": "50", "nvidia.com/gpucores": "30"}, 1),
        # Without a limit of memory it has all of it.
        (HAMI, {GPU: "1", "nvidia.com/gpucores": "30"}, 1),
        (HAMI, {GPU: "1"}, 1),
        (HAMI, {GPU: "1", "nvidia.com/gpumem": "99999999"}, 1),
        ({}, {GPU: "1", "nvidia.com/gpumem": "8192"}, None),
        ({}, {GPU: "1", "nvidia.com/gpumem": "8192", "nvidia.com/gpucores": "60"}, None),
        ({}, {GPU: "1", "nvidia.com/gpumem": "8192", "nvidia.com/gpucores": "100"}, 1),
        ({}, {GPU: "1", "nvidia.com/gpumem-percentage": "25"}, Fraction(1, 4)),
        ({}, {"nvidia.com/vgpu": "1", "nvidia.com/gpumem-percentage": "25"}, Fraction(1, 4)),
        ({}, {"nvidia.com/vgpu": "1"}, None),
        (
            VOLCANO,
            {"volcano.sh/vgpu-number": "1", "volcano.sh/vgpu-memory": "4096"},
            Fraction(1, 8),
        ),
        (
            VOLCANO,
            {
                "volcano.sh/vgpu-number": "1",
                "volcano.sh/vgpu-memory": "4096",
                "volcano.sh/vgpu-cores": "50",
            },
            Fraction(1, 2),
        ),
        ({}, {"volcano.sh/vgpu-number": "2"}, 2),
        ({}, {"volcano.sh/vgpu-number": "1", "volcano.sh/vgpu-memory": "4096"}, None),
    ],
)
def test_a_pod_holds_the_part_of_each_device_that_it_asked_for(
    node: dict[str, str], limits: dict[str, str], gpus: Fraction | int | None
) -> None:
    assert held(node, limits) == gpus


def test_who_names_a_node_that_shares_no_gpu_in_parts_has_all_of_each() -> None:
    """The kubelet looks over `gpumem-percentage`, which its node does not offer, and gives whole devices."""
    labels = {"kubernetes.io/hostname": "node-a", "nvidia.com/gpu.memory": "81920"}
    asked = asking({GPU: "8", "nvidia.com/gpumem-percentage": "1", "nvidia.com/gpucores": "1"})
    assert allocated_gpus(asked, {}, labels, (GPU,)) == 8
    assert allocated_gpu_bytes(asked, {}, labels, (GPU,)) == 8 * 81920 * MIB
    of_volcano = asking({"volcano.sh/vgpu-number": "8", "volcano.sh/vgpu-cores": "1"})
    assert allocated_gpus(of_volcano, {}, labels, (GPU,)) is None


@pytest.mark.parametrize(
    "register",
    [
        r'[{"count":"\ud800","devmem":"\ud800","type":"NVIDIA-\ud800"}]',
        r'[{"count":"1\u0000","devmem":"\u0000","type":"NVIDIA-\u0000"}]',
        "GPU-1,1\0,\0,100,NVIDIA-\0,0,true:",
    ],
)
def test_a_register_says_nothing_that_cannot_be_sent_or_stored(register: str) -> None:
    """A node of which one cannot be encoded would end the heartbeats of its cluster."""
    labels = registered_labels({}, {"hami.io/node-nvidia-register": register})
    assert labels == {"nvidia.com/gpu.split": ""}
    assert physical_gpus([(GPU, 8)], labels, (GPU,)) is None


def test_containers_ask_each_for_themselves() -> None:
    half = {GPU: "1", "nvidia.com/gpumem": "16384"}
    quarter = {GPU: "1", "nvidia.com/gpumem": "8192"}
    assert held(HAMI, half, quarter, {GPU: "1"}) == Fraction(7, 4)
    assert held(HAMI, half | {GPU: "2"}, quarter) == Fraction(5, 4)


def test_memory_is_asked_for_as_memory_and_cores_as_a_part() -> None:
    asked = requested_gpus(asking({GPU: "2", "nvidia.com/gpumem": "8192"}), {}, (GPU,))
    assert (asked.portion, asked.memory_bytes, asked.devices) == (0, 2 * 8192 * MIB, 2)
    both = {GPU: "2", "nvidia.com/gpumem": "8192", "nvidia.com/gpucores": "30"}
    assert requested_gpus(asking(both), {}, (GPU,)).portion == Fraction(3, 5)


@pytest.mark.parametrize(
    ("node", "units", "gpus"),
    [
        (HAMI, {GPU: 20}, 2),
        (HAMI_JSON, {GPU: 10}, 1),
        (VOLCANO, {"volcano.sh/vgpu-number": 10, "volcano.sh/vgpu-memory": 32768}, 1),
        ({}, {"volcano.sh/vgpu-number": 10}, None),
        # Cards that are split differently: how many there are the number of units does not say.
        (
            {
                "hami.io/node-nvidia-register": "GPU-1,10,32768,100,A,0,true:GPU-2,5,32768,100,A,0,true:"
            },
            {GPU: 15},
            None,
        ),
        ({"hami.io/node-nvidia-register": "[[["}, {GPU: 8}, None),
        ({"hami.io/node-nvidia-register": "[" * 60_000}, {GPU: 8}, None),
        ({"hami.io/node-nvidia-register": "[]"}, {GPU: 8}, 8),
    ],
)
def test_a_node_has_the_gpus_that_it_registered_however_often_it_offers_them(
    node: dict[str, str], units: dict[str, int], gpus: int | None
) -> None:
    assert physical_gpus(units.items(), registered_labels({}, node), (GPU,)) == gpus


@pytest.mark.parametrize(
    ("node", "model"), [(HAMI, "Tesla-V100-PCIE-32GB"), (HAMI_JSON, "NVIDIA-H100-80GB-HBM3")]
)
def test_the_register_describes_the_cards_where_labels_do_not(
    node: dict[str, str], model: str
) -> None:
    labels = registered_labels({}, node)
    assert labels["nvidia.com/gpu.memory"] == "32768"
    assert labels["nvidia.com/gpu.product"] == model
    stated = {"nvidia.com/gpu.memory": "16384", "nvidia.com/gpu.product": "A10"}
    assert stated.items() <= registered_labels(stated, node).items()


@given(
    register=st.text('[]{}:,"GPU-0123456789countdevmem', max_size=60),
    key=st.sampled_from(["hami.io/node-nvidia-register", "volcano.sh/node-vgpu-register"]),
    limits=st.dictionaries(
        st.sampled_from(
            [
                GPU,
                "nvidia.com/gpumem",
                "nvidia.com/gpucores",
                "volcano.sh/vgpu-number",
                "volcano.sh/vgpu-cores",
            ]
        ),
        st.sampled_from(["0", "1", "3", "100", "8192", "-1", "1e9", "x"]),
    ),
)
def test_whatever_is_registered_a_pod_holds_no_more_than_its_devices(
    register: str, key: str, limits: dict[str, str]
) -> None:
    gpus = held({key: register}, limits)
    asked = requested_gpus(asking(limits), {}, (GPU,))
    assert gpus is None or 0 <= gpus <= asked.devices
