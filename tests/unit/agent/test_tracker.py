"""What is derived, when, and how often."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from tests.unit.agent.test_pending_changes import NOW, derived
from watchbill.agent.stream import tracker as module
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.tracker import ASIDE_FROM_PODS, Tracker
from watchbill.background import SLICE_SECONDS, TimeSlice
from watchbill.kinds.derive import Derived
from watchbill.protocol import Delete, Upsert
from watchbill.workload import Phase

ROOTS = [str(UUID(int=number)) for number in range(30)]


@dataclass
class Deriving:
    """A source whose objects are the root alone."""

    derivations: list[str] = field(default_factory=list)
    pods: int = 1
    running: threading.Event | None = None
    may_end: threading.Event | None = None

    def is_alive(self, root: str) -> bool:
        return True

    def namespace_of(self, root: str) -> str:
        return "team"

    def pod_count(self, root: str) -> int:
        return self.pods

    def gather(self, root: str) -> Any:
        return root

    def derive(self, root: Any) -> Derived:
        self.derivations.append(root)
        if self.may_end is not None and threading.current_thread() is not threading.main_thread():
            assert self.running is not None
            self.running.set()
            assert self.may_end.wait(60)
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


async def test_what_changed_last_is_derived_first() -> None:
    """What changed while no agent was there is right before what stayed as it was is looked at again."""
    tracker, source = tracking()
    tracker.open({ROOTS[7]: 9, ROOTS[20]: 1 << 60, ROOTS[3]: 8})
    tracker.on_change(ROOTS[0])
    await tracker.derive_all()
    others = [root for root in ROOTS if root not in (ROOTS[20], ROOTS[7], ROOTS[3])]
    assert source.derivations == [ROOTS[20], ROOTS[7], ROOTS[3], *others]


async def test_an_owner_that_may_exist_stays_in_its_phase_when_its_pods_are_gone() -> None:
    """Of its kind nothing can be read: that nothing runs it is all that is known."""
    tracker, _ = tracking()
    tracker.open()
    await tracker.derive_all()
    tracker._derive = lambda root: derived(Phase.CREATING, number=UUID(str(root)).int)
    tracker.on_pods_gone(ROOTS[0], NOW, None)
    batch = tracker.pending.next_batch(
        max_workloads=1, max_bytes=1_000_000, derive=lambda root: None
    )
    record, end = batch.items
    assert isinstance(record, Upsert)
    assert isinstance(end, Delete)
    assert record.record.workload.phase is Phase.RUNNING
    assert [transition.phase for transition in record.transitions] == [Phase.RUNNING]
    assert end.is_owner_unreadable
    assert ROOTS[0] not in tracker.pending.workloads


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


async def test_a_workload_of_many_pods_is_derived_beside_the_loop_and_never_overwrites_what_is_newer() -> (
    None
):
    tracker, source = tracking()
    source.pods, source.running, source.may_end = (
        ASIDE_FROM_PODS,
        threading.Event(),
        threading.Event(),
    )
    deriving = asyncio.create_task(tracker.derive_all())
    await asyncio.to_thread(source.running.wait)
    assert source.derivations == ROOTS[:1]
    assert tracker.pending.workloads == {}, "the thread has not ended, and the loop goes on"
    tracker.open()
    tracker.before_delete(ROOTS[0])
    tracker.on_delete(ROOTS[0], NOW, None)
    assert source.derivations == [ROOTS[0]] * 2, "its last state is derived at once"
    source.may_end.set()
    await deriving
    assert tracker.pending.workloads.keys() == set(ROOTS[1:]), "what is gone does not come back"
    assert [root for root, _ in tracker.pending.deleted.values()] == [ROOTS[0]]


async def test_what_changes_while_a_thread_derives_it_is_derived_again() -> None:
    tracker, source = tracking()
    source.pods, source.running, source.may_end = (
        ASIDE_FROM_PODS,
        threading.Event(),
        threading.Event(),
    )
    deriving = asyncio.create_task(tracker.derive_all())
    await asyncio.to_thread(source.running.wait)
    tracker.on_change(ROOTS[0])
    source.may_end.set()
    await deriving
    await tracker.derive_all()
    assert sorted(source.derivations) == sorted([*ROOTS, ROOTS[0]])


async def test_what_cannot_be_read_beside_the_loop_is_derived_within_it() -> None:
    """The maps that it reads may change while a thread walks through them."""
    tracker, source = tracking()
    source.pods = ASIDE_FROM_PODS

    def derive(root: Any) -> Derived:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("dictionary changed size during iteration")
        return source.derive(root)

    tracker._derive = derive
    await tracker.derive_all()
    assert (source.derivations, tracker.failures) == (ROOTS, 0)


async def test_a_change_is_not_lost_where_a_thread_waits_for_what_was_derived_meanwhile() -> None:
    """Two tasks wait for the thread for one workload: the older one ends, the newer one derives."""
    tracker, source = tracking()
    source.pods, source.running, source.may_end = (
        ASIDE_FROM_PODS,
        threading.Event(),
        threading.Event(),
    )
    deriving = asyncio.create_task(tracker.derive_all())
    await asyncio.to_thread(source.running.wait)
    while ROOTS[1] in tracker._dirty:
        await asyncio.sleep(0)
    tracker.derive_now(ROOTS[1])
    tracker.on_change(ROOTS[1])
    again = asyncio.create_task(tracker.derive_all())
    while ROOTS[1] in tracker._dirty:
        await asyncio.sleep(0)
    source.may_end.set()
    await asyncio.gather(deriving, again)
    assert source.derivations.count(ROOTS[1]) == 2


async def test_objects_that_cannot_be_gathered_hold_up_no_thread() -> None:
    tracker, source = tracking()
    source.pods = ASIDE_FROM_PODS

    def gather(root: str) -> Any:
        if root == ROOTS[0]:
            raise ValueError("unexpected")
        return root

    source.gather = gather  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await tracker.derive_all()
    assert (tracker.failures, sorted(source.derivations)) == (1, ROOTS[1:])
    assert not tracker._aside
