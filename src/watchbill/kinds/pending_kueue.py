"""What Kueue says on its Workloads: quota, admission checks, queues that do not run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import at, condition, instant, metadata, name_key, objects, text
from watchbill.kinds.objects import ClusterObjects, Object
from watchbill.kinds.phase import is_waiting
from watchbill.kinds.quantity import Amount, exact, format_count, parse_quantity
from watchbill.kinds.resources import pod_resources
from watchbill.workload import PendingReason

_EPOCH = datetime.fromtimestamp(0, UTC)
_QUOTA = re.compile(
    r"insufficient (?:unused )?quota(?: in cohort)? for (\S{1,200}) in flavor (\S{1,200}?),?"
    r"(?: (\S{1,40}) more needed)?(?=[,;.\s]|$)"
)


def kueue_reasons(
    workloads: Sequence[Object], facts: Facts, cluster: ClusterObjects
) -> Iterator[PendingReason]:
    for workload in sorted(workloads, key=name_key):
        if is_waiting(workload):
            yield _reason(workload, cluster)


def _reason(workload: Object, cluster: ClusterObjects) -> PendingReason:
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
        user_message = _user_message(workload, message, reason, cluster, is_evicted=is_evicted)
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
    workload: Object, message: str, reason: str, cluster: ClusterObjects, *, is_evicted: bool
) -> str:
    queue = text(at(workload, "spec", "queueName"))
    quota = _QUOTA.search(message)
    if quota:
        resource, flavor, more = quota.groups()
        asked = _asked(workload, resource)
        amounts = [f"{asked} asked for"] if asked else []
        amounts += [f"{more} more needed"] if more else []
        return (
            f"Queue {queue} has too little quota of {resource} in flavor {flavor}"
            f" – {', '.join(amounts) or 'how much is not said'} – wait, ask for less, or raise the quota."
        )
    if is_evicted and reason == "Preempted":
        return (
            f"It was preempted by more important work in queue {queue}"
            " – it waits for quota again – wait, or raise its priority."
        )
    if is_evicted:
        return f"It was evicted ({reason}) – it waits for quota again – wait, or mend the cause."
    said = message.rstrip(".") or f"Queue {queue} has not admitted it yet"
    return f"{said} – it waits in queue {queue} – wait, or ask who runs the queue."


def _asked(workload: Object, resource: str) -> str:
    """What all pod sets ask of the resource."""
    total: Amount = 0
    for pod_set in objects(at(workload, "spec", "podSets")):
        count = parse_quantity(pod_set.get("count")) or 0
        found = pod_resources(at(pod_set, "template", "spec"))
        per_pod = {"cpu": found.cpu_request, "memory": found.memory_request} | dict(found.extended)
        total += (per_pod.get(resource) or 0) * count
    return format_count(exact(total)) if total else ""
