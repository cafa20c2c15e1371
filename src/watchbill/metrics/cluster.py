"""Metrics of one cluster over time, from the fleet's figures as they are recorded every five minutes.

Nothing is recorded by node pool or category, and no utilization of a whole cluster: that is not supported.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.metrics.figures import decimal_text
from watchbill.metrics.source import (
    FailedType,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
)
from watchbill.query import Scope
from watchbill.responses.fleet import FleetMoment
from watchbill.store.fleet.fleet import fleet_series
from watchbill.store.postgres.database import Database

Figure = Callable[[FleetMoment], float | None]


def _unallocated(moment: FleetMoment) -> float | None:
    total = moment.gpus.total
    return None if total is None else max(0.0, total - moment.gpus.allocated)


CLUSTER_METRICS: Mapping[str, Figure] = {
    "TOTAL_GPU": lambda moment: moment.gpus.total,
    "ALLOCATED_GPU": lambda moment: moment.gpus.allocated,
    "UNALLOCATED_GPU": _unallocated,
    "WORKLOADS_COUNT": lambda moment: moment.workloads,
}
"""The contract's types that are recorded; all others are not supported."""


async def cluster_outcomes(
    db: Database,
    tenant_id: int,
    cluster_id: UUID,
    query: MetricsQuery,
    now: datetime,
    *,
    is_divided: bool,
) -> list[Outcome]:
    """Outcomes in the order of the types. `is_divided`: by groups or by node pool."""
    supported = [name for name in query.types if name in CLUSTER_METRICS and not is_divided]
    moments: Sequence[FleetMoment] = ()
    step_seconds = 0
    if supported and query.number_of_samples:
        scope = Scope(tenant_id, cluster_ids=frozenset({cluster_id}))
        # A moment before the first instant is the present one there.
        start = query.start - query.step
        series = await fleet_series(db, scope, start=start, end=query.end, now=now)
        moments, step_seconds = series.moments, series.step_seconds
    window = timedelta(seconds=2 * step_seconds)
    return [
        Measurement(
            type=name,
            samples=tuple(_points(CLUSTER_METRICS[name], moments, query, now, window)),
        )
        if name in supported
        else FailedType(type=name, reason=Reason.UNSUPPORTED)
        for name in query.types
    ]


def _points(
    figure: Figure,
    moments: Sequence[FleetMoment],
    query: MetricsQuery,
    now: datetime,
    window: timedelta,
) -> Iterator[MetricPoint]:
    """At each instant the last moment before it, if it is not older than two steps of the record."""
    times = [moment.at for moment in moments]
    for instant in query.instants() if moments else ():
        index = bisect_right(times, instant) - 1
        if instant > now or index < 0 or instant - times[index] > window:
            continue
        value = figure(moments[index])
        text = None if value is None else decimal_text(value)
        if text is not None:
            yield MetricPoint(instant, text)
