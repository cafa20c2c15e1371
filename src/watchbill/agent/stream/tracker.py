"""Workloads that may have changed, derived once per burst of events."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import inf
from types import MappingProxyType
from typing import Protocol

import msgspec
import structlog

from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.agent.stream.derive_turns import DeriveTurns, DueWorkloads
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.background import TimeSlice
from watchbill.kinds.derive import Derived
from watchbill.kinds.objects.objects import WorkloadObjects
from watchbill.workload import TERMINAL_PHASES, Transition

log = structlog.get_logger(__name__)

ASIDE_FROM_PODS = 300
"""Deriving a workload of more pods takes too long for the event loop: it is done in a thread."""
TOGETHER_SHARE = 0.2
"""Of the debounce: what is due within such a time is derived with what is due now, so that a stream of changes
wakes the tracker a few times a second."""
ROUND_SECONDS = 0.2
"""Of processor time, after which it is looked for what became due meanwhile."""


class RecordSource(Protocol):
    """The source of a workload's objects."""

    def is_alive(self, root: str) -> bool: ...

    def namespace_of(self, root: str) -> str:
        """ "" for what is no workload any more."""

    def pod_count(self, root: str) -> int: ...

    def gather(self, root: str) -> WorkloadObjects: ...


class Tracker:
    """Collects changed workloads and derives them, of itself once `open` was called.

    Before the first lists are complete no chain of owners can be trusted, so until then only that is derived
    of which somebody knows that all of its objects are there (`derive_known`).
    """

    def __init__(
        self,
        pending: PendingChanges,
        derive: Callable[[WorkloadObjects], Derived],
        *,
        debounce_seconds: float,
        clock: Callable[[], datetime] = observed_now,
        processor_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self.pending = pending
        self.turns = DeriveTurns()
        self.is_open = False
        self.failures = 0
        self.changed = asyncio.Event()
        """Set whenever there may be something to send."""
        self._derive = derive
        self._debounce_seconds = debounce_seconds
        self._clock = clock
        self._processor_seconds = processor_seconds
        self._seconds_taken = 0.0
        """Of processor time, for what was derived here."""
        self._source: RecordSource | None = None
        self._dirty = DueWorkloads()
        self._wake = asyncio.Event()
        self._aside: dict[str, asyncio.Task[None]] = {}
        """Workloads that a thread derives; one that is derived or deleted meanwhile is taken out."""
        self._thread = asyncio.Lock()

    def set_source(self, source: RecordSource) -> None:
        self._source = source

    def on_change(self, root: str) -> None:
        if root not in self._dirty:
            due_at = asyncio.get_running_loop().time() + self._debounce_seconds
            self._dirty.put(root, self._namespace_of(root), due_at)
            self._wake.set()

    def before_delete(self, root: str) -> None:
        """Derive the workload a last time unless its current record is already kept."""
        state = self.pending.workloads.get(root)
        has_record = state is not None and (state.is_acknowledged or state.kept is not None)
        can_derive = self.is_open or state is not None
        is_outdated = root in self._dirty or root in self._aside
        if can_derive and (is_outdated or not has_record):
            self.derive_now(root, is_last=True)

    def on_delete(self, root: str, at: datetime, not_before: datetime | None) -> None:
        self._drop(root)
        self.pending.delete(root, at, not_before)
        self.changed.set()

    def on_pods_gone(self, root: str, at: datetime, not_before: datetime | None) -> None:
        """What may exist without pods is reported once more: without pods, in the last phase that is known."""
        self._drop(root)
        state = self.pending.workloads.get(root)
        derived = None if state is None else self._derived(root)
        if derived is not None and state is not None and state.last_stated is not None:
            derived = _in_phase(derived, state.last_stated)
            self.pending.update(root, derived, self._clock(), is_last=True)
        self.pending.delete(root, at, not_before, is_owner_unreadable=True)
        self.changed.set()

    def on_withdraw(self, root: str, at: datetime) -> None:
        self._drop(root)
        self.pending.withdraw(root, at)
        self.changed.set()

    def open(self, newest: Mapping[str, int] = MappingProxyType({})) -> None:
        """The first lists are complete: from now on records may be derived. What has the highest number in
        `newest` comes first, so that what changed while no agent was there is right soon."""
        self.is_open = True
        waiting, self._dirty = self._dirty, DueWorkloads()
        for root in sorted(waiting, key=lambda root: -newest.get(root, 0)):
            self._dirty.put(root, self._namespace_of(root), -inf)
        self._wake.set()

    def derive_now(self, root: str, *, is_last: bool = False) -> Derived | None:
        """Derive one workload now. None where it is no workload (any more) or cannot be derived."""
        self._drop(root)
        assert self._source is not None  # set before any event
        if not self._source.is_alive(root):
            return None
        derived = self._derived(root)
        if derived is not None:
            self.pending.update(root, derived, self._clock(), is_last=is_last)
        return derived

    def _derived(self, root: str) -> Derived | None:
        assert self._source is not None  # set before any event
        began, namespace = self._processor_seconds(), self._source.namespace_of(root)
        try:
            return self._derive(self._source.gather(root))
        except Exception:  # one unexpected object must not stop all others
            self.failures += 1
            log.exception("derivation failed", workload=root)
            return None
        finally:
            seconds = self._processor_seconds() - began
            self._seconds_taken += seconds
            self.turns.charge(namespace, seconds, asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Derive what is due, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self.is_open and self._dirty:
                    await self._derive_due()
                    if self._dirty:
                        await asyncio.sleep(self._seconds_until_due())
        finally:
            for task in self._aside.values():
                task.cancel()

    async def derive_all(self) -> None:
        """Derive everything that is queued, due or not."""
        await self._derive_roots(tuple(self._dirty))
        while self._aside:
            await asyncio.wait(tuple(self._aside.values()))

    async def derive_known(self, is_known: Callable[[str], bool]) -> None:
        """Derive what is queued and known."""
        await self._derive_roots([root for root in self._dirty if is_known(root)])

    async def _derive_due(self) -> None:
        now = asyncio.get_running_loop().time()
        soon = now + TOGETHER_SHARE * self._debounce_seconds
        due = self._dirty.due(soon, lambda namespace: self.turns.resumes_at(namespace) <= now)
        await self._derive_roots(due, most_seconds=ROUND_SECONDS)

    def _seconds_until_due(self) -> float:
        """0 where something is due."""
        soonest = min(
            (max(at, self.turns.resumes_at(namespace)) for namespace, at in self._dirty.soonest()),
            default=inf,
        )
        return max(0.0, soonest - asyncio.get_running_loop().time())

    async def _derive_roots(self, roots: Sequence[str], *, most_seconds: float = inf) -> None:
        """Those that nobody else has derived meanwhile, namespaces in turns."""
        work, began = TimeSlice(), self._seconds_taken
        for root in self.turns.order(roots, self._namespace_of):
            if root in self._dirty:
                self._derive_or_begin(root)
                if self._seconds_taken - began > most_seconds:
                    return
                await work.rest()

    def _namespace_of(self, root: str) -> str:
        assert self._source is not None  # set before any event
        return self._source.namespace_of(root)

    def _derive_or_begin(self, root: str) -> None:
        assert self._source is not None  # set before any event
        if self._source.pod_count(root) >= ASIDE_FROM_PODS:
            self._begin_aside(root)
        else:
            self.derive_now(root)
            self.changed.set()

    def _begin_aside(self, root: str) -> None:
        self._dirty.discard(root)
        if root in self._aside:
            self.on_change(root)
        else:
            self._aside[root] = asyncio.create_task(self._derive_aside(root))

    async def _derive_aside(self, root: str) -> None:
        """In a thread, one workload at a time. What it reads may change meanwhile: then it is derived here."""
        async with self._thread:
            if not self._is_aside(root):
                return
            assert self._source is not None  # set before any event
            namespace = self._source.namespace_of(root)
            derived, seconds = None, 0.0
            with suppress(Exception):  # `derive_now` meets it again, and says so
                objects = self._source.gather(root)
                derived, seconds = await asyncio.to_thread(self._try_derive, objects)
            self.turns.charge(namespace, seconds, asyncio.get_running_loop().time())
        if not self._is_aside(root):
            return
        if derived is None:
            self.derive_now(root)
        else:
            del self._aside[root]
            self.pending.update(root, derived, self._clock())
        self.changed.set()

    def _try_derive(self, objects: WorkloadObjects) -> tuple[Derived | None, float]:
        """None where that failed; and the seconds of processor time that it took."""
        began = self._processor_seconds()
        try:
            derived = self._derive(objects)
        except Exception:
            derived = None
        return derived, self._processor_seconds() - began

    def _is_aside(self, root: str) -> bool:
        """Whether the present task's result is still wanted."""
        return self._aside.get(root) is asyncio.current_task()

    def _drop(self, root: str) -> None:
        self._dirty.discard(root)
        self._aside.pop(root, None)


def _in_phase(derived: Derived, last: Transition) -> Derived:
    """Nobody can see what became of it: the phase stays as it was."""
    workload = msgspec.structs.replace(
        derived.record.workload,
        phase=last.phase,
        phase_message=last.message,
        phase_reason=None,
        completed_at=last.at if last.phase in TERMINAL_PHASES else None,
    )
    record = msgspec.structs.replace(derived.record, workload=workload)
    return Derived(record, (last,), derived.pods)
