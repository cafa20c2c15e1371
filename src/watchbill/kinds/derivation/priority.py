"""Priority of a workload: class, value, preemptibility, guaranteed runtime."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.queues import (
    ancestors,
    is_kai,
)
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    instant,
    labels,
    text,
    whole,
)
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.quantity import parse_duration

KUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
RAY_PRIORITY_LABEL = "ray.io/priority-class-name"
VOLCANO_PREEMPTABLE = "volcano.sh/preemptable"
LAST_START = "kai.scheduler/last-start-timestamp"
NON_PREEMPTIBLE_FROM = 100
_DEFAULT_KAI_PRIORITY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    class_name: str
    value: int | None
    is_preemptible: bool | None


def priority_of(view: WorkloadView) -> Priority:
    """The class that counts for its scheduler, that class's value, and whether it can be preempted."""
    under_kai = is_kai(view)
    name = _class_name(view)
    value = _class_value(name, view)
    preemptible = _explicit_preemptibility(view)
    if preemptible is None and under_kai:
        known = value if name else _default_value(view.cluster)
        effective = _DEFAULT_KAI_PRIORITY if known is None else known
        preemptible = effective < NON_PREEMPTIBLE_FROM
    return Priority(class_name=name, value=value, is_preemptible=preemptible)


def _class_name(view: WorkloadView) -> str:
    for group in (*view.kai_groups, *view.volcano_groups):
        name = text(at(group, "spec", "priorityClassName"))
        if name:
            return name
    for workload in view.kueue_workloads:
        name = _kueue_class(workload)
        if name:
            return name
    label = next(_labels_named(view.settings.priority_label, view), "")
    root = labels(view.root)
    label = label or text(root.get(KUEUE_PRIORITY_LABEL)) or text(root.get(RAY_PRIORITY_LABEL))
    if label:
        return label
    for pod in view.pods.all:
        if pod.priority_class_name:
            return pod.priority_class_name
    for role in view.facts.roles:
        if role.template is not None and role.template.priority_class_name:
            return role.template.priority_class_name
    return ""


def _labels_named(key: str, view: WorkloadView) -> Iterator[str]:
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


def _kueue_class(workload: Object) -> str:
    """Kueue has priority classes of its own; its Workload names the class and holds its value."""
    spec = at(workload, "spec")
    return text(at(spec, "priorityClassName")) or text(at(spec, "priorityClassRef", "name"))


def _class_value(name: str, view: WorkloadView) -> int | None:
    if not name:
        return None
    for workload in view.kueue_workloads:
        if _kueue_class(workload) == name and whole(at(workload, "spec", "priority")) is not None:
            return whole(at(workload, "spec", "priority"))
    value = whole(at(view.cluster.priority_classes.get(name), "value"))
    if value is not None:
        return value
    # The API server resolves a pod's class when it admits the pod.
    for pod in view.pods.all:
        if pod.priority_class_name == name and pod.priority is not None:
            return pod.priority
    return None


def _default_value(cluster: ClusterObjects) -> int | None:
    for _, priority_class in sorted(cluster.priority_classes.items()):
        if at(priority_class, "globalDefault") is True:
            return whole(at(priority_class, "value"))
    return None


def _explicit_preemptibility(view: WorkloadView) -> bool | None:
    for group in view.kai_groups:
        stated = _PREEMPTIBILITY.get(text(at(group, "spec", "preemptibility")))
        if stated is not None:
            return stated
    for label in _labels_named(view.settings.preemptibility_label, view):
        if label in _PREEMPTIBILITY:
            return _PREEMPTIBILITY[label]
    for group in view.volcano_groups:
        stated = _TRUTHS.get(text(annotations(group).get(VOLCANO_PREEMPTABLE)))
        if stated is not None:
            return stated
    return None


_PREEMPTIBILITY = {"preemptible": True, "non-preemptible": False}
_TRUTHS = {"true": True, "false": False}


def guaranteed_until(view: WorkloadView, priority: Priority) -> datetime | None:
    """Last start plus the minimum runtime of the nearest queue that sets one, else of the node pool's shard.

    None if it is zero.
    """
    if priority.is_preemptible is not True:
        return None
    ends: list[datetime] = []
    for group in view.kai_groups:
        started_at = instant(annotations(group).get(LAST_START))
        if started_at is None:
            continue
        seconds = parse_duration(next(_minimum_runtimes(group, view.cluster, view.settings), None))
        if seconds:
            ends.append(started_at + timedelta(seconds=seconds))
    return max(ends, default=None)


def _minimum_runtimes(
    group: Object, cluster: ClusterObjects, settings: DeriveSettings
) -> Iterator[Any]:
    """The settings of the group's queue and its parents, then of its node pool's shard; nearest first."""
    for queue in ancestors(text(at(group, "spec", "queue")), cluster):
        stated = at(cluster.queues.get(queue), "spec", "preemptMinRuntime")
        if stated is not None:
            yield stated
    pool = text(labels(group).get(settings.node_pool_label))
    for _, shard in sorted(cluster.shards.items()):
        stated = at(shard, "spec", "minRuntime", "preemptMinRuntime")
        if stated is not None and text(at(shard, "spec", "partitionLabelValue")) == pool:
            yield stated
