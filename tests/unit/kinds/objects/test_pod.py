"""A pod is read into little memory, its resources by the scheduler's rule, its GPUs by KAI's annotations."""

import gc
import tracemalloc
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.makers import JSON, at, container, gpus, meta, pod
from watchbill.kinds.objects.pod import Pod, is_reservation, read_pod
from watchbill.kinds.objects.resources import (
    Gpus,
    Resources,
    allocated_gpu_bytes,
    allocated_gpus,
    pod_resources,
    requested_gpus,
)

GPU = ("nvidia.com/gpu",)
GIB = 1024**3


def requests(**amounts: str) -> JSON:
    return {"requests": {name.replace("_", "/"): value for name, value in amounts.items()}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Resources()),
        (
            {"containers": [container(resources=requests(cpu="100m", memory="64Mi"))] * 2},
            Resources(cpu_request=Fraction(1, 5), memory_request=128 * 1024**2),
        ),
        (  # an init container needs more than all containers together
            {
                "initContainers": [container(resources=requests(cpu="2"))],
                "containers": [container(resources=requests(cpu="500m"))],
            },
            Resources(cpu_request=2),
        ),
        (  # native sidecars add up, and stand beside later init containers
            {
                "initContainers": [
                    container(restartPolicy="Always", resources=requests(cpu="1")),
                    container(resources=requests(cpu="2")),
                ],
                "containers": [container(resources=requests(cpu="500m"))],
            },
            Resources(cpu_request=3),
        ),
        (
            {
                "containers": [container(resources=requests(cpu="1"))],
                "overhead": {"cpu": "250m"},
            },
            Resources(cpu_request=Fraction(5, 4)),
        ),
        (  # a limit without a request is the request
            {"containers": [container(resources={"limits": {"memory": "1Gi"}})]},
            Resources(memory_request=GIB, memory_limit=GIB),
        ),
        (
            {"containers": [container(resources=gpus(4))]},
            Resources(extended=(("nvidia.com/gpu", 4),)),
        ),
        (  # what the pod as a whole states replaces the sum
            {
                "containers": [container(resources=requests(cpu="1"))],
                "resources": {"requests": {"cpu": "3"}},
            },
            Resources(cpu_request=3),
        ),
        ({"containers": [container(resources=requests(cpu="a lot", memory="-5"))]}, Resources()),
        ({"containers": {"not": "a list"}}, Resources()),
    ],
)
def test_resources(spec: JSON, expected: Resources) -> None:
    assert pod_resources(spec) == expected


@pytest.mark.parametrize(
    ("extended", "annotations", "expected"),
    [
        ((), {}, Gpus()),
        ((("nvidia.com/gpu", 2),), {}, Gpus(portion=Fraction(2), devices=2)),
        ((("amd.com/gpu", 2),), {}, Gpus()),
        ((), {"gpu-fraction": "0.5"}, Gpus(portion=Fraction(1, 2), devices=1)),
        (
            (),
            {"gpu-fraction": "0.5", "gpu-fraction-num-devices": "3"},
            Gpus(portion=Fraction(3, 2), devices=3),
        ),
        ((), {"gpu-fraction": "0.333"}, Gpus(portion=Fraction(33, 100), devices=1)),
        ((), {"gpu-fraction": "1.5"}, Gpus()),
        ((), {"gpu-fraction": "half"}, Gpus()),
        ((), {"gpu-memory": "4096"}, Gpus(devices=1, memory_bytes=4 * GIB)),
        (
            (),
            {"gpu-memory": "4096", "gpu-fraction-num-devices": "2"},
            Gpus(devices=2, memory_bytes=8 * GIB),
        ),
        ((("nvidia.com/mig-3g.20gb", 2),), {}, Gpus(portion=Fraction(6, 7))),
        ((("nvidia.com/mig-1g.5gb.me", 1),), {}, Gpus(portion=Fraction(1, 7))),
    ],
)
def test_requested_gpus(extended: Any, annotations: dict[str, str], expected: Gpus) -> None:
    assert requested_gpus(Resources(extended=extended), annotations, GPU) == expected


def test_a_resource_can_be_declared_a_gpu() -> None:
    result = requested_gpus(Resources(extended=(("amd.com/gpu", 2),)), {}, (*GPU, "amd.com/gpu"))
    assert result.portion == 2


WHOLE = (("nvidia.com/gpu", 2),)


