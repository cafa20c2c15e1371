"""The phases that a workload went through, as the times in its objects tell them.

Objects forget: pods that are gone took their times along. What was seen of them earlier is for whoever saw
it to keep.

Which of the 14 phases a workload is in: one precedence for every kind.

Terminal (failed before completed) → deleting → suspended, where held by Kueue means pending → updating →
what the pods say → what the kind says → unknown. Definitions supply the predicates, pods the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from watchbill.kinds.definition.definition import Definition
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.derivation.organisation import KUEUE_QUEUE_LABEL
from watchbill.kinds.objects.json_access import at, condition, instant, is_true, labels, metadata
from watchbill.kinds.objects.objects import PodCounts, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, asked_to_go
from watchbill.workload import TERMINAL_PHASES, Phase, Transition

_EPOCH = datetime.fromtimestamp(0, UTC)
_STEPS = (Phase.CREATING, Phase.RESUMING, Phase.PENDING, Phase.INITIALIZING, Phase.RUNNING)
"""The way up. A phase on it implies those before it; any other may follow any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """When each step was reached, as far as the objects tell."""

    created_at: datetime
    resumed_at: datetime | None
    queued_at: datetime | None
    scheduled_at: datetime | None
    running_at: datetime | None

    def steps(self) -> tuple[tuple[Phase, datetime | None], ...]:
        times = (
            self.created_at,
            self.resumed_at,
            self.queued_at,
            self.scheduled_at,
            self.running_at,
        )
        return tuple(zip(_STEPS, times, strict=True))


def created_at(objects: WorkloadObjects, census: PodCounts) -> datetime:
    """When the root was made; where it does not say, its oldest pod."""
    stated = instant(metadata(objects.root).get("creationTimestamp"))
    return stated or _earliest(pod.created_at for pod in census.all) or _EPOCH


def finished_at(facts: Facts, census: PodCounts) -> datetime | None:
    """When a workload that has ended did so."""
    return facts.finished_at or _latest(
        pod.finished_at or (pod.ready.at if pod.ready else None)
        for pod in (*census.succeeded, *census.failed)
    )


def transitions_of(
    objects: WorkloadObjects, facts: Facts, census: PodCounts, phase: Phase, message: str | None
) -> tuple[Transition, ...]:
    """Oldest first, never back in time, no phase twice in a row; the last is the present phase."""
    times = _times(objects, facts, census)
    reached = _STEPS.index(phase) if phase in _STEPS else len(_STEPS)
    steps = [
        (step, entered_at)
        for step, entered_at in times.steps()[:reached]
        if entered_at is not None and entered_at >= times.created_at
    ]
    present_at = _entered_at(phase, objects, facts, census, times)
    if present_at is None:
        present_at = steps[-1][1] if steps else times.created_at
    present_at = max(present_at, times.created_at)
    found: list[Transition] = []
    for step, entered_at in steps:
        # A time behind the present phase's is of a life that this phase has overtaken.
        if entered_at <= present_at and (not found or entered_at >= found[-1].at):
            found.append(Transition(phase=step, at=entered_at))
    last_at = max(present_at, found[-1].at) if found else present_at
    return (*found, Transition(phase=phase, at=last_at, message=message))


def _times(objects: WorkloadObjects, facts: Facts, census: PodCounts) -> _Times:
    required = required_pods(facts, census)
    placed = [
        pod.scheduled.at
        for pod in census.all
        if pod.scheduled is not None and pod.scheduled.status == "True"
    ]
    return _Times(
        created_at=created_at(objects, census),
        resumed_at=None if is_queued(objects) else facts.resumed_at,
        queued_at=_earliest(
            (
                *(pod.created_at for pod in census.all),
                *(
                    instant(metadata(workload).get("creationTimestamp"))
                    for workload in objects.queue_workloads
                ),
            )
        ),
        scheduled_at=_nth(placed, required),
        running_at=_nth([_running_at(pod) for pod in census.all], required) or facts.started_at,
    )


def _running_at(pod: Pod) -> datetime | None:
    """When a pod became ready; of one that is not ready any more, when its containers started."""
    if pod.is_ready and pod.ready is not None:
        return pod.ready.at
    return pod.running_at


def _entered_at(
    phase: Phase, objects: WorkloadObjects, facts: Facts, census: PodCounts, times: _Times
) -> datetime | None:
    """When the present phase began, as far as the objects tell."""
    if phase in (Phase.FAILED, Phase.COMPLETED):
        return finished_at(facts, census)
    if phase is Phase.PENDING:
        return _pending_since(objects, census, times)
    if phase is Phase.DEGRADED:
        return _degraded_since(facts, census, times)
    newest_pod_at = _latest(pod.created_at for pod in census.staying)
    return {
        Phase.CREATING: times.created_at,
        Phase.RESUMING: times.resumed_at,
        Phase.INITIALIZING: _latest((times.scheduled_at, newest_pod_at)),
        Phase.RUNNING: times.running_at,
        Phase.UPDATING: newest_pod_at,
        Phase.STOPPED: _latest((facts.suspended_at, finished_at(facts, census))),
        Phase.STOPPING: facts.suspended_at or _earliest(pod.deleted_at for pod in census.leaving),
        Phase.DELETING: asked_to_go(metadata(objects.root)),
        Phase.TERMINATING: _latest(pod.deleted_at for pod in census.leaving),
    }.get(phase)


def _pending_since(objects: WorkloadObjects, census: PodCounts, times: _Times) -> datetime | None:
    """Since its oldest pod without a node was made, or since Kueue last took its quota away."""
    if census.unscheduled:
        return _earliest(pod.created_at for pod in census.unscheduled)
    evicted = [
        instant(at(found, "lastTransitionTime"))
        for workload in objects.queue_workloads
        if (found := condition(at(workload, "status", "conditions"), "Evicted")) is not None
        and found.get("status") == "True"
    ]
    return _latest((times.queued_at, *evicted))


def _degraded_since(facts: Facts, census: PodCounts, times: _Times) -> datetime | None:
    lost = [pod.ready.at for pod in census.lost if pod.ready is not None]
    missing = [
        pod.created_at
        for pod in census.staying
        if not pod.is_ready and times.running_at and pod.created_at
    ]
    return _earliest(lost) or _latest((facts.changed_at, *missing))


def _nth(times: Iterable[datetime | None], number: int) -> datetime | None:
    """The time by which `number` of them had come; of fewer, by which all had."""
    known = sorted(time for time in times if time is not None)
    return known[min(max(number, 1), len(known)) - 1] if known else None


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def phase_of(objects: WorkloadObjects, facts: Facts, census: PodCounts, observed: Phase) -> Phase:
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
    objects: WorkloadObjects, definition: Definition, facts: Facts, census: PodCounts
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


def required_pods(facts: Facts, census: PodCounts) -> int:
    """How many pods must have a node, and then be ready, before the workload runs."""
    if facts.needs is not None:
        return max(1, facts.needs)
    return facts.number or len(census.staying)


def has_run(facts: Facts, census: PodCounts) -> bool:
    """It ran in full before, so what is missing now was lost."""
    if census.lost:
        return True
    is_short_by_leaving = census.leaving and len(census.staying) < required_pods(facts, census)
    return census.ready > 0 and (facts.says("ran") or bool(is_short_by_leaving))


def _with_pods(definition: Definition, facts: Facts, census: PodCounts) -> Phase:
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
    objects: WorkloadObjects, definition: Definition, facts: Facts, census: PodCounts
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
