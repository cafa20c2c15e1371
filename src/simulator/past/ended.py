"""Workloads that lived and were deleted before the demo began, so that its cluster has a past of a month.

They are drawn like those that live now, each in the time and the node pool where GPUs were free. None of them
is ever in the cluster's store: the API server of a cluster knows nothing of what was deleted.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from simulator.model.framework import FRAMEWORKS, Framework
from simulator.model.hardware import ONE_GPU
from simulator.model.mixture import UNKNOWN, NameGenerator, make_workload
from simulator.model.model import Seconds, SimulatedWorkload
from simulator.model.pod_layout import slots
from simulator.model.scheduler import hundredths
from simulator.simulation.world import World

PAST_DAYS: Final = 30
MOST_ENDED: Final = 150
"""Of one cluster: the start of a demo does not grow with its size beyond that."""
_HOUR: Final = 3600.0
_HOURS: Final = PAST_DAYS * 24
_FILLED: Final = 0.82
"""Part of each node pool that was in use at most."""
_TRAINING: Final = 6
"""So many times as often as now: what trains holds most of a cluster's GPU-hours."""
_TRIES: Final = 6
_FAILED_SHARE: Final = 0.14
_LAST_END: Final = 1200.0
"""Seconds before the demo's start by which all of them are gone."""


@dataclass(frozen=True, slots=True)
class _Lifetime:
    """Hours that a workload of a family runs: the median, the spread of its logarithm and the most."""

    median: float
    spread: float
    most: float


_LIFETIMES: Final = {
    "finite": _Lifetime(60.0, 0.8, 240.0),
    "session": _Lifetime(7.0, 0.6, 30.0),
    "serving": _Lifetime(150.0, 0.6, 400.0),
}


@dataclass(frozen=True, slots=True)
class EndedWorkload:
    """`workload` stands as it did when it was created; seconds since 1970 say what came then."""

    workload: SimulatedWorkload
    started_at: Seconds
    ended_at: Seconds
    deleted_at: Seconds
    end: str
    """succeeded or failed; empty = it ran until it was deleted."""


def draw_ended(world: World, *, seed: int, number: int, now: Seconds) -> list[EndedWorkload]:
    """At most `number` workloads, in the order in which they were created."""
    rng = random.Random(f"past/{seed}")
    names = NameGenerator()
    names.counters = world.names.counters
    frameworks = [
        kind
        for kind in FRAMEWORKS.values()
        if kind.family in _LIFETIMES and kind.key != UNKNOWN and kind.asks != "none"
    ]
    capacity = _Capacity(world, now)
    ended_workloads: list[EndedWorkload] = []
    weights = [kind.weight * (_TRAINING if kind.asks == "training" else 1) for kind in frameworks]
    for framework in rng.choices(frameworks, weights, k=number):
        ended = _draw(rng, names, framework, capacity, now)
        if ended is not None:
            ended_workloads.append(ended)
    return sorted(ended_workloads, key=lambda ended: ended.workload.created_at)


def _draw(
    rng: random.Random,
    names: NameGenerator,
    framework: Framework,
    capacity: "_Capacity",
    now: Seconds,
) -> EndedWorkload | None:
    """None where the cluster was too full for it."""
    workload = make_workload(rng, names, framework, created_at=now)
    lifetime = _LIFETIMES[workload.family]
    for _ in range(_TRIES):
        hours = lifetime.median * rng.lognormvariate(0.0, lifetime.spread)
        seconds = min(hours, lifetime.most) * _HOUR
        kept = 0.0 if workload.family == "serving" else rng.uniform(0.05, 30.0) * _HOUR
        latest = now - _LAST_END - kept - seconds
        earliest = now - PAST_DAYS * 24 * _HOUR
        started_at = float(int(latest - (latest - earliest) * rng.random() ** 1.4))
        if capacity.take(workload, started_at, started_at + seconds):
            waited = min(rng.lognormvariate(5.5, 1.4), 9 * _HOUR)
            workload.created_at = workload.since = float(int(started_at - 20 - waited))
            ended_at = float(int(started_at + seconds))
            failed = rng.random() < _FAILED_SHARE
            end = "" if not kept else "failed" if failed else "succeeded"
            return EndedWorkload(
                workload, started_at, ended_at, float(int(ended_at + kept)) + 2, end
            )
    return None


class _Capacity:
    """The hundredths of GPUs still free in each node pool, hour by hour of the past."""

    def __init__(self, world: World, now: Seconds) -> None:
        self._begin = now - PAST_DAYS * 24 * _HOUR
        self._free: dict[str, list[float]] = {}
        for node in world.nodes.values():
            hours = self._free.setdefault(node.pool.name, [0.0] * _HOURS)
            for hour in range(_HOURS):
                hours[hour] += _FILLED * ONE_GPU * node.pool.gpus
        for workload in world.workloads.values():
            began = workload.first_ready_at or now
            self._use(workload, began, workload.finished_at or now)

    def take(self, workload: SimulatedWorkload, start: Seconds, end: Seconds) -> bool:
        """Whether there was room for it; then it holds it."""
        if start >= end or any(
            self._free[pool][hour] < weight
            for pool, weight in _weights(workload)
            for hour in self._hours(start, end)
        ):
            return False
        self._use(workload, start, end)
        return True

    def _use(self, workload: SimulatedWorkload, start: Seconds, end: Seconds) -> None:
        for pool, weight in _weights(workload):
            for hour in self._hours(start, end):
                self._free[pool][hour] -= weight

    def _hours(self, start: Seconds, end: Seconds) -> range:
        first, last = ((at - self._begin) // _HOUR for at in (start, end))
        return range(max(0, int(first)), min(_HOURS, int(last) + 1))


def _weights(workload: SimulatedWorkload) -> Iterable[tuple[str, float]]:
    weight = sum(hundredths(workload.shape(slot.role), workload.pool) for slot in slots(workload))
    return [(workload.pool, float(weight))] if weight else []
