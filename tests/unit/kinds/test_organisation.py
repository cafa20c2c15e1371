"""Whose a workload is: project, department, owner and application."""

from dataclasses import replace
from typing import Any
from uuid import uuid5

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import CLUSTER_ID, SETTINGS
from tests.fixtures.makers import (
    JSON,
    at,
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
    result = workload(pytorch(labels=labels), pods, cluster=cluster)
    assert (result.project_name, result.department_name) == (project, "")


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
            result = workload(deployment(2), [pod(1), pod(2)], children=[child], pod_groups=order)
            assert result.project_name == project


def test_settings_map_namespaces_to_projects() -> None:
    settings = replace(SETTINGS, namespace_projects={"vision": "a", "speech": "b"})
    noted = {"vision": {"metadata": {"labels": {"runai/queue": "c"}}}}
    cluster = ClusterObjects(namespaces=noted, queues={"a": queue("a", "d"), "q": queue("q")})
    result = workload(job(), cluster=cluster, settings=settings)
    assert (result.project_name, result.department_name) == ("a", "d")
    labelled = root("batch/v1", "Job", labels={"kai.scheduler/queue": "q"})
    assert workload(labelled, cluster=cluster, settings=settings).project_name == "q"


def test_queues_that_are_each_other_s_parent_end() -> None:
    queues = {"a": queue("a", "b"), "b": queue("b", "a")}
    result = workload(
        pytorch(labels={"kai.scheduler/queue": "a"}), cluster=ClusterObjects(queues=queues)
    )
    assert (result.project_name, result.department_name) == ("a", "b")


@pytest.mark.parametrize(
    ("spec", "department"), [({"cohort": "all"}, "all"), ({"cohortName": "all"}, "all"), ({}, "cq")]
)
def test_kueue_s_queues(spec: JSON, department: str) -> None:
    cluster = ClusterObjects(
        local_queues={("vision", "q"): {"spec": {"clusterQueue": "cq"}}},
        cluster_queues={"cq": {"spec": spec}},
    )
    root_object = root(
        "batch/v1", "Job", spec={"template": template()}, labels={"kueue.x-k8s.io/queue-name": "q"}
    )
    record = derived(root_object, cluster=cluster).record
    assert (record.workload.project_name, record.project_key) == ("q", "vision/q")
    assert record.workload.department_name == department


@pytest.mark.parametrize(
    ("selector", "is_taken"),
    [
        ({}, True),
        (None, False),
        ({"matchLabels": {"team": "vision"}}, True),
        ({"matchLabels": {"team": "speech"}}, False),
        ({"matchLabels": {"team": "vision", "tier": "gold"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["vision"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["vision"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Near", "values": ["vision"]}]}, False),
    ],
)
def test_a_cluster_queue_counts_where_it_takes_the_namespace(
    selector: JSON | None, is_taken: bool
) -> None:
    """Whoever may write a LocalQueue may name another team's ClusterQueue, or one that does not exist."""
    spec = {"cohort": "research", "namespaceSelector": selector}
    cluster = ClusterObjects(
        local_queues={
            ("vision", "q"): {"spec": {"clusterQueue": "cq"}},
            ("vision", "none"): {"spec": {"clusterQueue": "finance"}},
        },
        cluster_queues={"cq": {"spec": spec}},
        namespaces={"vision": {"metadata": {"labels": {"team": "vision"}}}},
    )
    departments = [
        workload(
            root("batch/v1", "Job", labels={"kueue.x-k8s.io/queue-name": name}), cluster=cluster
        ).department_name
        for name in ("q", "none")
    ]
    assert [department or "" for department in departments] == ["research" if is_taken else "", ""]


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
    result = workload(pytorch(**metadata), [claiming], settings=settings)
    assert result.submitted_by == user
    assert result.additional_fields["submittedBySource"] == source


def test_the_submitter_on_the_template_or_on_the_pod_group_made_for_the_root() -> None:
    noted = template() | {"metadata": {"annotations": {"user": "ada"}}}
    assert workload(root("batch/v1", "Job", spec={"template": noted})).submitted_by == "ada"
    groups = [
        group_of("a", uid(101), 0, "q", annotations={"user": "mallory"}),
        group_of("z", uid(1), 9, "q", annotations={"user": "grace"}),
    ]
    assert workload(pytorch(), [pod(1)], pod_groups=groups).submitted_by == "grace"
    assert workload(pytorch(), [pod(1)], pod_groups=groups[:1]).submitted_by is None


@pytest.mark.parametrize("named", [{}, {"meta.helm.sh/release-namespace": "apps"}])
def test_helm_s_release_is_the_ai_application_of_its_own_namespace(named: dict[str, str]) -> None:
    root = pytorch(annotations={"meta.helm.sh/release-name": "rag", **named})
    result = workload(root)
    assert result.ai_application_name == "rag"
    assert result.ai_application_id == str(
        uuid5(CLUSTER_ID, f"{root['metadata']['namespace']}/rag")
    )
    assert workload(pytorch()).ai_application_id is None


OTHERS = ("team-b", "q1", "finance", "law")
"""A namespace, a queue of KAI, a project by a namespace's label and one by the settings."""
OTHERS_CLUSTER = ClusterObjects(
    queues={"q1": queue("q1", "d1")},
    namespaces={"team-b": {}, "team-c": {"metadata": {"labels": {"runai/queue": "finance"}}}},
)
MAPPED = replace(SETTINGS, namespace_projects={"team-d": "law"})


@pytest.mark.parametrize("name", [*OTHERS, "research"])
def test_a_label_of_volcano_counts_where_that_queue_exists(name: str) -> None:
    """Where Volcano is not there, or not read, anybody may write its label on what they submit."""
    submitted = deployment()
    submitted["metadata"]["labels"] = {"volcano.sh/queue-name": name}
    record = derived(submitted, cluster=OTHERS_CLUSTER, settings=MAPPED).record
    assert record.project_key == "vision"
    with_queue = msgspec.structs.replace(OTHERS_CLUSTER, volcano_queues={name: {}})
    assert derived(submitted, cluster=with_queue, settings=MAPPED).record.project_key == name


@pytest.mark.parametrize("name", OTHERS)
def test_a_pod_group_of_ones_own_making_names_nobody_elses_project(name: str) -> None:
    """Whoever may create pods may often create pod groups, too, also where the scheduler is not there."""
    volcano = group_of("g", uid(1), 0, name) | {"apiVersion": "scheduling.volcano.sh/v1beta1"}
    kai = group_of("g", uid(1), 0, name)
    for group in (volcano, kai):
        result = derived(deployment(), pod_groups=[group], cluster=OTHERS_CLUSTER, settings=MAPPED)
        expected = "q1" if (group is kai and name == "q1") else "vision"
        assert result.record.project_key == expected


def test_a_pod_group_names_a_queue_that_there_is() -> None:
    for queues, project in (
        ({}, "research"),
        ({"other": {}}, "vision"),
        ({"research": {}}, "research"),
    ):
        for key, version in (
            ("queues", "scheduling.run.ai/v2alpha2"),
            ("volcano_queues", "scheduling.volcano.sh/v1beta1"),
        ):
            group = group_of("g", uid(1), 0, "research") | {"apiVersion": version}
            cluster = ClusterObjects(**{key: queues})
            record = derived(deployment(), pod_groups=[group], cluster=cluster).record
            assert record.project_key == project