@pytest.mark.parametrize(
    ("extended", "annotations", "node", "held", "held_bytes"),
    [
        (WHOLE, {}, {"nvidia.com/gpu.memory": "81920"}, Fraction(2), 160 * GIB),
        (WHOLE, {}, {}, Fraction(2), None),
        (
            (),
            {
                "gpu-fraction": "0.5",
                "runai-allocated-gpus": "0.25",
                "runai-allocated-gpu-memory": "1024",
            },
            {},
            Fraction(1, 4),
            GIB,
        ),
        ((), {"gpu-memory": "4096"}, {"nvidia.com/gpu.memory": "40960"}, Fraction(1, 10), 4 * GIB),
        # How much of a GPU it is cannot be known where the node does not tell the size of one.
        ((), {"gpu-memory": "4096"}, {}, None, 4 * GIB),
        # Some clusters label bytes.
        (WHOLE, {}, {"nvidia.com/gpu.memory": str(80 * GIB)}, Fraction(2), 160 * GIB),
    ],
)
def test_allocated_gpus(
    extended: Any,
    annotations: dict[str, str],
    node: dict[str, str],
    held: Fraction | None,
    held_bytes: int | None,
) -> None:
    resources = Resources(extended=extended)
    assert allocated_gpus(resources, annotations, node, GPU) == held
    assert allocated_gpu_bytes(resources, annotations, node, GPU) == held_bytes


def test_deletion_is_dated_when_it_was_asked_for() -> None:
    result = read_pod(pod(1, meta_deletionTimestamp=at(10, 30), meta_deletionGracePeriodSeconds=30))
    assert result.deleted_at == datetime(2026, 5, 4, 10, 10, tzinfo=UTC)


def test_only_wanted_annotations_are_kept() -> None:
    noted = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "gpu-fraction": "0.5",
        "team": "a",
    }
    result = pod(1, meta_annotations=noted)
    assert read_pod(result).annotations == {"gpu-fraction": "0.5"}
    assert read_pod(result, extra_annotations=frozenset({"team"})).annotations == {
        "gpu-fraction": "0.5",
        "team": "a",
    }


def test_the_controller_leads_to_the_owner_wherever_it_stands() -> None:
    owners = [
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1"},
        {"apiVersion": "apps/v1", "kind": "B", "name": "b", "uid": "2", "controller": True},
    ]
    controller = read_pod(pod(1, meta_ownerReferences=owners)).controller
    assert controller is not None
    assert (controller.uid, controller.group) == ("2", "apps")
    first = read_pod(pod(1, meta_ownerReferences=owners[:1])).controller
    assert first is not None
    assert first.uid == "1"
    assert read_pod(pod(1, meta_ownerReferences=[])).controller is None


def test_reservation_pods_are_known() -> None:
    annotations = {"run.ai/reserve_for_gpu_index": "GPU-1"}
    reserving = {"metadata": meta("r", 1, namespace="reserved", annotations=annotations)}
    assert is_reservation(reserving, {"reserved"})
    assert not is_reservation(reserving, {"other"}), "anybody can write the annotation"
    assert not is_reservation(pod(1), {"vision"})


def test_equal_objects_give_equal_pods() -> None:
    assert read_pod(pod(1)) == read_pod(pod(1) | {"kind": "Pod", "extra": 1})
    assert read_pod(pod(1)) != read_pod(pod(1, "lost"))


def test_a_pod_takes_at_most_two_kilobytes() -> None:
    def many(start: int, number: int) -> list[Pod]:
        return [
            read_pod(
                pod(
                    index,
                    meta_labels={"app": "x", "pod-template-hash": "abc", "role": "worker"},
                    spec_nodeName=f"node-{index % 500}",
                )
            )
            for index in range(start, start + number)
        ]

    many(0, 50)
    gc.collect()
    tracemalloc.start()
    held = many(100_000, 5_000)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 5_000
    assert size / len(held) < 2_000


NAMES = [
    *("metadata", "spec", "status", "containers", "conditions", "resources", "state", "labels"),
    *("annotations", "ownerReferences", "requests", "cpu", "type", "name", "containerStatuses"),
    *("waiting", "terminated", "deletionTimestamp"),
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(ANY_JSON)
def test_reading_never_raises(obj: object) -> None:
    assert isinstance(read_pod(obj), Pod)
