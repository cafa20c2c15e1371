"""What KAI-Scheduler says on its pod groups, and when that is out of date."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from watchbill.kinds.census import Census
from watchbill.kinds.lookup import at, instant, mapping, metadata, objects, text
from watchbill.kinds.objects import ClusterObjects, Object
from watchbill.kinds.organisation import ancestors, display_name
from watchbill.kinds.pod import POD_GROUP_ANNOTATION
from watchbill.kinds.quantity import Amount, format_bytes, format_count, parse_quantity
from watchbill.kinds.settings import DeriveSettings
from watchbill.workload import PendingReason, PendingSchedulingMessage, PhaseReason

QUOTA_REASONS: dict[str, PhaseReason] = {
    "NonPreemptibleOverQuota": "NonPreemptibleOverQuota",
    "OverLimit": "OverLimit",
}
# Kubernetes' times are cut to the second and come from several clocks.
_CLOCK_TOLERANCE = timedelta(seconds=2)
_RESOURCE_WORDS = {
    "nvidia.com/gpu": "GPUs",
    "gpu": "GPUs",
    "cpu": "CPU cores",
    "memory": "memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reason:
    """One reason on one node pool."""

    node_pool: str
    reason: str
    message: str
    details: Mapping[str, Any]
    queue: str
    since: datetime


def kai_reasons(
    groups: Sequence[Object], census: Census, cluster: ClusterObjects, settings: DeriveSettings
) -> Iterator[PendingReason]:
    for found in _reasons(groups, census, settings):
        yield PendingReason(
            source="kai",
            node_pool=found.node_pool,
            reason=found.reason,
            message=found.message,
            user_message=_user_message(found, cluster),
            since=found.since,
        )


def scheduling_messages(
    groups: Sequence[Object], census: Census, cluster: ClusterObjects, settings: DeriveSettings
) -> Iterator[PendingSchedulingMessage]:
    for found in _reasons(groups, census, settings):
        enumerated = QUOTA_REASONS.get(found.reason)
        if enumerated is not None:
            yield PendingSchedulingMessage(
                node_pool=found.node_pool,
                phase_reason=enumerated,
                reason=found.message,
                org_type=_org_type(found, cluster),
                user_message=_user_message(found, cluster),
            )


def _reasons(
    groups: Sequence[Object], census: Census, settings: DeriveSettings
) -> Iterator[_Reason]:
    for group in groups:
        waiting_since = _waiting_since(group, census)
        if waiting_since is None:
            continue
        for condition in _newest_by_pool(group):
            since = instant(condition.get("lastTransitionTime"))
            # Before v0.17 a condition outlives the waiting that it is about.
            if since is None or since < waiting_since - _CLOCK_TOLERANCE:
                continue
            yield from _of_condition(group, condition, since, settings)


def _of_condition(
    group: Object, condition: Mapping[str, Any], since: datetime, settings: DeriveSettings
) -> Iterator[_Reason]:
    overall = text(condition.get("message"))
    reasons = list(objects(condition.get("reasons")))
    for reason in reasons or [{"reason": condition.get("reason"), "message": overall}]:
        yield _Reason(
            node_pool=text(condition.get("nodePool"))[:253] or settings.default_node_pool,
            reason=text(reason.get("reason"))[:253] or "Unschedulable",
            message=text(reason.get("message")) or overall,
            details=mapping(at(reason, "details", "queueDetails")),
            queue=text(at(group, "spec", "queue")),
            since=since,
        )


def _waiting_since(group: Object, census: Census) -> datetime | None:
    """Since when a pod of the group waits for a node; None where none does."""
    name = text(metadata(group).get("name"))
    waiting = [
        pod.created_at
        for pod in census.unscheduled
        if pod.annotations.get(POD_GROUP_ANNOTATION, name) == name
        and (pod.scheduled is None or pod.scheduled.status != "True")
        and pod.created_at is not None
    ]
    return min(waiting, default=None)


def _newest_by_pool(group: Object) -> list[Mapping[str, Any]]:
    """One condition for each node pool: that with the highest transition."""
    newest: dict[str, Mapping[str, Any]] = {}
    for condition in objects(at(group, "status", "schedulingConditions")):
        if condition.get("status") not in ("True", None):
            continue
        pool = text(condition.get("nodePool"))
        held = newest.get(pool)
        if held is None or _transition(condition) >= _transition(held):
            newest[pool] = condition
    return [newest[pool] for pool in sorted(newest)]


def _transition(condition: Mapping[str, Any]) -> int:
    number = text(condition.get("transitionID"))
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def _org_type(found: _Reason, cluster: ClusterObjects) -> Literal["PROJECT", "DEPARTMENT"] | None:
    """The queue that blocks: the group's own is the project, one above it a department."""
    name = text(found.details.get("name"))
    if not name:
        return None
    if name == found.queue:
        return "PROJECT"
    known = ancestors(found.queue, cluster)
    return "DEPARTMENT" if name in known or len(known) <= 1 else None


