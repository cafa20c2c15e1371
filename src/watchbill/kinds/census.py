"""A workload's pods, counted in one pass: what phase, message, resources and transitions ask of them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from watchbill.kinds.pod import Pod

_A_WHILE = timedelta(minutes=10)
_EPOCH = datetime.fromtimestamp(0, UTC)


def age_key(pod: Pod) -> tuple[datetime, str, str]:
    """Pods in a stable order, oldest first."""
    return (pod.created_at or _EPOCH, pod.name, pod.uid)


class Census:
    """`staying`: neither ended nor asked to go. They alone say whether a workload has what it needs."""

    __slots__ = (
        "all",
        "failed",
        "leaving",
        "live",
        "lost",
        "ready",
        "running",
        "staying",
        "succeeded",
        "unscheduled",
    )

    def __init__(self, pods: Iterable[Pod], *, ignores_deletion: bool = False) -> None:
        self.all = sorted(pods, key=age_key)
        self.live: list[Pod] = []
        self.staying: list[Pod] = []
        self.leaving: list[Pod] = []
        self.unscheduled: list[Pod] = []
        self.lost: list[Pod] = []
        self.failed: list[Pod] = []
        self.succeeded: list[Pod] = []
        self.ready = 0
        self.running = 0
        for pod in self.all:
            if pod.is_terminal:
                (self.failed if pod.phase == "Failed" else self.succeeded).append(pod)
            else:
                self._count(pod, is_leaving=pod.is_leaving and not ignores_deletion)

    def _count(self, pod: Pod, *, is_leaving: bool) -> None:
        self.live.append(pod)
        if is_leaving:
            self.leaving.append(pod)
            return
        self.staying.append(pod)
        if pod.phase == "Running":
            self.running += 1
        if not pod.node:
            self.unscheduled.append(pod)
        elif pod.is_ready:
            self.ready += 1
        elif has_lost_readiness(pod):
            self.lost.append(pod)


def has_lost_readiness(pod: Pod) -> bool:
    """It was ready once: it stopped being so after its containers had started.

    A container that crashes is ready for a moment at every start, so a pod that restarts counts only where
    it had run for a while.
    """
    if pod.phase != "Running" or pod.ready is None or pod.ready.status == "True":
        return False
    lost_at = pod.ready.at
    if lost_at is None:
        return False
    if (pod.restarts or pod.trouble is not None) and pod.started_at is not None:
        return lost_at - pod.started_at >= _A_WHILE
    return pod.running_at is not None and lost_at > pod.running_at
