"""AI work is distinguished from anything else: by its kind, by its parts, by what it asks for or holds."""

from typing import Any

import pytest

from tests.fixtures.kubernetes.lives import definitions
from tests.fixtures.makers import JSON, deployment, gpus, meta, pod, root, template, workload

GENERAL = {
    *("Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Service"),
    *("PipelineRun", "TaskRun", "Workflow", "CronWorkflow"),
    *("DevWorkspace", "VirtualMachine", "VirtualMachineInstance", "SPOTRequest"),
}
"""Kinds of which only what their pods ask for can tell. Volcano has a Job too, which is made for batch work."""


def class_of(*objs: JSON, **more: Any) -> str:
    result = workload(*objs, **more).additional_fields["workloadClass"]
    assert isinstance(result, str)
    return result


def asking(resources: JSON, **annotations: str) -> JSON:
    made = template(resources=resources)
    return made | {"metadata": {"annotations": annotations}}


def test_kinds_made_for_ai_are_marked_by_their_definitions() -> None:
    known = definitions()
    general = {
        key.kind
        for key, definition in known._definitions.items()
        if definition.workload_class == "General" and key.group != "batch.volcano.sh"
    }
    assert general == GENERAL


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (template(), "General"),
        (asking(gpus(1)), "AI"),
        (asking({"limits": {"nvidia.com/mig-1g.10gb": "1"}}), "AI"),
        (asking({"limits": {"google.com/tpu": "4"}}), "AI"),
        (asking({"limits": {"amd.com/gpu": "1"}}), "AI"),
        (asking({"limits": {"nvidia.com/gpu.shared": "1"}}), "AI"),
        (asking({}, **{"gpu-fraction": "0.5"}), "AI"),
        (asking({}, **{"gpu-memory": "4096"}), "AI"),
        (asking({"limits": {"cpu": "8", "nvidia.com/hostdev": "1"}}), "General"),
    ],
)
@pytest.mark.parametrize("replicas", [0, 2])
def test_of_other_kinds_what_is_asked_for_tells(made: JSON, expected: str, replicas: int) -> None:
    spec = {"replicas": replicas, "template": made}
    assert class_of(root("apps/v1", "Deployment", spec=spec)) == expected


def test_an_operator_is_general_work() -> None:
    plain = deployment()
    plain["spec"]["template"] = template()
    assert class_of(plain, pods=[pod(1)]) == "General"


def test_a_pod_that_holds_what_its_template_does_not_ask_for_tells() -> None:
    plain = deployment()
    plain["spec"]["template"] = template()
    held = pod(1, spec_containers=[{"name": "main", "image": "x", "resources": gpus(1)}])
    assert class_of(plain, pods=[held]) == "AI"


def test_an_owner_of_any_kind_is_ai_work_where_what_it_owns_is() -> None:
    owner = {"apiVersion": "x/v1", "kind": "Sweep", "metadata": meta("w", 1)}
    reference = {**owner, "name": "w", "uid": owner["metadata"]["uid"], "controller": True}
    job = root("kubeflow.org/v1", "PyTorchJob", spec={"pytorchReplicaSpecs": {}})
    job["metadata"] |= {"uid": "c", "ownerReferences": [reference]}
    assert class_of(owner, children=[job]) == "AI"
    assert class_of(owner) == "General"
