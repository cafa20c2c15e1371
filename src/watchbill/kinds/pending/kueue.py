"""What Kueue says on its Workloads: quota, admission checks, queues that do not run."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.phase import is_waiting
from watchbill.kinds.objects.json_access import (
    at,
    condition,
    instant,
    metadata,
    name_key,
    objects,
    text,
)
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.quantity import Amount, exact, parse_quantity
from watchbill.kinds.objects.resources import pod_resources
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending.no_capacity import amount_of, plain, resource_word
from watchbill.workload import PendingReason

_EPOCH = datetime.fromtimestamp(0, UTC)
_QUOTA = re.compile(
    r"insufficient (?:unused )?quota(?: in cohort)? for (\S{1,200}) in flavor (\S{1,200}?),?"
    r"(?: (\S{1,40}) more needed)?(?=[,;.\s]|$)"
)
_MOST = re.compile(r"> maximum capacity \(([0-9A-Za-z.]{1,40})\)")


def kueue_reasons(view: WorkloadView) -> Iterator[PendingReason]:
    for workload in sorted(view.objects.queue_workloads, key=name_key):
        if is_waiting(workload):
            yield _reason(workload, view.settings)


def _reason(workload: Object, settings: DeriveSettings) -> PendingReason:
    conditions = at(workload, "status", "conditions")
    created_at = instant(metadata(workload).get("creationTimestamp"))
    reserved = condition(conditions, "QuotaReserved")
    evicted = condition(conditions, "Evicted")
    if reserved is not None and reserved.get("status") == "True":
        reason, message, user_message = _checks(workload)
        found: Mapping[str, Any] = reserved
    else:
        found = reserved or {}
        message = text(found.get("message"))
        is_evicted = evicted is not None and evicted.get("status") == "True"
        stated = evicted if is_evicted and evicted is not None else found
        reason = text(stated.get("reason"))[:253] or "Pending"
        user_message = _user_message(workload, message, reason, settings, is_evicted=is_evicted)
    since = instant(found.get("lastTransitionTime")) or created_at
    return PendingReason(
        source="kueue",
        reason=reason,
        message=message,
        user_message=user_message,
        since=since or _EPOCH,
    )


def _checks(workload: Object) -> tuple[str, str, str]:
    """Quota is reserved and admission checks are still open."""
    waiting = [
        check
        for check in objects(at(workload, "status", "admissionChecks"))
        if check.get("state") != "Ready"
    ]
    names = ", ".join(text(check.get("name")) for check in waiting) or "admission"
    message = "; ".join(text(check.get("message")) for check in waiting if check.get("message"))
    return (
        "AdmissionCheck",
        message or f"Waiting for {names}",
        f"Admission checks are open: {names} – quota is reserved – wait, or ask who runs the check.",
    )


def _user_message(
    workload: Object, message: str, reason: str, settings: DeriveSettings, *, is_evicted: bool
) -> str:
    queue = text(at(workload, "spec", "queueName"))
    quota = _QUOTA.search(message)
    if quota:
        return _short_of_quota(workload, queue, message, quota, settings)
    if is_evicted:
        said, remedy = _EVICTIONS.get(reason, (f"It was evicted ({reason})", "mend the cause"))
        return f"{said.format(queue=queue)} – it waits for quota again – wait, or {remedy}."
    for pattern, problem, remedy in _QUEUES:
        match = pattern.search(message)
        if match:
            said = problem.format(name=match.groupdict().get("name", ""))
            return f"{said} – it waits in queue {queue} – {remedy}."
    said = plain(message) or f"Queue {queue} has not admitted it yet"
    return f"{said} – it waits in queue {queue} – wait, or ask who runs the queue."


_EVICTIONS = {
    "Preempted": (
        "It was preempted by more important work in queue {queue}",
        "raise its priority",
    ),
    "PodsReadyTimeout": (
        "Its pods were not ready in time, so queue {queue} took its quota back",
        "find out what keeps them",
    ),
    "AdmissionCheck": ("An admission check took its quota back", "ask who runs the check"),
    "ClusterQueueStopped": ("Queue {queue} was stopped", "ask who stopped it"),
}
_ASK = "ask who runs the queue"
_QUEUES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"(?P<name>(?:LocalQueue|ClusterQueue) \S{1,253}) (?:doesn't|does not) exist"),
        "Its {name} does not exist",
        "create it, or name another queue",
    ),
    (
        re.compile(r"(?P<name>(?:LocalQueue|ClusterQueue) \S{1,253}) is (?:inactive|stopped)"),
        "Its {name} is stopped",
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


def _short_of_quota(
    workload: Object, queue: str, message: str, quota: re.Match[str], settings: DeriveSettings
) -> str:
    resource, flavor, more = quota.groups()
    word = resource_word(resource, settings.gpu_resources)
    asked = _asked(workload, resource)
    amounts = [f"{amount_of(resource, asked)} asked for"] if asked else []
    most = _MOST.search(message)
    bound = parse_quantity(most[1]) if most else None
    if bound is not None:
        said = amount_of(resource, bound, rounds_up=False)
        many = "so much" if word == "memory" else "so many"
        return (
            f"Queue {queue} never has {many} {word} in flavor {flavor}"
            f" – {', '.join((*amounts, f'{said} is its most'))}"
            " – ask for less, or raise the quota."
        )
    missing = parse_quantity(more)
    amounts += [f"{amount_of(resource, missing)} more needed"] if missing else []
    return (
        f"Queue {queue} has too little quota of {word} in flavor {flavor}"
        f" – {', '.join(amounts) or 'how much is not said'} – wait, ask for less, or raise the quota."
    )


def _asked(workload: Object, resource: str) -> Amount:
    """What all pod sets ask of the resource."""
    total: Amount = 0
    for pod_set in objects(at(workload, "spec", "podSets")):
        count = parse_quantity(pod_set.get("count")) or 0
        found = pod_resources(at(pod_set, "template", "spec"))
        per_pod = {"cpu": found.cpu_request, "memory": found.memory_request} | dict(found.extended)
        total += (per_pod.get(resource) or 0) * count
    return exact(total)
