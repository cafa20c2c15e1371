"""Project, department, owner (who submitted it) and Helm release of a workload.

A claim counts where an authority confirms it. The project is the queue that the scheduler's own object names
for the workload's root, if it exists; before there is one, the queue that the root itself names, if it exists;
else what the settings or the namespace's label say; else the namespace. Labels of pods never count.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid5

from watchbill.kinds.definition.facts import RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.queues import (
    KUEUE_QUEUE_LABEL,
    VOLCANO_QUEUE_ANNOTATION,
    VOLCANO_QUEUE_LABEL,
    ancestors,
    display_name,
    is_made_for_root,
    kueue_department,
)
from watchbill.kinds.objects.json_access import annotations, at, labels, text
from watchbill.kinds.objects.objects import ClusterObjects, WorkloadObjects

SubmitterSource = Literal["admission", "label", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationNames:
    """Names are for people, keys are the queues' object names and stay when a name changes."""

    project_name: str
    project_key: str
    department_name: str = ""
    department_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOwner:
    """`source`: set by the cluster's admission control, claimed by the root's author, or unknown."""

    name: str | None
    source: SubmitterSource


def organisation_of(view: WorkloadView) -> OrganisationNames:
    return _of_scheduler(view) or _of_root(view) or _of_namespace(view)


def _of_scheduler(view: WorkloadView) -> OrganisationNames | None:
    """By KAI's pod group, else Kueue's Workload, else Volcano's pod group."""
    for group in view.kai_groups:
        queue = text(at(group, "spec", "queue"))
        if queue and _is_confirmed(queue, view.cluster.queues, view):
            return _kai_organisation(queue, view.cluster)
    for workload in view.kueue_workloads:
        queue = text(at(workload, "spec", "queueName"))
        if queue:
            return _kueue_organisation(queue, view)
    for group in view.volcano_groups:
        queue = text(at(group, "spec", "queue"))
        if queue and _is_confirmed(queue, view.cluster.volcano_queues, view):
            return _volcano_organisation(queue, view.cluster)
    return None


def _of_root(view: WorkloadView) -> OrganisationNames | None:
    """By the root's own labels, where they name a queue that exists."""
    for key in (view.settings.queue_label, view.settings.project_label):
        for queue in _root_labels(view, key):
            if queue in view.cluster.queues:
                return _kai_organisation(queue, view.cluster)
    for queue in _root_labels(view, KUEUE_QUEUE_LABEL):
        if (view.namespace, queue) in view.cluster.local_queues:
            return _kueue_organisation(queue, view)
    queue = view.facts.queue
    if queue and _is_confirmed(queue, view.cluster.volcano_queues, view):
        return _volcano_organisation(queue, view.cluster)
    queue = _volcano_queue(view)
    if queue in view.cluster.volcano_queues:
        return _volcano_organisation(queue, view.cluster)
    return None


def _is_confirmed(queue: str, queues: Container[str], view: WorkloadView) -> bool:
    """Whether the queue that a scheduler's object, or the kind itself, names is one of the scheduler's.

    Where none of these can be read, whether nobody else has the name as a project: anybody may write such an
    object in a namespace.
    """
    if queues:
        return queue in queues
    cluster, settings = view.cluster, view.settings
    return not (
        queue in cluster.queues
        or queue in cluster.volcano_queues
        or queue in cluster.namespaces
        or queue in settings.namespace_projects.values()
        or any(
            queue == labels(namespace).get(settings.namespace_project_label)
            for namespace in cluster.namespaces.values()
        )
    )


def _volcano_queue(view: WorkloadView) -> str:
    """The root's label, or the annotation of the root or of its own templates."""
    templates = [role.template for role in _own_roles(view) if role.template is not None]
    noted = (annotations(view.root), *(template.annotations for template in templates))
    labelled = _values(VOLCANO_QUEUE_LABEL, labels(view.root))
    named = (*labelled, *_values(VOLCANO_QUEUE_ANNOTATION, *noted))
    return next((queue for queue in named if queue), "")


