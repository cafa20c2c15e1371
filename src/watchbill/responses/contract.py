"""The contract's answers that the client reads. Their schemas are the contract's; a test compares the two."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from watchbill.errors import Unavailable
from watchbill.workload import Element, Endpoint, PendingReason, Wire, Workload, WorkloadClass
from watchbill.workload_pod import WorkloadPod

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Aware; RFC 3339 on the wire."""
Count = Annotated[int, msgspec.Meta(ge=0, extra_json_schema={"format": "int64"})]
PositiveCount = Annotated[int, msgspec.Meta(ge=1, extra_json_schema={"format": "int64"})]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class DeletedBetween(Wire, frozen=True, kw_only=True):
    """When nobody saw it go: it was there at `not_before` and not at `not_after`."""

    not_before: Instant
    not_after: Instant


class QueuePosition(Wire, frozen=True, kw_only=True):
    """Of a pending workload among `others` that wait, so many of them `ahead`.

    `source` "Kueue": in the order of its ClusterQueue, as Kueue tells it, whatever the projects are that wait
    there. Without it counted among the pending ones of its project: `ahead` are those of a higher priority, and
    those that wait longer with no lower one; a priority that is not known counts as neither higher nor lower.
    """

    ahead: Count
    others: Count
    source: Literal["Kueue"] | None = None


class AdditionalFields(Wire, frozen=True, kw_only=True):
    """What a workload carries beyond the contract."""

    pending_reasons: tuple[PendingReason, ...] = ()
    idle_since: Instant | None = None
    idle_measured_since: Instant | None = None
    deleted_between: DeletedBetween | None = None
    is_owner_unreadable: bool = False
    observed_until: Instant | None = None
    """Only while the workload's cluster is not observed: all else is as of then."""
    queue_position: QueuePosition | None = None
    """Only of one workload that is asked for alone, while it is pending."""
    workload_class: WorkloadClass | None = None
    """Absent where an agent of an earlier version reported the workload."""
    truncated: tuple[str, ...] = ()
    """Members that hold less than there is."""
    nodes: tuple[str, ...] = ()
    """Of all its pods, those that have ended too."""
    gpu_models: tuple[str, ...] = ()
    """Of the nodes whose GPUs its pods hold or held; while there are none, those that it asks for."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class WorkloadResponse(Workload, frozen=True, kw_only=True):
    """A workload with what only the server knows of it."""

    tenant_id: int
    cluster_id: UUID
    project_id: str
    department_id: str
    updated_at: Instant
    phase_updated_at: Instant
    k8s_phase_updated_at: Instant
    deleted_at: Instant | None
    total_pending_time_seconds: int
    total_running_time_seconds: int

    @property
    def extra(self) -> AdditionalFields:
        """Raises Unavailable where they are not a Watchbill server's."""
        try:
            return msgspec.convert(self.additional_fields, AdditionalFields)
        except msgspec.ValidationError as error:
            raise Unavailable(
                "The answer did not come from a Watchbill server.",
                details=f"additionalFields: {error}",
            ) from error


class WorkloadsResponse(Wire, frozen=True, kw_only=True):
    """A page of documents as they were sent, unknown members included; `next_offset` None on the last page."""

    workloads: tuple[msgspec.Raw, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


class WorkloadCount(Wire, frozen=True, kw_only=True):
    count: int


class PodResponse(WorkloadPod, frozen=True, kw_only=True):
    """A pod with what only the server knows of it."""

    tenant_id: int
    cluster_id: UUID
    workload_id: UUID
    project_id: str
    updated_at: Instant
    deleted_at: Instant | None = None
    workload_name: str | None = None
    project_name: str | None = None


class PodsResponse(Wire, frozen=True, kw_only=True):
    pods: tuple[PodResponse, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


class ElementsResponse(Wire, frozen=True, kw_only=True):
    elements: tuple[Element, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


class ElementCounts(Wire, frozen=True, kw_only=True):
    """All elements that there are, and those of them that are stored."""

    total_elements_count: int
    stored_elements_count: int


class EndpointsResponse(Wire, frozen=True, kw_only=True):
    endpoints: tuple[Endpoint, ...]


class TelemetryGroup(Wire, frozen=True):
    """`value` is what the group is filtered by, `name` what people call it."""

    key: str
    value: str
    name: str | None = None


class TelemetryValue(Wire, frozen=True):
    """A decimal number, of all or of one group."""

    value: str
    groups: tuple[TelemetryGroup, ...] = ()


class TelemetryResponse(Wire, frozen=True, kw_only=True):
    type: str
    timestamp: Instant
    values: tuple[TelemetryValue, ...]


class MetricSample(Wire, frozen=True, kw_only=True):
    """A decimal number; `timestamp` RFC 3339 to the millisecond."""

    value: str
    timestamp: str


class MetricGroup(Wire, frozen=True, kw_only=True):
    key: str
    value: str


class MetricSeries(Wire, frozen=True, kw_only=True):
    """`values` None = the type failed; `labels["reason"]` says why. `groups`: of a cluster's metrics alone."""

    type: str
    values: tuple[MetricSample, ...] | None
    labels: dict[str, str] | None = None
    groups: tuple[MetricGroup, ...] = ()


class HistogramSample(Wire, frozen=True, kw_only=True):
    """Upper bound → count."""

    timestamp: str
    data: dict[str, Any]


class HistogramSeries(Wire, frozen=True, kw_only=True):
    type: str
    values: tuple[HistogramSample, ...]


class MetricsResponse(Wire, frozen=True, kw_only=True):
    measurements: tuple[MetricSeries, ...]
    histogram: tuple[HistogramSeries, ...] = ()
