"""Metrics from what Kubernetes objects told: a step function, read at the instants asked for.

Nothing is said about instants before the first record, after the workload's end, or later than its cluster
was last heard of: a gap is a gap, not a zero.
"""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime
from math import isfinite
from uuid import UUID

from watchbill.metrics.source import Failed, Measurement, MetricsQuery, Outcome, Reason, Sample
from watchbill.metrics.table import METRICS, Figure
from watchbill.query import Scope
from watchbill.store.database import Database
from watchbill.store.samples import UsageSeries, usage_series
from watchbill.workload import Usage


class UsageSource:
    """Needs no exporter, and so answers only what objects say."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def measure(
        self, scope: Scope, workload_id: UUID, query: MetricsQuery, now: datetime
    ) -> list[Outcome] | None:
        series = await usage_series(
            self._db, scope, workload_id, start=query.start, end=query.end, now=now
        )
        if series is None:
            return None
        known = list(steps(series, query.instants(), now))
        return [_outcome(name, known) for name in query.types]


def steps(
    series: UsageSeries, instants: list[datetime], now: datetime
) -> Iterator[tuple[datetime, Usage]]:
    """The usage in force at each instant, where one was."""
    changes = [point.at for point in series.points]
    until = now if series.end is None else min(series.end, now)
    for instant in instants:
        index = bisect_right(changes, instant) - 1
        if index >= 0 and instant <= until:
            yield instant, series.points[index].usage


def _outcome(name: str, known: list[tuple[datetime, Usage]]) -> Outcome:
    read = METRICS[name].from_usage
    if read is None:
        return Failed(type=name, reason=Reason.UNSUPPORTED)
    figures = ((at, read(usage)) for at, usage in known)
    samples = tuple(Sample(at, text) for at, figure in figures if (text := written(figure)))
    return Measurement(type=name, samples=samples)


def written(figure: Figure) -> str | None:
    """A plain decimal; None for what is not stated or no finite number."""
    if figure is None or not isfinite(figure):
        return None
    if isinstance(figure, int):
        return str(figure)
    return f"{figure:.6f}".rstrip("0").rstrip(".")
