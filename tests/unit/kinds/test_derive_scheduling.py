"""Queues, priorities and topologies of the other schedulers, and a cluster's own labels."""

from dataclasses import replace
from typing import Any

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import (
    JSON,
    T0,
    at,
    condition,
    deployment,
    derived,
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
from watchbill.kinds.objects.objects import ClusterObjects

QUEUE_NAME = "kueue.x-k8s.io/queue-name"


def kueue_workload(**spec: Any) -> JSON:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"name": "k", "ownerReferences": [{"uid": uid(1)}], "creationTimestamp": T0},
        "spec": {"queueName": "q"} | spec,
        "status": {},
    }


def volcano_group(*, annotations: JSON | None = None, **spec: Any) -> JSON:
    return {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": {"name": "g", "annotations": annotations or {}},
        "spec": spec,
    }


# Whose it is


@pytest.mark.parametrize(
    ("parent", "department"), [("research", "research"), ("root", ""), (None, "")]
)
def test_volcano_s_queue_is_the_project(parent: str | None, department: str) -> None:
    cluster = ClusterObjects(volcano_queues={"vision": {"spec": {"parent": parent}}})
    group = volcano_group(queue="vision")
    record = derived(job(), pod_groups=[group], cluster=cluster).record
    assert (record.workload.project_name, record.project_key) == ("vision", "vision")
    assert (record.workload.department_name, record.department_key) == (department, department)


def test_kueue_s_queue_comes_from_its_workload_else_from_the_template() -> None:
    assert workload(job(), queue_workloads=[kueue_workload()]).project_name == "q"
    spec = {"template": template() | {"metadata": {"labels": {QUEUE_NAME: "t"}}}}
    cluster = ClusterObjects(local_queues={("vision", "t"): {}})
    assert workload(root("apps/v1", "Deployment", spec=spec), cluster=cluster).project_name == "t"


def test_kai_comes_before_kueue_and_kueue_before_volcano() -> None:
    groups = [volcano_group(queue="v")]
    entries = [kueue_workload()]
    assert workload(job(), pod_groups=groups, queue_workloads=entries).project_name == "q"
    both = [*groups, pod_group(spec={"queue": "kai"})]
    assert workload(job(), pod_groups=both, queue_workloads=entries).project_name == "kai"


def test_a_namespace_may_name_the_project() -> None:
    noted = {"vision": {"metadata": {"labels": {"runai/queue": "team-a"}}}}
    result = workload(job(), cluster=ClusterObjects(namespaces=noted))
    assert (result.project_name, result.department_name) == ("team-a", "")
    queues = {"team-a": queue("team-a", "dept", displayName="Vision"), "dept": queue("dept")}
    record = derived(job(), cluster=ClusterObjects(namespaces=noted, queues=queues)).record
    assert (record.workload.project_name, record.project_key) == ("Vision", "team-a")
    assert record.department_key == "dept"


def test_three_levels_of_queues_give_the_nearest_department() -> None:
    queues = {"p": queue("p", "d"), "d": queue("d", "o"), "o": queue("o")}
    result = workload(
        job(), pod_groups=[pod_group(spec={"queue": "p"})], cluster=ClusterObjects(queues=queues)
    )
    assert (result.project_name, result.department_name) == ("p", "d")


def test_a_cluster_s_own_labels() -> None:
    own = replace(
        SETTINGS,
        queue_label="example.com/queue",
        node_pool_label="example.com/pool",
        default_node_pool="shared",
        priority_label="example.com/priority",
        preemptibility_label="example.com/preemptibility",
        user_key="example.com/user",
    )
    labels = {
        "example.com/queue": "q",
        "example.com/priority": "train",
        "example.com/preemptibility": "non-preemptible",
        "example.com/user": "ada@example.com",
        "kai.scheduler/queue": "not this",
    }
    cluster = ClusterObjects(
        queues={"q": queue("q"), "not this": queue("not this")},
        priority_classes={"train": {"value": 50}},
        node_labels={"node-1": {"example.com/pool": "h100"}, "node-2": {}},
    )
    pods = [pod(1), pod(2, spec_nodeName="node-2")]
    result = derived(
        root("apps/v1", "Deployment", spec={"template": template()}, labels=labels),
        pods,
        settings=own,
        cluster=cluster,
    ).record.workload
    assert result.project_name == "q"
    assert (result.priority_class_name, result.priority) == ("train", 50)
    assert result.preemptible is False
    assert result.submitted_by == "ada@example.com"
    assert result.current_node_pools == ("h100", "shared")


