"""GPUs by resource claims, by slices and by what the binder wrote: exact figures."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

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
        (
            [
                {
                    "name": "a",
                    "firstAvailable": [
                        {"name": "big", "deviceClassName": "gpu.nvidia.com", "count": 2},
                        {"name": "small", "deviceClassName": "mig.nvidia.com"},
                    ],
                }
            ],
            2,
        ),
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
    assert requested_devices({"requests": requests}, SETTINGS) == asked


def test_what_a_claim_holds() -> None:
    assert allocated_devices(claim("a", request(2), held=2), SETTINGS) == 2
    assert allocated_devices(claim("a", request(2)), SETTINGS) == 0
    assert allocated_devices(claim("a", request(2), held=2, adminAccess=True), SETTINGS) == 0
    assert allocated_devices(claim("a", request(1, "mig.nvidia.com"), held=1), SETTINGS) is None
    several = {"name": "gpus", "firstAvailable": [{"name": "b", "deviceClassName": "x-gpu"}]}
    assert allocated_devices(claim("a", several, held=1, request="gpus/b"), SETTINGS) == 1
    assert allocated_devices(claim("a", several, held=1, request="gpus/c"), SETTINGS) == 0
    named = replace(SETTINGS, gpu_device_classes=frozenset({"accelerators"}))
    assert allocated_devices(claim("a", request(2), held=2), named) == 0
    assert allocated_devices(claim("a", request(2, "accelerators"), held=2), named) == 2


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
    assert allocated_devices(claim("a", asked, held=1, device=device), SETTINGS) == share


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
        assert allocated_devices(held, SETTINGS, node) == share


def test_of_alternatives_the_one_that_was_given_is_asked_for() -> None:
    either = {
        "name": "gpus",
        "firstAvailable": [
            {"name": "two", "deviceClassName": "gpu.nvidia.com", "count": 2},
            {"name": "one", "deviceClassName": "gpu.nvidia.com"},
        ],
    }
    assert requested_by_claim(claim("a", either), SETTINGS) == 2
    assert requested_by_claim(claim("a", either, held=1, request="gpus/one"), SETTINGS) == 1


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


@pytest.mark.parametrize(
    ("resource", "number", "share"),
    [
        ("nvidia.com/mig-1g.10gb", 7, 1.0),
        ("nvidia.com/mig-3g.40gb", 1, 0.428571),
        ("nvidia.com/mig-7g.80gb", 2, 2.0),
        ("nvidia.com/mig-1g.10gb.me", 1, 0.142857),
        ("nvidia.com/mig-1g.5gb+me", 2, 0.285714),
        ("nvidia.com/mig-1g.6gb", 4, 1.0),
        ("nvidia.com/mig-2g.12gb.me", 1, 0.5),
        ("nvidia.com/mig-4g.24gb", 1, 1.0),
        ("nvidia.com/mig-4g.40gb", 1, 0.571429),
        ("nvidia.com/mig-9g.80gb", 1, 1.0),
        ("nvidia.com/mig-xg.80gb", 1, None),
    ],
)
def test_slices_are_their_share_of_a_gpu(resource: str, number: int, share: float | None) -> None:
    asked = [container(resources={"limits": {resource: str(number)}})]
    result = workload(deployment(1), [pod(1, spec_containers=asked)])
    assert result.allocated_resources.gpu == share
    [extended] = result.allocated_resources.extended_resources
    assert (extended.resource, extended.quantity) == (resource, str(number))


@pytest.mark.parametrize(
    ("noted", "gpu", "memory"),
    [
        ({"gpu-fraction": "0.5"}, 0.5, "40Gi"),
        ({"gpu-fraction": "0.25", "gpu-fraction-num-devices": "2"}, 0.5, "40Gi"),
        ({"gpu-fraction": "0.333"}, 0.33, None),
        (
            {
                "gpu-fraction": "0.5",
                "received-resource-type": "Fraction",
                "runai-allocated-gpus": "0.25",
                "runai-allocated-gpu-memory": "7680",
            },
            0.25,
            "7680Mi",
        ),
        ({"runai-allocated-mig-gpus": "0.142857"}, 0.142857, None),
        ({"gpu-memory": "20480"}, 0.25, "20Gi"),
        ({"gpu-memory": "20480", "gpu-fraction-num-devices": "2"}, 0.5, "40Gi"),
        ({"gpu-memory": "8000"}, 0.1, "8000Mi"),
        ({"gpu-fraction": "1.5"}, 0.0, None),
        ({"gpu-fraction": "nonsense"}, 0.0, None),
        ({"runai-allocated-gpus": "-1", "gpu-fraction": "0.5"}, 0.5, "40Gi"),
    ],
)
def test_shares_and_what_the_binder_wrote(noted: JSON, gpu: float, memory: str | None) -> None:
    result = workload(deployment(1), [pod(1, meta_annotations=noted)], cluster=NODES)
    assert result.allocated_resources.gpu == gpu
    if memory is not None:
        assert result.allocated_resources.gpu_memory == memory


@pytest.mark.parametrize(
    ("label", "memory"),
    [("81920", "160Gi"), (str(80 * GIB), "160Gi"), ("much", None), (None, None)],
)
def test_the_memory_of_whole_gpus_comes_from_their_node(
    label: str | None, memory: str | None
) -> None:
    labels = {} if label is None else {"nvidia.com/gpu.memory": label}
    held = [pod(1, spec_containers=[container(resources=gpus(2))])]
    cluster = ClusterObjects(node_labels={"node-1": labels})
    assert workload(deployment(1), held, cluster=cluster).allocated_resources.gpu_memory == memory


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
    held = claim(
        "a", request(1, capacity={"requests": memory}), held=1, consumedCapacity=memory, shareID="x"
    )
    result = workload(deployment(1), [using(1, "a")], claims=[held], cluster=SLICES)
    assert result.pods_requested_resources.gpu == Cores(request=0.25, limit=0.25)
    assert result.allocated_resources.gpu == 0.25
