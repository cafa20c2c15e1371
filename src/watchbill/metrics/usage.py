"""Metrics from what Kubernetes objects told: a step function, read at the instants asked for.

Nothing is said about instants before the first record, after the workload's end, or later than its cluster
was last heard of: a gap is a gap, not a zero.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime

from watchbill.metrics.figures import written
from watchbill.metrics.source import Measurement, Sample
from watchbill.metrics.table import METRICS
from watchbill.store.samples import UsageSeries
from watchbill.workload import Usage


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


def usage_measurement(name: str, known: Sequence[tuple[datetime, Usage]]) -> Measurement:
    """A type that objects alone tell."""
    read = METRICS[name].from_usage
    assert read is not None, f"{name} needs an exporter"
    figures = ((at, read(usage)) for at, usage in known)
    samples = tuple(Sample(at, text) for at, figure in figures if (text := written(figure)))
    return Measurement(type=name, samples=samples)