# How it stands


@pytest.mark.parametrize(
    "spec",
    [
        {"priorityClassName": "urgent", "priority": 1000},
        {"priorityClassRef": {"name": "urgent", "kind": "WorkloadPriorityClass"}, "priority": 1000},
    ],
)
def test_kueue_s_priority_is_the_workload_s_own(spec: JSON) -> None:
    # A PriorityClass of the same name is another thing.
    cluster = ClusterObjects(priority_classes={"urgent": {"value": 5}})
    result = workload(job(), queue_workloads=[kueue_workload(**spec)], cluster=cluster)
    assert (result.priority_class_name, result.priority) == ("urgent", 1000)
    assert result.preemptible is None


@pytest.mark.parametrize(("scheduler", "expected"), [("kai-scheduler", False), ("other", None)])
def test_templates_tell_the_scheduler_before_there_are_pods(
    scheduler: str, expected: bool | None
) -> None:
    asked = template()
    asked["spec"] |= {"schedulerName": scheduler, "priorityClassName": "high"}
    cluster = ClusterObjects(priority_classes={"high": {"value": 125}})
    result = workload(root("apps/v1", "Deployment", spec={"template": asked}), cluster=cluster)
    assert result.preemptible is expected
    # Once there are pods, these tell it.
    result = workload(
        root("apps/v1", "Deployment", spec={"template": asked}),
        [pod(1, spec_schedulerName="other")],
        cluster=cluster,
    )
    assert result.preemptible is None


@pytest.mark.parametrize(
    ("expected", "is_preemptible"), [("true", True), ("false", False), ("", None)]
)
def test_volcano_s_priority(expected: str, is_preemptible: bool | None) -> None:
    group = volcano_group(
        queue="v", priorityClassName="high", annotations={"volcano.sh/preemptable": expected}
    )
    cluster = ClusterObjects(priority_classes={"high": {"value": 900}})
    result = workload(job(), pod_groups=[group], cluster=cluster)
    assert (result.priority_class_name, result.priority) == ("high", 900)
    assert result.preemptible is is_preemptible


@pytest.mark.parametrize(
    ("leaf", "parent", "ends"),
    [
        ("10m", "2h", "10:40"),
        (None, "2h", "12:30"),
        ("0s", "2h", None),
        (None, None, None),
        ("nonsense", "2h", None),
    ],
)
def test_the_nearest_minimum_runtime_counts(
    leaf: str | None, parent: str | None, ends: str | None
) -> None:
    def runtime(value: str | None) -> JSON:
        return {} if value is None else {"preemptMinRuntime": value}

    queues = {"q": queue("q", "d", **runtime(leaf)), "d": queue("d", **runtime(parent))}
    group = pod_group(
        spec={"queue": "q", "preemptibility": "preemptible"},
        annotations={"kai.scheduler/last-start-timestamp": at(30)},
    )
    result = workload(
        pytorch(), [pod(1)], pod_groups=[group], cluster=ClusterObjects(queues=queues)
    ).guaranteed_runtime_ends_at
    assert (result and result.strftime("%H:%M")) == ends


