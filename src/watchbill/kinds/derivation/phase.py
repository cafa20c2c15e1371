"""Which of the 14 phases a workload is in, and which it went through. One precedence for every kind:

terminal (failed before completed) → deleting → suspended (pending, where Kueue holds it back) → updating → the
pods' state → the kind's own status → unknown. Definitions supply the predicates, pods the rest.

Earlier phases follow from the times in the objects. Deleted pods took theirs along: what the agent recorded
earlier is kept elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.done import done_pods
from watchbill.kinds.derivation.queues import is_held, is_queued
from watchbill.kinds.objects.json_access import at, condition, instant, metadata
from watchbill.kinds.objects.pod import Pod, deletion_requested_at
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
    """When a workload that has ended did so; not before it was made, whatever the clocks said."""
    stated = view.facts.finished_at or _latest(
        pod.finished_at or (pod.ready.at if pod.ready else None)
        for pod in (*view.pods.succeeded, *view.pods.failed)
    )
    return None if stated is None else max(stated, created_at(view))


def transitions_of(view: WorkloadView, phase: Phase, message: str | None) -> tuple[Transition, ...]:
    """Oldest first, never back in time, no phase twice in a row; the last is the current phase."""
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
    transitions: list[Transition] = []
    for step, entered_at in steps:
        # A time behind the present phase's is of a life that this phase has overtaken.
        if entered_at <= present_at and (not transitions or entered_at >= transitions[-1].at):
            transitions.append(Transition(phase=step, at=entered_at))
    last_at = max(present_at, transitions[-1].at) if transitions else present_at
    return (*transitions, Transition(phase=phase, at=last_at, message=message))


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
    newest_pod_at = _latest(pod.created_at for pod in view.pods.active)
    return {
        Phase.CREATING: times.created_at,
        Phase.RESUMING: times.resumed_at,
        Phase.INITIALIZING: _latest((times.scheduled_at, newest_pod_at)),
        Phase.RUNNING: times.running_at,
        Phase.UPDATING: newest_pod_at,
        Phase.STOPPED: _latest((view.facts.suspended_at, finished_at(view))),
        Phase.STOPPING: view.facts.suspended_at
        or _earliest(pod.deleted_at for pod in view.pods.terminating),
        Phase.DELETING: deletion_requested_at(metadata(view.root)),
        Phase.TERMINATING: _latest(pod.deleted_at for pod in view.pods.terminating),
    }.get(phase)


def _pending_since(view: WorkloadView, times: _Times) -> datetime | None:
    """Since its oldest pod without a node was made, or since Kueue last took its quota away."""
    if view.pods.unscheduled:
        return _earliest(pod.created_at for pod in view.pods.unscheduled)
    evicted = [
        instant(at(eviction, "lastTransitionTime"))
        for workload in view.objects.queue_workloads
        if (eviction := condition(at(workload, "status", "conditions"), "Evicted")) is not None
        and eviction.get("status") == "True"
    ]
    return _latest((times.queued_at, *evicted))


def _degraded_since(view: WorkloadView, times: _Times) -> datetime | None:
    lost = [pod.ready.at for pod in view.pods.lost_readiness if pod.ready is not None]
    missing = [
        pod.created_at
        for pod in view.pods.active
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
    """The phase; `observed` is the one from pods and status alone."""
    if observed in TERMINAL_PHASES and not view.facts.holds("stopped"):
        return observed
    if view.objects.is_root_gone:
        return Phase.TERMINATING
    if metadata(view.root).get("deletionTimestamp") is not None:
        return Phase.DELETING
    if view.facts.holds("stopped"):
        return Phase.STOPPED
    is_suspended = view.facts.holds("suspended") or view.facts.holds("suspending")
    is_waiting = is_held(view.objects, is_suspended=is_suspended, has_pods=bool(view.pods.live))
    if is_waiting and (is_suspended or not view.pods.active):
        return Phase.PENDING
    if is_suspended:
        return Phase.STOPPING if view.pods.live or view.facts.holds("suspending") else Phase.STOPPED
    return observed


def observed_phase(view: WorkloadView) -> Phase:
    """The phase from pods and status alone, without deletion and suspension."""
    if view.facts.has_ended:
        return _ended(view)
    if view.facts.holds("updating") and view.pods.ready:
        return Phase.UPDATING
    if not view.pods.active:
        return _without_pods(view)
    return _with_pods(view)


def _ended(view: WorkloadView) -> Phase:
    """What its status says has ended has done so when none of its pods serves any more."""
    has_failed = view.facts.holds("failed")
    if view.pods.ready:
        return Phase.DEGRADED if has_failed else Phase.RUNNING
    return Phase.FAILED if has_failed else Phase.COMPLETED


def required_pods(view: WorkloadView) -> int:
    """How many pods must have a node, and then be ready, before the workload runs."""
    if view.facts.needs is not None:
        return max(1, view.facts.needs)
    return view.facts.needed or len(view.pods.active)


def has_run(view: WorkloadView) -> bool:
    """It ran in full before, so what is missing now was lost."""
    if view.pods.lost_readiness:
        return True
    is_short_by_deletion = view.pods.terminating and len(view.pods.active) < required_pods(view)
    return view.pods.ready > 0 and (view.facts.holds("ran") or bool(is_short_by_deletion))


def _with_pods(view: WorkloadView) -> Phase:
    required = required_pods(view)
    # Where some pods have yet to end, those that have are not all of it.
    done = min(done_pods(view, required), max(required - 1, 0))
    scheduled = len(view.pods.active) - len(view.pods.unscheduled) + done
    if scheduled < required and (view.pods.unscheduled or view.facts.holds("pending")):
        is_degraded = has_run(view) or view.facts.holds("degraded")
        return Phase.DEGRADED if is_degraded and view.pods.ready else Phase.PENDING
    if view.facts.holds("initializing"):
        return Phase.INITIALIZING
    if view.facts.holds("degraded") and (view.pods.ready or view.facts.scales_to_zero):
        return Phase.DEGRADED
    is_complete = view.pods.ready + done >= required
    if is_complete or (view.facts.holds("running") and not _waits(view)):
        return Phase.RUNNING
    return Phase.DEGRADED if has_run(view) else Phase.INITIALIZING


def _waits(view: WorkloadView) -> bool:
    """A pod has no node or cannot start: whatever the status says, not all of it runs."""
    return any(
        not pod.node or (pod.problem is not None and pod.problem.is_waiting)
        for pod in view.pods.active
    )


def _has_only_its_end_to_report(view: WorkloadView) -> bool:
    """Pods have ended well, the others leave, and its controller has not said so yet."""
    has_ended_well = view.pods.succeeded and not view.pods.failed
    return bool(has_ended_well and view.definition.runs_to_end and view.facts.holds("reported"))


_PHASES_WITHOUT_PODS = {
    "running": Phase.RUNNING,
    "pending": Phase.PENDING,
    "initializing": Phase.INITIALIZING,
}


def _without_pods(view: WorkloadView) -> Phase:
    for predicate, phase in _PHASES_WITHOUT_PODS.items():
        if view.facts.holds(predicate):
            return phase
    if view.facts.scales_to_zero:
        return Phase.DEGRADED if view.facts.holds("degraded") else Phase.RUNNING
    if view.facts.holds("reported") and not (view.pods.all or view.facts.holds("suspended")):
        return Phase.RUNNING
    if _has_only_its_end_to_report(view):
        return Phase.RUNNING
    if view.pods.terminating:
        return Phase.UPDATING if view.facts.holds("updating") else Phase.INITIALIZING
    if view.pods.succeeded or view.pods.failed:
        required = max(required_pods(view), 1)
        return Phase.RUNNING if done_pods(view, required) >= required else Phase.INITIALIZING
    if view.facts.resumed_at is not None and not is_queued(view.objects):
        return Phase.RESUMING
    is_nameless = view.definition.key.kind == "*" and not view.facts.roles
    # A schedule has had runs, none of which is there any more.
    if is_nameless or (view.definition.is_schedule and view.facts.holds("ran")):
        return Phase.UNKNOWN
    return Phase.CREATING