def _of_namespace(view: WorkloadView) -> OrganisationNames:
    namespace, settings = view.namespace, view.settings
    namespace_labels = labels(view.cluster.namespaces.get(namespace))
    project = settings.namespace_projects.get(namespace, "")
    project = project or text(namespace_labels.get(settings.namespace_project_label))
    if project in view.cluster.queues:
        return _kai_organisation(project, view.cluster)
    return OrganisationNames(project_name=project or namespace, project_key=project or namespace)


def _root_labels(view: WorkloadView, key: str) -> Iterator[str]:
    """The values of a label of the root itself, then of its own pod templates."""
    templates = (role.template.labels for role in _own_roles(view) if role.template is not None)
    return _values(key, labels(view.root), *templates)


def _own_roles(view: WorkloadView) -> tuple[RoleFacts, ...]:
    """Without those that its children have added."""
    return view.own.roles


def _values(key: str, *maps: Mapping[str, Any]) -> Iterator[str]:
    return (value for each in maps if (value := text(each.get(key))))


def _kai_organisation(queue: str, cluster: ClusterObjects) -> OrganisationNames:
    chain = ancestors(queue, cluster)
    department = chain[1] if len(chain) > 1 else ""
    return OrganisationNames(
        project_name=display_name(queue, cluster),
        project_key=queue,
        department_name=display_name(department, cluster) if department else "",
        department_key=department,
    )


def _volcano_organisation(queue: str, cluster: ClusterObjects) -> OrganisationNames:
    """Queues may have parents; the root of all is no department."""
    parent = text(at(cluster.volcano_queues.get(queue), "spec", "parent"))
    department = "" if parent == "root" else parent
    return OrganisationNames(
        project_name=queue,
        project_key=queue,
        department_name=department,
        department_key=department,
    )


def _kueue_organisation(queue: str, view: WorkloadView) -> OrganisationNames:
    """A LocalQueue lives in a namespace: two may share a name, so the key holds both."""
    cluster = view.cluster
    department = kueue_department(
        cluster.local_queues.get((view.namespace, queue)),
        view.namespace,
        cluster.cluster_queues,
        cluster.namespaces,
    )
    return OrganisationNames(
        project_name=queue,
        project_key=f"{view.namespace}/{queue}",
        department_name=department,
        department_key=department,
    )


def workload_owner(view: WorkloadView) -> WorkloadOwner:
    """By the annotation that the cluster's admission control sets, else by what the root says of itself."""
    settings = view.settings
    if settings.admission_user_key:
        name = text(annotations(view.root).get(settings.admission_user_key))
        if name:
            return WorkloadOwner(name=name, source="admission")
    for name in _values(settings.user_key, *_claims_of_root(view)):
        return WorkloadOwner(name=name, source="label")
    return WorkloadOwner(name=None, source="none")


def _claims_of_root(view: WorkloadView) -> Iterator[Mapping[str, Any]]:
    """Annotations and labels of the root, of its own templates, and of the pod groups that KAI made for it."""
    yield from (annotations(view.root), labels(view.root))
    for role in _own_roles(view):
        if role.template is not None:
            yield from (role.template.annotations, role.template.labels)
    for group in view.kai_groups:
        if is_made_for_root(group, view.root):
            yield from (annotations(group), labels(group))


def ai_application(
    objects: WorkloadObjects, cluster_id: UUID
) -> tuple[str, str] | tuple[None, None]:
    """Id and name of the Helm release that the root belongs to, of its own namespace: the annotation that names
    another one is written by whoever writes the root."""
    noted: Mapping[str, Any] = annotations(objects.root)
    release = text(noted.get("meta.helm.sh/release-name"))
    if not release:
        return None, None
    namespace = text(at(objects.root, "metadata", "namespace"))
    release = release[:253]
    return str(uuid5(cluster_id, f"{namespace[:253]}/{release}")), release
