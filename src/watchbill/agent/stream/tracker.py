"""Workloads that may have changed, derived once per burst of events."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Protocol

import structlog

from watchbill.agent.stream.derive_turns import DeriveTurns
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.background import TimeSlice
from watchbill.kinds.derive import Derived
from watchbill.kinds.objects.objects import WorkloadObjects

log = structlog.get_logger(__name__)

ROUND_SECONDS = 0.2
"""Of processor time, after which it is looked for what became due meanwhile."""


class RecordSource(Protocol):
    """The source of a workload's objects."""

    def is_alive(self, root: str) -> bool: ...

    def namespace_of(self, root: str) -> str:
        """ "" for what is no workload any more."""

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
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
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
        self._source: RecordSource | None = None
        self._dirty: dict[str, float] = {}
        self._wake = asyncio.Event()

    def set_source(self, source: RecordSource) -> None:
        self._source = source

    def on_change(self, root: str) -> None:
        if root not in self._dirty:
            self._dirty[root] = asyncio.get_running_loop().time() + self._debounce_seconds
            self._wake.set()

    def before_delete(self, root: str) -> None:
        """Derive the workload a last time unless its current record is already kept."""
        state = self.pending.workloads.get(root)
        has_record = state is not None and (state.is_acknowledged or state.kept is not None)
        can_derive = self.is_open or state is not None
        if can_derive and (root in self._dirty or not has_record):
            self.derive_now(root, is_last=True)

    def on_delete(self, root: str, at: datetime, not_before: datetime | None) -> None:
        self._dirty.pop(root, None)
        self.pending.delete(root, at, not_before)
        self.changed.set()

    def on_withdraw(self, root: str, at: datetime) -> None:
        self._dirty.pop(root, None)
        self.pending.withdraw(root, at)
        self.changed.set()

    def open(self) -> None:
        """The first lists are complete: from now on records may be derived."""
        self.is_open = True
        self._wake.set()

    def derive_now(self, root: str, *, is_last: bool = False) -> Derived | None:
        """Derive one workload now. None where it is no workload (any more) or cannot be derived."""
        self._dirty.pop(root, None)
        assert self._source is not None  # set before any event
        if not self._source.is_alive(root):
            return None
        began, namespace = self._processor_seconds(), self._source.namespace_of(root)
        try:
            derived = self._derive(self._source.gather(root))
        except Exception:  # one unexpected object must not stop all others
            self.failures += 1
            log.exception("derivation failed", workload=root)
            return None
        finally:
            seconds = self._processor_seconds() - began
            self.turns.charge(namespace, seconds, asyncio.get_running_loop().time())
        self.pending.update(root, derived, self._clock(), is_last=is_last)
        return derived

    async def run(self) -> None:
        """Derive what is due, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.is_open and self._dirty:
                await self._derive_due()
                if self._dirty:
                    await asyncio.sleep(self._seconds_until_due())

    async def derive_all(self) -> None:
        """Derive everything that is queued, due or not."""
        await self._derive_roots(tuple(self._dirty))

    async def derive_known(self, is_known: Callable[[str], bool]) -> None:
        """Derive what is queued and known."""
        await self._derive_roots([root for root in self._dirty if is_known(root)])

    async def _derive_due(self) -> None:
        """The oldest of each namespace come first: the queue is in the order of due times."""
        now = asyncio.get_running_loop().time()
        due = [
            root
            for root, at in self._dirty.items()
            if at <= now and self.turns.resumes_at(self._namespace_of(root)) <= now
        ]
        await self._derive_roots(due, most_seconds=ROUND_SECONDS)

    def _seconds_until_due(self) -> float:
        """0 where something is due; what is due later waits in the order of due times."""
        now = asyncio.get_running_loop().time()
        soonest = inf
        for root, at in self._dirty.items():
            soonest = min(soonest, max(at, self.turns.resumes_at(self._namespace_of(root))))
            if at > now or soonest <= now:
                break
        return max(0.0, soonest - now)

    async def _derive_roots(self, roots: Sequence[str], *, most_seconds: float = inf) -> None:
        """Those that nobody else has derived meanwhile, namespaces in turns."""
        work, began = TimeSlice(), self._processor_seconds()
        for root in self.turns.order(roots, self._namespace_of):
            if root in self._dirty:
                self.derive_now(root)
                self.changed.set()
                if self._processor_seconds() - began > most_seconds:
                    return
                await work.rest()

    def _namespace_of(self, root: str) -> str:
        assert self._source is not None  # set before any event
        return self._source.namespace_of(root)
