"""What a record with history answers beyond the contract: facets, idle GPUs, phases, the live stream; and
types, categories, priority classes, events and history of workloads, whose schemas are the second contract's.
"""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

from watchbill.responses.contract import (
    AdditionalFields,
    Amount,
    Count,
    Instant,
    PodsResponse,
    PositiveCount,
    WorkloadResponse,
)
from watchbill.workload import InvolvedObject, Phase, Wire


class FacetValue(Wire, frozen=True, kw_only=True):
    value: Annotated[str, msgspec.Meta(description="Empty where the workloads have none.")]
    count: PositiveCount


class Facet(Wire, frozen=True, kw_only=True):
    field: str
    values: Annotated[
        tuple[FacetValue, ...],
        msgspec.Meta(description="The most frequent value first, 1,000 at most."),
    ]
    is_partial: Annotated[
        bool, msgspec.Meta(description="True where there are more values; absent otherwise.")
    ] = False


class Facets(Wire, frozen=True, kw_only=True):
    """How many workloads have each value of some fields; `total` counts all that match."""

    total: Count
    facets: tuple[Facet, ...]


class UtilizationSeries(Wire, frozen=True, kw_only=True):
    """The mean utilization of a workload's GPUs in percent, at each instant; null where it is not known."""

    id: UUID
    values: Annotated[
        tuple[Amount | None, ...] | None,
        msgspec.Meta(
            description="Null as a whole while the cluster's metrics store does not answer."
        ),
    ]


class UtilizationList(Wire, frozen=True, kw_only=True):
    """Those of the workloads that the caller may read, in the order asked for."""

    start: Annotated[Instant, msgspec.Meta(description="The first instant.")]
    step_seconds: PositiveCount
    workloads: tuple[UtilizationSeries, ...]


class IdleOwner(Wire, frozen=True, kw_only=True):
    """The idle GPUs of one owner's workloads."""

    submitted_by: Annotated[
        str | None, msgspec.Meta(description="Null where workloads name nobody.")
    ]
    workloads: PositiveCount
    idle_gpus: Amount
    idle_gpu_hours: Amount


class IdleWorkload(WorkloadResponse, frozen=True, kw_only=True):
    """A workload and the idle GPU-hours of its life."""

    idle_gpu_hours: Amount


class IdleWorkloadList(Wire, frozen=True, kw_only=True):
    """A page of workloads with idle GPUs, and the sums over all that match."""

    total: Count
    idle_gpus: Amount
    idle_gpu_hours: Amount
    owners: Annotated[
        tuple[IdleOwner, ...],
        msgspec.Meta(
            max_length=50, description="The most GPU-hours first; the first 50 over all that match."
        ),
    ]
    workloads: tuple[IdleWorkload, ...]
    next_offset: Annotated[
        Count | None, msgspec.Meta(description="The offset of the next page; absent at the end.")
    ] = msgspec.field(default=None, name="next")


class PhaseInterval(Wire, frozen=True, kw_only=True):
    """A stay in one phase. The present one has no end."""

    phase: Phase
    started_at: Instant
    phase_message: str | None = None
    ended_at: Instant | None = None


class History(Wire, frozen=True, kw_only=True):
    history: Annotated[tuple[PhaseInterval, ...], msgspec.Meta(description="Oldest first.")]
    next_offset: Annotated[
        Count | None, msgspec.Meta(description="The offset of the next page; absent at the end.")
    ] = msgspec.field(default=None, name="next")


class StreamReady(Wire, frozen=True, kw_only=True):
    """From now on nothing is missed."""

    at: Instant


class ChangeCounts(Wire, frozen=True, kw_only=True):
    changed: int
    gone: int


class StreamChange(Wire, frozen=True, kw_only=True):
    """Workloads that match and were written; those that do not match any more, or are deleted."""

    at: Instant
    counts: ChangeCounts
    changed: tuple[UUID, ...]
    gone: tuple[UUID, ...]


class StreamReason(Wire, frozen=True, kw_only=True):
    """Why everything must be read anew (`resync`), or why the stream is over (`end`)."""

    at: Instant
    reason: str
    message: str | None = None


NO_ID = UUID(int=0)
"""Where the contract requires an id and there is none."""


class WorkloadType(Wire, frozen=True, kw_only=True):
    """A kind whose objects are workloads. `group`: `core` for the API group without a name."""

    id: UUID
    name: str
    group: str
    category_id: UUID
    priority_id: UUID
    category_name: str | None = None


class WorkloadTypeList(Wire, frozen=True, kw_only=True):
    types: tuple[WorkloadType, ...]


class WorkloadCategory(Wire, frozen=True, kw_only=True):
    id: UUID
    name: str


class WorkloadCategoryList(Wire, frozen=True, kw_only=True):
    categories: tuple[WorkloadCategory, ...]


class WorkloadPriority(Wire, frozen=True, kw_only=True):
    """A priority class and what it is worth to the scheduler."""

    id: str
    name: str
    value: int


class WorkloadPriorityList(Wire, frozen=True, kw_only=True):
    priorities: tuple[WorkloadPriority, ...]


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
    """The member that `meta.type` names."""

    event: EventResponse | None = None
    phase_update: PhaseUpdate | None = None


class HistoryRecord(Wire, frozen=True, kw_only=True):
    meta: HistoryMeta
    spec: HistorySpec


class HistoryResponse(Wire, frozen=True, kw_only=True):
    """Newest first."""

    records: tuple[HistoryRecord, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


ROOTS: tuple[type[msgspec.Struct], ...] = (
    Facets,
    IdleWorkloadList,
    UtilizationList,
    History,
    AdditionalFields,
    PodsResponse,
    HistoryResponse,
    EventsResponse,
)
"""What the operations answer, and what a workload carries beyond the contract: components follow from them."""
