"""What is asked of a source of metrics and what it answers. One interface, whatever stands behind it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from watchbill.query import Scope

LEAST_WINDOW = timedelta(minutes=2)
"""A figure older than this is no longer the present one; a rate needs this much to stand on."""


class Reason(StrEnum):
    """Why a type could not be answered."""

    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    SOURCE_ERROR = "source_error"

    @property
    def may_pass(self) -> bool:
        """Whether asking again can help."""
        return self is not Reason.UNSUPPORTED


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsQuery:
    """`types` without duplicates; `start` lies before `end`."""

    types: tuple[str, ...]
    start: datetime
    end: datetime
    number_of_samples: int

    @property
    def step(self) -> timedelta:
        return (self.end - self.start) / max(1, self.number_of_samples)

    @property
    def window(self) -> timedelta:
        """What rates and histograms look back over: a step, but some scrapes at least."""
        return max(self.step, LEAST_WINDOW)

    def instants(self) -> list[datetime]:
        """The ends of equal steps of (start, end]."""
        length, steps = self.end - self.start, self.number_of_samples
        return [self.start + length * step / steps for step in range(1, steps + 1)]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    at: datetime
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One series. No samples = nothing was known at any of the instants. `groups`: key and value of each."""

    type: str
    samples: tuple[MetricPoint, ...]
    labels: dict[str, str] = field(default_factory=dict)
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """How many requests took no longer than each bound, over the step that ends at `at`."""

    at: datetime
    counts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram over time. No spreads = no requests were observed."""

    type: str
    spreads: tuple[BucketCounts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedType:
    """A type that the source could not answer."""

    type: str
    reason: Reason


Utilization = tuple[float | None, ...]
"""Percent at each instant of a query; None = not known."""

Outcome = Measurement | Histogram | FailedType


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadContext:
    """What a metrics store must know of a workload; `known` = the instants at which it had pods.

    `node_cluster_id`: it is no workload but a node of this cluster, which only embedded samples tell of.
    `owner_id`: it is a pod of this workload, likewise.
    `observed`: how well the cluster's agent can read each kind of exporter, by kind.
    """

    workload_id: UUID
    namespace: str
    cluster_name: str
    known: tuple[datetime, ...]
    observed: dict[str, str]
    node_cluster_id: UUID | None = None
    owner_id: UUID | None = None


class Samples(Protocol):
    """Anything that keeps the samples of exporters."""

    async def measured(
        self,
        about: WorkloadContext,
        scope: Scope,
        query: MetricsQuery,
        types: tuple[str, ...],
        now: datetime,
    ) -> list[Outcome]:
        """Outcomes in the order of the types; never raises for a source that does not answer."""

    async def utilization(
        self, tenant_id: int, ids: Collection[UUID], query: MetricsQuery, now: datetime
    ) -> dict[UUID, Utilization] | None:
        """The mean GPU utilization of workloads that are in scope, in one question; those that nothing was
        measured of are left out. None = the source does not answer."""


class MetricsSource(Protocol):
    """Anything that knows metrics of workloads."""

    async def measure(
        self, scope: Scope, workload_id: UUID, query: MetricsQuery, now: datetime
    ) -> list[Outcome] | None:
        """Outcomes in the order of the types; None = the workload is not there or not in scope."""

    async def utilization(
        self, scope: Scope, ids: Collection[UUID], query: MetricsQuery, now: datetime
    ) -> dict[UUID, Utilization | None]:
        """Of the workloads in scope; None where their store does not answer."""

    async def close(self) -> None: ...
