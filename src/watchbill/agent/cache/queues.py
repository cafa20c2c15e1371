"""Queues of KAI, Kueue and Volcano as projects and departments with their quotas. Pure.

They are projects and departments under the keys that workloads' records name them by
(`kinds/derivation/organisation.py`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from watchbill.agent.cache.cluster import ClusterView
from watchbill.kinds.derivation.placement import node_pool_of
from watchbill.kinds.derivation.presentation import printable
from watchbill.kinds.derivation.queues import cohort_of, kueue_department
from watchbill.kinds.objects.gpu_units import unit_of
from watchbill.kinds.objects.json_access import (
    at,
    condition,
    instant,
    labels,
    mapping,
    message_of,
    metadata,
    objects,
    text,
    whole,
)
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.quantity import Amount, parse_quantity
from watchbill.scheduler_queue import (
    MAX_QUEUES,
    UNLIMITED,
    NodePoolQuota,
    OrganisationUnit,
    ResourceQuota,
    SchedulerQueue,
)

_KINDS: Mapping[tuple[str, OrganisationUnit], tuple[str, str]] = {
    ("KAI", "project"): ("scheduling.run.ai", "Queue"),
    ("KAI", "department"): ("scheduling.run.ai", "Queue"),
    ("Volcano", "project"): ("scheduling.volcano.sh", "Queue"),
    ("Volcano", "department"): ("scheduling.volcano.sh", "Queue"),
    ("Kueue", "project"): ("kueue.x-k8s.io", "LocalQueue"),
    ("Kueue", "department"): ("kueue.x-k8s.io", "ClusterQueue"),
}
"""Group and kind that a queue is made of, by scheduler and unit."""
QUEUE_KINDS = frozenset(_KINDS.values())
MAX_AMOUNT = 1e15
MOST_BYTES = 2 * 1024 * 1024
"""Of all queues: a server takes 4 MiB in one heartbeat, of which nodes have a part."""
KEY_LENGTH = 507
_MESSAGE_LENGTH = 1_024
_BYTES_PER_MEGABYTE = 1_000_000
_VOLCANO_ROOT = "root"


class ReportedQueues(NamedTuple):
    """`left_out`: a sentence about queues beyond what one heartbeat takes, by group and kind."""

    queues: tuple[SchedulerQueue, ...]
    left_out: Mapping[tuple[str, str], str]


def scheduler_queues(view: ClusterView, settings: DeriveSettings) -> ReportedQueues:
    """Each project and each department once; where schedulers share a name, KAI's.

    Of too many the first `MAX_QUEUES`, and no more than one heartbeat can take.
    """
    by_key: dict[tuple[str, str], SchedulerQueue] = {}
    for queue in (*_kai(view, settings), *_kueue(view, settings), *_volcano(view, settings)):
        by_key.setdefault((queue.unit, queue.key), queue)
    ordered = [by_key[key] for key in sorted(by_key)]
    sizes = accumulate(len(msgspec.json.encode(queue)) for queue in ordered[:MAX_QUEUES])
    reported = tuple(ordered[: sum(size <= MOST_BYTES for size in sizes)])
    return ReportedQueues(reported, _left_out(ordered[len(reported) :]))


def _left_out(queues: Iterable[SchedulerQueue]) -> dict[tuple[str, str], str]:
    counts = Counter(_KINDS[queue.scheduler, queue.unit] for queue in queues)
    return {
        kind: f"{count} queues are left out: {MAX_QUEUES} of {MOST_BYTES} bytes together are reported."
        for kind, count in counts.items()
    }


def _unit(name: str, parents: frozenset[str]) -> OrganisationUnit:
    return "department" if name in parents else "project"


def _kai(view: ClusterView, settings: DeriveSettings) -> Iterator[SchedulerQueue]:
    parents = frozenset(text(at(obj, "spec", "parentQueue")) for obj in view.queues.values())
    for name, obj in view.queues.items():
        resources = at(obj, "spec", "resources")
        quotas: tuple[NodePoolQuota, ...] = ()
        if resources is not None:
            pool = printable(node_pool_of(labels(obj), settings))
            gpu, cpu, memory = (
                _kai_quota(at(resources, name)) for name in ("gpu", "cpu", "memory")
            )
            quotas = (NodePoolQuota(node_pool=pool, gpu=gpu, cpu=cpu, memory=memory),)
        yield SchedulerQueue(
            unit=_unit(name, parents),
            key=printable(name, KEY_LENGTH),
            name=printable(text(at(obj, "spec", "displayName")) or name, KEY_LENGTH),
            scheduler="KAI",
            department_key=printable(text(at(obj, "spec", "parentQueue")), KEY_LENGTH),
            created_at=instant(metadata(obj).get("creationTimestamp")),
            priority=whole(at(obj, "spec", "priority")),
            quotas=quotas,
        )


def _kai_quota(stated: Any) -> ResourceQuota:
    """What a queue leaves out is 0 of a quota and of a weight, and no limit."""
    values = mapping(stated)
    weight = _number(values.get("overQuotaWeight"))
    return ResourceQuota(
        quota=_bounded(values.get("quota"), 0.0),
        limit=_bounded(values.get("limit"), UNLIMITED),
        over_quota_weight=None if weight is None else max(0.0, weight),
    )


def _bounded(value: Any, missing: float) -> float:
    number = _number(value)
    return missing if number is None else UNLIMITED if number < 0 else number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(max(-MAX_AMOUNT, min(MAX_AMOUNT, value)))


def _volcano(view: ClusterView, settings: DeriveSettings) -> Iterator[SchedulerQueue]:
    named = (text(at(obj, "spec", "parent")) for obj in view.volcano_queues.values())
    parents = frozenset(named)
    for name, obj in view.volcano_queues.items():
        if name == _VOLCANO_ROOT:
            continue
        parent = text(at(obj, "spec", "parent"))
        state = text(at(obj, "status", "state"))
        quota = _volcano_quota(mapping(at(obj, "spec")), settings)
        yield SchedulerQueue(
            unit=_unit(name, parents),
            key=printable(name, KEY_LENGTH),
            name=printable(name, KEY_LENGTH),
            scheduler="Volcano",
            department_key="" if parent == _VOLCANO_ROOT else printable(parent, KEY_LENGTH),
            created_at=instant(metadata(obj).get("creationTimestamp")),
            priority=whole(at(obj, "spec", "priority")),
            not_ready_message=f"The queue is {state}." if state in ("Closed", "Closing") else None,
            quotas=() if quota is None else (quota,),
        )


def _volcano_quota(spec: Mapping[str, Any], settings: DeriveSettings) -> NodePoolQuota | None:
    """None where it states nothing, or GPUs in units of a size that is not known."""
    deserved, capability = mapping(spec.get("deserved")), mapping(spec.get("capability"))
    weight = _number(spec.get("weight"))
    sums = _Sums(settings)
    limits = _Sums(settings)
    if not (deserved or capability) or not (
        sums.add(deserved.items()) and limits.add(capability.items())
    ):
        return None

    def of(resource: str) -> ResourceQuota:
        limit = limits.amount(resource)
        return ResourceQuota(
            quota=sums.amount(resource) or 0.0,
            limit=UNLIMITED if limit is None else limit,
            over_quota_weight=None if weight is None else max(0.0, weight),
        )

    return NodePoolQuota(gpu=of("gpu"), cpu=of("cpu"), memory=of("memory"))


class _Sums:
    """Quantities of resources added up, as GPUs, millicores and MB."""

    def __init__(self, settings: DeriveSettings) -> None:
        self._gpu_resources = settings.gpu_resources
        self._amounts: dict[str, Amount] = {}

    def add(self, resources: Iterable[tuple[str, Any]]) -> bool:
        """False where GPUs are among them in units of a size that is not known, or what is no quantity."""
        for name, stated in resources:
            kind = (
                name if name in ("cpu", "memory") else "gpu" if name in self._gpu_resources else ""
            )
            if not kind:
                if unit_of(name, {}, self._gpu_resources) is not None:
                    return False
                continue
            amount = parse_quantity(stated)
            if amount is None:
                return False
            self._amounts[kind] = self._amounts.get(kind, 0) + amount
        return True

    def amount(self, resource: str) -> float | None:
        """None where no quantity of it was stated."""
        amount = self._amounts.get(resource)
        if amount is None:
            return None
        scaled = {"gpu": amount, "cpu": amount * 1000, "memory": amount / _BYTES_PER_MEGABYTE}
        return float(max(0, min(MAX_AMOUNT, scaled[resource])))


def _kueue(view: ClusterView, settings: DeriveSettings) -> Iterator[SchedulerQueue]:
    """A LocalQueue has no quota of its own: that is its ClusterQueue's, or its cohort's together."""
    members: dict[str, list[Object]] = {}
    for name, obj in view.cluster_queues.items():
        members.setdefault(cohort_of(obj) or name, []).append(obj)
    for name, cluster_queues in members.items():
        quota = _kueue_quota(cluster_queues, settings)
        reasons = [_kueue_reason(obj) for obj in cluster_queues]
        yield SchedulerQueue(
            unit="department",
            key=printable(name, KEY_LENGTH),
            name=printable(name, KEY_LENGTH),
            scheduler="Kueue",
            created_at=_oldest(cluster_queues),
            not_ready_message=reasons[0] if all(reasons) else None,
            quotas=() if quota is None else (quota,),
        )
    for (namespace, name), obj in view.local_queues.items():
        department = kueue_department(obj, namespace, view.cluster_queues, view.namespaces)
        yield SchedulerQueue(
            unit="project",
            key=printable(f"{namespace}/{name}", KEY_LENGTH),
            name=printable(name, KEY_LENGTH),
            scheduler="Kueue",
            department_key=printable(department, KEY_LENGTH),
            namespace=printable(namespace, KEY_LENGTH),
            created_at=_oldest([obj]),
            not_ready_message=_kueue_reason(obj),
        )


def _oldest(queues: Iterable[Object]) -> Any:
    created = (instant(metadata(obj).get("creationTimestamp")) for obj in queues)
    return min(filter(None, created), default=None)


def _kueue_reason(queue: Object) -> str | None:
    policy = text(at(queue, "spec", "stopPolicy"))
    if policy in ("Hold", "HoldAndDrain"):
        return f"The queue is stopped: {policy}."
    active = condition(at(queue, "status", "conditions"), "Active")
    if active is None or active.get("status") != "False":
        return None
    return printable(message_of(active) or "The queue is not active.", _MESSAGE_LENGTH)


def _kueue_quota(queues: Iterable[Object], settings: DeriveSettings) -> NodePoolQuota | None:
    """Over all flavors, which are no node pools. None where GPUs come in units of a size that is not known."""
    sums = _Sums(settings)
    stated = [
        (text(resource.get("name")), resource.get("nominalQuota"))
        for queue in queues
        for group in objects(at(queue, "spec", "resourceGroups"))
        for flavor in objects(group.get("flavors"))
        for resource in objects(flavor.get("resources"))
    ]
    if not stated or not sums.add(stated):
        return None
    gpu, cpu, memory = (
        ResourceQuota(quota=sums.amount(name) or 0.0) for name in ("gpu", "cpu", "memory")
    )
    return NodePoolQuota(gpu=gpu, cpu=cpu, memory=memory)
