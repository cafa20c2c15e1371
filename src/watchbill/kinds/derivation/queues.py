"""The schedulers' objects of a workload, and their queues: pod groups and Kueue's Workloads.

Of several objects those made for the root come first, then those of the objects that it owns, then those of
pods; among equals the oldest. Names decide nothing: anybody in the namespace may choose one that sorts first.
"""

from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime
from typing import Any, NamedTuple

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    group_version,
    instant,
    is_true,
    labels,
    metadata,
    text,
)
from watchbill.kinds.objects.json_access import (
    objects as objects_of,
)
from watchbill.kinds.objects.objects import ClusterObjects, Object, WorkloadObjects
from watchbill.kinds.objects.pod import POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION, owners

KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
VOLCANO_QUEUE_LABEL = "volcano.sh/queue-name"
VOLCANO_QUEUE_ANNOTATION = "scheduling.volcano.sh/queue-name"
_KAI_GROUP = "scheduling.run.ai"
_VOLCANO_GROUP = "scheduling.volcano.sh"
_KUBERNETES_GROUP = "scheduling.k8s.io"
_MAX_QUEUE_DEPTH = 16
_LATEST = datetime.max.replace(tzinfo=UTC)


class SchedulerObjects(NamedTuple):
    """Of each kind the object that counts first."""

    kai_groups: tuple[Object, ...]
    volcano_groups: tuple[Object, ...]
    kubernetes_groups: tuple[Object, ...]
    kueue_workloads: tuple[Object, ...]


def scheduler_objects(objects: WorkloadObjects) -> SchedulerObjects:
    """What schedulers made for the workload in its namespace, ordered by owner and age."""
    children = frozenset(text(metadata(child).get("uid")) for child in objects.children)
    namespace = text(metadata(objects.root).get("namespace"))

    def ordered(candidates: Iterable[Object]) -> tuple[Object, ...]:
        own = (obj for obj in candidates if text(metadata(obj).get("namespace")) in ("", namespace))
        return tuple(
            sorted(own, key=lambda obj: (_distance(obj, objects.root, children), *_age(obj)))
        )

    groups: dict[str, list[Object]] = {
        _KAI_GROUP: [],
        _VOLCANO_GROUP: [],
        _KUBERNETES_GROUP: [],
    }
    for group in objects.pod_groups:
        groups.get(group_version(group)[0], []).append(group)
    return SchedulerObjects(
        kai_groups=ordered(groups[_KAI_GROUP]),
        volcano_groups=ordered(groups[_VOLCANO_GROUP]),
        kubernetes_groups=ordered(groups[_KUBERNETES_GROUP]),
        kueue_workloads=ordered(objects.queue_workloads),
    )


def is_made_for_root(obj: Object, root: Object) -> bool:
    """The object is owned by the root, or is the pod group of a root that is a pod."""
    return _distance(obj, root, frozenset()) == 0


def _distance(obj: Object, root: Object, children: Set[str]) -> int:
    """How far from the root the object's owners are."""
    uids = {owner.uid for owner in owners(obj)}
    if text(metadata(root).get("uid")) in uids or _is_named_by(root, obj):
        return 0
    return 2 if uids.isdisjoint(children) else 1


def _is_named_by(root: Object, group: Object) -> bool:
    """The root is a pod and names the group as its own."""
    if root.get("kind") != "Pod":
        return False
    keys = (POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION)
    names = {text(annotations(root).get(key)) for key in keys}
    names |= {text(at(root, "spec", "schedulingGroup", "podGroupName"))}
    names -= {""}
    return text(metadata(group).get("name")) in names


def _age(obj: Object) -> tuple[datetime, str]:
    meta = metadata(obj)
    return instant(meta.get("creationTimestamp")) or _LATEST, text(meta.get("uid"))


