"""What Kubernetes reported about a workload, and its history. The schemas are the second contract's."""

from typing import Literal
from uuid import UUID

import msgspec

from watchbill.responses.contract import Instant, PositiveCount
from watchbill.workload import InvolvedObject, Phase, Wire


class EventResponse(Wire, frozen=True, kw_only=True):
    """An event. `created_at`: when it happened last; `first_at`: when it happened first, of `count` times."""

    id: UUID
    created_at: Instant
    type: str
    cluster_id: UUID
    message: str
    reason: str
    source: str
    involved_object: InvolvedObject
    count: PositiveCount
    first_at: Instant


class EventsResponse(Wire, frozen=True, kw_only=True):
    events: tuple[EventResponse, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


class PhaseUpdate(Wire, frozen=True, kw_only=True):
    phase: Phase
    phase_message: str


class HistoryMeta(Wire, frozen=True, kw_only=True):
    creation_timestamp: Instant
    type: Literal["Event", "PhaseUpdate"]


class HistorySpec(Wire, frozen=True, kw_only=True):
    """The one of them that `meta.type` names."""

    event: EventResponse | None = None
    phase_update: PhaseUpdate | None = None


class HistoryRecord(Wire, frozen=True, kw_only=True):
    meta: HistoryMeta
    spec: HistorySpec


class HistoryResponse(Wire, frozen=True, kw_only=True):
    """Newest first."""

    records: tuple[HistoryRecord, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


ROOTS: tuple[type[msgspec.Struct], ...] = (HistoryResponse, EventsResponse)
