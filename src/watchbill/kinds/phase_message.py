"""The sentence that explains a phase. Redacted where the record is made."""

from collections.abc import Callable, Iterable

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.phase import required_pods
from watchbill.kinds.objects.json_access import (
    at,
    condition,
    message_of,
    name_key,
    newest_event,
    newest_events,
    text,
)
from watchbill.kinds.objects.objects import PodCounts
from watchbill.kinds.objects.pod import ContainerProblem, Pod
from watchbill.kinds.pending import events
from watchbill.kinds.pending.no_capacity import one_line, quota_message
from watchbill.kinds.pending.pending import pending_reasons
from watchbill.workload import PendingReason, Phase

_SHUTDOWN_REASONS = frozenset({"NodeShutdown", "Shutdown", "Terminated"})


def phase_message(
    phase: Phase, view: WorkloadView, reasons: tuple[PendingReason, ...]
) -> str | None:
    """The sentence, or None where the phase explains itself. `reasons`: why Pending, dominant first."""
    if phase is Phase.PENDING and reasons:
        return reasons[0].user_message or None
    return _MESSAGES[phase](view) or None if phase in _MESSAGES else None


def _pending(view: WorkloadView) -> str:
    waiting = len(view.pods.unscheduled)
    if waiting:
        total = max(required_pods(view), waiting)
        if total == 1:
            return "Its pod waits for a node."
        return f"{waiting} of {total} pods {'waits' if waiting == 1 else 'wait'} for a node."
    stated = view.facts.predicates.get("pending", "")
    return quota_message(stated) or stated


def _failed(view: WorkloadView) -> str:
    stated = view.facts.predicates.get("failed", "")
    ending = _first(_failure(pod) for pod in reversed(view.pods.failed))
    ended = ending if " ".join(stated.split()) in ending else _joined(stated, ending)
    return _joined(ended, _next_run_problem(view))


def _next_run_problem(view: WorkloadView) -> str:
    """Why a schedule whose last run has ended may not run again."""
    return view.facts.predicates.get("degraded", "") if view.definition.is_schedule else ""


def _completed(view: WorkloadView) -> str:
    """A pod that its node's shutdown ended counts as succeeded, so the message says so."""
    for pod in view.pods.succeeded:
        if pod.reason in _SHUTDOWN_REASONS or "shutdown" in pod.message.lower():
            return f"Pod {pod.name} was ended by the shutdown of its node: {pod.message}".rstrip(
                ": "
            )
    killed = _first(_failure(pod) for pod in view.pods.succeeded if pod.problem is not None)
    return _joined(view.facts.predicates.get("completed", "") or killed, _next_run_problem(view))


def _initializing(view: WorkloadView) -> str:
    facts, pods = view.facts, view.pods
    problem = _first(_start_problem(pod) for pod in pods.active)
    if problem:
        return problem
    stated = facts.predicates.get("initializing") or _stated_problem(view)
    if stated:
        return _joined(stated, "" if pods.active else _disruption(pods))
    if not pods.active and pods.failed:
        return _joined("A pod failed and will be retried.", _failure(pods.failed[-1]))
    if not pods.active and pods.terminating:
        return _disruption(pods) or "Its pods are being replaced."
    return _start_failure(view) or _restarts(pods)


def _degraded(view: WorkloadView) -> str:
    facts, pods = view.facts, view.pods
    total = facts.number or len(pods.active)
    verb = "is" if pods.ready == 1 else "are"
    parts = [f"{pods.ready} of {total} pods {verb} ready." if pods.ready < total else ""]
    parts.append(
        _first(
            (
                facts.predicates.get("failed", ""),
                _stated_problem(view),
                facts.predicates.get("ran", ""),
            )
        )
    )
    parts.append(_first(_start_problem(pod) for pod in pods.active))
    parts.append(_unscheduled(view))
    parts.append(_disruption(pods))
    if not any(parts[1:]):
        parts.append(_first(_failure(pod) for pod in reversed(pods.failed)))
    if not any(parts[1:]):
        parts.append(_restarts(pods))
    if not any(parts[1:]):
        parts += [
            _sentence(f"Pod {pod.name} is no longer ready", pod.message)
            for pod in pods.lost_readiness[:1]
        ]
    return _joined(*parts)