def _user_message(found: _Reason, cluster: ClusterObjects) -> str:
    word = "Department" if _org_type(found, cluster) == "DEPARTMENT" else "Project"
    queue = text(found.details.get("name")) or found.queue
    who = f"{word} {display_name(queue, cluster)}"
    if found.reason == "OverLimit":
        resource, amounts = _shortage(found.details, "Limit")
        return (
            f"{who} is at its limit of {resource} – {amounts}"
            f" – free {resource} in the {word.lower()} or raise its limit."
        )
    if found.reason == "NonPreemptibleOverQuota":
        resource, amounts = _shortage(found.details, "Deserved")
        return (
            f"{who} has too little quota of {resource} left for non-preemptible work – {amounts}"
            " – make the workload preemptible, free quota or raise it."
        )
    if found.reason == "QueueDoesNotExist":
        return (
            f"Queue {found.queue} does not exist – nothing can be asked of it"
            " – create it or name another queue."
        )
    return (
        f"Node pool {found.node_pool}: {found.message.rstrip('.')}"
        " – wait, ask for less, or add nodes."
    )


def _shortage(details: Mapping[str, Any], bound: str) -> tuple[str, str]:
    """The resource that does not fit and `6 asked for, 0 of 16 free`, as far as the details tell."""
    asked = _amounts(details, "podGroupRequested")
    bounds = _amounts(details, f"queue{bound}", f"queueResource{bound}s")
    used = _amounts(
        details, "queueAllocatedNonPreemptible" if bound == "Deserved" else "queueAllocated"
    )
    for resource, amount in sorted(asked.items(), key=_gpus_first):
        held = used.get(resource, 0)
        if resource in bounds and held + amount > bounds[resource]:
            free = max(0, bounds[resource] - held)
            return _word(resource), (
                f"{_shown(resource, amount)} asked for,"
                f" {_shown(resource, free)} of {_shown(resource, bounds[resource])} free"
            )
    for resource, amount in sorted(asked.items(), key=_gpus_first):
        return _word(resource), f"{_shown(resource, amount)} asked for"
    return "resources", "how much is not said"


def _gpus_first(item: tuple[str, Amount]) -> tuple[bool, str]:
    return (_word(item[0]) != "GPUs", item[0])


def _amounts(details: Mapping[str, Any], *names: str) -> dict[str, Amount]:
    """The amounts under one of the names, with or without `Resources` at its end; -1 = no bound."""
    for name in names:
        for spelled in (f"{name}Resources", name):
            found = details.get(spelled)
            if isinstance(found, Mapping):
                return {
                    resource: amount
                    for resource, value in found.items()
                    if isinstance(resource, str)
                    and (amount := parse_quantity(value)) is not None
                    and amount >= 0
                }
    return {}


def _word(resource: str) -> str:
    return _RESOURCE_WORDS.get(resource, resource[:100])


def _shown(resource: str, amount: Amount) -> str:
    return format_bytes(amount) if resource == "memory" else format_count(amount)
