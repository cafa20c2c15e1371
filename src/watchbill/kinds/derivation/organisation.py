"""Project, department, submitter and Helm release of a workload."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    group_version,
    labels,
    name_key,
    text,
)
from watchbill.kinds.objects.objects import ClusterObjects, Object, WorkloadObjects

KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KAI_GROUP = "scheduling.run.ai"
VOLCANO_GROUP = "scheduling.volcano.sh"
_MAX_QUEUE_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationNames:
    """Names are for people, keys are the queues' object names and stay when a name changes."""

    project_name: str
    project_key: str
    department_name: str = ""
    department_key: str = ""


def kai_groups(objects: WorkloadObjects) -> list[Object]:
    """KAI's pod groups, in a stable order."""
    return sorted(
        (group for group in objects.pod_groups if group_version(group)[0] == KAI_GROUP),
        key=name_key,
    )


def is_kai(view: WorkloadView) -> bool:
    """By its pod groups, else by its pods; before there are any, by what its templates name."""
    if kai_groups(view.objects):
        return True
    if view.pods.all:
        return any(pod.scheduler_name in view.settings.kai_schedulers for pod in view.pods.all)
    templates = [role.template for role in view.facts.roles if role.template is not None]
    return any(template.scheduler_name in view.settings.kai_schedulers for template in templates)


def organisation_of(view: WorkloadView) -> OrganisationNames:
    """KAI's queue, else Kueue's, else Volcano's, else a project label, else the namespace."""
    namespace = text(at(view.root, "metadata", "namespace"))
    queue = kai_queue(view)
    if queue:
        return _kai_organisation(queue, view.cluster)
    local_queue = _kueue_queue(view)
    if local_queue:
        return _kueue_organisation(namespace, local_queue, view.cluster)
    volcano_queue = _volcano_queue(view.objects)
    if volcano_queue:
        return _volcano_organisation(volcano_queue, view.cluster)
    project = first_label(view.settings.project_label, view)
    namespace_labels = labels(view.cluster.namespaces.get(namespace))
    project = project or text(namespace_labels.get(view.settings.namespace_project_label))
    if project in view.cluster.queues:
        return _kai_organisation(project, view.cluster)
    return OrganisationNames(project_name=project or namespace, project_key=project or namespace)


def kai_queue(view: WorkloadView) -> str:
    """The pod group says it for certain; before there is one, the label on the owner or its pods."""
    for group in kai_groups(view.objects):
        queue = text(at(group, "spec", "queue"))
        if queue:
            return queue
    return first_label(view.settings.queue_label, view)


def first_label(key: str, view: WorkloadView) -> str:
    return next(labels_named(key, view), "")


def labels_named(key: str, view: WorkloadView) -> Iterator[str]:
    """The values of a label on the root, its templates and its pods; those that exist."""
    value = text(labels(view.root).get(key))
    if value:
        yield value
    for role in view.facts.roles:
        if role.template is not None and role.template.labels.get(key):
            yield role.template.labels[key]
    for pod in view.pods.all:
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


def _kai_organisation(queue: str, cluster: ClusterObjects) -> OrganisationNames:
    chain = ancestors(queue, cluster)
    department = chain[1] if len(chain) > 1 else ""
    return OrganisationNames(
        project_name=display_name(queue, cluster),
        project_key=queue,
        department_name=display_name(department, cluster) if department else "",
        department_key=department,
    )


def volcano_groups(objects: WorkloadObjects) -> list[Object]:
    """Volcano's pod groups, in a stable order."""
    return sorted(
        (group for group in objects.pod_groups if group_version(group)[0] == VOLCANO_GROUP),
        key=name_key,
    )


def _volcano_queue(objects: WorkloadObjects) -> str:
    for group in volcano_groups(objects):
        queue = text(at(group, "spec", "queue"))
        if queue:
            return queue
    return ""


def _volcano_organisation(queue: str, cluster: ClusterObjects) -> OrganisationNames:
    """Queues may have parents; the root of all is nobody's department."""
    parent = text(at(cluster.volcano_queues.get(queue), "spec", "parent"))
    department = "" if parent == "root" else parent
    return OrganisationNames(
        project_name=queue,
        project_key=queue,
        department_name=department,
        department_key=department,
    )


def _kueue_queue(view: WorkloadView) -> str:
    for workload in sorted(view.objects.queue_workloads, key=name_key):
        queue = text(at(workload, "spec", "queueName"))
        if queue:
            return queue
    return first_label(KUEUE_QUEUE_LABEL, view)


def _kueue_organisation(namespace: str, queue: str, cluster: ClusterObjects) -> OrganisationNames:
    """A LocalQueue lives in a namespace: two may share a name, so the key holds both."""
    cluster_queue = text(at(cluster.local_queues.get((namespace, queue)), "spec", "clusterQueue"))
    queue_object = cluster.cluster_queues.get(cluster_queue)
    # v1beta2 renames the member.
    cohort = text(at(queue_object, "spec", "cohort")) or text(
        at(queue_object, "spec", "cohortName")
    )
    department = cohort or cluster_queue
    return OrganisationNames(
        project_name=queue,
        project_key=f"{namespace}/{queue}",
        department_name=department,
        department_key=department,
    )


def submitter(view: WorkloadView) -> str | None:
    """The `user` annotation or label, on the owner, its pods or their pod group."""
    key = view.settings.user_key
    for obj in (view.root, *kai_groups(view.objects)):
        user = text(annotations(obj).get(key)) or text(labels(obj).get(key))
        if user:
            return user
    for pod in view.pods.all:
        user = pod.annotations.get(key, "") or pod.labels.get(key, "")
        if user:
            return user
    return None


def ai_application(
    objects: WorkloadObjects, cluster_id: UUID
) -> tuple[str, str] | tuple[None, None]:
    """Id and name of the Helm release that the root belongs to."""
    release_annotations: Mapping[str, Any] = annotations(objects.root)
    release = text(release_annotations.get("meta.helm.sh/release-name"))
    if not release:
        return None, None
    namespace = text(release_annotations.get("meta.helm.sh/release-namespace")) or text(
        at(objects.root, "metadata", "namespace")
    )
    release = release[:253]
    return str(uuid5(cluster_id, f"{namespace[:253]}/{release}")), release
