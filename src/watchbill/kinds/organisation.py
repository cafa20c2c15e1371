"""Whose a workload is and how it stands in the queue: project, department, owner, priority."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from watchbill.kinds.census import Census
from watchbill.kinds.durations import parse_duration
from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import (
    annotations,
    at,
    group_version,
    instant,
    labels,
    name_key,
    text,
    whole,
)
from watchbill.kinds.objects import ClusterObjects, Object, WorkloadObjects
from watchbill.kinds.settings import DeriveSettings

KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
RAY_PRIORITY_LABEL = "ray.io/priority-class-name"
LAST_START = "kai.scheduler/last-start-timestamp"
KAI_GROUP = "scheduling.run.ai"
NON_PREEMPTIBLE_FROM = 100
_DEFAULT_KAI_PRIORITY = 50
_MAX_QUEUE_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """Names are for people, keys are the queues' object names and stay when a name changes."""

    project_name: str
    project_key: str
    department_name: str = ""
    department_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    class_name: str
    value: int | None
    is_preemptible: bool | None


def kai_groups(objects: WorkloadObjects) -> list[Object]:
    """KAI's pod groups, in a stable order."""
    return sorted(
        (group for group in objects.pod_groups if group_version(group)[0] == KAI_GROUP),
        key=name_key,
    )


def is_kai(objects: WorkloadObjects, census: Census, settings: DeriveSettings) -> bool:
    return bool(kai_groups(objects)) or any(
        pod.scheduler_name in settings.kai_schedulers for pod in census.all
    )


def organisation_of(
    objects: WorkloadObjects, facts: Facts, census: Census, settings: DeriveSettings
) -> Organisation:
    """KAI's queue, else Kueue's, else the project label, else the namespace."""
    namespace = text(at(objects.root, "metadata", "namespace"))
    queue = kai_queue(objects, facts, census, settings)
    if queue:
        return _kai_organisation(queue, objects.cluster)
    local_queue = _kueue_queue(objects)
    if local_queue:
        return _kueue_organisation(namespace, local_queue, objects.cluster)
    project = _first_label(settings.project_label, objects, facts, census) or namespace
    return Organisation(project_name=project, project_key=project)


def kai_queue(
    objects: WorkloadObjects, facts: Facts, census: Census, settings: DeriveSettings
) -> str:
    """The pod group says it for certain; before there is one, the label on the owner or its pods."""
    for group in kai_groups(objects):
        queue = text(at(group, "spec", "queue"))
        if queue:
            return queue
    return _first_label(settings.queue_label, objects, facts, census)


def _first_label(key: str, objects: WorkloadObjects, facts: Facts, census: Census) -> str:
    return next(_labels_named(key, objects, facts, census), "")


def _labels_named(
    key: str, objects: WorkloadObjects, facts: Facts, census: Census
) -> Iterator[str]:
    """The values of a label on the root, its templates and its pods; those that exist."""
    found = text(labels(objects.root).get(key))
    if found:
        yield found
    for role in facts.roles:
        if role.template is not None and role.template.labels.get(key):
            yield role.template.labels[key]
    for pod in census.all:
        if pod.labels.get(key):
            yield pod.labels[key]


def ancestors(queue: str, cluster: ClusterObjects) -> list[str]:
    """A KAI queue and its parents, the nearest first; a ring of parents ends where it closes."""
    chain: list[str] = []
    while queue and queue not in chain and len(chain) < _MAX_QUEUE_DEPTH:
        chain.append(queue)
        queue = text(at(cluster.queues.get(queue), "spec", "parentQueue"))
    return chain


def display_name(queue: str, cluster: ClusterObjects) -> str:
    return text(at(cluster.queues.get(queue), "spec", "displayName")) or queue


def _kai_organisation(queue: str, cluster: ClusterObjects) -> Organisation:
    chain = ancestors(queue, cluster)
    department = chain[1] if len(chain) > 1 else ""
    return Organisation(
        project_name=display_name(queue, cluster),
        project_key=queue,
        department_name=display_name(department, cluster) if department else "",
        department_key=department,
    )


def _kueue_queue(objects: WorkloadObjects) -> str:
    for workload in sorted(objects.queue_workloads, key=name_key):
        queue = text(at(workload, "spec", "queueName"))
        if queue:
            return queue
    return text(labels(objects.root).get(KUEUE_QUEUE_LABEL))


def _kueue_organisation(namespace: str, queue: str, cluster: ClusterObjects) -> Organisation:
    """A LocalQueue lives in a namespace: two may share a name, so the key holds both."""
    cluster_queue = text(at(cluster.local_queues.get((namespace, queue)), "spec", "clusterQueue"))
    found = cluster.cluster_queues.get(cluster_queue)
    # v1beta2 renames the member.
    cohort = text(at(found, "spec", "cohort")) or text(at(found, "spec", "cohortName"))
    department = cohort or cluster_queue
    return Organisation(
        project_name=queue,
        project_key=f"{namespace}/{queue}",
        department_name=department,
        department_key=department,
    )


