"""The sentence behind a phase, in plain words. It is made here and redacted where the record is made."""

from collections.abc import Callable, Iterable

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.phase import required_pods
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.pending import events
from watchbill.kinds.pending.no_capacity import quota_message
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
    return view.facts.said.get("pending", "")


def _failed(view: WorkloadView) -> str:
    said = view.facts.said.get("failed", "")
    ending = _first(_ending(pod) for pod in reversed(view.pods.failed))
    return ending if " ".join(said.split()) in ending else _joined(said, ending)


def _completed(view: WorkloadView) -> str:
    """A pod that its node's shutdown ended counts as succeeded: people should know."""
    for pod in view.pods.succeeded:
        if pod.reason in _SHUTDOWN_REASONS or "shutdown" in pod.message.lower():
            return f"Pod {pod.name} was ended by the shutdown of its node: {pod.message}".rstrip(
                ": "
            )
    return view.facts.said.get("completed", "")


def _initializing(view: WorkloadView) -> str:
    facts, pods = view.facts, view.pods
    trouble = _first(_wait(pod) for pod in pods.staying)
    if trouble:
        return trouble
    if facts.said.get("initializing"):
        return facts.said["initializing"]
    if not pods.staying and pods.failed:
        return _joined("A pod failed and will be tried again.", _ending(pods.failed[-1]))
    if not pods.staying and pods.leaving:
        return "Its pods are being replaced."
    return _first(_start(pod, view) for pod in pods.staying)


def _degraded(view: WorkloadView) -> str:
    facts, pods = view.facts, view.pods
    total = facts.number or len(pods.staying)
    verb = "is" if pods.ready == 1 else "are"
    parts = [f"{pods.ready} of {total} pods {verb} ready." if pods.ready < total else ""]
    parts.append(facts.said.get("degraded") or facts.said.get("ran", ""))
    parts.append(_first(_wait(pod) for pod in pods.staying))
    parts += [
        f"Pod {pod.name} is not placed: {pod.scheduled.message}"
        for pod in pods.unscheduled[:1]
        if pod.scheduled is not None and pod.scheduled.message
    ]
    if not any(parts[1:]):
        parts.append(_first(_ending(pod) for pod in reversed(pods.failed)))
    if not any(parts[1:]):
        parts += [f"Pod {pod.name} is no longer ready." for pod in pods.lost[:1]]
    return _joined(*parts)


def _creating(view: WorkloadView) -> str:
    """Why there is no pod: what the kind says, else the newest event about a creation that failed."""
    said = view.facts.said.get("degraded", "")
    if said:
        return said
    failure = events.newest(view.objects.scheduling_events, events.CREATION_FAILURES)
    if failure is None:
        return ""
    return quota_message(events.message(failure)) or events.message(failure)


def _leaving(view: WorkloadView) -> str:
    left = len(view.pods.live)
    return f"{left} {'pod is' if left == 1 else 'pods are'} left." if left else ""


def _said(*predicates: str) -> Callable[[WorkloadView], str]:
    def message(view: WorkloadView) -> str:
        return _first(view.facts.said.get(predicate, "") for predicate in predicates)

    return message


_MESSAGES: dict[Phase, Callable[[WorkloadView], str]] = {
    Phase.PENDING: _pending,
    Phase.FAILED: _failed,
    Phase.COMPLETED: _completed,
    Phase.INITIALIZING: _initializing,
    Phase.DEGRADED: _degraded,
    Phase.CREATING: _creating,
    Phase.UPDATING: _said("updating"),
    Phase.RUNNING: _said("running"),
    Phase.STOPPED: _said("stopped", "suspended"),
    Phase.STOPPING: _said("suspending", "suspended"),
    Phase.DELETING: _leaving,
    Phase.TERMINATING: _leaving,
}


def _wait(pod: Pod) -> str:
    """What keeps a scheduled pod from starting."""
    trouble = pod.trouble
    if trouble is None or not pod.node:
        return ""
    said = f"Container {trouble.container} of pod {pod.name}: {trouble.reason}"
    if trouble.is_waiting:
        code = f" (it ended with code {trouble.exit_code})" if trouble.exit_code else ""
        return _sentence(f"{said}{code}", trouble.message)
    return _sentence(f"{said} (exit code {trouble.exit_code})", trouble.message)


def _start(pod: Pod, view: WorkloadView) -> str:
    """What an event says of a pod whose containers do not come up; its own status is silent on it."""
    if not pod.node or pod.running_at is not None:
        return ""
    found = view.objects.scheduling_events
    failure = events.newest(found, events.START_FAILURES, about=pod.uid)
    return _sentence(f"Pod {pod.name}", events.message(failure)) if failure is not None else ""


def _ending(pod: Pod) -> str:
    """How a pod failed."""
    trouble = pod.trouble
    if pod.reason:
        return _sentence(f"Pod {pod.name}: {pod.reason}", pod.message)
    if trouble is None:
        return _sentence(f"Pod {pod.name} failed", pod.message)
    return _sentence(
        f"Container {trouble.container} of pod {pod.name}: {trouble.reason}"
        f" (exit code {trouble.exit_code})",
        trouble.message,
    )


def _sentence(start: str, more: str) -> str:
    more = " ".join(more.split())
    return f"{start}: {more}" if more else f"{start}."


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _joined(*parts: str) -> str:
    """One after the other, each closed by a full stop."""
    said = [part.strip() for part in parts if part and part.strip()]
    closed = [part if part[-1] in ".!?" else f"{part}." for part in said[:-1]]
    return " ".join((*closed, *said[-1:]))
