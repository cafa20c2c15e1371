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

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.organisation import KUEUE_QUEUE_LABEL
from watchbill.kinds.objects.json_access import at, condition, instant, is_true, labels, metadata
from watchbill.kinds.objects.objects import WorkloadObjects
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


def created_at(view: WorkloadView) -> datetime:
    """When the root was made; where it does not say, its oldest pod."""
    stated = instant(metadata(view.root).get("creationTimestamp"))
    return stated or _earliest(pod.created_at for pod in view.pods.all) or _EPOCH


def finished_at(view: WorkloadView) -> datetime | None:
    """When a workload that has ended did so."""
    return view.facts.finished_at or _latest(
        pod.finished_at or (pod.ready.at if pod.ready else None)
        for pod in (*view.pods.succeeded, *view.pods.failed)
    )


def transitions_of(view: WorkloadView, phase: Phase, message: str | None) -> tuple[Transition, ...]:
    """Oldest first, never back in time, no phase twice in a row; the last is the present phase."""
    times = _times(view)
    reached = _STEPS.index(phase) if phase in _STEPS else len(_STEPS)
    steps = [
        (step, entered_at)
        for step, entered_at in times.steps()[:reached]
        if entered_at is not None and entered_at >= times.created_at
    ]
    present_at = _entered_at(phase, view, times)
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


def _times(view: WorkloadView) -> _Times:
    required = required_pods(view)
    placed = [
        pod.scheduled.at
        for pod in view.pods.all
        if pod.scheduled is not None and pod.scheduled.status == "True"
    ]
    return _Times(
        created_at=created_at(view),
        resumed_at=None if is_queued(view.objects) else view.facts.resumed_at,
        queued_at=_earliest(
            (
                *(pod.created_at for pod in view.pods.all),
                *(
                    instant(metadata(workload).get("creationTimestamp"))
                    for workload in view.objects.queue_workloads
                ),
            )
        ),
        scheduled_at=_nth(placed, required),
        running_at=_nth([_running_at(pod) for pod in view.pods.all], required)
        or view.facts.started_at,
    )


def _running_at(pod: Pod) -> datetime | None:
    """When a pod became ready; of one that is not ready any more, when its containers started."""
    if pod.is_ready and pod.ready is not None:
        return pod.ready.at
    return pod.running_at


def _entered_at(phase: Phase, view: WorkloadView, times: _Times) -> datetime | None:
    """When the present phase began, as far as the objects tell."""
    if phase in (Phase.FAILED, Phase.COMPLETED):
        return finished_at(view)
    if phase is Phase.PENDING:
        return _pending_since(view, times)
    if phase is Phase.DEGRADED:
        return _degraded_since(view, times)
    newest_pod_at = _latest(pod.created_at for pod in view.pods.staying)
    return {
        Phase.CREATING: times.created_at,
        Phase.RESUMING: times.resumed_at,
        Phase.INITIALIZING: _latest((times.scheduled_at, newest_pod_at)),
        Phase.RUNNING: times.running_at,
        Phase.UPDATING: newest_pod_at,
        Phase.STOPPED: _latest((view.facts.suspended_at, finished_at(view))),
        Phase.STOPPING: view.facts.suspended_at
        or _earliest(pod.deleted_at for pod in view.pods.leaving),
        Phase.DELETING: asked_to_go(metadata(view.root)),
        Phase.TERMINATING: _latest(pod.deleted_at for pod in view.pods.leaving),
    }.get(phase)


def _pending_since(view: WorkloadView, times: _Times) -> datetime | None:
    """Since its oldest pod without a node was made, or since Kueue last took its quota away."""
    if view.pods.unscheduled:
        return _earliest(pod.created_at for pod in view.pods.unscheduled)
    evicted = [
        instant(at(found, "lastTransitionTime"))
        for workload in view.objects.queue_workloads
        if (found := condition(at(workload, "status", "conditions"), "Evicted")) is not None
        and found.get("status") == "True"
    ]
    return _latest((times.queued_at, *evicted))


