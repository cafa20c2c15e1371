"""DeviceClasses that pods ask for by an extended resource, and by `All` of their devices."""

import pytest

from tests.fixtures.makers import JSON, container, deployment, pod, workload
from tests.unit.kinds.objects.test_claims import NVIDIA, TYPE, device_class
from watchbill.kinds.objects.objects import ClusterObjects


def test_a_resource_that_a_device_class_stands_behind_is_its_devices() -> None:
    """Since 1.34 a class may name an extended resource by which pods ask for its devices."""
    classes = {
        "a": device_class(NVIDIA, extendedResourceName="example.com/card"),
        "b": device_class("device.driver == 'nics.example.com'", extendedResourceName="a.b/nic"),
    }
    limits = {"limits": {"example.com/card": "2", "a.b/nic": "1"}}
    result = workload(
        deployment(1),
        [pod(1, spec_containers=[container(resources=limits)])],
        cluster=ClusterObjects(device_classes=classes),
    )
    assert result.allocated_resources.gpu == 2
    assert [each.resource for each in result.allocated_resources.extended_resources] == ["a.b/nic"]
    named = "deviceclass.resource.kubernetes.io/"
    for cls, gpu in (("gpu.amd.com", 0.0), ("mig.nvidia.com", None), ("gpu.nvidia.com", 1.0)):
        asked = [container(resources={"limits": {named + cls: "1"}})]
        implicit = workload(deployment(1), [pod(1, spec_containers=asked)])
        assert implicit.allocated_resources.gpu == gpu, cls


MIG = f"{NVIDIA} && {TYPE.format('mig')}"
PROFILE = "device.attributes['gpu.nvidia.com'].profile == '{}'"


def extended(created: int, *expressions: str) -> JSON:
    """A class behind the extended resource example.com/part, made in that second."""
    made = device_class(*expressions, extendedResourceName="example.com/part")
    return made | {"metadata": {"creationTimestamp": f"2026-11-01T00:00:0{created}Z"}}


@pytest.mark.parametrize(
    ("classes", "product", "held"),
    [
        # Two slices of 2g.20gb are four sevenths, of a profile that an A30 alone has a half.
        ({"a": extended(0, MIG, PROFILE.format("2g.20gb"))}, "", 0.571429),
        ({"a": extended(0, MIG, PROFILE.format("1g.6gb"))}, "NVIDIA-A30", 0.5),
        ({"a": extended(0, MIG, PROFILE.format("1g.24gb"))}, "NVIDIA-GH200-480GB", 0.285714),
        ({"a": extended(0, MIG, PROFILE.format("1g.24gb"))}, "", None),
        ({"mig-3g.40gb": extended(0, MIG)}, "", 0.857143),
        ({"mig": extended(0, MIG)}, "", None),
        ({"mig": extended(0)}, "", None),
        ({"a": extended(0, NVIDIA)}, "", 2),
        ({"a": extended(0, "device.driver == 'nics.example.com'")}, "", 0),
        # The class made later stands behind it, of two made at once the first by name.
        (
            {"a": extended(0, NVIDIA), "b": extended(1, MIG, PROFILE.format("2g.20gb"))},
            "",
            0.571429,
        ),
        ({"a": extended(1, NVIDIA), "b": extended(0, MIG, PROFILE.format("2g.20gb"))}, "", 2),
        (
            {"b": extended(0, NVIDIA), "a": extended(0, MIG, PROFILE.format("2g.20gb"))},
            "",
            0.571429,
        ),
    ],
)
def test_slices_behind_a_resource_of_any_name_are_their_part_of_a_gpu(
    classes: dict[str, JSON], product: str, held: float | None
) -> None:
    asked = [container(resources={"limits": {"example.com/part": "2"}})]
    labels = {"node-1": {"nvidia.com/gpu.product": product} if product else {}}
    cluster = ClusterObjects(device_classes=classes, node_labels=labels)
    result = workload(deployment(1), [pod(1, spec_containers=asked)], cluster=cluster)
    assert result.allocated_resources.gpu == pytest.approx(held, abs=1e-6)
    names = [each.resource for each in result.allocated_resources.extended_resources]
    assert names == ([] if held == 2 else ["example.com/part"])
    is_ai = (result.additional_fields or {})["workloadClass"] == "AI"
    assert is_ai is (held != 0)
