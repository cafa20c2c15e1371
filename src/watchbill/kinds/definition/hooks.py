"""Hooks: the few rules that no expression over one object can state, named by definitions.

Each takes the workload's view and returns its facts, changed by what the root's children and pods state.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import group_version, instant, metadata, text
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import Pod, owners

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

Hook = Callable[[WorkloadView], Facts]


def ordered_pods(view: WorkloadView) -> Facts:
    """Pods that start in order: one not ready below one that is ready has run before."""
    ready = [_ordinal(pod) for pod in view.pods.active if pod.is_ready]
    if not ready:
        return view.facts
    below = set(range(max(ready))) - set(ready)
    start = min((_ordinal(pod) for pod in view.pods.active), default=0)
    if not any(ordinal >= start for ordinal in below):
        return view.facts
    return msgspec.structs.replace(view.facts, predicates={**view.facts.predicates, "ran": ""})


def _ordinal(pod: Pod) -> int:
    digits = pod.name.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else 0


def newest_run(view: WorkloadView) -> Facts:
    """A schedule's phase is that of its newest run that goes on; between runs, of how the last one ended."""
    uid = metadata(view.root).get("uid")
    runs = [
        child
        for child in view.objects.children
        if any(owner.uid == uid for owner in owners(child))
        and view.definitions.for_kind(GroupKind(group_version(child)[0], text(child.get("kind"))))
    ]
    run_facts = [view.definitions.facts(run) for run in sorted(runs, key=_age_key)]
    going = [run for run in run_facts if not run.has_ended]
    facts = view.facts
    predicates = dict(facts.predicates)
    if going and view.pods.active:
        # What holds back further runs stops none that has begun.
        predicates.pop("stopped", None)
    if facts.embedded:
        facts = _with_roles_of(going, facts)
    if not run_facts:
        return facts
    run = (going or run_facts)[-1]
    predicates |= {name: run.predicates[name] for name in _OF_THE_RUN if run.holds(name)}
    return msgspec.structs.replace(
        facts, predicates=predicates, started_at=run.started_at, finished_at=run.finished_at
    )


def _with_roles_of(going: list[Facts], facts: Facts) -> Facts:
    """The pods of the runs that go on; between two, what the next will have, and none of it now."""
    roles = [role for run in going for role in run.roles]
    if roles:
        needs = facts.needs or going[-1].needs
        return msgspec.structs.replace(facts, needs=needs).with_roles(roles)
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
