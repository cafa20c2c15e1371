"""The members of a record: whose it is, what it asks for and holds, where it runs, where it answers."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import (
    JSON,
    at,
    condition,
    container,
    deployment,
    derived,
    gpus,
    job,
    pod,
    pod_group,
    pytorch,
    queue,
    root,
    template,
    uid,
    workload,
)
from watchbill.errors import Invalid
from watchbill.kinds.derivation.elements import MAX_ELEMENTS
from watchbill.kinds.objects.containers import read_containers
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.kinds.objects.settings import Redaction
from watchbill.workload import Cores, Quantity

GIB = 1024**3


# Organisation


# Priority

CLASSES = {
    "train": {"value": 50},
    "build": {"value": 100},
    "normal": {"value": 7, "globalDefault": True},
}


@pytest.mark.parametrize(
    ("spec", "priority"),
    [
        ({"priorityClassName": "train"}, ("train", 50, True)),
        ({"priorityClassName": "build"}, ("build", 100, False)),
        (
            {"priorityClassName": "build", "preemptibility": "preemptible"},
            ("build", 100, True),
        ),
        (
            {"priorityClassName": "train", "preemptibility": "non-preemptible"},
            ("train", 50, False),
        ),
        ({"priorityClassName": "lost"}, ("lost", None, True)),
        ({}, ("", None, True)),
    ],
)
def test_priority_under_kai(spec: JSON, priority: tuple[Any, ...]) -> None:
    cluster = ClusterObjects(priority_classes=CLASSES)
    result = workload(pytorch(), pod_groups=[pod_group(spec=spec)], cluster=cluster)
    assert (result.priority_class_name, result.priority, result.preemptible) == priority


def test_priority_elsewhere() -> None:
    plain = pod(1, spec_priorityClassName="train", spec_priority=50)
    result = workload(deployment(1), [plain])
    assert (result.priority_class_name, result.priority, result.preemptible) == ("train", 50, None)
    labelled = workload(pytorch(labels={"kai.scheduler/preemptibility": "preemptible"}))
    assert labelled.preemptible is True


def test_guaranteed_runtime() -> None:
    group = pod_group(
        spec={"queue": "q", "preemptibility": "preemptible"},
        annotations={"kai.scheduler/last-start-timestamp": at(30)},
    )
    queues = {"q": queue("q", "d"), "d": queue("d", preemptMinRuntime="1h30m")}
    cluster = ClusterObjects(queues=queues)
    result = workload(pytorch(), [pod(1)], pod_groups=[group], cluster=cluster)
    assert result.guaranteed_runtime_ends_at is not None
    assert result.guaranteed_runtime_ends_at.isoformat() == "2026-05-04T12:00:00+00:00"
    firm = group | {"spec": {"queue": "q", "preemptibility": "non-preemptible"}}
    result = workload(pytorch(), [pod(1)], pod_groups=[firm], cluster=cluster)
    assert result.guaranteed_runtime_ends_at is None
    queues["q"]["spec"]["preemptMinRuntime"] = "0s"
    result = workload(pytorch(), [pod(1)], pod_groups=[group], cluster=cluster)
    assert result.guaranteed_runtime_ends_at is None


# Resources


def test_asked_for_existing_and_held() -> None:
    resources = {
        "requests": {"cpu": "500m", "memory": "64Mi"},
        "limits": {"nvidia.com/gpu": "2", "memory": "64M", "rdma/ib": "1"},
    }
    spec = {"replicas": 3, "template": template(resources=resources)}
    containers = [container(resources=resources)]
    pods = [
        pod(1, spec_containers=containers),
        pod(2, "waiting", spec_containers=containers),
        pod(3, "failed", spec_containers=containers),
        pod(4, spec_containers=containers, meta_deletionTimestamp=at(9)),
    ]
    record = derived(root("apps/v1", "Deployment", spec=spec), pods).record
    actual = record.workload
    asked = actual.workload_requested_resources
    assert asked.gpu_request_type == "portion"
    assert asked.gpu == Cores(request=6.0, limit=6.0)
    assert asked.cpu == Cores(request=1.5)
    assert asked.cpu_memory == Quantity(request="192Mi", limit="192M")
    assert [(item.resource, item.quantity) for item in asked.extended_resources] == [
        ("rdma/ib", "3")
    ]
    assert actual.pods_requested_resources.gpu == Cores(request=6.0, limit=6.0)
    assert actual.allocated_resources.gpu == 4.0
    assert actual.allocated_resources.cpu == 1.0
    assert actual.allocated_resources.cpu_memory == "128Mi"
    assert (actual.idle_allocated_gpus, actual.idle_gpus) == (None, None)
    assert record.usage.pod_count == 4
    assert record.usage.running_pod_count == 1
    assert record.usage.cpu_request_cores == 1.5
    assert record.usage.cpu_limit_cores is None
    assert record.usage.cpu_memory_request_bytes == 192 * 1024**2


def test_without_gpus_nothing_idles() -> None:
    result = workload(deployment(1), [pod(1)])
    assert result.allocated_resources.gpu == 0
    assert (result.idle_allocated_gpus, result.idle_gpus) == (0, 0)
    assert result.workload_requested_resources.gpu is None
    assert result.workload_requested_resources.gpu_request_type is None


def test_gpu_memory_is_asked_for_in_bytes_and_held_as_a_share() -> None:
    noted = {"gpu-memory": "8192"}
    node = {"nvidia.com/gpu.memory": "81920", "kai.scheduler/node-pool": "h100"}
    result = derived(
        root(
            "apps/v1",
            "Deployment",
            spec={"template": template() | {"metadata": {"annotations": noted}}},
        ),
        [pod(1, meta_annotations=noted)],
        cluster=ClusterObjects(node_labels={"node-1": node}),
    ).record
    asked = result.workload.workload_requested_resources
    assert (asked.gpu_request_type, asked.gpu) == ("memory", None)
    assert asked.gpu_memory == Quantity(request="8Gi")
    assert result.workload.allocated_resources.gpu == pytest.approx(0.1)
    assert result.workload.allocated_resources.gpu_memory == "8Gi"
    assert result.gpu_millionths_by_node_pool == {"h100": 100_000}
    assert result.usage.gpu_memory_request_bytes == 8 * GIB


def test_gpus_are_split_by_the_pools_that_hold_them() -> None:
    nodes = {
        "a": {"kai.scheduler/node-pool": "a100", "nvidia.com/gpu.product": "NVIDIA-A100-PCIE-40GB"},
        "b": {},
    }
    resources = [container(resources=gpus(2))]
    shared = {"gpu-fraction": "0.25"}
    record = derived(
        pytorch(),
        [
            pod(1, spec_nodeName="a", spec_containers=resources),
            pod(2, spec_nodeName="b", spec_containers=resources),
            pod(3, spec_nodeName="b", meta_annotations=shared),
        ],
        cluster=ClusterObjects(node_labels=nodes),
    ).record
    assert record.gpu_millionths_by_node_pool == {"a100": 2_000_000, "default": 2_250_000}
    assert record.gpu_millionths_by_model == {"NVIDIA-A100-PCIE-40GB": 2_000_000, "": 2_250_000}
    assert record.usage.gpu_millionths == 4_250_000
    assert record.workload.allocated_resources.gpu == 4.25
    assert record.workload.current_node_pools == ("a100", "default")


def test_seven_slices_are_one_gpu() -> None:
    slices = [container(resources={"limits": {"nvidia.com/mig-1g.10gb": "1"}})]
    result = workload(deployment(7), [pod(number, spec_containers=slices) for number in range(7)])
    assert result.allocated_resources.gpu == 1.0
    [extended] = result.allocated_resources.extended_resources
    assert (extended.resource, extended.quantity) == ("nvidia.com/mig-1g.10gb", "7")


def test_requested_pods() -> None:
    result = job(parallelism=4, completions=10)
    asked = workload(result).requested_pods
    assert (asked.number, asked.parallelism, asked.completions) == (4, 4, 10)
    asked = workload(job()).requested_pods
    assert (asked.number, asked.parallelism, asked.completions) == (1, 1, 1)
    queue_like = workload(job(parallelism=3)).requested_pods
    assert (queue_like.number, queue_like.completions) == (3, None)
    elastic = pytorch(spec={"elasticPolicy": {"minReplicas": 1, "maxReplicas": 8}})
    asked = workload(elastic).requested_pods
    assert (asked.number, asked.min, asked.max) == (3, 2, 9)
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "w"},
            "minReplicas": 2,
            "maxReplicas": 9,
        },
    }
    asked = workload(deployment(3), autoscalers=[scaler]).requested_pods
    assert (asked.number, asked.min, asked.max) == (3, 2, 9)


# Containers


def test_of_more_containers_than_are_stored_those_that_failed_are() -> None:
    names = [f"c{number}" for number in range(60)]
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status = {
        "containerStatuses": [
            {"name": "c3", "state": {"terminated": {"exitCode": 0}}},
            {"name": "c55", "lastState": ended, "restartCount": 2},
            {"name": "c59", "state": ended},
        ]
    }
    stored = read_containers({"containers": [{"name": name} for name in names]}, status)
    assert [container.name for container in stored] == [*names[:48], "c55", "c59"]
    assert (stored[-1].reason, stored[-2].restarts) == ("OOMKilled", 2)


# Templates


def test_what_runs_is_shown_of_the_default_container_of_the_first_role() -> None:
    spec = {
        "template": {
            "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "train"}},
            "spec": {
                "initContainers": [{"name": "fetch", "image": "registry.example/fetch:1"}],
                "containers": [
                    {"name": "proxy", "image": "registry.example/proxy:1"},
                    {
                        "name": "train",
                        "image": "registry.example/train:2",
                        "command": ["python", "-m", "train"],
                        "args": ["--name", "two words", "--api-key", "abc"],
                        "env": [
                            {"name": "EPOCHS", "value": "3"},
                            {"name": "HF_TOKEN", "value": "very secret"},
                            {
                                "name": "DB",
                                "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}},
                            },
                            {"name": "EMPTY"},
                        ],
                    },
                ],
            },
        }
    }
    result = workload(root("apps/v1", "Deployment", spec=spec))
    assert result.images == ("registry.example/proxy:1", "registry.example/train:2")
    assert result.command == "python -m train"
    assert result.arguments == "--name 'two words' --api-key ***"
    assert result.environment_variables == {
        "EPOCHS": "3",
        "HF_TOKEN": "***",
        "DB": "secretKeyRef(db/url)",
        "EMPTY": "",
    }


def test_long_texts_are_cut_and_named() -> None:
    env = [{"name": f"V{number}", "value": "x " * 2_000} for number in range(20)]
    result = workload(
        root("apps/v1", "Deployment", spec={"template": template(env=env, args=["x " * 9_000])})
    )
    assert result.additional_fields["truncated"] == ["arguments", "environmentVariables"]
    assert sum(map(len, result.environment_variables.values())) <= 16_384
    assert result.arguments is not None
    assert len(result.arguments) <= 8_192


def test_a_secret_at_the_cut_does_not_show() -> None:
    secret = "ghp_" + "a1B2c3D4" * 5
    message = "x" * 1_010 + " " + secret
    result = workload(job({"conditions": [condition("Failed", message=message)]}))
    assert result.phase_message is not None
    assert "a1B2" not in result.phase_message
    assert "a1B2" not in (result.conditions[0].message or "")


def test_no_part_of_a_condition_or_container_shows_an_address_with_a_password() -> None:
    address = "https://ada:a1B2@h.example.com"
    stated = condition("Ready", address) | {"type": address, "reason": address}
    waiting = {"name": "main", "image": "x", "state": {"waiting": {"reason": address}}}
    pods = [pod(0, "pulling", status_containerStatuses=[waiting])]
    shown = repr(derived(job({"conditions": [stated]}), pods))
    assert "***@h.example.com" in shown
    assert "a1B2" not in shown


def test_a_root_without_templates_has_its_children_s() -> None:
    child = deployment(2)
    child["metadata"] |= {
        "uid": uid(7),
        "ownerReferences": [
            {
                "apiVersion": "x.example/v1",
                "kind": "Thing",
                "name": "w",
                "uid": uid(1),
                "controller": True,
            }
        ],
    }
    below = root("apps/v1", "ReplicaSet", spec={"replicas": 2, "template": template()})
    below["metadata"] |= {
        "uid": uid(8),
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": uid(7)}
        ],
    }
    result = workload(root("x.example/v1", "Thing"), [pod(1)], children=[below, child])
    assert result.requested_pods.number == 2
    assert result.images == ("registry.example/train:1",)
    assert result.category == ""


# Places


@pytest.mark.parametrize(
    ("obj", "pods", "groups", "pools"),
    [
        (pytorch(), [], [pod_group(labels={"kai.scheduler/node-pool": "h100"})], ("h100",)),
        (pytorch(labels={"kai.scheduler/node-pool": "a100"}), [], [], ("a100",)),
        (pytorch(), [], [pod_group()], ("default",)),
        (pytorch(), [pod(1)], [], ()),
        (
            deployment(1),
            [pod(1, "waiting", spec_nodeSelector={"kai.scheduler/node-pool": "l40"})],
            [],
            ("l40",),
        ),
    ],
)
def test_requested_node_pools(
    obj: JSON, pods: list[JSON], groups: list[JSON], pools: tuple[str, ...]
) -> None:
    assert workload(obj, pods, pod_groups=groups).requested_node_pools == pools


LEVELS = {"spec": {"levels": [{"nodeLabel": "block", "alias": "b"}, {"nodeLabel": "rack"}]}}


@pytest.mark.parametrize(
    ("places", "actual"),
    [
        ({"n1": ("b1", "r1"), "n2": ("b1", "r1")}, ("rack", "r1")),
        ({"n1": ("b1", "r1"), "n2": ("b1", "r2")}, ("block", "b1")),
        ({"n1": ("b1", "r1"), "n2": ("b2", "r1")}, None),  # one name, two racks
        ({"n1": ("b1", "r1"), "n2": ("b1", "")}, ("block", "b1")),
        ({}, None),
    ],
)
def test_actual_placement(
    places: dict[str, tuple[str, str]], actual: tuple[str, str] | None
) -> None:
    nodes = {name: {"block": block, "rack": rack} for name, (block, rack) in places.items()}
    result = workload(
        pytorch(
            annotations={
                "kai.scheduler/topology": "dc",
                "kai.scheduler/topology-required-placement": "b",
            }
        ),
        [pod(number, spec_nodeName=name) for number, name in enumerate(nodes)],
        cluster=ClusterObjects(node_labels=nodes, topologies={"dc": LEVELS}),
    ).topology
    assert result is not None
    assert (result.name, result.required_placement) == ("dc", "block")
    placed = result.actual_placement
    assert (placed and (placed.level, placed.value)) == actual


def test_no_topology_was_asked_for() -> None:
    assert workload(pytorch(), [pod(1)]).topology is None


# Helm, identity, witness


def test_identity_and_witness() -> None:
    record = derived(pytorch(), is_root_listed=True).record
    assert record.workload.id == UUID(uid(1))
    assert (record.witness.group, record.witness.kind) == ("kubeflow.org", "PyTorchJob")
    record = derived(pytorch(), is_root_listed=False, is_chain_truncated=True).record
    assert (record.witness.group, record.witness.kind) == ("", "Pod")
    assert record.witness.namespace == "vision"
    assert record.workload.additional_fields["isOwnerUnreadable"] is True


def test_a_root_without_uid_is_refused_by_name() -> None:
    nameless = pytorch()
    del nameless["metadata"]["uid"]
    with pytest.raises(Invalid, match="PyTorchJob vision/w has no UID"):
        derived(nameless)


def test_a_cluster_s_own_categories() -> None:
    assert workload(job()).category == "Build"
    settings = replace(SETTINGS, categories={"Job.batch": "Train", "Deployment": ""})
    assert derived(job(), settings=settings).record.workload.category == "Train"
    assert derived(deployment(), settings=settings).record.workload.category == ""


def test_redaction_can_be_turned_off() -> None:
    env = [{"name": "HF_TOKEN", "value": "very secret"}]
    root_object = root("apps/v1", "Deployment", spec={"template": template(env=env)})
    shown = {
        mode: derived(
            root_object, settings=replace(SETTINGS, redaction=mode)
        ).record.workload.environment_variables["HF_TOKEN"]
        for mode in Redaction
    }
    assert shown == {"off": "very secret", "default": "***", "strict": "***"}


# Endpoints


# Elements


def test_at_most_2000_elements_are_kept_and_no_parent_is_missing() -> None:
    groups = 900
    pods = [
        pod(number, meta_labels={"leaderworkerset.sigs.k8s.io/group-index": str(number)})
        for number in range(groups)
    ]
    record = derived(
        root(
            "leaderworkerset.x-k8s.io/v1",
            "LeaderWorkerSet",
            spec={
                "replicas": groups,
                "leaderWorkerTemplate": {"size": 2, "workerTemplate": template()},
            },
        ),
        pods,
    ).record
    assert record.elements_total == groups * 3
    assert len(record.elements) == MAX_ELEMENTS
    first = [element for element in record.elements if element.hierarchy_level == 1]
    assert len(first) == groups
    assert [element.name for element in first[:3]] == ["group 0", "group 1", "group 2"]
    known = {element.id for element in record.elements}
    assert all(element.parent_id in known | {None} for element in record.elements)


def test_a_deployment_s_elements_are_the_replica_sets_that_have_pods() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w", "uid": uid(1)}
    sets = [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": f"w-{number}", "uid": uid(number), "ownerReferences": [owner]},
        }
        for number in (20, 21)
    ]
    owned = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w-21", "uid": uid(21)}
    record = derived(deployment(1), [pod(1, meta_ownerReferences=[owned])], children=sets).record
    [element] = record.elements
    assert (element.name, element.id) == ("w-21", UUID(uid(21)))
    assert element.kubernetes_ref is not None
    assert element.kubernetes_ref.gvk.kind == "ReplicaSet"
