"""How busy simulated pods are at a moment: smooth, different for each, and the same whenever it is asked.

Figures are functions of a pod's identity and of time, so nothing has to be kept and counters never go back.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

from watchbill.demo.model import Pod, Seconds, Workload


@dataclass(frozen=True, slots=True)
class Habit:
    """Busy at `level` on average (0 to 1), give or take `swing`; a part of all pods never does anything."""

    level: float
    swing: float
    period_seconds: float
    idle_share: float


_HABITS: Final = {
    "finite": Habit(0.88, 0.07, 240.0, 0.05),
    "session": Habit(0.40, 0.30, 900.0, 0.45),
    "serving": Habit(0.45, 0.25, 1800.0, 0.12),
    "resident": Habit(0.60, 0.25, 1200.0, 0.35),
    "serverless": Habit(0.30, 0.20, 600.0, 0.0),
    "recurring": Habit(0.55, 0.15, 300.0, 0.0),
}
_BUSY_STAGES: Final = ("running",)


def utilization(workload: Workload, pod: Pod, now: Seconds) -> float:
    """From 0 to 1; exactly 0 where the pod holds devices and does nothing with them."""
    habit = _HABITS[workload.family]
    if pod.stage not in _BUSY_STAGES or _share(pod, "idle") < habit.idle_share:
        return 0.0
    return max(0.01, min(1.0, _level(habit, pod) + habit.swing * math.sin(_angle(habit, pod, now))))


def work_done(workload: Workload, pod: Pod, now: Seconds) -> float:
    """Seconds of full activity since the pod started: the sum of `level` and swing over its time."""
    if not pod.started_at:
        return 0.0
    habit = _HABITS[workload.family]
    if _share(pod, "idle") < habit.idle_share:
        return 0.002 * max(0.0, now - pod.started_at)
    speed = 2 * math.pi / habit.period_seconds
    swung = math.cos(_angle(habit, pod, pod.started_at)) - math.cos(_angle(habit, pod, now))
    return max(0.0, _level(habit, pod) * (now - pod.started_at) + habit.swing * swung / speed)


def memory_share(pod: Pod) -> float:
    """How much of what it asked for a pod uses."""
    return 0.35 + 0.55 * _share(pod, "memory")


def _level(habit: Habit, pod: Pod) -> float:
    return habit.level * (0.9 + 0.2 * _share(pod, "level"))


def _angle(habit: Habit, pod: Pod, now: Seconds) -> float:
    return 2 * math.pi * (now / habit.period_seconds + _share(pod, "phase"))


def _share(pod: Pod, what: str) -> float:
    """A number from 0 to 1 that is the pod's own."""
    digest = hashlib.blake2s(f"{pod.uid}/{what}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 0xFFFFFFFF
