"""GPUs that pods hold through their resources: slices, shares and what the binder wrote."""

import pytest

from tests.fixtures.makers import JSON, container, deployment, gpus, pod, workload
from watchbill.kinds.objects.objects import ClusterObjects

GIB = 1024**3
NODES = ClusterObjects(
    node_labels={"node-1": {"nvidia.com/gpu.memory": "81920", "kai.scheduler/node-pool": "h100"}}
)


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