def ancestors(queue: str, cluster: ClusterObjects) -> list[str]:
    """A KAI queue and its parents, the nearest first; a ring of parents ends where it closes."""
    chain: list[str] = []
    while queue and queue not in chain and len(chain) < _MAX_QUEUE_DEPTH:
        chain.append(queue)
        queue = text(at(cluster.queues.get(queue), "spec", "parentQueue"))
    return chain


def display_name(queue: str, cluster: ClusterObjects) -> str:
    return text(at(cluster.queues.get(queue), "spec", "displayName")) or queue


def is_kai(view: WorkloadView) -> bool:
    """By its pod groups, else by its pods; before there are any, by what its templates name."""
    if view.kai_groups:
        return True
    if view.pods.all:
        return any(pod.scheduler_name in view.settings.kai_schedulers for pod in view.pods.all)
    templates = [role.template for role in view.facts.roles if role.template is not None]
    return any(template.scheduler_name in view.settings.kai_schedulers for template in templates)


def is_held(objects: WorkloadObjects, *, is_suspended: bool, has_pods: bool) -> bool:
    """Kueue keeps it waiting: suspended by the queue, not by a person."""
    if objects.queue_workloads:
        is_taken_back = is_suspended and not has_pods
        return any(
            is_waiting(workload) or (is_taken_back and is_evicted(workload))
            for workload in objects.queue_workloads
        )
    return is_suspended and is_queued(objects)


def is_queued(objects: WorkloadObjects) -> bool:
    """Kueue suspends and resumes it, not a person."""
    return bool(objects.queue_workloads or labels(objects.root).get(KUEUE_QUEUE_LABEL))


def is_waiting(workload: Any) -> bool:
    """A Kueue Workload that is active, unfinished and not admitted."""
    conditions = at(workload, "status", "conditions")
    return (
        at(workload, "spec", "active") is not False
        and not is_true(conditions, "Finished")
        and not is_true(conditions, "Admitted")
    )


def is_evicted(workload: Any) -> bool:
    """A Kueue Workload that was evicted and not admitted since: until it waits again, or for good where Kueue
    fails to take the quota back, it says that it is admitted, too."""
    conditions = at(workload, "status", "conditions")
    return (
        at(workload, "spec", "active") is not False
        and not is_true(conditions, "Finished")
        and is_true(conditions, "Evicted")
    )


def kueue_department(
    local_queue: Object | None,
    namespace: str,
    cluster_queues: Mapping[str, Object],
    namespaces: Mapping[str, Object],
) -> str:
    """The cohort of a LocalQueue's ClusterQueue, else that itself: where it exists and takes workloads of the
    namespace, for whoever may write a LocalQueue may name any. Where none can be read it is believed."""
    name = text(at(local_queue, "spec", "clusterQueue"))
    cluster_queue = cluster_queues.get(name)
    if cluster_queue is None:
        return "" if cluster_queues else name
    selector, known = at(cluster_queue, "spec", "namespaceSelector"), namespaces.get(namespace)
    if known is not None and not _selects(selector, labels(known)):
        return ""
    return cohort_of(cluster_queue) or name


def cohort_of(cluster_queue: Object | None) -> str:
    """v1beta2 renames the member."""
    spec = at(cluster_queue, "spec")
    return text(at(spec, "cohort")) or text(at(spec, "cohortName"))


def _selects(selector: Any, of: Mapping[str, Any]) -> bool:
    """As Kubernetes reads it: an empty selector selects all, one that is absent or has an operator that is
    unknown nothing."""
    if not isinstance(selector, Mapping):
        return False
    wanted = at(selector, "matchLabels")
    if isinstance(wanted, Mapping) and any(of.get(key) != value for key, value in wanted.items()):
        return False
    for each in objects_of(at(selector, "matchExpressions")):
        key, stated = text(each.get("key")), each.get("values")
        values = stated if isinstance(stated, list) else []
        is_met = {
            "In": of.get(key) in values,
            "NotIn": of.get(key) not in values,
            "Exists": key in of,
            "DoesNotExist": key not in of,
        }.get(text(each.get("operator")), False)
        if not is_met:
            return False
    return True
