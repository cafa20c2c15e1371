"""What is asked of a source of metrics and what it answers. One interface, whatever stands behind it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from watchbill.query import Scope


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

    def instants(self) -> list[datetime]:
        """The ends of equal steps of (start, end]."""
        length, steps = self.end - self.start, self.number_of_samples
        return [self.start + length * step / steps for step in range(1, steps + 1)]


@dataclass(frozen=True, slots=True)
class Sample:
    at: datetime
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One series. No samples = nothing was known at any of the instants."""

    type: str
    samples: tuple[Sample, ...]
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A type that the source could not answer."""

    type: str
    reason: Reason


Outcome = Measurement | Failed


class Source(Protocol):
    """Anything that knows metrics of workloads."""

    async def measure(
        self, scope: Scope, workload_id: UUID, query: MetricsQuery, now: datetime
    ) -> list[Outcome] | None:
        """Outcomes in the order of the types; None = the workload is not there or not in scope."""
