"""Which of the 14 phases a workload is in: one precedence for every kind.

Terminal (failed before completed) → deleting → suspended, where held by Kueue means pending → updating →
what the pods say → what the kind says → unknown. Definitions supply the predicates, pods the rest.
"""

from typing import Any

from watchbill.kinds.census import Census
from watchbill.kinds.definition_file import Definition
from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import at, is_true, labels, metadata
from watchbill.kinds.objects import WorkloadObjects
from watchbill.kinds.organisation import KUEUE_QUEUE_LABEL
from watchbill.workload import TERMINAL_PHASES, Phase


def phase_of(objects: WorkloadObjects, facts: Facts, census: Census, observed: Phase) -> Phase:
    """The phase as people mean it; `observed` is what pods and status alone say."""
    if observed in TERMINAL_PHASES and not facts.says("stopped"):
        return observed
    if objects.is_root_gone:
        return Phase.TERMINATING
    if metadata(objects.root).get("deletionTimestamp") is not None:
        return Phase.DELETING
    if facts.says("stopped"):
        return Phase.STOPPED
    is_suspended = facts.says("suspended") or facts.says("suspending")
    if is_held(objects, is_suspended=is_suspended) and (is_suspended or not census.staying):
        return Phase.PENDING
    if is_suspended:
        return Phase.STOPPING if census.live or facts.says("suspending") else Phase.STOPPED
    return observed


def observed_phase(
    objects: WorkloadObjects, definition: Definition, facts: Facts, census: Census
) -> Phase:
    """The phase from pods and status alone, without deletion and suspension."""
    if facts.says("failed"):
        return Phase.FAILED
    if facts.says("completed"):
        return Phase.COMPLETED
    if facts.says("updating") and census.ready:
        return Phase.UPDATING
    if not census.staying:
        return _without_pods(objects, definition, facts, census)
    return _with_pods(definition, facts, census)


def required_pods(facts: Facts, census: Census) -> int:
    """How many pods must have a node, and then be ready, before the workload runs."""
    if facts.needs is not None:
        return max(1, facts.needs)
    return facts.number or len(census.staying)


def has_run(facts: Facts, census: Census) -> bool:
    """It ran in full before, so what is missing now was lost."""
    if census.lost:
        return True
    is_short_by_leaving = census.leaving and len(census.staying) < required_pods(facts, census)
    return census.ready > 0 and (facts.says("ran") or bool(is_short_by_leaving))


def _with_pods(definition: Definition, facts: Facts, census: Census) -> Phase:
    required = required_pods(facts, census)
    done = len(census.succeeded) if definition.runs_to_end else 0
    scheduled = len(census.staying) - len(census.unscheduled) + done
    if scheduled < required and (census.unscheduled or facts.says("pending")):
        return Phase.DEGRADED if has_run(facts, census) and census.ready else Phase.PENDING
    if facts.says("initializing"):
        return Phase.INITIALIZING
    if facts.says("degraded") and (census.ready or facts.scales_to_zero):
        return Phase.DEGRADED
    if facts.says("running") or census.ready + done >= required:
        return Phase.RUNNING
    return Phase.DEGRADED if has_run(facts, census) else Phase.INITIALIZING


_SAID_WITHOUT_PODS = {
    "running": Phase.RUNNING,
    "pending": Phase.PENDING,
    "initializing": Phase.INITIALIZING,
}


def _without_pods(
    objects: WorkloadObjects, definition: Definition, facts: Facts, census: Census
) -> Phase:
    for predicate, phase in _SAID_WITHOUT_PODS.items():
        if facts.says(predicate):
            return phase
    if facts.scales_to_zero:
        return Phase.DEGRADED if facts.says("degraded") else Phase.RUNNING
    if facts.says("reported") and not (census.all or facts.says("suspended")):
        return Phase.RUNNING
    if census.leaving:
        return Phase.UPDATING if facts.says("updating") else Phase.INITIALIZING
    if census.succeeded or census.failed:
        is_done = len(census.succeeded) >= required_pods(facts, census)
        return Phase.RUNNING if definition.runs_to_end and is_done else Phase.INITIALIZING
    if facts.resumed_at is not None and not is_queued(objects):
        return Phase.RESUMING
    if definition.key.kind == "*" and not facts.roles:
        return Phase.UNKNOWN
    return Phase.CREATING


def is_held(objects: WorkloadObjects, *, is_suspended: bool) -> bool:
    """Kueue keeps it waiting: suspended by the queue, not by a person."""
    if objects.queue_workloads:
        return any(is_waiting(workload) for workload in objects.queue_workloads)
    return is_suspended and is_queued(objects)


def is_queued(objects: WorkloadObjects) -> bool:
    """Kueue suspends and resumes it, not a person."""
    return bool(objects.queue_workloads or labels(objects.root).get(KUEUE_QUEUE_LABEL))


def is_waiting(workload: Any) -> bool:
    """A Kueue Workload that is active, unfinished and not admitted."""
    conditions = at(workload, "status", "conditions")
    return (
        at(workload, "spec", "active") is not False
        and not is_true(conditions, "Finished")
        and not is_true(conditions, "Admitted")
    )