@pytest.mark.parametrize(
    ("stated", "pool", "ends"),
    [
        (None, "a100", "10:50"),
        (None, "", "11:30"),
        (None, "h100", None),
        ("10m", "a100", "10:40"),
        ("0s", "a100", None),
    ],
)
def test_where_no_queue_says_how_long_the_pool_s_shard_does(
    stated: str | None, pool: str, ends: str | None
) -> None:
    runtime = {} if stated is None else {"preemptMinRuntime": stated}
    shards = {
        "default": {"spec": {"minRuntime": {"preemptMinRuntime": "1h"}}},
        "a": {"spec": {"partitionLabelValue": "a100", "minRuntime": {"preemptMinRuntime": "20m"}}},
        "h": {"spec": {"partitionLabelValue": "h100"}},
    }
    group = pod_group(
        spec={"queue": "q", "preemptibility": "preemptible"},
        annotations={"kai.scheduler/last-start-timestamp": at(30)},
        labels={"kai.scheduler/node-pool": pool} if pool else {},
    )
    cluster = ClusterObjects(queues={"q": queue("q", **runtime)}, shards=shards)
    result = workload(
        pytorch(), [pod(1)], pod_groups=[group], cluster=cluster
    ).guaranteed_runtime_ends_at
    assert (result and result.strftime("%H:%M")) == ends


# Where it was to sit


LEVELS = {"spec": {"levels": [{"nodeLabel": "zone"}, {"nodeLabel": "block", "alias": "b"},
                              {"nodeLabel": "rack", "alias": "r"}]}}  # fmt: skip


def topology(*nodes: JSON, obj: JSON | None = None, groups: tuple[JSON, ...] = ()) -> Any:
    labels = {f"n{number}": node for number, node in enumerate(nodes)}
    pods = [pod(number, spec_nodeName=name) for number, name in enumerate(labels)]
    return workload(
        obj or pytorch(),
        pods,
        pod_groups=groups,
        cluster=ClusterObjects(node_labels=labels, topologies={"dc": LEVELS, "other": {}}),
    ).topology


def place(zone: str, block: str, rack: str) -> JSON:
    return {"zone": zone, "block": block, "rack": rack}


def test_the_pod_group_tells_the_topology_and_aliases_are_resolved() -> None:
    constraint = {
        "topology": "dc",
        "requiredTopologyLevel": "b",
        "preferredTopologyLevel": "r",
    }
    group = pod_group(spec={"topologyConstraint": constraint})
    result = topology(place("z", "b1", "r1"), place("z", "b1", "r2"), groups=(group,))
    assert (result.name, result.required_placement, result.preferred_placement) == (
        "dc",
        "block",
        "rack",
    )
    assert (result.actual_placement.level, result.actual_placement.value) == ("block", "b1")


@pytest.mark.parametrize(
    ("nodes", "actual"),
    [
        ([place("z", "b1", "r1"), place("z", "b1", "r1")], ("rack", "r1")),
        # Racks repeat in every block: one name is not one rack.
        ([place("z", "b1", "r1"), place("z", "b2", "r1")], ("zone", "z")),
        ([place("z1", "b1", "r1"), place("z2", "b1", "r1")], None),
        # A node without a level's label sits nowhere on it.
        ([place("z", "b1", "r1"), {"zone": "z", "block": "b1"}], ("block", "b1")),
        ([place("z", "b1", "r1"), {"zone": "z", "rack": "r1"}], ("zone", "z")),
        ([place("z", "b1", "r1"), {}], None),
    ],
)
def test_levels_are_compared_with_all_that_is_above_them(
    nodes: list[JSON], actual: tuple[str, str] | None
) -> None:
    group = pod_group(spec={"topologyConstraint": {"topology": "dc"}})
    placed = topology(*nodes, groups=(group,)).actual_placement
    assert (placed and (placed.level, placed.value)) == actual


def test_a_part_of_the_group_or_a_template_may_ask() -> None:
    part = {"name": "workers", "topologyConstraint": {"topology": "dc"}}
    group = pod_group(spec={"subGroups": [{"name": "master"}, part]})
    assert topology({}, groups=(group,)).name == "dc"
    asking = {"metadata": {"annotations": {"kai.scheduler/topology": "dc",
                                           "kai.scheduler/topology-required-placement": "r"}}}  # fmt: skip
    spec = {"template": template() | asking}
    result = topology({}, obj=root("apps/v1", "Deployment", spec=spec))
    assert (result.name, result.required_placement) == ("dc", "rack")


