"""The few rules that expressions over one object cannot say: named functions that definitions call.

Each takes what the root said and returns it adjusted, by what the root's children and pods say.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from watchbill.kinds.definition.facts import NO_FACTS, Facts
from watchbill.kinds.objects.json_access import group_version, instant, metadata, text
from watchbill.kinds.objects.objects import GroupKind, PodCounts, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, owners

if TYPE_CHECKING:
    from watchbill.kinds.definition.definition import Definitions

_OF_THE_RUN = (
    "completed",
    "failed",
    "running",
    "reported",
    "initializing",
    "pending",
    "degraded",
    "ran",
)

Hook = Callable[[Facts, WorkloadObjects, PodCounts, "Definitions"], Facts]


def ordered_pods(
    facts: Facts, objects: WorkloadObjects, census: PodCounts, definitions: "Definitions"
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
    facts: Facts, objects: WorkloadObjects, census: PodCounts, definitions: "Definitions"
) -> Facts:
    """A schedule's phase is that of its newest run; between runs it shows how the last one ended."""
    uid = metadata(objects.root).get("uid")
    runs = [
        child
        for child in objects.children
        if any(owner.uid == uid for owner in owners(child))
        and definitions.for_kind(GroupKind(group_version(child)[0], text(child.get("kind"))))
    ]
    run = definitions.facts(max(runs, key=_age_key)) if runs else NO_FACTS
    goes_on = bool(runs) and not (run.says("completed") or run.says("failed"))
    said = dict(facts.said)
    if goes_on and census.staying:
        # What holds back further runs stops none that has begun.
        said.pop("stopped", None)
    said |= {name: run.said[name] for name in _OF_THE_RUN if run.says(name)}
    if facts.embedded:
        facts = _with_roles_of(run if goes_on else None, facts)
    if not runs:
        return facts
    return msgspec.structs.replace(
        facts, said=said, started_at=run.started_at, finished_at=run.finished_at
    )


def _with_roles_of(run: Facts | None, facts: Facts) -> Facts:
    """The pods of a run that goes on; between two, what the next will have, and none of it now."""
    if run is not None and run.roles:
        return msgspec.structs.replace(facts, needs=facts.needs or run.needs).with_roles(run.roles)
    return facts.with_roles(
        msgspec.structs.replace(role, replicas=0, min=None, max=None) for role in facts.roles
    )


def _age_key(obj: Mapping[str, Any]) -> tuple[float, str]:
    created_at = instant(metadata(obj).get("creationTimestamp"))
    return (created_at.timestamp() if created_at else 0.0, text(metadata(obj).get("uid")))


HOOKS: dict[str, Hook] = {
    "newest_run": newest_run,
    "ordered_pods": ordered_pods,
}
