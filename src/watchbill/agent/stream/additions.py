"""What a batch carries beside its items: measured samples, and events of workloads."""

from math import inf
from typing import NamedTuple

from watchbill.agent.cache.event_log import TURN_SECONDS, EventLog
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.sample_queue import SampleQueue
from watchbill.protocol import BATCH_READINGS, Scrape
from watchbill.workload_event import WorkloadEvent


class Added(NamedTuple):
    scrapes: tuple[Scrape, ...] = ()
    events: tuple[WorkloadEvent, ...] = ()


NOTHING = Added()


class Additions:
    """Takes what fits into a batch; events only of workloads that the server was told of."""

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
