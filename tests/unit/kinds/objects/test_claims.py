"""Devices by resource claims: exact figures."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import (
    JSON,
    condition,
    container,
    deployment,
    derived,
    gpus,
    pod,
    root,
    template,
    workload,
)
from watchbill.kinds.derivation.claims import (
    allocated_devices,
    requested_by_claim,
    requested_devices,
)
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.workload import Cores

GIB = 1024**3


def request(number: int = 1, cls: str = "gpu.nvidia.com", **more: Any) -> JSON:
    return {"name": "gpus", "exactly": {"deviceClassName": cls, "count": number} | more}


def sub(cls: str = "gpu.nvidia.com", **more: Any) -> JSON:
    return {"deviceClassName": cls} | more


def either(*alternatives: JSON) -> JSON:
    """A request with a prioritized list of alternatives, named 0, 1, …"""
    named = [{"name": str(place)} | each for place, each in enumerate(alternatives)]
    return {"name": "gpus", "firstAvailable": named}


def profile(name: str) -> list[JSON]:
    return [{"cel": {"expression": f"device.attributes['gpu.nvidia.com'].profile == '{name}'"}}]


def claim(name: str, *requests: JSON, held: int = 0, **result: Any) -> JSON:
    results = [
        {"request": "gpus", "driver": "gpu.nvidia.com", "pool": "node-1", "device": f"gpu-{number}"}
        | result
        for number in range(held)
    ]
    return {
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "vision", "uid": f"claim-{name}"},
        "spec": {"devices": {"requests": list(requests or (request(),))}},
        "status": {"allocation": {"devices": {"results": results}}} if held else {},
    }


@pytest.mark.parametrize(
    ("requests", "asked"),
    [
        ([request()], 1),
        ([request(4)], 4),
        ([{"name": "a", "deviceClassName": "gpu.nvidia.com"}], 1),
        ([{"name": "a", "deviceClassName": "gpu.nvidia.com", "count": 2}, request(1)], 3),
        ([request(1, allocationMode="All")], None),
        ([request(2, "mig.nvidia.com")], None),
        ([request(2, "compute-domain-daemon.nvidia.com")], 0),
        ([request(2, adminAccess=True)], 0),
        ([either(sub(count=2), sub("mig.nvidia.com"))], None),
        ([either(sub(count=2), sub(count=2, selectors=[{"cel": {"expression": "true"}}]))], 2),
        ([either(sub(count=2), sub(count=1))], None),
        ([either(sub(), sub("gpu.amd.com"))], None),
        ([either(sub("gpu.amd.com"), sub("gpu.intel.com"))], 0),
        ([either(sub("mig.nvidia.com"), sub("mig.nvidia.com"))], None),
        ([request(2, "gpu.amd.com")], 0),
        ([request(2, "gpu.intel.com")], 0),
        ([request(4, "tpu.google.com", allocationMode="All")], 0),
        ([request(10**12)], 1_024),
        ([request(2, "mig.nvidia.com", selectors=profile("3g.40gb"))], Fraction(6, 7)),
        ([request(1, "mig.nvidia.com", selectors=profile("1g.6gb"))], Fraction(1, 4)),
        ([request(1, "mig-2g.20gb.example.com")], Fraction(2, 7)),
        ([request(1, "nics.example.com", selectors=[{"cel": {"expression": "true"}}])], 0),
        ([request(-3)], 0),
        (["x", None, {}], 0),
    ],
)
def test_what_a_claim_asks_for(requests: list[Any], asked: int | Fraction | None) -> None:
    assert requested_devices({"requests": requests}, SETTINGS).gpus == asked


def test_what_a_claim_holds() -> None:
    assert allocated_devices(claim("a", request(2), held=2), SETTINGS).gpus == 2
    assert allocated_devices(claim("a", request(2)), SETTINGS).gpus == 0
    assert allocated_devices(claim("a", request(2), held=2, adminAccess=True), SETTINGS).gpus == 0
    assert (
        allocated_devices(claim("a", request(1, "mig.nvidia.com"), held=1), SETTINGS).gpus is None
    )
    several = {"name": "gpus", "firstAvailable": [{"name": "b", "deviceClassName": "x-gpu"}]}
    assert allocated_devices(claim("a", several, held=1, request="gpus/b"), SETTINGS).gpus == 1
    assert allocated_devices(claim("a", several, held=1, request="gpus/c"), SETTINGS).gpus == 0
    named = replace(SETTINGS, gpu_device_classes=frozenset({"accelerators"}))
    assert allocated_devices(claim("a", request(2), held=2), named).gpus == 0
    assert allocated_devices(claim("a", request(2, "accelerators"), held=2), named).gpus == 2


@pytest.mark.parametrize(
    ("device", "selectors", "share"),
    [
        ("gpu-0-mig-1g10gb-19-2", [], Fraction(1, 7)),
        ("gpu-0-mig-3g40gb-4-4", profile("2g.20gb"), Fraction(3, 7)),
        # The older name holds numbers that mean one profile on one sort of GPU and another on another.
        ("gpu-0-mig-9-4-4", profile("3g.20gb"), Fraction(3, 7)),
        ("gpu-0-mig-9-4-4", [], None),
    ],
)
def test_a_slice_held_through_a_claim(
    device: str, selectors: list[JSON], share: Fraction | None
) -> None:
    asked = request(1, "mig.nvidia.com", selectors=selectors)
    assert allocated_devices(claim("a", asked, held=1, device=device), SETTINGS).gpus == share


@pytest.mark.parametrize(
    ("node", "share"),
    [({}, None), ({"nvidia.com/gpu.product": "NVIDIA-GH200-480GB"}, Fraction(1, 7))],
)
def test_the_nodes_product_sizes_a_slice_whose_name_is_not_enough(
    node: dict[str, str], share: Fraction | None
) -> None:
    asked = request(1, "mig.nvidia.com", selectors=profile("1g.24gb"))
    for device in ("gpu-0-mig-1g24gb-19-2", "gpu-0-mig-9-4-4"):
        held = claim("a", asked, held=1, device=device)
        assert allocated_devices(held, SETTINGS, node_labels=node).gpus == share


def test_of_alternatives_the_one_that_was_given_is_asked_for() -> None:
    asked = either(sub(count=2), sub())
    assert requested_by_claim(claim("a", asked), SETTINGS).gpus is None
    assert requested_by_claim(claim("a", asked, held=1, request="gpus/1"), SETTINGS).gpus == 1
    assert requested_by_claim(claim("a", asked, held=2, request="gpus/0"), SETTINGS).gpus == 2


def device_class(*expressions: str, **spec: Any) -> JSON:
    return {"spec": {"selectors": [{"cel": {"expression": each}} for each in expressions]} | spec}


NVIDIA = "device.driver == 'gpu.nvidia.com'"
TYPE = "device.attributes['gpu.nvidia.com'].type == '{}'"
CLASSES = ClusterObjects(
    device_classes={
        "fast": device_class(f"{NVIDIA} && {TYPE.format('gpu')}"),
        "virtual": device_class(f"{NVIDIA} && {TYPE.format('vfio')}"),
        "small": device_class(
            NVIDIA, TYPE.format("mig"), "device.attributes['gpu.nvidia.com'].profile == '2g.20gb'"
        ),
        "slice": device_class(f"{NVIDIA} && {TYPE.format('mig')}"),
        "cards": device_class('device.driver == "gpu.amd.com"'),
        "gpu-nics": device_class('device.driver == "nics.example.com"'),
        "gpu-any": device_class(),
        "either-gpu": device_class(f"{NVIDIA} || device.driver == 'gpu.intel.com'"),
    }
)


@pytest.mark.parametrize(
    ("cls", "gpus", "others"),
    [
        ("fast", 2, {}),
        ("virtual", 2, {}),
        ("small", Fraction(4, 7), {}),
        ("slice", None, {}),
        ("cards", 0, {"deviceclass.resource.kubernetes.io/cards": 2}),
        ("gpu-nics", 0, {}),
        ("gpu-any", 2, {}),
        ("either-gpu", None, {}),
        ("gpu.amd.com", 0, {"deviceclass.resource.kubernetes.io/gpu.amd.com": 2}),
        ("gaudi.intel.com", 0, {"deviceclass.resource.kubernetes.io/gaudi.intel.com": 2}),
        ("qat.intel.com", 0, {}),
    ],
)
def test_a_class_is_what_its_selectors_say_else_its_name(
    cls: str, gpus: Fraction | None, others: dict[str, int]
) -> None:
    asked = requested_by_claim(claim("a", request(2, cls)), SETTINGS, CLASSES)
    assert (asked.gpus, dict(asked.others)) == (gpus, others)


@pytest.mark.parametrize(
    ("cls", "driver", "device", "gpus", "others"),
    [
        ("gpu.amd.com", "gpu.amd.com", "gpu-1-129", 0, 1),
        ("gpu", "gpu.intel.com", "0000-3a-00-0-0x56c0", 0, 1),
        ("accelerators", "tpu.google.com", "tpu-0", 0, 1),
        ("gpu-nics", "nics.example.com", "nic-0", 0, 0),
        ("gpu.example.com", "gpu.example.com", "gpu-0", 1, 0),
        ("either-gpu", "gpu.nvidia.com", "gpu-0", 1, 0),
        ("either-gpu", "gpu.intel.com", "card-0", 0, 1),
    ],
)
def test_the_driver_tells_whose_device_was_given(
    cls: str, driver: str, device: str, gpus: int, others: int
) -> None:
    held = claim("a", request(1, cls), held=1, driver=driver, device=device)
    result = workload(deployment(1), [using(1, "a")], claims=[held], cluster=CLASSES)
    assert result.allocated_resources.gpu == gpus
    named = {f"deviceclass.resource.kubernetes.io/{cls}": "1"} if others else {}
    for each in (result.allocated_resources, result.pods_requested_resources):
        assert {e.resource: e.quantity for e in each.extended_resources} == named
    asked = result.pods_requested_resources.gpu
    assert (asked.request if asked else 0) == gpus
    assert result.additional_fields is not None


@pytest.mark.parametrize(
    ("asked", "given", "gpus"),
    [
        (request(2, "h100"), None, None),
        (request(2, "fast"), None, 2),
        (request(2), None, 2),
        (request(2, "cards.amd-gpu"), None, 0),
        (request(1, "h100"), ("gpu.nvidia.com", "gpu-0"), 1),
        (request(1, "h100"), ("gpu.nvidia.com", "gpu-0-mig-3g40gb-9-0"), Fraction(3, 7)),
        (request(1, "h100"), ("gpu.nvidia.com", "own-name"), None),
        (request(1, "h100"), ("nics.example.com", "nic-0"), 0),
        (request(1, "h100"), ("gpu.amd.com", "gpu-0"), 0),
    ],
)
def test_while_classes_cannot_be_read_a_name_that_tells_nothing_is_unknown(
    asked: JSON, given: tuple[str, str] | None, gpus: Fraction | None
) -> None:
    """What a device was given by tells what it is, whatever its class is named."""
    named = {} if given is None else {"held": 1, "driver": given[0], "device": given[1]}
    cluster = msgspec.structs.replace(CLASSES, are_device_classes_read=False)
    assert requested_by_claim(claim("a", asked, **named), SETTINGS, cluster).gpus == gpus
    by_settings = replace(SETTINGS, gpu_device_classes=frozenset({"gpu.nvidia.com"}))
    if given is None and asked["exactly"]["deviceClassName"] == "h100":
        assert requested_by_claim(claim("a", asked), by_settings, cluster).gpus == 0


def test_what_alternatives_of_a_template_are_is_known_once_all_pods_have_theirs() -> None:
    asked = [{"name": "gpu", "resourceClaimTemplateName": "either"}]
    spec = {"replicas": 2, "template": {"spec": template()["spec"] | {"resourceClaims": asked}}}
    alternatives = either(sub(count=4), sub())
    made = {
        ("vision", "either"): {"spec": {"spec": {"devices": {"requests": [alternatives]}}}},
    }
    pods = [
        pod(
            number,
            spec_resourceClaims=asked,
            status_resourceClaimStatuses=[{"name": "gpu", "resourceClaimName": f"c-{number}"}],
        )
        for number in (1, 2)
    ]
    large = claim("c-1", alternatives, held=4, request="gpus/0")
    little = claim("c-2", alternatives, held=1, request="gpus/1")
    deploy = root("apps/v1", "Deployment", spec=spec)
    cluster = ClusterObjects(claim_templates=made)
    both = workload(deploy, pods, claims=[large, little], cluster=cluster)
    assert both.workload_requested_resources.gpu == Cores(request=5, limit=5)
    assert both.pods_requested_resources.gpu == Cores(request=5, limit=5)
    first = workload(deploy, pods[:1], claims=[large], cluster=cluster)
    assert first.workload_requested_resources.gpu is None
    assert first.allocated_resources.gpu == 4
    unread = workload(deploy, pods[:1], claims=[large])
    assert unread.workload_requested_resources.gpu is None, "a template that cannot be read"
    gone = workload(deploy, pods, claims=[large, little])
    assert gone.workload_requested_resources.gpu == Cores(request=5, limit=5)


def test_devices_that_wait_to_be_bound_are_asked_for_and_not_held() -> None:
    """The scheduler allocates a claim, and binds its pod when the conditions of the devices are there."""
    waits = claim("a", request(2), held=2, bindingConditions=["example.com/attached"])
    result = workload(deployment(1), [using(1, "a", state="waiting")], claims=[waits])
    assert result.pods_requested_resources.gpu == Cores(request=2, limit=2)
    assert result.allocated_resources.gpu == 0


def using(number: int, *names: str, state: str = "ready", **more: Any) -> JSON:
    claims = [{"name": f"c{place}", "resourceClaimName": name} for place, name in enumerate(names)]
    return pod(number, state, spec_resourceClaims=claims, **more)


NODES = ClusterObjects(
    node_labels={"node-1": {"nvidia.com/gpu.memory": "81920", "kai.scheduler/node-pool": "h100"}}
)


def test_a_claim_that_pods_share_is_counted_once() -> None:
    shared = claim("shared", request(2), held=2)
    own = claim("own", request(1), held=1)
    pods = [using(1, "shared", "own"), using(2, "shared"), using(3, "shared", "shared")]
    record = derived(deployment(3), pods, claims=[shared, own, shared], cluster=NODES).record
    assert record.workload.pods_requested_resources.gpu == Cores(request=3, limit=3)
    assert record.workload.allocated_resources.gpu == 3.0
    assert record.workload.allocated_resources.gpu_memory == "240Gi"
    assert record.gpu_millionths_by_node_pool == {"h100": 3_000_000}
    assert record.usage.gpu_memory_request_bytes == 240 * GIB


def test_why_pods_wait_tells_what_their_claims_ask_for() -> None:
    waits = {
        "phase": "Pending",
        "conditions": [
            condition(
                "PodScheduled",
                "False",
                reason="Unschedulable",
                message="0/8 nodes are available: 8 cannot allocate all claims.",
            )
        ],
    }
    pods = [using(number, f"c-{number}", "shared", state="waiting") for number in (1, 2)]
    for claiming in pods:
        claiming["status"] = waits
    claims = [claim("c-1", request(4)), claim("c-2", request(4)), claim("shared")]
    assert workload(deployment(2), pods, claims=claims).phase_message == (
        "No node has the devices that its claims request – 2 pods request 9 GPUs in total,"
        " 8 of 8 nodes reject it for this reason – free devices, request fewer, or add nodes."
    )


def test_why_pods_wait_tells_devices_whose_number_of_gpus_is_not_known() -> None:
    message = "0/2 nodes are available: 2 cannot allocate all claims."
    scheduled = condition("PodScheduled", "False", reason="Unschedulable", message=message)
    for asked, requests in (
        (either(sub(count=4), sub()), "GPUs through claims"),
        (request(4, "gpu.amd.com"), "4 devices of class gpu.amd.com"),
    ):
        waiting = using(1, "a", state="waiting")
        waiting["status"] = {"phase": "Pending", "conditions": [scheduled]}
        message = workload(deployment(1), [waiting], claims=[claim("a", asked)]).phase_message
        assert message is not None
        assert f"1 pod requests {requests}, 2 of 2 nodes" in message


def test_what_a_claim_that_cannot_be_seen_holds_is_not_known() -> None:
    pods = [using(1, "a"), using(2, "b"), using(3, "a", state="succeeded")]
    record = derived(deployment(2), pods, claims=[claim("b", held=1)]).record
    assert record.workload.allocated_resources.gpu is None
    assert record.workload.pods_requested_resources.gpu is None
    assert workload(deployment(1), [pods[2]]).allocated_resources.gpu == 0


def test_a_claim_without_devices_yet_is_asked_for_and_not_held() -> None:
    result = workload(deployment(1), [using(1, "a", state="waiting")], claims=[claim("a")])
    assert result.pods_requested_resources.gpu == Cores(request=1, limit=1)
    assert result.allocated_resources.gpu == 0
    stray = workload(deployment(1), [pod(1)], claims=[claim("a", held=1)])
    assert stray.allocated_resources.gpu == 0


def test_claims_made_from_a_template_are_found_by_the_pod_s_status() -> None:
    asked = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    spec = {"replicas": 4, "template": {"spec": template()["spec"] | {"resourceClaims": asked}}}
    made = {
        "claim_templates": {
            ("vision", "one-gpu"): {"spec": {"spec": {"devices": {"requests": [request(2)]}}}}
        }
    }
    statuses = [{"name": "gpu", "resourceClaimName": "w-1-gpu-x7"}]
    result = workload(
        root("apps/v1", "Deployment", spec=spec),
        [pod(1, spec_resourceClaims=asked, status_resourceClaimStatuses=statuses)],
        claims=[claim("w-1-gpu-x7", request(2), held=2)],
        cluster=ClusterObjects(**made),
    )
    assert result.workload_requested_resources.gpu == Cores(request=8, limit=8)
    assert result.pods_requested_resources.gpu == Cores(request=2, limit=2)
    assert result.allocated_resources.gpu == 2


def test_a_shared_claim_of_a_template_is_asked_for_once_whatever_the_replicas() -> None:
    asked = [{"name": "gpu", "resourceClaimName": "shared"}]
    spec = {"replicas": 4, "template": {"spec": template()["spec"] | {"resourceClaims": asked}}}
    result = workload(
        root("apps/v1", "Deployment", spec=spec), claims=[claim("shared", request(2))]
    )
    assert result.workload_requested_resources.gpu == Cores(request=2, limit=2)


def test_a_claim_made_for_an_extended_resource_is_not_counted_again() -> None:
    made = {"resourceClaimName": "w-1-extended", "requestMappings": []}
    held = claim("w-1-extended", request(2), held=2)
    result = workload(
        deployment(1),
        [
            pod(
                1,
                spec_containers=[container(resources=gpus(2))],
                status_extendedResourceClaimStatus=made,
            )
        ],
        claims=[held],
    )
    assert result.allocated_resources.gpu == 2
    implicit = {"limits": {"deviceclass.resource.kubernetes.io/gpu.nvidia.com": "2"}}
    result = workload(deployment(1), [pod(1, spec_containers=[container(resources=implicit)])])
    assert result.allocated_resources.gpu == 2


SLICES = ClusterObjects(
    node_labels=NODES.node_labels,
    device_profiles={("gpu.nvidia.com", "node-1"): {"gpu-0-mig-9-4-4": "3g.40gb"}},
)


@pytest.mark.parametrize(
    ("cls", "device", "share"),
    [
        ("mig.nvidia.com", "gpu-0-mig-9-4-4", 0.428571),
        ("small", "gpu-0-mig-9-4-4", 0.428571),
        ("small", "gpu-0-mig-1g10gb-19-2", 0.142857),
        ("training", "gpu-3", 1.0),
    ],
)
def test_what_was_given_tells_what_a_class_of_any_name_is(
    cls: str, device: str, share: float
) -> None:
    held = claim("a", request(1, cls), held=1, device=device)
    result = workload(deployment(1), [using(1, "a")], claims=[held], cluster=SLICES)
    assert result.allocated_resources.gpu == pytest.approx(share, abs=2e-6)
    asked = result.pods_requested_resources.gpu
    assert asked is not None
    assert asked.request == pytest.approx(share, abs=2e-6)


def test_a_part_of_a_gpu_that_was_given_is_what_was_asked_for() -> None:
    memory = {"memory": "20Gi"}
    for asked in (request(1, capacity={"requests": memory}), request()):
        for name in ("memory", "gpu.nvidia.com/memory"):
            held = claim("a", asked, held=1, consumedCapacity={name: "20Gi"}, shareID="x")
            result = workload(deployment(1), [using(1, "a")], claims=[held], cluster=SLICES)
            assert result.pods_requested_resources.gpu == Cores(request=0.25, limit=0.25)
            assert result.allocated_resources.gpu == 0.25


def test_a_template_is_looked_at_once_however_often_pods_name_it() -> None:
    """One of a megabyte that a pod's template names ten thousand times held the agent for half an hour."""

    class Counted(dict[tuple[str, str], Any]):
        visits = 0

        def get(self, *args: Any) -> Any:
            self.visits += 1
            return super().get(*args)

    two = {"spec": {"spec": {"devices": {"requests": [request(2)]}}}}

    def visits(times: int) -> int:
        asked = [{"name": f"gpu-{n}", "resourceClaimTemplateName": "two"} for n in range(times)]
        pods = {"spec": template()["spec"] | {"resourceClaims": asked}}
        deploy = root("apps/v1", "Deployment", spec={"replicas": 4, "template": pods})
        made = Counted({("vision", "two"): two})
        result = workload(deploy, [], cluster=ClusterObjects(claim_templates=made))
        gpus = 8 * times
        assert result.workload_requested_resources.gpu == Cores(request=gpus, limit=gpus)
        return made.visits

    assert visits(3) == visits(1)
