"""What objects state in members that operators have renamed, added or spread over several places."""

from typing import Any

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import JSON, gpus, meta, pod, root, template, workload
from watchbill.kinds.derivation.claims import requested_by_claim
from watchbill.kinds.objects.gpu_units import gpus_of
from watchbill.kinds.objects.objects import ClusterObjects


def _gpus(obj: JSON, pods: list[JSON] | None = None, **more: Any) -> float:
    asked = workload(obj, pods or [], **more).workload_requested_resources.gpu
    return 0 if asked is None else asked.request or 0


def nim(**spec: Any) -> JSON:
    return root("apps.nvidia.com/v1alpha1", "NIMService", spec={"replicas": 1} | spec)


def test_a_nim_service_over_several_nodes_has_a_pod_for_each_stage() -> None:
    parallel = {"parallelism": {"pipeline": 2, "tensor": 8}}
    assert _gpus(nim(multiNode=parallel, resources=gpus(8))) == 16
    assert _gpus(nim(multiNode={"size": 3}, resources=gpus(8))) == 24


@pytest.mark.parametrize("member", ["claimCreationSpec", "claimSpec"])
def test_a_nim_service_s_claims_count_by_either_name(member: str) -> None:
    devices = [{"deviceClassName": "gpu.nvidia.com", "count": 2}]
    assert _gpus(nim(draResources=[{member: {"devices": devices}}])) == 2


def test_priority_classes_wherever_a_kind_can_name_them() -> None:
    policy = {"runPolicy": {"schedulingPolicy": {"priorityClass": "high", "queue": "research"}}}
    replicas = {"pytorchReplicaSpecs": {"Worker": {"template": template()}}}
    job = workload(root("kubeflow.org/v1", "PyTorchJob", spec=policy | replicas))
    cliques = {
        "priorityClassName": "high",
        "cliques": [{"name": "a", "spec": {"podSpec": template()["spec"]}}],
    }
    grove = workload(
        root("grove.io/v1alpha1", "PodCliqueSet", spec={"replicas": 1, "template": cliques})
    )
    for actual in (job, grove, workload(nim(priorityClassName="high"))):
        assert actual.priority_class_name == "high"
    assert job.project_name == "research"


def test_spark_begins_with_the_most_that_any_member_says() -> None:
    spec = {
        "executor": {"instances": 4},
        "dynamicAllocation": {"enabled": True, "initialExecutors": 2, "minExecutors": 1},
    }
    result = workload(root("sparkoperator.k8s.io/v1beta2", "SparkApplication", spec=spec))
    assert result.requested_pods.number == 5


def test_kueue_may_admit_a_part_of_a_job() -> None:
    annotation = {"kueue.x-k8s.io/job-min-parallelism": "4"}
    job = root(
        "batch/v1", "Job", spec={"parallelism": 8, "template": template()}, annotations=annotation
    )
    assert (workload(job).requested_pods.min, workload(job).requested_pods.number) == (4, 8)


def test_gpus_passed_through_to_a_guest_are_whole_ones_and_shares_are_not() -> None:
    assert gpus_of([("nvidia.com/GA102GL_A10", 2)], {}) == 2
    assert gpus_of([("nvidia.com/GRID_T4-2Q", 1)], {}) is None


def _claim(request: JSON, *results: JSON) -> JSON:
    return {
        "metadata": meta("c", 50),
        "spec": {
            "devices": {
                "requests": [
                    {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"} | request}
                ]
            }
        },
        "status": {
            "allocation": {
                "devices": {"results": [{"request": "gpu", "device": "d"} | r for r in results]}
            }
        },
    }


def test_all_devices_are_as_many_as_were_allocated() -> None:
    claim = _claim({"allocationMode": "All"}, *[{}] * 8)
    assert requested_by_claim(claim, SETTINGS).gpus == 8
    assert requested_by_claim(_claim({"allocationMode": "All"}), SETTINGS).gpus is None


def test_a_share_of_a_device_s_capacity_is_no_whole_gpu() -> None:
    claim = _claim({"capacity": {"requests": {"memory": "16Gi"}}}, {"shareID": "u"})
    sharing = pod(1, spec_resourceClaims=[{"name": "gpu", "resourceClaimName": "c"}])
    result = workload(root("v1", "Pod"), [sharing], claims=[claim])
    assert requested_by_claim(claim, SETTINGS).gpus is None
    assert result.allocated_resources.gpu is None


def test_a_share_of_a_device_s_memory_is_that_part_of_a_gpu() -> None:
    request = {"capacity": {"requests": {"memory": "20Gi"}}}
    claim = _claim(request, {"shareID": "u", "consumedCapacity": {"memory": "20Gi"}})
    sharing = pod(1, spec_resourceClaims=[{"name": "gpu", "resourceClaimName": "c"}])
    cluster = ClusterObjects(node_labels={"node-1": {"nvidia.com/gpu.memory": "81920"}})
    result = workload(root("v1", "Pod"), [sharing], claims=[claim], cluster=cluster)
    assert result.allocated_resources.gpu == 0.25


def test_a_machine_has_what_its_instance_type_adds() -> None:
    spec = {"instancetype": {"name": "u1"}, "template": {"spec": {"domain": {}}}}
    machine = root("kubevirt.io/v1", "VirtualMachine", spec=spec)
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "w"}
    owner |= {"uid": machine["metadata"]["uid"]}
    instance = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": meta("w", 7, ownerReferences=[owner | {"controller": True}]),
        "spec": {"domain": {"cpu": {"cores": 4, "sockets": 2}}},
    }
    asked = workload(machine, children=[instance]).workload_requested_resources.cpu
    assert asked is not None
    assert asked.request == 8
