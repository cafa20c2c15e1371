"""The few rules that expressions over one object cannot say: named functions that definitions call.

Each takes what the root said and returns it adjusted, by what the root's children and pods say.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from watchbill.kinds.census import Census
from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import group_version, instant, metadata, text
from watchbill.kinds.objects import GroupKind, WorkloadObjects
from watchbill.kinds.pod import Pod, owners

if TYPE_CHECKING:
    from watchbill.kinds.definition import Definitions

Adjustment = Callable[[Facts, WorkloadObjects, Census, "Definitions"], Facts]


def ordered_pods(
    facts: Facts, objects: WorkloadObjects, census: Census, definitions: "Definitions"
) -> Facts:
    """Pods that start in order: one not ready below one that is ready has run before."""
    ready = [_ordinal(pod) for pod in census.staying if pod.is_ready]
    if not ready:
        return facts
    below = set(range(max(ready))) - set(ready)
    start = min((_ordinal(pod) for pod in census.staying), default=0)
    if not any(ordinal >= start for ordinal in below):
        return facts
    return msgspec.structs.replace(facts, said={**facts.said, "ran": ""})


def _ordinal(pod: Pod) -> int:
    digits = pod.name.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else 0


def newest_run(
    facts: Facts, objects: WorkloadObjects, census: Census, definitions: "Definitions"
) -> Facts:
    """A schedule's phase is that of its newest run; between runs it shows how the last one ended."""
    uid = metadata(objects.root).get("uid")
    runs = [
        child
        for child in objects.children
        if any(owner.uid == uid for owner in owners(child))
        and definitions.for_kind(GroupKind(group_version(child)[0], text(child.get("kind"))))
    ]
    if not runs:
        return facts
    run = definitions.facts(max(runs, key=_age_key))
    said = dict(facts.said)
    for predicate in ("completed", "failed", "running", "reported"):
        if run.says(predicate):
            said[predicate] = run.said[predicate]
    return msgspec.structs.replace(
        facts, said=said, started_at=run.started_at, finished_at=run.finished_at
    )


def _age_key(obj: Mapping[str, Any]) -> tuple[float, str]:
    created_at = instant(metadata(obj).get("creationTimestamp"))
    return (created_at.timestamp() if created_at else 0.0, text(metadata(obj).get("uid")))


ADJUSTMENTS: dict[str, Adjustment] = {
    "newest_run": newest_run,
    "ordered_pods": ordered_pods,
}
