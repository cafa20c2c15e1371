"""Metrics from the samples that agents pushed. Knows steps and counters, no SQL.

A figure is the last one within the two minutes before an instant. A counter is compared with where it stood
before the window, or with its first value inside; counts of different lives of an agent are never compared.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.metric_types import (
    HISTOGRAMS,
    SAMPLED_METRICS,
    MetricForm,
    devices_reported,
    is_bound,
)
from watchbill.metrics.figures import QUANTILES, bound, bound_text, decimal_text, quantile
from watchbill.metrics.source import (
    LEAST_WINDOW,
    BucketCounts,
    FailedType,
    Histogram,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
    Utilization,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.store.metrics.measured import Point, measured_list, utilization_list
from watchbill.store.postgres.database import Database

LABEL = "gpu"
_NOT_THERE = frozenset({"absent", "forbidden"})
_LEAST_STEP = timedelta(seconds=1)
MAX_BUCKETS = 100
"""Of one histogram; servers know some twenty. Of more, the lowest and the highest are shown."""


class PushedSamples:
    """Samples in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def measured(
        self,
        about: WorkloadContext,
        scope: Scope,
        query: MetricsQuery,
        types: tuple[str, ...],
        now: datetime,
    ) -> list[Outcome]:
        if not query.number_of_samples:
            return [_NOTHING[SAMPLED_METRICS[name].form](name) for name in types]
        points: list[Point] = []
        if about.known:
            points = await measured_list(
                self._db,
                scope.tenant_id,
                about.workload_id,
                node_cluster_id=about.node_cluster_id,
                owner_id=about.owner_id,
                after=query.start - query.window - LEAST_WINDOW,
                until=query.end,
                origin=query.start,
                step=max(query.step, _LEAST_STEP),
                types={SAMPLED_METRICS[name].series or name for name in types},
                max_labels=devices_reported(query.number_of_samples) + 1,
            )
        view = _View(points, query, about)
        return [outcome for name in types for outcome in _outcomes(name, view, about)]

    async def utilization(
        self, tenant_id: int, ids: Collection[UUID], query: MetricsQuery, now: datetime
    ) -> dict[UUID, Utilization] | None:
        figures = await utilization_list(
            self._db, tenant_id, ids, instants=query.instants(), window=LEAST_WINDOW
        )
        return {workload_id: tuple(values) for workload_id, values in figures.items()}


class _View:
    """The points as seen from each instant: the present one, and the one that counters are compared with."""

    def __init__(
        self, points: Sequence[Point], query: MetricsQuery, about: WorkloadContext
    ) -> None:
        times = [point.at for point in points]
        self.devices = devices_reported(query.number_of_samples)
        self.series = sorted({key for point in points for key in point.figures})
        self.present: list[tuple[datetime, Point]] = []
        self.compared: list[tuple[datetime, Point, Point]] = []
        for instant in about.known:
            index = bisect_right(times, instant) - 1
            if index < 0 or times[index] <= instant - LEAST_WINDOW:
                continue
            point = points[index]
            self.present.append((instant, point))
            before = _baseline(points, times, index, instant - query.window)
            if before is not None:
                self.compared.append((instant, before, point))

    def labels(self, kind: str) -> list[str]:
        """Of a histogram its bounds, the lowest first; whatever else was stored is none of its labels."""
        labels = [label for name, label in self.series if name == kind]
        if kind not in HISTOGRAMS:
            return labels
        bounds = sorted(filter(is_bound, labels), key=bound)
        return bounds if len(bounds) <= MAX_BUCKETS else [*bounds[: MAX_BUCKETS - 1], bounds[-1]]


def _baseline(
    points: Sequence[Point], times: Sequence[datetime], index: int, begins: datetime
) -> Point | None:
    """The last point up to the window's beginning if it is recent, else the first inside."""
    point = points[index]
    first = bisect_right(times, begins)
    if first > 0 and times[first - 1] > begins - LEAST_WINDOW:
        first -= 1
    for candidate in points[first:index]:
        if candidate.counted_since == point.counted_since:
            return candidate
    return None


def _outcomes(name: str, view: _View, about: WorkloadContext) -> list[Outcome]:
    metric = SAMPLED_METRICS[name]
    series = metric.series or name
    if not view.labels(series):
        if about.observed.get(metric.exporter, "absent") in _NOT_THERE:
            return [FailedType(type=name, reason=Reason.UNSUPPORTED)]
        return [_NOTHING[metric.form](name)]
    return _FORMS[metric.form](name, series, view)


def _gauges(name: str, series: str, view: _View) -> list[Outcome]:
    labels = view.labels(series)
    if len(labels) > view.devices + 1:
        labels = [label for label in labels if not label]
    return [
        Measurement(
            type=name,
            samples=tuple(
                MetricPoint(at, text)
                for at, point in view.present
                if (text := decimal_text(point.figures.get((series, label))))
            ),
            labels={LABEL: label} if label else {},
        )
        for label in labels
    ]


def _rates(name: str, series: str, view: _View) -> list[Outcome]:
    key = (series, "")
    samples = []
    for at, before, point in view.compared:
        if key in before.figures and key in point.figures:
            counted = point.figures[key] - before.figures[key]
            text = decimal_text(counted / (point.at - before.at).total_seconds())
            if counted >= 0 and text is not None:
                samples.append(MetricPoint(at, text))
    return [Measurement(type=name, samples=tuple(samples))]


def _counts(series: str, view: _View) -> Iterable[tuple[datetime, dict[str, float]]]:
    """By instant, how many requests the window adds to each bucket."""
    labels = view.labels(series)
    for at, before, point in view.compared:
        counts = {
            bound_text(label): max(
                0.0, point.figures[series, label] - before.figures.get((series, label), 0.0)
            )
            for label in labels
            if (series, label) in point.figures
        }
        if counts:
            yield at, counts


def _histogram(name: str, series: str, view: _View) -> list[Outcome]:
    spreads = tuple(
        BucketCounts(at, {bound: decimal_text(count) or "0" for bound, count in counts.items()})
        for at, counts in _counts(series, view)
    )
    return [Histogram(type=name, spreads=spreads)]


def _percentiles(name: str, series: str, view: _View) -> list[Outcome]:
    counted = list(_counts(series, view))
    return [
        Measurement(
            type=name,
            samples=tuple(
                MetricPoint(at, text)
                for at, counts in counted
                if (text := decimal_text(quantile(float(share), counts)))
            ),
            labels={"quantile": share},
        )
        for share in QUANTILES
    ]


_FORMS: dict[MetricForm, Callable[[str, str, _View], list[Outcome]]] = {
    MetricForm.GAUGE: _gauges,
    MetricForm.RATE: _rates,
    MetricForm.HISTOGRAM: _histogram,
    MetricForm.PERCENTILES: _percentiles,
}


def _no_measurement(name: str) -> Outcome:
    return Measurement(type=name, samples=())


def _no_histogram(name: str) -> Outcome:
    return Histogram(type=name, spreads=())


_NOTHING: dict[MetricForm, Callable[[str], Outcome]] = {
    MetricForm.GAUGE: _no_measurement,
    MetricForm.RATE: _no_measurement,
    MetricForm.HISTOGRAM: _no_histogram,
    MetricForm.PERCENTILES: _no_measurement,
}