def _unscheduled(view: WorkloadView) -> str:
    """Why pods have no node, in the words that a pending workload would have."""
    waiting = view.pods.unscheduled
    reasons = pending_reasons(view) if waiting else ()
    if not reasons:
        return ""
    several = f"{len(waiting)} pods are" if len(waiting) > 1 else f"Pod {waiting[0].name} is"
    return _sentence(f"{several} not scheduled", reasons[0].user_message or reasons[0].message)


def _updating(view: WorkloadView) -> str:
    """What the kind says, and what keeps the new pods from starting."""
    return _joined(
        view.facts.predicates.get("updating", ""),
        _first(_start_problem(pod) for pod in view.pods.active),
        _unscheduled(view),
    )


def _creating(view: WorkloadView) -> str:
    """Why there is no pod: the kind's own message, else the newest event about a failed creation."""
    reported = _stated_problem(view)
    if reported:
        return reported
    failure = newest_event(view.objects.scheduling_events, events.CREATION_FAILURES)
    if failure is None:
        return ""
    return quota_message(message_of(failure)) or message_of(failure)


def _stated_problem(view: WorkloadView) -> str:
    """What the kind says is wrong; an exhausted quota first, which an owned object may know alone."""
    own = view.facts.predicates.get("degraded", "")
    of_children = [
        view.definitions.facts(child).predicates.get("degraded", "")
        for child in sorted(view.objects.children, key=name_key)
    ]
    return _first(quota_message(message) for message in (own, *of_children)) or own


def _running(view: WorkloadView) -> str:
    """Pods that outlive the end of their workload still hold what they hold."""
    if view.facts.holds("completed"):
        left = len(view.pods.active)
        return f"It has completed; {left} {'pod runs' if left == 1 else 'pods run'} on."
    return view.facts.predicates.get("running", "") or _restarts(view.pods)


def _restarts(pods: PodCounts) -> str:
    """The newest end of a container that runs again, of pods that are ready again too."""
    restarted = [pod for pod in pods.active if pod.last_exit is not None]
    if not restarted:
        return ""
    pod = max(restarted, key=lambda pod: str(pod.last_exit and pod.last_exit.at))
    last = pod.last_exit
    assert last is not None
    times = "once" if pod.restarts == 1 else f"{pod.restarts} times"
    ended = f", at {last.at:%Y-%m-%d %H:%M} UTC" if last.at is not None else ""
    return (
        f"Pod {pod.name} restarted {times}; container {last.container} last ended with"
        f" {last.reason or 'Error'} (exit code {last.exit_code}){ended}."
    )


def _stopped(view: WorkloadView) -> str:
    """What its own kind says, else why Kueue gave it up."""
    own = _predicate_message("stopped", "suspended")(view)
    if own:
        return own
    for workload in view.kueue_workloads:
        evicted = condition(at(workload, "status", "conditions"), "Evicted")
        if at(workload, "spec", "active") is False and evicted is not None:
            return _sentence("Kueue deactivated it", message_of(evicted))
    return ""


def _stopping(view: WorkloadView) -> str:
    """Who stops it: its own kind, else the queue that took its quota away, else who removes its pods."""
    own = _predicate_message("suspending", "suspended")(view)
    evictions = (
        condition(at(workload, "status", "conditions"), "Evicted")
        for workload in view.kueue_workloads
    )
    evicted = next(
        (eviction for eviction in evictions if eviction and eviction.get("status") == "True"), None
    )
    if own or evicted is None:
        return own or _disruption(view.pods)
    reason = text(evicted.get("reason")) or "Evicted"
    return _sentence(f"Kueue evicts it ({reason})", message_of(evicted))


