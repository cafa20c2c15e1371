"""Labels, nodes and GPU types by which workloads are found: their own alone, bounded, without secrets."""

from typing import Any

from tests.fixtures.makers import container, deployment, gpus, pod, root, template, workload
from watchbill.kinds.derivation.presentation import MAX_LABELS, MAX_NODES
from watchbill.kinds.objects.objects import ClusterObjects

H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}


def fields_of(*objs: Any, **more: Any) -> dict[str, Any]:
    return workload(*objs, **more).additional_fields


def labelled(labels: dict[str, str]) -> Any:
    made = deployment()
    made["metadata"]["labels"] = labels
    return made


def test_the_workloads_own_labels_are_reported() -> None:
    fields = fields_of(labelled({"team": "vision", "app.kubernetes.io/name": "llm"}))
    assert fields["labels"] == {"app.kubernetes.io/name": "llm", "team": "vision"}
    assert "labels" not in fields_of(labelled({}))


def test_of_too_many_labels_some_are_left_out_and_it_is_reported() -> None:
    fields = fields_of(labelled({f"l{number:03}": "x" for number in range(MAX_LABELS + 1)}))
    assert len(fields["labels"]) == MAX_LABELS
    assert fields["truncated"] == ["labels"]


def test_a_label_that_holds_a_secret_is_hidden() -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
    fields = fields_of(labelled({"api-token": token, "team": "vision"}))
    assert token not in str(fields["labels"])
    assert fields["labels"]["team"] == "vision"


def on(number: int, node: str, state: str = "ready", **container_fields: Any) -> Any:
    containers = [container(**container_fields)]
    return pod(number, state, spec_nodeName=node, spec_containers=containers)


def test_nodes_are_those_of_all_pods_and_models_of_those_with_gpus() -> None:
    pods = [
        on(1, "gpu-1", resources=gpus(1)),
        on(2, "gpu-1", resources=gpus(1)),
        on(3, "cpu-1"),
        on(4, "gpu-2", "succeeded", resources=gpus(1)),
    ]
    a30 = {"nvidia.com/gpu.product": "NVIDIA-A30"}
    nodes = {"gpu-1": H100, "gpu-2": a30, "cpu-1": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    fields = fields_of(deployment(), pods, cluster=ClusterObjects(node_labels=nodes))
    assert fields["nodes"] == ["cpu-1", "gpu-1", "gpu-2"]
    assert fields["gpuModels"] == ["NVIDIA-A30", "NVIDIA-H100-80GB-HBM3"]


def test_before_it_is_placed_the_model_that_it_asks_for_counts() -> None:
    made = template(resources=gpus(1))
    made["spec"]["nodeSelector"] = H100
    fields = fields_of(root("apps/v1", "Deployment", spec={"replicas": 1, "template": made}))
    assert fields["gpuModels"] == ["NVIDIA-H100-80GB-HBM3"]
    assert "nodes" not in fields


def test_of_too_many_nodes_some_are_left_out_and_it_is_reported() -> None:
    pods = [on(number, f"node-{number:05}") for number in range(MAX_NODES + 1)]
    fields = fields_of(deployment(), pods)
    assert len(fields["nodes"]) == MAX_NODES
    assert fields["truncated"] == ["nodes"]
