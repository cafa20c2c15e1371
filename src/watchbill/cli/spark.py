"""A series drawn in one line of text: a column a value, a gap where nothing is known."""

from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
_UNKNOWN = "·"


def sparkline(values: Sequence[float | None], *, width: int, top: float | None = None) -> str:
    """At most `width` columns, each the mean of what falls into it; 0 is the lowest level, not a gap.

    `top` is the value of the full height: by default the largest one.
    """
    columns = [_mean(values[start:end]) for start, end in _slices(len(values), width)]
    known = [value for value in columns if value is not None]
    highest = top if top is not None else max(known, default=0.0)
    return "".join(_column(value, highest) for value in columns)


def _column(value: float | None, highest: float) -> str:
    if value is None:
        return _UNKNOWN
    if highest <= 0 or value <= 0:
        return _LEVELS[0]
    return _LEVELS[min(len(_LEVELS) - 1, int(value / highest * (len(_LEVELS) - 1) + 0.5))]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _slices(count: int, width: int) -> list[tuple[int, int]]:
    columns = min(count, width)
    return [(count * n // columns, count * (n + 1) // columns) for n in range(columns)]
