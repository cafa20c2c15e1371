"""What KAI-Scheduler says on its pod groups, and when that is out of date."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.organisation import ancestors, display_name, kai_groups
from watchbill.kinds.objects.json_access import at, instant, mapping, metadata, objects, text
from watchbill.kinds.objects.objects import ClusterObjects, Object, PodCounts
from watchbill.kinds.objects.pod import POD_GROUP_ANNOTATION, Pod
from watchbill.kinds.objects.quantity import Amount, parse_quantity
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending.no_capacity import (
    InsufficientCapacity,
    amount_of,
    bounded_amounts,
    insufficient_capacity,
    is_gpu,
    plain,
    resource_word,
    who_asks,
)
from watchbill.workload import PendingReason, PendingSchedulingMessage, PhaseReason

QUOTA_REASONS: dict[str, PhaseReason] = {
    "NonPreemptibleOverQuota": "NonPreemptibleOverQuota",
    "OverLimit": "OverLimit",
}
# Kubernetes' times are cut to the second and come from several clocks.
_CLOCK_TOLERANCE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reason:
    """One reason on one node pool."""

    group: Object
    node_pool: str
    reason: str
    message: str
    details: Mapping[str, Any]
    queue: str
    since: datetime


def kai_reasons(view: WorkloadView) -> Iterator[PendingReason]:
    for found in _reasons(kai_groups(view.objects), view):
        yield PendingReason(
            source="kai",
            node_pool=found.node_pool,
            reason=found.reason,
            message=found.message,
            user_message=_user_message(found, view),
            since=found.since,
        )


def scheduling_messages(view: WorkloadView) -> Iterator[PendingSchedulingMessage]:
    for found in _reasons(kai_groups(view.objects), view):
        enumerated = QUOTA_REASONS.get(found.reason)
        if enumerated is not None:
            yield PendingSchedulingMessage(
                node_pool=found.node_pool,
                phase_reason=enumerated,
                reason=found.message,
                org_type=_org_type(found, view.cluster),
                user_message=_user_message(found, view),
            )


def _reasons(groups: Sequence[Object], view: WorkloadView) -> Iterator[_Reason]:
    for group in groups:
        waiting_since = _waiting_since(group, view.pods)
        if waiting_since is None:
            continue
        for condition in _newest_by_pool(group):
            since = instant(condition.get("lastTransitionTime"))
            # Before v0.17 a condition outlives the waiting that it is about.
            if since is None or since < waiting_since - _CLOCK_TOLERANCE:
                continue
            yield from _of_condition(group, condition, since, view.settings)


def _of_condition(
    group: Object, condition: Mapping[str, Any], since: datetime, settings: DeriveSettings
) -> Iterator[_Reason]:
    overall = text(condition.get("message"))
    reasons = list(objects(condition.get("reasons")))
    for reason in reasons or [{"reason": condition.get("reason"), "message": overall}]:
        yield _Reason(
            group=group,
            node_pool=text(condition.get("nodePool"))[:253] or settings.default_node_pool,
            reason=text(reason.get("reason"))[:253] or "Unschedulable",
            message=text(reason.get("message")) or overall,
            details=mapping(at(reason, "details", "queueDetails")),
            queue=text(at(group, "spec", "queue")),
            since=since,
        )


def _waiting(group: Object, census: PodCounts) -> list[Pod]:
    """The group's pods that wait for a node."""
    name = text(metadata(group).get("name"))
    return [
        pod
        for pod in census.unscheduled
        if pod.annotations.get(POD_GROUP_ANNOTATION, name) == name
        and (pod.scheduled is None or pod.scheduled.status != "True")
    ]


def _waiting_since(group: Object, census: PodCounts) -> datetime | None:
    """Since when a pod of the group waits for a node; None where none does."""
    waiting = _waiting(group, census)
    return min((pod.created_at for pod in waiting if pod.created_at is not None), default=None)


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


def _user_message(found: _Reason, view: WorkloadView) -> str:
    cluster = view.cluster
    word = "Department" if _org_type(found, cluster) == "DEPARTMENT" else "Project"
    queue = text(found.details.get("name")) or found.queue
    who = f"{word} {display_name(queue, cluster)}"
    if found.reason in _QUOTA_BOUNDS:
        return _over_quota(found, who, word.lower(), view.settings)
    if found.reason == "QueueDoesNotExist":
        return (
            f"Queue {found.queue} does not exist – nothing can be asked of it"
            " – create it or name another queue."
        )
    if found.reason == "PreemptionDelayNotElapsed":
        return (
            f"{who} may take GPUs back from others only after a while – {plain(found.message)}"
            " – wait, or ask who runs the queue."
        )
    return insufficient_capacity(
        InsufficientCapacity(
            place=f"Node pool {found.node_pool}",
            message=found.message,
            asked=who_asks(_waiting(found.group, view.pods), view),
        )
    )


# Which of the queue's figures bounds it, which is held against that, and what is short of what.
_QUOTA_BOUNDS = {
    "OverLimit": ("Limit", "queueAllocated", "{who} is at its limit of {what}"),
    "NonPreemptibleOverQuota": (
        "Deserved",
        "queueAllocatedNonPreemptible",
        "{who} has too little quota of {what} left for non-preemptible work",
    ),
}


def _over_quota(found: _Reason, who: str, word: str, settings: DeriveSettings) -> str:
    bound, used, problem = _QUOTA_BOUNDS[found.reason]
    short = _shortage(found.details, bound, used, settings)
    what = resource_word(short.resource, settings.gpu_resources) if short else "resources"
    said = problem.format(who=who, what=what)
    amounts, remedy = "how much is not said", f"free {what} in the {word}"
    if short is not None:
        amounts, remedy = short.amounts, short.remedy(word) or remedy
    if found.reason == "OverLimit":
        return f"{said} – {amounts} – {remedy} or raise its limit."
    return f"{said} – {amounts} – make the workload preemptible, {remedy}, or raise its quota."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shortage:
    resource: str
    asked: Amount
    used: Amount = 0
    bound: Amount | None = None

    @property
    def amounts(self) -> str:
        if self.bound is None:
            return f"{amount_of(self.resource, self.asked)} asked for"
        return bounded_amounts(self.resource, asked=self.asked, used=self.used, bound=self.bound)

    def remedy(self, word: str) -> str:
        """What would make it fit; waiting helps nobody who asks for more than there is at all."""
        if self.bound is None:
            return ""
        if self.asked > self.bound:
            return f"ask for at most {amount_of(self.resource, self.bound, rounds_up=False)}"
        missing = self.asked - max(0, self.bound - self.used)
        return f"free {amount_of(self.resource, missing)} more in the {word}"


def _shortage(
    details: Mapping[str, Any], bound: str, used: str, settings: DeriveSettings
) -> _Shortage | None:
    """The resource that does not fit, GPUs first, as far as the details tell."""
    asked = _amounts(details, "podGroupRequested")
    bounds = _amounts(details, f"queue{bound}", f"queueResource{bound}s")
    held = _amounts(details, used)
    ordered = sorted(
        asked.items(), key=lambda item: (not is_gpu(item[0], settings.gpu_resources), item[0])
    )
    for resource, amount in ordered:
        free_from = held.get(resource, 0)
        if resource in bounds and free_from + amount > bounds[resource]:
            return _Shortage(
                resource=resource, asked=amount, used=free_from, bound=bounds[resource]
            )
    for resource, amount in ordered:
        return _Shortage(resource=resource, asked=amount)
    return None


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
