"""Reasons that KAI-Scheduler states on its pod groups, and when they are out of date."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.queues import ancestors, display_name
from watchbill.kinds.objects.json_access import (
    at,
    instant,
    mapping,
    message_of,
    metadata,
    objects,
    text,
)
from watchbill.kinds.objects.objects import ClusterObjects, Object, PodCounts
from watchbill.kinds.objects.pod import POD_GROUP_ANNOTATION, Pod
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending.no_capacity import (
    InsufficientCapacity,
    StatedReason,
    format_amount,
    insufficient_capacity,
    is_gpu,
    one_line,
    requested_and_free,
    requests_of,
    resource_word,
)
from watchbill.quantity import Amount, parse_quantity
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


def kai_reasons(view: WorkloadView) -> Iterator[StatedReason]:
    for reason in _reasons(view.kai_groups, view):
        stated = PendingReason(
            source="kai",
            node_pool=reason.node_pool,
            reason=reason.reason,
            message=reason.message,
            user_message="",
            since=reason.since,
        )
        yield stated, partial(_user_message, reason, view)


def scheduling_messages(view: WorkloadView) -> Iterator[PendingSchedulingMessage]:
    for reason in _reasons(view.kai_groups, view):
        enumerated = QUOTA_REASONS.get(reason.reason)
        if enumerated is not None:
            yield PendingSchedulingMessage(
                node_pool=reason.node_pool,
                phase_reason=enumerated,
                reason=reason.message,
                org_type=_org_type(reason, view.cluster),
                user_message=_user_message(reason, view),
            )


def _reasons(groups: Sequence[Object], view: WorkloadView) -> Iterator[_Reason]:
    created_first = _created_first(view.pods) if groups else {}
    for group in groups:
        waiting_since = min(
            (created_first[name] for name in _named(group) if name in created_first), default=None
        )
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
    overall = message_of(condition)
    reasons = list(objects(condition.get("reasons")))
    for reason in reasons or [{"reason": condition.get("reason"), "message": overall}]:
        yield _Reason(
            group=group,
            node_pool=text(condition.get("nodePool"))[:253] or settings.default_node_pool,
            reason=text(reason.get("reason"))[:253] or "Unschedulable",
            message=message_of(reason) or overall,
            details=mapping(at(reason, "details", "queueDetails")),
            queue=text(at(group, "spec", "queue")),
            since=since,
        )


def _named(group: Object) -> tuple[str | None, ...]:
    """What its pods name as their group: itself, or nothing."""
    return text(metadata(group).get("name")), None


def _waiting(pods: PodCounts) -> Iterator[Pod]:
    """Those that wait for a node."""
    return (
        pod for pod in pods.unscheduled if pod.scheduled is None or pod.scheduled.status != "True"
    )


def _created_first(pods: PodCounts) -> dict[str | None, datetime]:
    """When the oldest pod that waits was created, by the group that it names; None = by none."""
    first: dict[str | None, datetime] = {}
    for pod in _waiting(pods):
        if pod.created_at is not None:
            name = pod.annotations.get(POD_GROUP_ANNOTATION)
            first[name] = min(first.get(name, pod.created_at), pod.created_at)
    return first


def _newest_by_pool(group: Object) -> list[Mapping[str, Any]]:
    """One condition for each node pool: that with the highest transition."""
    newest: dict[str, Mapping[str, Any]] = {}
    for condition in objects(at(group, "status", "schedulingConditions")):
        if condition.get("status") not in ("True", None):
            continue
        pool = text(condition.get("nodePool"))
        previous = newest.get(pool)
        if previous is None or _transition(condition) >= _transition(previous):
            newest[pool] = condition
    return [newest[pool] for pool in sorted(newest)]


def _transition(condition: Mapping[str, Any]) -> int:
    number = text(condition.get("transitionID"))
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def _org_type(reason: _Reason, cluster: ClusterObjects) -> Literal["PROJECT", "DEPARTMENT"] | None:
    """The blocking queue: the group's own queue is the project, a parent is a department."""
    name = text(reason.details.get("name"))
    if not name:
        return None
    if name == reason.queue:
        return "PROJECT"
    known = ancestors(reason.queue, cluster)
    return "DEPARTMENT" if name in known or len(known) <= 1 else None


