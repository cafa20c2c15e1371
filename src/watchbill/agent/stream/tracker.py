"""Workloads that may have changed, derived once per burst of events."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.kinds.derive import Derived
from watchbill.kinds.objects.objects import WorkloadObjects
from watchbill.time_slice import TimeSlice

log = structlog.get_logger(__name__)


class RecordSource(Protocol):
    """The source of a workload's objects."""

    def is_alive(self, root: str) -> bool: ...

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
    ) -> None:
        self.pending = pending
        self.is_open = False
        self.failures = 0
        self.changed = asyncio.Event()
        """Set whenever there may be something to send."""
        self._derive = derive
        self._debounce_seconds = debounce_seconds
        self._clock = clock
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
        try:
            derived = self._derive(self._source.gather(root))
        except Exception:  # one unexpected object must not stop all others
            self.failures += 1
            log.exception("derivation failed", workload=root)
            return None
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
                    due = next(iter(self._dirty.values()))
                    await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def derive_all(self) -> None:
        """Derive everything that is queued, due or not."""
        await self._derive_roots(tuple(self._dirty))

    async def derive_known(self, is_known: Callable[[str], bool]) -> None:
        """Derive what is queued and known."""
        await self._derive_roots([root for root in self._dirty if is_known(root)])

    async def _derive_due(self) -> None:
        """The oldest come first: the queue is in the order of due times."""
        now = asyncio.get_running_loop().time()
        await self._derive_roots([root for root, at in self._dirty.items() if at <= now])

    async def _derive_roots(self, roots: Sequence[str]) -> None:
        """Those that nobody else has derived meanwhile."""
        work = TimeSlice()
        for root in roots:
            if root in self._dirty:
                self.derive_now(root)
                self.changed.set()
                await work.rest()
