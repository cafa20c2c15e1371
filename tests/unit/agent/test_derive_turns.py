"""Namespaces take turns by the processor time that deriving their workloads takes."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agent.test_pending_changes import derived
from watchbill.agent.stream.derive_turns import (
    AT_ONCE,
    BURST_SECONDS,
    BUSY_SHARE,
    LONG_SECONDS,
    MAX_REMEMBERED,
    WINDOW_SECONDS,
    DeriveTurns,
    DueWorkloads,
)
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.tracker import Tracker
from watchbill.kinds.derive import Derived
from watchbill.workload import Phase

costs = st.sampled_from([0.001, 0.01, 0.1, 1.0])


def namespace_of(root: str) -> str:
    return root.partition("/")[0]


def served(turns: DeriveTurns, roots: list[str], cost: dict[str, float]) -> Iterator[str]:
    for root in turns.order(roots, namespace_of):
        yield root
        turns.charge(namespace_of(root), cost[namespace_of(root)], 0.0)


@given(st.dictionaries(st.sampled_from("abcd"), costs, min_size=2), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_while_two_namespaces_wait_neither_gets_more_than_one_turn_ahead(
    cost: dict[str, float], count: int
) -> None:
    """In processor time: by at most one derivation of each, whatever they cost."""
    turns = DeriveTurns()
    roots = [f"{name}/{number}" for name in cost for number in range(count)]
    spent, left = dict.fromkeys(cost, 0.0), dict.fromkeys(cost, count)
    order = []
    for root in served(turns, roots, cost):
        name = namespace_of(root)
        order.append(root)
        spent[name] += cost[name]
        left[name] -= 1
        waiting = [other for other in cost if left[other]]
        for other in waiting:
            assert spent[name] <= spent[other] + cost[name] + cost[other] + 1e-9
    assert sorted(order) == sorted(roots)
    for name in cost:
        assert [root for root in order if namespace_of(root) == name] == [
            root for root in roots if namespace_of(root) == name
        ], "each namespace's in their order"


def test_who_comes_later_is_served_before_who_took_much() -> None:
    turns = DeriveTurns()
    list(served(turns, [f"heavy/{number}" for number in range(100)], {"heavy": 1.0}))
    roots = [*(f"heavy/{number}" for number in range(5)), "light/1", "other/1"]
    first = list(served(turns, roots, {"heavy": 1.0, "light": 0.01, "other": 0.01}))[:2]
    assert first == ["light/1", "other/1"]


def test_who_waited_for_long_has_saved_nothing_up() -> None:
    turns = DeriveTurns()
    cost = {"a": 0.01, "b": 0.01}
    list(served(turns, [f"a/{number}" for number in range(1_000)], cost))
    both = [f"b/{number}" for number in range(100)] + [f"a/{number}" for number in range(100)]
    first = list(served(turns, both, cost))[:100]
    assert sum(root.startswith("a/") for root in first) == pytest.approx(50, abs=1)


def test_many_namespaces_leave_nothing_behind() -> None:
    turns = DeriveTurns()
    for number in range(3 * MAX_REMEMBERED):
        list(served(turns, [f"{number}/1"], {str(number): 0.001}))
    assert len(turns._virtual) <= MAX_REMEMBERED + 1
    assert not turns.seconds
    assert not turns._paused_until


def test_many_small_objects_take_half_of_the_time_once_their_burst_is_used_up() -> None:
    """Ten minutes of them at 50 ms each: the burst, and half of what follows."""
    turns, now, taken = DeriveTurns(), 0.0, 0.0
    while now < 600.0:
        now = max(now, turns.resumes_at("many")) + 0.05
        taken += 0.05
        turns.charge("many", 0.05, now)
    assert 300.0 <= taken <= 300.0 + BURST_SECONDS + 1.0
    assert turns.resumes_at("other") == 0.0
    now += 3 * BURST_SECONDS
    turns.charge("many", 0.05, now)
    assert turns.resumes_at("many") < now, "it has regained its burst"


def test_a_namespace_that_takes_much_time_is_reported() -> None:
    turns, name = DeriveTurns(), "heavy"
    assert turns.busy(0.0) is None
    for second in range(int(BUSY_SHARE * WINDOW_SECONDS) + 1):
        turns.charge(name, 1.0, float(second))
        turns.charge("light", LONG_SECONDS / 1_000, float(second))
    assert list(turns.seconds) == [name]
    assert (turns.busy(WINDOW_SECONDS) or "").endswith(f": {name}")
    assert turns.busy(2 * WINDOW_SECONDS) is None


def test_a_look_at_what_waits_costs_as_much_as_there_are_namespaces() -> None:
    """With a hundred thousand objects of one that paused each look held the loop for 0.12 s."""
    waiting, asked = DueWorkloads(), []
    for number in range(50_000):
        waiting.put(f"a/{number}", "a", float(number))
    waiting.put("b/0", "b", 7.0)

    def may_begin(namespace: str) -> bool:
        asked.append(namespace)
        return True

    assert waiting.due(7.5, may_begin) == [*(f"a/{number}" for number in range(8)), "b/0"]
    assert len(waiting.due(60_000.0, may_begin)) == AT_ONCE + 1
    assert waiting.due(60_000.0, lambda namespace: namespace == "b") == ["b/0"]
    assert asked == ["a", "b"] * 2
    for root in ("a/0", "b/0", "c/0"):
        waiting.discard(root)
    assert list(waiting.soonest()) == [("a", 1.0)]
    assert ("b/0" in waiting, "a/1" in waiting, len(waiting)) == (False, True, 49_999)


class Deriving:
    """Roots that name their namespace; those of `heavy` take a second of a clock that nothing else moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.order: list[str] = []
        self.tracker = Tracker(
            PendingChanges(),
            self.derive,
            debounce_seconds=0.0,
            processor_seconds=lambda: self.seconds,
        )
        self.tracker.set_source(self)

    def is_alive(self, root: str) -> bool:
        return True

    def pod_count(self, root: str) -> int:
        return 1

    def namespace_of(self, root: str) -> str:
        return "heavy" if UUID(root).int < 1_000 else "light"

    def gather(self, root: str) -> Any:
        return root

    def derive(self, root: Any) -> Derived:
        self.order.append(self.namespace_of(root))
        self.seconds += 1.0 if self.order[-1] == "heavy" else 0.001
        return derived(Phase.RUNNING, number=UUID(root).int)


async def test_what_changes_during_a_long_queue_of_another_namespace_waits_for_one_of_it() -> None:
    source = Deriving()
    for number in range(1, 200):
        source.tracker.on_change(str(UUID(int=number)))
    running = asyncio.create_task(source.tracker.run())
    source.tracker.open()
    while not source.order:
        await asyncio.sleep(0)
    source.tracker.on_change(str(UUID(int=5_000)))
    while "light" not in source.order:
        await asyncio.sleep(0)
    running.cancel()
    assert source.order.index("light") <= 2


async def test_large_objects_are_derived_for_half_of_the_time() -> None:
    """After one of a second its namespace pauses for a second, and the others go on."""
    source = Deriving()
    for number in (1, 2, 5_000, 5_001):
        source.tracker.on_change(str(UUID(int=number)))
    source.tracker.open()
    now = asyncio.get_running_loop().time()
    await source.tracker._derive_due()
    assert source.order.count("heavy") == 1
    assert source.tracker.turns.resumes_at("heavy") >= now + 1.0
    await source.tracker._derive_due()
    assert source.order == ["heavy", "light", "light"]
    assert 0.0 < source.tracker._seconds_until_due() <= 1.0