def _user_message(reason: _Reason, view: WorkloadView) -> str:
    cluster = view.cluster
    word = "Department" if _org_type(reason, cluster) == "DEPARTMENT" else "Project"
    queue = text(reason.details.get("name")) or reason.queue
    who = f"{word} {display_name(queue, cluster)}"
    if reason.reason in _QUOTA_BOUNDS:
        return _over_quota(reason, who, word.lower(), view.settings)
    if reason.reason == "QueueDoesNotExist":
        return (
            f"Queue {reason.queue} does not exist – no pod can be scheduled"
            " – create it or name another queue."
        )
    if reason.reason == "PreemptionDelayNotElapsed":
        return (
            f"{who} can reclaim GPUs from others only after a delay – {one_line(reason.message)}"
            " – wait, or ask the administrator of the queue."
        )
    named = _named(reason.group)
    pods = [
        pod for pod in _waiting(view.pods) if pod.annotations.get(POD_GROUP_ANNOTATION) in named
    ]
    return insufficient_capacity(
        InsufficientCapacity(
            place=f"Node pool {reason.node_pool}",
            message=reason.message,
            requested=requests_of(pods, view),
        )
    )


# The queue's bound, the amount counted against it, and the sentence.
_QUOTA_BOUNDS = {
    "OverLimit": ("Limit", "queueAllocated", "{who} is at its limit of {what}"),
    "NonPreemptibleOverQuota": (
        "Deserved",
        "queueAllocatedNonPreemptible",
        "{who} has too little quota of {what} left for non-preemptible work",
    ),
}


def _over_quota(reason: _Reason, who: str, word: str, settings: DeriveSettings) -> str:
    bound, used, problem = _QUOTA_BOUNDS[reason.reason]
    short = _shortage(reason.details, bound, used, settings)
    what = resource_word(short.resource, settings.gpu_resources) if short else "resources"
    problem_text = problem.format(who=who, what=what)
    amounts, remedy = "amount unknown", f"free {what} in the {word}"
    if short is not None:
        amounts, remedy = short.amounts, short.remedy(word) or remedy
    if reason.reason == "OverLimit":
        return f"{problem_text} – {amounts} – {remedy} or raise its limit."
    return (
        f"{problem_text} – {amounts} – make the workload preemptible, {remedy}, or raise its quota."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shortage:
    resource: str
    requested: Amount
    used: Amount = 0
    bound: Amount | None = None

    @property
    def amounts(self) -> str:
        if self.bound is None:
            return f"{format_amount(self.resource, self.requested)} requested"
        return requested_and_free(
            self.resource, requested=self.requested, used=self.used, bound=self.bound
        )

    def remedy(self, word: str) -> str:
        """What would make it fit; waiting does not help a request above the bound itself."""
        if self.bound is None:
            return ""
        if self.requested > self.bound:
            return f"request at most {format_amount(self.resource, self.bound, rounds_up=False)}"
        missing = self.requested - max(0, self.bound - self.used)
        return f"free {format_amount(self.resource, missing)} more in the {word}"


def _shortage(
    details: Mapping[str, Any], bound: str, used: str, settings: DeriveSettings
) -> _Shortage | None:
    """The resource that does not fit, GPUs first, as far as the details tell."""
    requested = _amounts(details, "podGroupRequested")
    bounds = _amounts(details, f"queue{bound}", f"queueResource{bound}s")
    allocated = _amounts(details, used)
    ordered = sorted(
        requested.items(), key=lambda item: (not is_gpu(item[0], settings.gpu_resources), item[0])
    )
    for resource, amount in ordered:
        free_from = allocated.get(resource, 0)
        if resource in bounds and free_from + amount > bounds[resource]:
            return _Shortage(
                resource=resource, requested=amount, used=free_from, bound=bounds[resource]
            )
    for resource, amount in ordered:
        return _Shortage(resource=resource, requested=amount)
    return None


def _amounts(details: Mapping[str, Any], *names: str) -> dict[str, Amount]:
    """The amounts under one of the names, with or without `Resources` at its end; -1 = no bound."""
    for name in names:
        for member in (f"{name}Resources", name):
            amounts = details.get(member)
            if isinstance(amounts, Mapping):
                return {
                    resource: amount
                    for resource, value in amounts.items()
                    if isinstance(resource, str)
                    and (amount := parse_quantity(value)) is not None
                    and amount >= 0
                }
    return {}
