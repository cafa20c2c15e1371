"""The lifecycles of workloads: which events occur how often, what follows by itself, and who is in which
stage.

A *hazard* is the chance per workload and unit of activity; the scenario draws the next event in proportion to
hazard times the number of workloads it could happen to, so the mixture finds its own balance.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from simulator.model.framework import FRAMEWORKS
from simulator.model.mixture import KINDS
from simulator.model.model import SimulatedWorkload

FINITE: Final = frozenset({"finite"})
SUSPENDABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_stop)
UPDATABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_update)
SCALABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_scale)


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happens to workloads in one of `stages`, of some families and kinds (empty = all)."""

    name: str
    hazard: float
    stages: tuple[str, ...]
    families: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


EVENTS: Final = (
    LifecycleEvent("complete", 1.0, ("running",), FINITE),
    LifecycleEvent("fail", 0.25, ("running",), FINITE),
    LifecycleEvent("fail", 3.0, ("degraded",), FINITE),
    LifecycleEvent("crash", 0.25, ("running",)),
    LifecycleEvent("recover", 6.0, ("degraded",)),
    LifecycleEvent("update", 0.4, ("running",), frozenset(), UPDATABLE),
    LifecycleEvent("scale", 0.3, ("running",), frozenset(), SCALABLE),
    LifecycleEvent("suspend", 0.12, ("running", "pending"), frozenset(), SUSPENDABLE),
    LifecycleEvent("resume", 2.0, ("stopped",)),
    LifecycleEvent("sleep", 0.8, ("running",), frozenset({"serverless"})),
    LifecycleEvent("wake", 2.0, ("idle",), frozenset({"serverless"})),
    LifecycleEvent("start_run", 3.0, ("idle",), frozenset({"recurring"})),
    LifecycleEvent("finish_run", 3.0, ("running",), frozenset({"recurring"})),
    LifecycleEvent("abandon_start", 4.0, ("stuck",)),
    LifecycleEvent("fix_image", 2.0, ("stuck",)),
    LifecycleEvent("delete", 2.0, ("completed", "failed")),
    LifecycleEvent(
        "delete", 0.15, ("running",), frozenset({"serving", "resident", "serverless", "recurring"})
    ),
    LifecycleEvent("delete", 0.7, ("running",), frozenset({"session"})),
    LifecycleEvent("delete", 0.15, ("pending",)),
    LifecycleEvent("delete", 0.3, ("stopped",)),
    LifecycleEvent("exit", 0.25, ("running",), frozenset({"session"})),
)

NEXT_STEPS: Final[dict[str, tuple[str, float, float]]] = {
    "creating": ("make_pods", 1.0, 4.0),
    "resuming": ("make_pods", 1.0, 4.0),
    "starting": ("become_ready", 3.0, 15.0),
    "updating": ("advance_update", 3.0, 8.0),
    "stopping": ("clear_pods", 2.0, 6.0),
    "evicting": ("recreate_pods", 2.0, 6.0),
    "completing": ("record_end", 1.0, 3.0),
    "failing": ("record_end", 1.0, 3.0),
    "deleting": ("remove_workload", 2.0, 8.0),
    "scaling": ("finish_scaling", 1.0, 4.0),
}
"""What controllers and kubelets do next of their own accord: step, and the seconds it takes."""

STUCK_SHARE: Final = 0.03
"""Starts that hang because the image cannot be pulled."""

INITIAL_STAGES: Final = {
    "finite": (("running", 60), ("completed", 26), ("failed", 9), ("stopped", 4), ("degraded", 1)),
    "session": (("running", 85), ("completed", 8), ("failed", 4), ("degraded", 3)),
    "serving": (("running", 86), ("stopped", 6), ("degraded", 4), ("updating", 2), ("failed", 2)),
    "resident": (("running", 85), ("stopped", 10), ("degraded", 5)),
    "serverless": (("running", 65), ("idle", 35)),
    "recurring": (("idle", 75), ("running", 20), ("stopped", 5)),
}
"""Where workloads stand when a world begins; what does not fit then waits."""


_Cell = tuple[str, str]
"""Stage and kind."""


class StageIndex:
    """Workloads by stage and kind."""

    def __init__(self) -> None:
        self._members: dict[_Cell, list[str]] = {}
        self._places: dict[str, tuple[_Cell, int]] = {}

    def update(self, workload: SimulatedWorkload) -> None:
        """Record the workload's present stage; one that is gone is removed."""
        self.remove(workload.uid)
        if workload.stage == "gone":
            return
        cell = (workload.stage, workload.kind)
        members = self._members.setdefault(cell, [])
        self._places[workload.uid] = (cell, len(members))
        members.append(workload.uid)

    def remove(self, uid: str) -> None:
        place = self._places.pop(uid, None)
        if place is None:
            return
        cell, index = place
        members = self._members[cell]
        last = members.pop()
        if last != uid:
            members[index] = last
            self._places[last] = (cell, index)

    def count(self, *stages: str) -> int:
        return sum(len(uids) for (stage, _), uids in self._members.items() if stage in stages)

    def kinds(self) -> dict[str, int]:
        """How many workloads there are of each kind, those on their way out aside."""
        counts: dict[str, int] = {}
        for (stage, kind), uids in self._members.items():
            if stage != "deleting":
                counts[kind] = counts.get(kind, 0) + len(uids)
        return counts

    def draw_event(self, rng: random.Random) -> tuple[str, str] | None:
        """A random event's name and its workload's UID; None where nothing can happen."""
        weights = [event.hazard * sum(map(self._size, cells)) for event, cells in _ELIGIBLE]
        if not any(weights):
            return None
        ((event, cells),) = rng.choices(_ELIGIBLE, weights)
        sizes = [self._size(cell) for cell in cells]
        (cell,) = rng.choices(cells, sizes)
        return event.name, rng.choice(self._members[cell])

    def _size(self, cell: _Cell) -> int:
        return len(self._members.get(cell, ()))


def _cells(event: LifecycleEvent) -> list[_Cell]:
    return [
        (stage, kind.key)
        for stage in event.stages
        for kind in KINDS
        if (not event.families or kind.family in event.families)
        and (not event.kinds or kind.key in event.kinds)
    ]


def eligible(events: Iterable[LifecycleEvent]) -> list[tuple[LifecycleEvent, list[_Cell]]]:
    return [(event, _cells(event)) for event in events]


_ELIGIBLE = eligible(EVENTS)
