"""Which workloads may have changed, and their derivation when that has settled: once per burst of events."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import structlog

from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.kinds.derive import Derived
from watchbill.kinds.objects.objects import WorkloadObjects

log = structlog.get_logger(__name__)

_WORKLOADS_PER_TURN = 10


class RecordSource(Protocol):
    """Where a workload's objects come from."""

    def is_alive(self, root: str) -> bool: ...

    def gather(self, root: str) -> WorkloadObjects: ...


class Tracker:
    """Hears of changes, derives what changed, tells the ledger. Quiet until `open` is called.

    Before the first lists are complete no chain of owners can be trusted, so nothing is derived.
    """

    def __init__(
        self,
        ledger: PendingChanges,
        derive: Callable[[WorkloadObjects], Derived],
        *,
        debounce_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.ledger = ledger
        self.is_open = False
        self.failures = 0
        self.changed = asyncio.Event()
        """Set whenever the ledger may have something to tell."""
        self._derive = derive
        self._debounce_seconds = debounce_seconds
        self._clock = clock
        self._source: RecordSource | None = None
        self._dirty: dict[str, float] = {}
        self._wake = asyncio.Event()

    def attach(self, source: RecordSource) -> None:
        self._source = source

    def on_change(self, root: str) -> None:
        if root not in self._dirty:
            self._dirty[root] = asyncio.get_running_loop().time() + self._debounce_seconds
            self._wake.set()

    def before_delete(self, root: str) -> None:
        """Read the workload a last time where the ledger does not have it as it is."""
        standing = self.ledger.standings.get(root)
        is_kept = standing is not None and (standing.is_told or standing.record is not None)
        if self.is_open and (root in self._dirty or not is_kept):
            self.read(root, is_last=True)

    def on_delete(self, root: str, at: datetime) -> None:
        self._dirty.pop(root, None)
        self.ledger.end(root, at)
        self.changed.set()

    def open(self) -> None:
        """The first lists are complete: from now on records may be derived."""
        self.is_open = True
        self._wake.set()

    def read(self, root: str, *, is_last: bool = False) -> Derived | None:
        """Derive one workload now. None where it is no workload (any more) or cannot be derived."""
        self._dirty.pop(root, None)
        assert self._source is not None  # attached before anything is heard
        if not self._source.is_alive(root):
            return None
        try:
            derived = self._derive(self._source.gather(root))
        except Exception:  # one object that nobody foresaw must not hold up all others
            self.failures += 1
            log.exception("workload cannot be derived", workload=root)
            return None
        self.ledger.note(root, derived, self._clock(), is_last=is_last)
        return derived

    async def run(self) -> None:
        """Derive what is due, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.is_open and self._dirty:
                await self._read_due()
                if self._dirty:
                    due = next(iter(self._dirty.values()))
                    await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def read_all(self) -> None:
        """Derive everything that waits, due or not."""
        for number, root in enumerate(tuple(self._dirty)):
            self.read(root)
            if number % _WORKLOADS_PER_TURN == 0:
                await asyncio.sleep(0)
        self.changed.set()

    async def _read_due(self) -> None:
        """The oldest come first: entries are made in the order of their times."""
        now = asyncio.get_running_loop().time()
        due = [root for root, at in self._dirty.items() if at <= now]
        for number, root in enumerate(due):
            self.read(root)
            if number % _WORKLOADS_PER_TURN == 0:
                self.changed.set()
                await asyncio.sleep(0)
        if due:
            self.changed.set()