def _degraded_since(view: WorkloadView, times: _Times) -> datetime | None:
    lost = [pod.ready.at for pod in view.pods.lost if pod.ready is not None]
    missing = [
        pod.created_at
        for pod in view.pods.staying
        if not pod.is_ready and times.running_at and pod.created_at
    ]
    return _earliest(lost) or _latest((view.facts.changed_at, *missing))


def _nth(times: Iterable[datetime | None], number: int) -> datetime | None:
    """The time by which `number` of them had come; of fewer, by which all had."""
    known = sorted(time for time in times if time is not None)
    return known[min(max(number, 1), len(known)) - 1] if known else None


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def phase_of(view: WorkloadView, observed: Phase) -> Phase:
    """The phase as people mean it; `observed` is what pods and status alone say."""
    if observed in TERMINAL_PHASES and not view.facts.says("stopped"):
        return observed
    if view.objects.is_root_gone:
        return Phase.TERMINATING
    if metadata(view.root).get("deletionTimestamp") is not None:
        return Phase.DELETING
    if view.facts.says("stopped"):
        return Phase.STOPPED
    is_suspended = view.facts.says("suspended") or view.facts.says("suspending")
    if is_held(view.objects, is_suspended=is_suspended) and (is_suspended or not view.pods.staying):
        return Phase.PENDING
    if is_suspended:
        return Phase.STOPPING if view.pods.live or view.facts.says("suspending") else Phase.STOPPED
    return observed


def observed_phase(view: WorkloadView) -> Phase:
    """The phase from pods and status alone, without deletion and suspension."""
    if view.facts.says("failed"):
        return Phase.FAILED
    if view.facts.says("completed"):
        return Phase.COMPLETED
    if view.facts.says("updating") and view.pods.ready:
        return Phase.UPDATING
    if not view.pods.staying:
        return _without_pods(view)
    return _with_pods(view)


def required_pods(view: WorkloadView) -> int:
    """How many pods must have a node, and then be ready, before the workload runs."""
    if view.facts.needs is not None:
        return max(1, view.facts.needs)
    return view.facts.number or len(view.pods.staying)


def has_run(view: WorkloadView) -> bool:
    """It ran in full before, so what is missing now was lost."""
    if view.pods.lost:
        return True
    is_short_by_leaving = view.pods.leaving and len(view.pods.staying) < required_pods(view)
    return view.pods.ready > 0 and (view.facts.says("ran") or bool(is_short_by_leaving))


def _with_pods(view: WorkloadView) -> Phase:
    required = required_pods(view)
    done = len(view.pods.succeeded) if view.definition.runs_to_end else 0
    scheduled = len(view.pods.staying) - len(view.pods.unscheduled) + done
    if scheduled < required and (view.pods.unscheduled or view.facts.says("pending")):
        return Phase.DEGRADED if has_run(view) and view.pods.ready else Phase.PENDING
    if view.facts.says("initializing"):
        return Phase.INITIALIZING
    if view.facts.says("degraded") and (view.pods.ready or view.facts.scales_to_zero):
        return Phase.DEGRADED
    if view.facts.says("running") or view.pods.ready + done >= required:
        return Phase.RUNNING
    return Phase.DEGRADED if has_run(view) else Phase.INITIALIZING


_SAID_WITHOUT_PODS = {
    "running": Phase.RUNNING,
    "pending": Phase.PENDING,
    "initializing": Phase.INITIALIZING,
}


def _without_pods(view: WorkloadView) -> Phase:
    for predicate, phase in _SAID_WITHOUT_PODS.items():
        if view.facts.says(predicate):
            return phase
    if view.facts.scales_to_zero:
        return Phase.DEGRADED if view.facts.says("degraded") else Phase.RUNNING
    if view.facts.says("reported") and not (view.pods.all or view.facts.says("suspended")):
        return Phase.RUNNING
    if view.pods.leaving:
        return Phase.UPDATING if view.facts.says("updating") else Phase.INITIALIZING
    if view.pods.succeeded or view.pods.failed:
        is_done = len(view.pods.succeeded) >= required_pods(view)
        return Phase.RUNNING if view.definition.runs_to_end and is_done else Phase.INITIALIZING
    if view.facts.resumed_at is not None and not is_queued(view.objects):
        return Phase.RESUMING
    if view.definition.key.kind == "*" and not view.facts.roles:
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