def _disruption(pods: PodCounts) -> str:
    """Who removes a pod that is ending, in its own words."""
    return _removal(pods.terminating)


def _removal(pods: Iterable[Pod]) -> str:
    lost = ""
    for pod in pods:
        target = pod.disruption
        if target is not None and target.status == "True":
            why = target.message or pod.message
            return _sentence(f"Pod {pod.name} is removed ({target.reason})", why)
        if pod.reason and not lost:
            lost = _sentence(f"Pod {pod.name} – {pod.reason}", pod.message)
    return lost


def _terminating(view: WorkloadView) -> str:
    left = len(view.pods.live)
    remaining = f"{left} {'pod is' if left == 1 else 'pods are'} left." if left else ""
    return _joined(remaining, _removal(view.pods.live))


def _predicate_message(*predicates: str) -> Callable[[WorkloadView], str]:
    def message(view: WorkloadView) -> str:
        return _first(view.facts.predicates.get(predicate, "") for predicate in predicates)

    return message


_MESSAGES: dict[Phase, Callable[[WorkloadView], str]] = {
    Phase.PENDING: _pending,
    Phase.FAILED: _failed,
    Phase.COMPLETED: _completed,
    Phase.INITIALIZING: _initializing,
    Phase.DEGRADED: _degraded,
    Phase.CREATING: _creating,
    Phase.UPDATING: _updating,
    Phase.RUNNING: _running,
    Phase.STOPPED: _stopped,
    Phase.STOPPING: _stopping,
    Phase.DELETING: _terminating,
    Phase.TERMINATING: _terminating,
    Phase.UNKNOWN: lambda view: view.facts.predicates.get("ran", ""),
}


def _start_problem(pod: Pod) -> str:
    """What keeps a scheduled pod from starting."""
    problem = pod.problem
    if problem is None or not pod.node:
        return ""
    problem_text = f"Container {problem.container} of pod {pod.name} – {problem.reason}"
    if problem.is_waiting:
        code = (
            f" (last exit code {problem.exit_code}{_known_reason(problem)})"
            if problem.exit_code
            else ""
        )
        return _sentence(f"{problem_text}{code}", problem.message)
    return _sentence(f"{problem_text} (exit code {problem.exit_code})", problem.message)


def _known_reason(problem: ContainerProblem) -> str:
    """The reason of the last exit; the kubelet's plain "Error" says no more than the code."""
    return f": {problem.last_reason}" if problem.last_reason not in (None, "", "Error") else ""


def _start_failure(view: WorkloadView) -> str:
    """The event about a pod whose containers do not start, where its own status does not explain it."""
    failures = newest_events(view.objects.scheduling_events, events.START_FAILURES)
    return _first(
        f"Pod {pod.name} – {one_line(message_of(failures[pod.uid]))}."
        for pod in view.pods.active
        if pod.node and pod.running_at is None and pod.uid in failures
    )


def _failure(pod: Pod) -> str:
    """How a pod failed."""
    problem = pod.problem
    if pod.reason:
        return _sentence(f"Pod {pod.name} – {pod.reason}", pod.message)
    if pod.was_removed:
        return _removal([pod])
    if problem is None:
        return _sentence(f"Pod {pod.name} failed", pod.message)
    return _sentence(
        f"Container {problem.container} of pod {pod.name} – {problem.reason}"
        f" (exit code {problem.exit_code})",
        problem.message,
    )


def _sentence(start: str, more: str) -> str:
    more = " ".join(more.split())
    return f"{start}: {more}" if more else f"{start}."


def _first(texts: Iterable[str]) -> str:
    return next((sentence for sentence in texts if sentence), "")


def _joined(*parts: str) -> str:
    """One after the other, each closed by a full stop."""
    sentences = [part.strip() for part in parts if part and part.strip()]
    closed = [part if part[-1] in ".!?" else f"{part}." for part in sentences[:-1]]
    return " ".join((*closed, *sentences[-1:]))
