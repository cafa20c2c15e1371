"""The members of a record: whose it is, what it asks for and holds, where it runs, where it answers."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import pytest

from tests.fixtures.lives import CLUSTER_ID, SETTINGS
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
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.kinds.objects.settings import Redaction
from watchbill.workload import Cores, Quantity

GIB = 1024**3


# Organisation


def test_kai_s_queue_is_the_project_and_its_parent_the_department() -> None:
    queues = {
        "q1": queue("q1", "d1", displayName="Vision"),
        "d1": queue("d1", displayName="Research"),
    }
    record = derived(
        pytorch(labels={"kai.scheduler/queue": "wrong"}),
        pod_groups=[pod_group(spec={"queue": "q1"})],
        cluster=ClusterObjects(queues=queues),
    ).record
    assert (record.workload.project_name, record.project_key) == ("Vision", "q1")
    assert (record.workload.department_name, record.department_key) == ("Research", "d1")


@pytest.mark.parametrize(
    ("labels", "pods", "project"),
    [
        ({"kai.scheduler/queue": "a"}, [], "a"),
        ({"kai.scheduler/queue": "invented"}, [], "vision"),
        ({}, [pod(1, meta_labels={"kai.scheduler/queue": "a"})], "vision"),
        ({"project": "a"}, [], "a"),
        ({"project": "invented"}, [], "vision"),
        ({"kueue.x-k8s.io/queue-name": "q"}, [], "q"),
        ({"kueue.x-k8s.io/queue-name": "elsewhere"}, [], "vision"),
        ({}, [pod(1, meta_labels={"project": "a", "kueue.x-k8s.io/queue-name": "q"})], "vision"),
        ({}, [], "vision"),
    ],
)
def test_before_a_scheduler_says_it_the_root_s_own_label_counts_where_the_queue_exists(
    labels: JSON, pods: list[JSON], project: str
) -> None:
    cluster = ClusterObjects(
        queues={"a": queue("a")}, local_queues={("vision", "q"): {}, ("speech", "elsewhere"): {}}
    )
    found = workload(pytorch(labels=labels), pods, cluster=cluster)
    assert (found.project_name, found.department_name) == (project, "")


def group_of(name: str, owner: str, minute: int, queue_: str, **more: Any) -> JSON:
    """A KAI pod group that an object owns."""
    group = pod_group(spec={"queue": queue_}, **more)
    group["metadata"] |= {
        "name": name,
        "uid": f"uid-of-{name}",
        "creationTimestamp": at(minute),
        "ownerReferences": [{"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": owner}],
    }
    return group


def test_the_pod_group_made_for_the_root_decides_whatever_sorts_first() -> None:
    child = root("apps/v1", "ReplicaSet") | {"metadata": {"name": "w-1", "uid": uid(2)}}
    for_root = group_of("z", uid(1), 30, "root")
    for_child = group_of("y", uid(2), 20, "child")
    older, newer = group_of("x", uid(101), 5, "older"), group_of("a", uid(102), 10, "newer")
    elsewhere = group_of("b", uid(1), 0, "elsewhere", namespace="speech")
    for groups, project in (
        ([newer, older, for_child, for_root, elsewhere], "root"),
        ([newer, older, for_child, elsewhere], "child"),
        ([newer, older], "older"),
        ([elsewhere], "vision"),
    ):
        for order in (groups, groups[::-1]):
            found = workload(deployment(2), [pod(1), pod(2)], children=[child], pod_groups=order)
            assert found.project_name == project


def test_settings_map_namespaces_to_projects() -> None:
    settings = replace(SETTINGS, namespace_projects={"vision": "a", "speech": "b"})
    noted = {"vision": {"metadata": {"labels": {"runai/queue": "c"}}}}
    cluster = ClusterObjects(namespaces=noted, queues={"a": queue("a", "d"), "q": queue("q")})
    found = workload(job(), cluster=cluster, settings=settings)
    assert (found.project_name, found.department_name) == ("a", "d")
    labelled = root("batch/v1", "Job", labels={"kai.scheduler/queue": "q"})
    assert workload(labelled, cluster=cluster, settings=settings).project_name == "q"


def test_queues_that_are_each_other_s_parent_end() -> None:
    queues = {"a": queue("a", "b"), "b": queue("b", "a")}
    found = workload(
        pytorch(labels={"kai.scheduler/queue": "a"}), cluster=ClusterObjects(queues=queues)
    )
    assert (found.project_name, found.department_name) == ("a", "b")


@pytest.mark.parametrize(
    ("spec", "department"), [({"cohort": "all"}, "all"), ({"cohortName": "all"}, "all"), ({}, "cq")]
)
def test_kueue_s_queues(spec: JSON, department: str) -> None:
    cluster = ClusterObjects(
        local_queues={("vision", "q"): {"spec": {"clusterQueue": "cq"}}},
        cluster_queues={"cq": {"spec": spec}},
    )
    found = root(
        "batch/v1", "Job", spec={"template": template()}, labels={"kueue.x-k8s.io/queue-name": "q"}
    )
    record = derived(found, cluster=cluster).record
    assert (record.workload.project_name, record.project_key) == ("q", "vision/q")
    assert record.workload.department_name == department


@pytest.mark.parametrize(
    ("metadata", "user", "source"),
    [
        ({"annotations": {"user": "ada@example.com"}}, "ada@example.com", "label"),
        ({"labels": {"user": "ada"}}, "ada", "label"),
        (
            {"annotations": {"user": "grace", "example.com/creator": "ada@example.com"}},
            "ada@example.com",
            "admission",
        ),
        ({"labels": {"example.com/creator": "grace"}}, None, "none"),
        ({}, None, "none"),
    ],
)
def test_submitter(metadata: JSON, user: str | None, source: str) -> None:
    settings = replace(SETTINGS, admission_user_key="example.com/creator")
    claiming = pod(1, meta_annotations={"user": "mallory", "example.com/creator": "mallory"})
    found = workload(pytorch(**metadata), [claiming], settings=settings)
    assert found.submitted_by == user
    assert found.additional_fields["submittedBySource"] == source


def test_the_submitter_on_the_template_or_on_the_pod_group_made_for_the_root() -> None:
    noted = template() | {"metadata": {"annotations": {"user": "ada"}}}
    assert workload(root("batch/v1", "Job", spec={"template": noted})).submitted_by == "ada"
    groups = [
        group_of("a", uid(101), 0, "q", annotations={"user": "mallory"}),
        group_of("z", uid(1), 9, "q", annotations={"user": "grace"}),
    ]
    assert workload(pytorch(), [pod(1)], pod_groups=groups).submitted_by == "grace"
    assert workload(pytorch(), [pod(1)], pod_groups=groups[:1]).submitted_by is None


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
    found = workload(pytorch(), pod_groups=[pod_group(spec=spec)], cluster=cluster)
    assert (found.priority_class_name, found.priority, found.preemptible) == priority


def test_priority_elsewhere() -> None:
    plain = pod(1, spec_priorityClassName="train", spec_priority=50)
    found = workload(deployment(1), [plain])
    assert (found.priority_class_name, found.priority, found.preemptible) == ("train", 50, None)
    labelled = workload(pytorch(labels={"kai.scheduler/preemptibility": "preemptible"}))
    assert labelled.preemptible is True


def test_guaranteed_runtime() -> None:
    group = pod_group(
        spec={"queue": "q", "preemptibility": "preemptible"},
        annotations={"kai.scheduler/last-start-timestamp": at(30)},
    )
    queues = {"q": queue("q", "d"), "d": queue("d", preemptMinRuntime="1h30m")}
    cluster = ClusterObjects(queues=queues)
    found = workload(pytorch(), [pod(1)], pod_groups=[group], cluster=cluster)
    assert found.guaranteed_runtime_ends_at is not None
    assert found.guaranteed_runtime_ends_at.isoformat() == "2026-05-04T12:00:00+00:00"
    firm = group | {"spec": {"queue": "q", "preemptibility": "non-preemptible"}}
    found = workload(pytorch(), [pod(1)], pod_groups=[firm], cluster=cluster)
    assert found.guaranteed_runtime_ends_at is None
    queues["q"]["spec"]["preemptMinRuntime"] = "0s"
    found = workload(pytorch(), [pod(1)], pod_groups=[group], cluster=cluster)
    assert found.guaranteed_runtime_ends_at is None


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
    found = record.workload
    asked = found.workload_requested_resources
    assert asked.gpu_request_type == "portion"
    assert asked.gpu == Cores(request=6.0, limit=6.0)
    assert asked.cpu == Cores(request=1.5)
    assert asked.cpu_memory == Quantity(request="192Mi", limit="192M")
    assert [(item.resource, item.quantity) for item in asked.extended_resources] == [
        ("rdma/ib", "3")
    ]
    assert found.pods_requested_resources.gpu == Cores(request=6.0, limit=6.0)
    assert found.allocated_resources.gpu == 4.0
    assert found.allocated_resources.cpu == 1.0
    assert found.allocated_resources.cpu_memory == "128Mi"
    assert (found.idle_allocated_gpus, found.idle_gpus) == (None, None)
    assert record.usage.pod_count == 4
    assert record.usage.running_pod_count == 1
    assert record.usage.cpu_request_cores == 1.5
    assert record.usage.cpu_limit_cores is None
    assert record.usage.cpu_memory_request_bytes == 192 * 1024**2


def test_without_gpus_nothing_idles() -> None:
    found = workload(deployment(1), [pod(1)])
    assert found.allocated_resources.gpu == 0
    assert (found.idle_allocated_gpus, found.idle_gpus) == (0, 0)
    assert found.workload_requested_resources.gpu is None
    assert found.workload_requested_resources.gpu_request_type is None


def test_gpu_memory_is_asked_for_in_bytes_and_held_as_a_share() -> None:
    noted = {"gpu-memory": "8192"}
    node = {"nvidia.com/gpu.memory": "81920", "kai.scheduler/node-pool": "h100"}
    found = derived(
        root(
            "apps/v1",
            "Deployment",
            spec={"template": template() | {"metadata": {"annotations": noted}}},
        ),
        [pod(1, meta_annotations=noted)],
        cluster=ClusterObjects(node_labels={"node-1": node}),
    ).record
    asked = found.workload.workload_requested_resources
    assert (asked.gpu_request_type, asked.gpu) == ("memory", None)
    assert asked.gpu_memory == Quantity(request="8Gi")
    assert found.workload.allocated_resources.gpu == pytest.approx(0.1)
    assert found.workload.allocated_resources.gpu_memory == "8Gi"
    assert found.gpu_millionths_by_node_pool == {"h100": 100_000}
    assert found.usage.gpu_memory_request_bytes == 8 * GIB


def test_gpus_are_split_by_the_pools_that_hold_them() -> None:
    nodes = {"a": {"kai.scheduler/node-pool": "a100"}, "b": {}}
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
    assert record.usage.gpu_millionths == 4_250_000
    assert record.workload.allocated_resources.gpu == 4.25
    assert record.workload.current_node_pools == ("a100", "default")


def test_seven_slices_are_one_gpu() -> None:
    slices = [container(resources={"limits": {"nvidia.com/mig-1g.10gb": "1"}})]
    found = workload(deployment(7), [pod(number, spec_containers=slices) for number in range(7)])
    assert found.allocated_resources.gpu == 1.0
    [extended] = found.allocated_resources.extended_resources
    assert (extended.resource, extended.quantity) == ("nvidia.com/mig-1g.10gb", "7")


def test_requested_pods() -> None:
    found = job(parallelism=4, completions=10)
    asked = workload(found).requested_pods
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
    found = workload(root("apps/v1", "Deployment", spec=spec))
    assert found.images == ("registry.example/proxy:1", "registry.example/train:2")
    assert found.command == "python -m train"
    assert found.arguments == "--name 'two words' --api-key ***"
    assert found.environment_variables == {
        "EPOCHS": "3",
        "HF_TOKEN": "***",
        "DB": "secretKeyRef(db/url)",
        "EMPTY": "",
    }


def test_long_texts_are_cut_and_named() -> None:
    env = [{"name": f"V{number}", "value": "x " * 2_000} for number in range(20)]
    found = workload(
        root("apps/v1", "Deployment", spec={"template": template(env=env, args=["x " * 9_000])})
    )
    assert found.additional_fields["truncated"] == ["arguments", "environmentVariables"]
    assert sum(map(len, found.environment_variables.values())) <= 16_384
    assert found.arguments is not None
    assert len(found.arguments) <= 8_192


def test_a_secret_at_the_cut_does_not_show() -> None:
    secret = "ghp_" + "a1B2c3D4" * 5
    message = "x" * 1_010 + " " + secret
    found = workload(job({"conditions": [condition("Failed", message=message)]}))
    assert found.phase_message is not None
    assert "a1B2" not in found.phase_message
    assert "a1B2" not in (found.conditions[0].message or "")


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
    found = workload(root("x.example/v1", "Thing"), [pod(1)], children=[below, child])
    assert found.requested_pods.number == 2
    assert found.images == ("registry.example/train:1",)
    assert found.category == ""


# Places


@pytest.mark.parametrize(
    ("found", "pods", "groups", "pools"),
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
    found: JSON, pods: list[JSON], groups: list[JSON], pools: tuple[str, ...]
) -> None:
    assert workload(found, pods, pod_groups=groups).requested_node_pools == pools


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
    found = workload(
        pytorch(
            annotations={
                "kai.scheduler/topology": "dc",
                "kai.scheduler/topology-required-placement": "b",
            }
        ),
        [pod(number, spec_nodeName=name) for number, name in enumerate(nodes)],
        cluster=ClusterObjects(node_labels=nodes, topologies={"dc": LEVELS}),
    ).topology
    assert found is not None
    assert (found.name, found.required_placement) == ("dc", "block")
    placed = found.actual_placement
    assert (placed and (placed.level, placed.value)) == actual


def test_no_topology_was_asked_for() -> None:
    assert workload(pytorch(), [pod(1)]).topology is None


# Helm, identity, witness


def test_helm_s_release_is_the_ai_application() -> None:
    noted = {
        "meta.helm.sh/release-name": "rag",
        "meta.helm.sh/release-namespace": "apps",
    }
    found = workload(pytorch(annotations=noted))
    assert found.ai_application_name == "rag"
    assert found.ai_application_id == str(uuid5(CLUSTER_ID, "apps/rag"))
    assert workload(pytorch()).ai_application_id is None


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
    found = root("apps/v1", "Deployment", spec={"template": template(env=env)})
    shown = {
        mode: derived(
            found, settings=replace(SETTINGS, redaction=mode)
        ).record.workload.environment_variables["HF_TOKEN"]
        for mode in Redaction
    }
    assert shown == {"off": "very secret", "default": "***", "strict": "***"}


# Endpoints


def service(name: str = "web", **spec: Any) -> JSON:
    status = spec.pop("status", {})
    owners = spec.pop("owners", [])
    labels = spec.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "vision",
            "ownerReferences": owners,
            "labels": labels,
        },
        "spec": {"selector": {"app": "w"}, "ports": [{"name": "http", "port": 8000}]} | spec,
        "status": status,
    }


SERVED = [pod(1, meta_labels={"app": "w"})]
INNER = ("web.vision.svc.cluster.local", 8000, "http://web.vision.svc.cluster.local:8000")


def endpoints(*services: JSON, pods: list[JSON] = SERVED) -> list[tuple[Any, ...]]:
    found = workload(deployment(1), pods, services=services).endpoints
    return [(endpoint.host, endpoint.port, endpoint.url) for endpoint in found]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (service(), [INNER]),
        (service(selector={}), []),
        (service(selector={"app": "other"}), []),
        (service(selector=None, owners=[{"uid": uid(1)}]), [INNER]),
        (service(type="ExternalName"), []),
        (service(labels={"networking.internal.knative.dev/serviceType": "Private"}), []),
        (
            service(
                type="LoadBalancer", status={"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
            ),
            [("192.0.2.7", 8000, "http://192.0.2.7:8000"), INNER],
        ),
        (
            service(type="NodePort", ports=[{"name": "http", "port": 8000, "nodePort": 30080}]),
            [(None, 30080, None), INNER],
        ),
        (
            service(ports=[{"port": 5432, "protocol": "TCP"}]),
            [("web.vision.svc.cluster.local", 5432, None)],
        ),
        (
            service(ports=[{"port": 443, "appProtocol": "https"}]),
            [("web.vision.svc.cluster.local", 443, "https://web.vision.svc.cluster.local")],
        ),
    ],
)
def test_endpoints_of_a_service(found: JSON, expected: list[tuple[Any, ...]]) -> None:
    assert endpoints(found) == expected


def ingress(backend: JSON, **spec: Any) -> JSON:
    path = {"path": "/chat(/|$)(.*)", "backend": backend}
    rules = [{"host": "chat.example.com", "http": {"paths": [path]}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "vision"},
        "spec": {"rules": rules} | spec,
    }


def test_endpoints_of_an_ingress() -> None:
    found = ingress({"service": {"name": "web"}}, tls=[{"hosts": ["chat.example.com"]}])
    assert endpoints(service(), found) == [
        ("chat.example.com", 443, "https://chat.example.com/chat"),
        INNER,
    ]
    old = ingress({"serviceName": "web"})
    assert endpoints(service(), old)[0] == ("chat.example.com", 80, "http://chat.example.com/chat")
    elsewhere = ingress({"service": {"name": "other"}})
    assert endpoints(service(), elsewhere) == [INNER]


def test_endpoints_of_a_route_that_a_gateway_accepted() -> None:
    route = {
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "vision"},
        "spec": {"hostnames": ["m.example.com"], "rules": [{"backendRefs": [{"name": "web"}]}]},
        "status": {"parents": [{"conditions": [condition("Accepted")]}]},
    }
    assert ("m.example.com", None, None) in endpoints(service(), route)
    route["status"] = {}
    assert endpoints(service(), route) == [INNER]


def test_urls_are_the_endpoints_urls_without_their_secrets() -> None:
    found = root(
        "serving.knative.dev/v1",
        "Service",
        spec={"template": template()},
        status={
            "url": "https://ada:pw@m.example.com/v1?token=abc",
            "conditions": [condition("Ready")],
        },
    )
    found_workload = workload(found)
    assert found_workload.urls == ("https://***@m.example.com/v1?token=***",)
    [endpoint] = found_workload.endpoints
    assert (endpoint.host, endpoint.port, endpoint.tls_enabled) == ("m.example.com", 443, True)


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