def submitter(objects: WorkloadObjects, census: Census, settings: DeriveSettings) -> str | None:
    """The `user` annotation or label, on the owner, its pods or their pod group."""
    key = settings.user_key
    for obj in (objects.root, *kai_groups(objects)):
        found = text(annotations(obj).get(key)) or text(labels(obj).get(key))
        if found:
            return found
    for pod in census.all:
        found = pod.annotations.get(key, "") or pod.labels.get(key, "")
        if found:
            return found
    return None


def priority_of(
    objects: WorkloadObjects, facts: Facts, census: Census, settings: DeriveSettings
) -> Priority:
    """The class that counts for its scheduler, that class's value, and whether it can be preempted."""
    under_kai = is_kai(objects, census, settings)
    name = _class_name(objects, facts, census, settings)
    value = _class_value(name, objects.cluster, census)
    preemptible = _stated_preemptibility(objects, facts, census, settings)
    if preemptible is None and under_kai:
        known = value if name else _default_value(objects.cluster)
        effective = _DEFAULT_KAI_PRIORITY if known is None else known
        preemptible = effective < NON_PREEMPTIBLE_FROM
    return Priority(class_name=name, value=value, is_preemptible=preemptible)


def _class_name(
    objects: WorkloadObjects, facts: Facts, census: Census, settings: DeriveSettings
) -> str:
    for group in kai_groups(objects):
        name = text(at(group, "spec", "priorityClassName"))
        if name:
            return name
    found = _first_label(settings.priority_label, objects, facts, census)
    root = labels(objects.root)
    found = found or text(root.get(KUEUE_PRIORITY_LABEL)) or text(root.get(RAY_PRIORITY_LABEL))
    if found:
        return found
    for pod in census.all:
        if pod.priority_class_name:
            return pod.priority_class_name
    for role in facts.roles:
        if role.template is not None and role.template.priority_class_name:
            return role.template.priority_class_name
    return ""


def _class_value(name: str, cluster: ClusterObjects, census: Census) -> int | None:
    value = whole(at(cluster.priority_classes.get(name), "value")) if name else None
    if value is not None:
        return value
    # The API server resolves a pod's class when it admits the pod.
    for pod in census.all:
        if pod.priority_class_name == name and pod.priority is not None:
            return pod.priority
    return None


def _default_value(cluster: ClusterObjects) -> int | None:
    for _, found in sorted(cluster.priority_classes.items()):
        if at(found, "globalDefault") is True:
            return whole(at(found, "value"))
    return None


def _stated_preemptibility(
    objects: WorkloadObjects, facts: Facts, census: Census, settings: DeriveSettings
) -> bool | None:
    for group in kai_groups(objects):
        stated = _PREEMPTIBILITY.get(text(at(group, "spec", "preemptibility")))
        if stated is not None:
            return stated
    for label in _labels_named(settings.preemptibility_label, objects, facts, census):
        if label in _PREEMPTIBILITY:
            return _PREEMPTIBILITY[label]
    return None


_PREEMPTIBILITY = {"preemptible": True, "non-preemptible": False}


def guaranteed_until(objects: WorkloadObjects, priority: Priority) -> datetime | None:
    """Last start plus the minimum runtime of the nearest queue that sets one; none if it is zero."""
    if priority.is_preemptible is not True:
        return None
    ends: list[datetime] = []
    for group in kai_groups(objects):
        started_at = instant(annotations(group).get(LAST_START))
        if started_at is None:
            continue
        for queue in ancestors(text(at(group, "spec", "queue")), objects.cluster):
            stated = at(objects.cluster.queues.get(queue), "spec", "preemptMinRuntime")
            if stated is not None:
                seconds = parse_duration(stated)
                if seconds:
                    ends.append(started_at + timedelta(seconds=seconds))
                break
    return max(ends, default=None)


def ai_application(
    objects: WorkloadObjects, cluster_id: UUID
) -> tuple[str, str] | tuple[None, None]:
    """Id and name of the Helm release that the root belongs to."""
    noted: Mapping[str, Any] = annotations(objects.root)
    release = text(noted.get("meta.helm.sh/release-name"))
    if not release:
        return None, None
    namespace = text(noted.get("meta.helm.sh/release-namespace")) or text(
        at(objects.root, "metadata", "namespace")
    )
    release = release[:253]
    return str(uuid5(cluster_id, f"{namespace[:253]}/{release}")), release
