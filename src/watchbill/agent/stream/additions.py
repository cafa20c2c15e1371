"""What a batch carries beside its items: measured samples, bounded, and events of workloads.

Of samples the oldest are dropped if the server does not answer.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple

from watchbill.agent.cache.event_log import TURN_SECONDS, EventLog
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.protocol import BATCH_READINGS, Measured, Scrape
from watchbill.workload import WorkloadEvent

MAX_READINGS = 500_000
PART_READINGS = 5_000


class SampleQueue:
    """Scrapes in parts small enough to fill a batch well."""

    def __init__(self) -> None:
        self.dropped = 0
        """Readings that were dropped."""
        self._parts: deque[Scrape] = deque()
        self._reading_count = 0

    def __len__(self) -> int:
        return len(self._parts)

    def put(self, scrape: Scrape) -> None:
        for workloads in _parts(scrape.workloads):
            self._parts.append(
                Scrape(at=scrape.at, counted_since=scrape.counted_since, workloads=workloads)
            )
            self._reading_count += _size(workloads)
        self._bound()

    def take(self, most_readings: int) -> tuple[Scrape, ...]:
        """The oldest, as many as fit; at least one where there is one."""
        taken: list[Scrape] = []
        size = 0
        while self._parts and (
            not taken or size + _size(self._parts[0].workloads) <= most_readings
        ):
            part = self._parts.popleft()
            taken.append(part)
            size += _size(part.workloads)
        self._reading_count -= size
        return tuple(taken)

    def put_back(self, scrapes: Sequence[Scrape]) -> None:
        self._parts.extendleft(reversed(scrapes))
        self._reading_count += sum(_size(scrape.workloads) for scrape in scrapes)
        self._bound()

    def _bound(self) -> None:
        while self._reading_count > MAX_READINGS:
            size = _size(self._parts.popleft().workloads)
            self._reading_count -= size
            self.dropped += size


def _parts(workloads: Iterable[Measured]) -> Iterator[tuple[Measured, ...]]:
    part: list[Measured] = []
    size = 0
    for measured in workloads:
        part.append(measured)
        size += len(measured.readings)
        if size >= PART_READINGS:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _size(workloads: Iterable[Measured]) -> int:
    return sum(len(measured.readings) for measured in workloads)


class Added(NamedTuple):
    scrapes: tuple[Scrape, ...] = ()
    events: tuple[WorkloadEvent, ...] = ()


NO_ADDITIONS = Added()


class Additions:
    """Takes what fits into a batch; events only of workloads that were reported to the server."""

    def __init__(
        self, pending: PendingChanges, samples: SampleQueue | None, events: EventLog | None
    ) -> None:
        self._pending = pending
        self._samples = SampleQueue() if samples is None else samples
        self._events = events

    @property
    def are_due(self) -> bool:
        return bool(len(self._samples)) or (self._events is not None and self._events.is_due)

    @property
    def wait_seconds(self) -> float:
        """How long until events may be due; infinite where there are none."""
        return TURN_SECONDS if self._events is not None and len(self._events) else inf

    def take(self) -> Added:
        has_events = self._events is not None and self._events.is_due
        return Added(
            self._samples.take(BATCH_READINGS),
            self._events.take(self._pending.is_acknowledged) if self._events and has_events else (),
        )

    def put_back(self, added: Added) -> None:
        self._samples.put_back(added.scrapes)
        if self._events is not None:
            self._events.put_back(added.events)
