"""What is derived, when, and how often."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from tests.unit.agent.test_pending_changes import derived
from watchbill.agent.stream import tracker as module
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.tracker import Tracker
from watchbill.background import SLICE_SECONDS, TimeSlice
from watchbill.kinds.derive import Derived
from watchbill.workload import Phase

ROOTS = [str(UUID(int=number)) for number in range(30)]


@dataclass
class Deriving:
    """A source whose objects are the root alone."""

    derivations: list[str] = field(default_factory=list)

    def is_alive(self, root: str) -> bool:
        return True

    def namespace_of(self, root: str) -> str:
        return "team"

    def gather(self, root: str) -> Any:
        return root

    def derive(self, root: Any) -> Derived:
        self.derivations.append(root)
        return derived(Phase.RUNNING, number=UUID(root).int)


def tracking() -> tuple[Tracker, Deriving]:
    source = Deriving()
    tracker = Tracker(PendingChanges(), source.derive, debounce_seconds=0.0)
    tracker.set_source(source)
    for root in ROOTS:
        tracker.on_change(root)
    return tracker, source


async def test_a_change_is_derived_once_whoever_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start derives all while the tracker, open by now, derives what is due; both rest after each."""
    monkeypatch.setattr("watchbill.background.SLICE_SECONDS", 0.0)
    tracker, source = tracking()
    running = asyncio.create_task(tracker.run())
    tracker.open()
    await asyncio.gather(tracker.derive_all(), tracker.derive_all())
    running.cancel()
    assert sorted(source.derivations) == ROOTS


async def test_before_it_is_open_only_what_is_known_is_derived() -> None:
    tracker, source = tracking()
    running = asyncio.create_task(tracker.run())
    await tracker.derive_known(lambda root: root in ROOTS[:3])
    await asyncio.sleep(0)
    assert source.derivations == ROOTS[:3]
    tracker.before_delete(ROOTS[3])
    assert source.derivations == ROOTS[:3], "nobody knows its last state"
    tracker.on_change(ROOTS[0])
    tracker.before_delete(ROOTS[0])
    assert source.derivations == [*ROOTS[:3], ROOTS[0]]
    running.cancel()


async def test_a_long_list_of_changes_rests_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each derivation takes a slice, by a clock that only derivations move: others run after each."""
    now, turns = 0.0, 0
    monkeypatch.setattr(module, "TimeSlice", lambda: TimeSlice(lambda: now))
    tracker, source = tracking()
    derive = source.derive

    def slow(root: Any) -> Derived:
        nonlocal now
        now += SLICE_SECONDS * 1.01
        return derive(root)

    tracker._derive = slow

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await tracker.derive_all()
    task.cancel()
    assert turns >= len(ROOTS) - 1