def test_kueue_s_levels_lead_to_their_topology() -> None:
    asking = {"metadata": {"annotations": {"kueue.x-k8s.io/podset-required-topology": "block"}}}
    spec = {"template": template() | asking}
    result = topology(place("z", "b1", "r1"), obj=root("batch/v1", "Job", spec=spec))
    assert (result.name, result.required_placement) == ("dc", "block")
    assert result.actual_placement.level == "rack"
    unknown = {"metadata": {"annotations": {"kueue.x-k8s.io/podset-required-topology": "row"}}}
    spec = {"template": template() | unknown}
    assert topology({}, obj=root("batch/v1", "Job", spec=spec)) is None


# Events where no condition speaks


def event(number: int, reason: str, message: str) -> JSON:
    return {
        "reason": reason,
        "message": message,
        "lastTimestamp": at(3),
        "involvedObject": {"uid": uid(100 + number)},
    }


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            'resource claim template "two": resourceclaimtemplate.resource.k8s.io "two" not found',
            "Resource claim template two does not exist – its pods name it – create it.",
        ),
        (
            "admin access is requested, but the feature is disabled",
            "Resource claim gpus of its pods cannot be made – admin access is requested, but the feature"
            " is disabled – correct the template or what refuses it.",
        ),
        (
            'create ResourceClaim: resourceclaims.resource.k8s.io "p-gpus-" is forbidden: exceeded quota:'
            " q, requested: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=2,"
            " used: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=7,"
            " limited: gpu.nvidia.com.deviceclass.resource.k8s.io/devices=8",
            "Quota q of the namespace has too few gpu.nvidia.com.deviceclass.resource.k8s.io/devices left"
            " – 2 requested, 1 of 8 free – free gpu.nvidia.com.deviceclass.resource.k8s.io/devices in the"
            " namespace, request less, or raise the quota.",
        ),
    ],
)
def test_why_a_claim_of_its_pod_is_not_made(message: str, sentence: str) -> None:
    """The resource claim controller says it in an event; the scheduler says that it waits, or nothing."""
    failed = event(1, "FailedResourceClaimCreation", f"PodResourceClaim gpus: {message}")
    for stated in ("", 'pod "team-a/p": ResourceClaim not created yet'):
        waits = condition("PodScheduled", "False", reason="Unschedulable", message=stated)
        status = {"phase": "Pending", "conditions": [waits] if stated else []}
        waiting = pod(1, "waiting") | {"status": status}
        result = workload(deployment(1), [waiting], scheduling_events=[failed])
        assert result.phase_message == sentence


def test_an_event_speaks_for_a_pod_on_which_no_scheduler_wrote() -> None:
    silent = pod(1, "waiting") | {"status": {"phase": "Pending"}}
    expected = "0/3 nodes are available: 3 node(s) were unschedulable."
    result = workload(
        deployment(1), [silent], scheduling_events=[event(1, "FailedScheduling", expected)]
    )
    assert result.phase_message == (
        "Nodes are cordoned – 3 of 3 nodes reject it for this reason – uncordon nodes or add some."
    )
    [reason] = result.additional_fields["pendingReasons"]
    assert (reason["reason"], reason["since"]) == ("FailedScheduling", at(3))
    other = workload(
        deployment(1), [silent], scheduling_events=[event(2, "FailedScheduling", expected)]
    )
    assert other.phase_message == "Its pod waits for a node."
    grouped = workload(
        deployment(1), [silent], scheduling_events=[event(1, "PodGrouperWarning", "2 owners")]
    )
    assert grouped.phase_message == (
        "KAI cannot group its pods, so they are not scheduled – 2 owners"
        " – fix the owner named there, or ask the KAI administrator."
    )


def test_an_event_tells_what_keeps_a_placed_pod_from_starting() -> None:
    placed = pod(1, "pulling")
    placed["status"]["containerStatuses"] = []
    failed = event(1, "FailedMount", 'MountVolume.SetUp failed: secret "keys" not found')
    result = workload(deployment(1), [placed], scheduling_events=[failed])
    assert result.phase.value == "Initializing"
    assert result.phase_message == 'Pod w-1 – MountVolume.SetUp failed: secret "keys" not found.'
    ran = workload(deployment(1), [pod(1, "starting")], scheduling_events=[failed])
    assert ran.phase_message is None
