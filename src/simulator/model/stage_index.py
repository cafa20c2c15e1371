"""Which workloads are in which stage: sets to draw from at random in constant time, the same by seed."""

import random
from collections.abc import Iterable

from simulator.model.lifecycles import EVENTS, LifecycleEvent
from simulator.model.mixture import KINDS
from simulator.model.model import SimulatedWorkload

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
