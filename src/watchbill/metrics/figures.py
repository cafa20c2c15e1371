"""Arithmetic on figures: how they are written, and quantiles of histograms. Pure."""

from collections.abc import Mapping
from math import inf, isfinite

from watchbill.metrics.table import Figure

QUANTILES = ("0.5", "0.9", "0.99")


def written(figure: Figure) -> str | None:
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
    for upper, found in buckets:
        count = max(found, below)  # a bucket scraped a moment earlier may seem to shrink
        if count >= rank:
            if upper == inf:
                return lower
            if count == below:
                return upper
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return None
