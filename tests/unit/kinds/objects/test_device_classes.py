"""DeviceClasses that pods ask for by an extended resource, and by `All` of their devices."""

import pytest

from tests.fixtures.makers import (
    JSON,
    condition,
    container,
    deployment,
    pod,
    root,
    template,
    workload,
)
from tests.unit.kinds.objects.test_claims import (
    NVIDIA,
    TYPE,
    claim,
    device_class,
    either,
    request,
    sub,
    using,
)
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.workload import AllocatedResources, RequestedResources


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


@pytest.mark.parametrize(
    ("cluster", "device", "held"),
    [
        (ClusterObjects(device_classes={"a": extended(0, MIG)}), "gpu-0-mig-3g40gb-9-4", 0.428571),
        (ClusterObjects(device_classes={"a": extended(0, MIG)}), "of-its-own-name", None),
        (ClusterObjects(are_device_classes_read=False), "gpu-0", 1),
        # A class of GPUs tells it without the claim.
        (ClusterObjects(device_classes={"a": extended(0, NVIDIA)}), "gpu-0-mig-3g40gb-9-4", 1),
    ],
)
def test_what_was_given_for_an_extended_resource_tells_what_it_is(
    cluster: ClusterObjects, device: str, held: float | None
) -> None:
    mapping = {"containerName": "main", "resourceName": "example.com/part", "requestName": "gpus"}
    backing = {"resourceClaimName": "made", "requestMappings": [mapping]}
    asked = [container(resources={"limits": {"example.com/part": "1"}})]
    made = pod(1, spec_containers=asked, status_extendedResourceClaimStatus=backing)
    given = claim("made", request(1, "a"), held=1, device=device)
    result = workload(deployment(1), [made], claims=[given], cluster=cluster)
    assert result.allocated_resources.gpu == pytest.approx(held, abs=1e-6)
    before = workload(deployment(1), [made], cluster=cluster)
    known = 1 if held == 1 and cluster.are_device_classes_read else None
    assert before.allocated_resources.gpu == (known if cluster.device_classes else 0)


def quantities(resources: RequestedResources | AllocatedResources) -> dict[str, str | None]:
    """By the class's name."""
    return {
        each.resource.rpartition("/")[2]: each.quantity for each in resources.extended_resources
    }


@pytest.mark.parametrize(
    ("asked", "driver", "number", "given"),
    [
        (request(cls="gpu.amd.com", allocationMode="All"), "gpu.amd.com", None, "3"),
        (request(cls="gpu.intel.com", allocationMode="All"), "gpu.intel.com", None, "3"),
        (request(3, "gpu.amd.com"), "gpu.amd.com", "3", "3"),
        # A part of a device of which nothing tells how much there is.
        (
            request(3, "gpu.amd.com", capacity={"requests": {"memory": "1Gi"}}),
            "gpu.amd.com",
            None,
            "3",
        ),
    ],
)
def test_accelerators_of_others_are_told_before_their_number_is_known(
    asked: JSON, driver: str, number: str | None, given: str
) -> None:
    name = asked["exactly"]["deviceClassName"]
    waits = workload(deployment(1), [using(1, "a", state="waiting")], claims=[claim("a", asked)])
    assert quantities(waits.pods_requested_resources) == {name: number}
    assert quantities(waits.allocated_resources) == {}
    assert waits.pods_requested_resources.gpu is None
    assert (waits.additional_fields or {})["workloadClass"] == "AI"
    held = claim("a", asked, held=3, driver=driver)
    runs = workload(deployment(1), [using(1, "a")], claims=[held])
    assert quantities(runs.pods_requested_resources) == {name: given}
    assert quantities(runs.allocated_resources) == {name: given}


def test_alternatives_that_differ_are_told_without_a_number() -> None:
    for alternatives, asked in (
        ((sub("gpu.amd.com"), sub("gpu.amd.com", count=2)), {"gpu.amd.com": None}),
        ((sub("gpu.amd.com"), sub("gpu.intel.com")), {"gpu.amd.com": None, "gpu.intel.com": None}),
        ((sub("gpu.amd.com"), sub("gpu.amd.com")), {"gpu.amd.com": "1"}),
    ):
        waits = using(1, "a", state="waiting")
        result = workload(deployment(1), [waits], claims=[claim("a", either(*alternatives))])
        assert quantities(result.pods_requested_resources) == asked


def test_all_devices_that_a_template_asks_for_are_known_once_its_pods_have_theirs() -> None:
    named = [{"name": "gpu", "resourceClaimTemplateName": "all"}]
    spec = {"replicas": 2, "template": {"spec": template()["spec"] | {"resourceClaims": named}}}
    asked = request(cls="gpu.amd.com", allocationMode="All")
    made = {("vision", "all"): {"spec": {"spec": {"devices": {"requests": [asked]}}}}}
    statuses = [[{"name": "gpu", "resourceClaimName": f"c-{number}"}] for number in (1, 2)]
    pods = [
        pod(number, spec_resourceClaims=named, status_resourceClaimStatuses=statuses[number - 1])
        for number in (1, 2)
    ]
    claims = [claim(f"c-{number}", asked, held=3, driver="gpu.amd.com") for number in (1, 2)]
    deploy, cluster = root("apps/v1", "Deployment", spec=spec), ClusterObjects(claim_templates=made)
    for present, number in ((0, None), (1, None), (2, "6")):
        result = workload(deploy, pods[:present], claims=claims[:present], cluster=cluster)
        assert quantities(result.workload_requested_resources) == {"gpu.amd.com": number}


def test_why_pods_wait_names_devices_of_an_unknown_number() -> None:
    message = "0/2 nodes are available: 2 cannot allocate all claims."
    scheduled = condition("PodScheduled", "False", reason="Unschedulable", message=message)
    waits = using(1, "a", state="waiting")
    waits["status"] = {"phase": "Pending", "conditions": [scheduled]}
    asked = claim("a", request(cls="gpu.amd.com", allocationMode="All"))
    sentence = workload(deployment(1), [waits], claims=[asked]).phase_message
    assert sentence is not None
    assert "1 pod requests devices of class gpu.amd.com, 2 of 2 nodes" in sentence


def test_a_part_of_a_device_of_others_is_not_counted_as_one() -> None:
    held = claim("a", request(cls="gpu.amd.com"), held=1, driver="gpu.amd.com", shareID="x")
    result = workload(deployment(1), [using(1, "a")], claims=[held])
    assert quantities(result.allocated_resources) == {"gpu.amd.com": None}
