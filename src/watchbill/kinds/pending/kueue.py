"""Reasons that Kueue states on its Workloads: quota, admission checks, queues that are stopped."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.queues import is_evicted, is_waiting
from watchbill.kinds.objects.json_access import (
    at,
    condition,
    instant,
    message_of,
    metadata,
    objects,
    text,
)
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.resources import pod_resources
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending.no_capacity import (
    StatedReason,
    format_amount,
    one_line,
    resource_word,
)
from watchbill.quantity import Amount, exact, parse_quantity
from watchbill.workload import PendingReason

_EPOCH = datetime.fromtimestamp(0, UTC)
_QUOTA = re.compile(
    r"insufficient (?:unused )?quota(?: in cohort)? for (\S{1,200}) in flavor (\S{1,200}?),?"
    r"(?: (\S{1,40}) more needed)?(?=[,;.\s]|$)"
)
_MOST = re.compile(r"> maximum capacity \((?:[0-9A-Za-z.]{1,40} > )?([0-9A-Za-z.]{1,40})\)")
"""Kueue names the request beside the capacity up to its version 0.10, and before it since."""
_POD_SET = re.compile(r"couldn't assign flavors to pod set")


def kueue_reasons(view: WorkloadView) -> Iterator[StatedReason]:
    for workload in view.kueue_workloads:
        if is_waiting(workload) or (is_evicted(workload) and not view.pods.live):
            yield _reason(workload, view.settings)


def _reason(workload: Object, settings: DeriveSettings) -> StatedReason:
    conditions = at(workload, "status", "conditions")
    created_at = instant(metadata(workload).get("creationTimestamp"))
    reserved = condition(conditions, "QuotaReserved")
    evicted = condition(conditions, "Evicted") if is_evicted(workload) else None
    is_reserved = reserved is not None and reserved.get("status") == "True"
    if reserved is not None and is_reserved and is_waiting(workload):
        reason, message, sentence = _checks(workload)
        write: Callable[[], str] = partial(str, sentence)
        current: Mapping[str, Any] = reserved
    else:
        current = (evicted if is_reserved else reserved) or {}
        message = message_of(current)
        reason = text((evicted or current).get("reason"))[:253] or "Pending"
        write = partial(
            _user_message, workload, message, reason, settings, was_evicted=evicted is not None
        )
    since = instant(current.get("lastTransitionTime")) or created_at
    stated_reason = PendingReason(
        source="kueue",
        reason=reason,
        message=message,
        user_message="",
        since=since or _EPOCH,
    )
    return stated_reason, write


def _checks(workload: Object) -> tuple[str, str, str]:
    """Quota is reserved and admission checks are still open."""
    waiting = [
        check
        for check in objects(at(workload, "status", "admissionChecks"))
        if check.get("state") != "Ready"
    ]
    names = ", ".join(text(check.get("name")) for check in waiting) or "admission"
    message = "; ".join(message_of(check) for check in waiting if check.get("message"))
    return (
        "AdmissionCheck",
        message or f"Waiting for {names}",
        f"Admission checks are open: {names} – {one_line(message) or 'quota is reserved'}"
        " – wait, or ask the administrator of the check.",
    )


def _user_message(
    workload: Object, message: str, reason: str, settings: DeriveSettings, *, was_evicted: bool
) -> str:
    queue = text(at(workload, "spec", "queueName"))
    quota = _decisive_quota(message)
    if quota is not None:
        return _short_of_quota(workload, queue, quota, settings)
    if was_evicted:
        problem_text, remedy = _EVICTIONS.get(
            reason, (f"It was evicted ({reason})", "fix the cause")
        )
        return f"{problem_text.format(queue=queue)} – it waits for quota again – wait, or {remedy}."
    for pattern, problem, remedy in _QUEUES:
        match = pattern.search(message)
        if match:
            problem_text = problem.format(name=match.groupdict().get("name", ""))
            return f"{problem_text} – it waits in queue {queue} – {remedy}."
    problem_text = one_line(message) or f"Queue {queue} has not admitted it yet"
    return (
        f"{problem_text} – it waits in queue {queue} – wait, or ask the administrator of the queue."
    )


_EVICTIONS = {
    "Preempted": (
        "It was preempted by a workload of higher priority in queue {queue}",
        "raise its priority",
    ),
    "PodsReadyTimeout": (
        "Its pods were not ready in time, so queue {queue} took its quota back",
        "find out why they were not ready",
    ),
    "AdmissionCheck": (
        "An admission check took its quota back",
        "ask the administrator of the check",
    ),
    "ClusterQueueStopped": ("Queue {queue} was stopped", "ask who stopped it"),
}
_ASK = "ask the administrator of the queue"
_QUEUES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"(?P<name>(?:LocalQueue|ClusterQueue) \S{1,253}) (?:doesn't|does not) exist"),
        "Its {name} does not exist",
        "create it, or name another queue",
    ),
    (
        re.compile(r"(?P<name>(?:LocalQueue|ClusterQueue) \S{1,253}) is stopped"),
        "Its {name} is stopped",
        _ASK,
    ),
    # Stopped, or without a flavor, a topology or a check that it names.
    (
        re.compile(r"(?P<name>(?:LocalQueue|ClusterQueue) \S{1,253}) is inactive"),
        "Its {name} is inactive (stopped, or something that it names is missing)",
        _ASK,
    ),
    (
        re.compile(
            r"(?:[Ww]orkload|Job) namespace (?:doesn't|does not) match ClusterQueue selector"
        ),
        "The cluster queue does not take work of its namespace",
        _ASK,
    ),
)


class _Quota(NamedTuple):
    """What Kueue says of one resource in one flavor; `most` is given where it asks for more than that."""

    resource: str
    flavor: str
    more: str | None
    most: str | None


def _decisive_quota(message: str) -> _Quota | None:
    """That of a set of pods that fits in no flavor at all, else the first that may come to fit."""
    by_pod_set = [quotas for part in _POD_SET.split(message) if (quotas := list(_quotas_of(part)))]
    for quotas in by_pod_set:
        if all(quota.most is not None for quota in quotas):
            return quotas[0]
    waiting = (quota for quotas in by_pod_set for quota in quotas if quota.most is None)
    return next(waiting, None)


def _quotas_of(part: str) -> Iterator[_Quota]:
    matches = list(_QUOTA.finditer(part))
    ends = [*(match.start() for match in matches[1:]), len(part)]
    for match, end in zip(matches, ends, strict=False):
        most = _MOST.search(part, match.end(), end)
        yield _Quota(match[1], match[2], match[3], most[1] if most else None)


def _short_of_quota(workload: Object, queue: str, quota: _Quota, settings: DeriveSettings) -> str:
    resource, flavor, more, most = quota
    word = resource_word(resource, settings.gpu_resources)
    requested = _requested_amount(workload, resource)
    amounts = [f"{format_amount(resource, requested)} requested"] if requested else []
    bound = parse_quantity(most) if most else None
    if bound is not None:
        maximum = format_amount(resource, bound, rounds_up=False)
        many = "that much" if word == "memory" else "that many"
        return (
            f"Queue {queue} never has {many} {word} in flavor {flavor}"
            f" – {', '.join((*amounts, f'at most {maximum} available'))}"
            " – request less, or raise the quota."
        )
    missing = parse_quantity(more)
    amounts += [f"{format_amount(resource, missing)} more needed"] if missing else []
    return (
        f"Queue {queue} has too little quota of {word} in flavor {flavor}"
        f" – {', '.join(amounts) or 'amount unknown'} – wait, request less, or raise the quota."
    )


def _requested_amount(workload: Object, resource: str) -> Amount:
    """The sum over all pod sets."""
    total: Amount = 0
    for pod_set in objects(at(workload, "spec", "podSets")):
        count = parse_quantity(pod_set.get("count")) or 0
        resources = pod_resources(at(pod_set, "template", "spec"))
        per_pod = {"cpu": resources.cpu_request, "memory": resources.memory_request} | dict(
            resources.extended
        )
        total += (per_pod.get(resource) or 0) * count
    return exact(total)
