"""Arithmetic on figures: as decimal text, quantiles of histograms, and usage as a step function. Pure.

There is nothing about instants before the first record, after the workload's end, or later than its
cluster's last contact: a gap is a gap, not a zero.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import inf, isfinite

from watchbill.metric_types import METRICS, Figure
from watchbill.metrics.source import Measurement, MetricPoint
from watchbill.store.workloads.usage_steps import UsageSeries
from watchbill.workload import Usage

QUANTILES = ("0.5", "0.9", "0.99")


def decimal_text(figure: Figure) -> str | None:
    """A plain decimal; None for what is not stated or no finite number."""
    if figure is None or not isfinite(figure):
        return None
    if isinstance(figure, int):
        return str(figure)
    return f"{figure:.6f}".rstrip("0").rstrip(".")


def bound(text: str) -> float:
    """A bucket's upper bound. Raises ValueError."""
    return inf if text in ("+Inf", "Inf") else float(text)


def bound_text(text: str) -> str:
    """The same bound always written the same way. Raises ValueError."""
    value = bound(text)
    return "+Inf" if value == inf else f"{value:g}"


def quantile(share: float, counts: Mapping[str, float]) -> float | None:
    """The value below which that share of the requests lies, straight within its bucket; None without any.

    `counts`: cumulative, by upper bound. What lies beyond the last finite bound reads as that bound.
    """
    buckets = sorted((bound(text), count) for text, count in counts.items())
    if len(buckets) < 2 or buckets[-1][0] != inf or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for upper, cumulative in buckets:
        count = max(cumulative, below)  # a bucket scraped a moment earlier may seem to shrink
        if count >= rank:
            if upper == inf:
                return lower
            if count == below:
                return upper
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return None


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
    samples = tuple(
        MetricPoint(at, text) for at, figure in figures if (text := decimal_text(figure))
    )
    return Measurement(type=name, samples=samples)
