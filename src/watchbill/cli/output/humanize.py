"""Times, durations and quantities as people read them, and sparklines. Nothing here reads a clock."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

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


NONE = "-"
UNKNOWN = "?"
"""Nothing measures it: not the same as none."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def format_duration(duration: timedelta | float) -> str:
    """The two largest units: `2h 11m`, `3d 4h`, `45s`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    left = max(0, int(seconds))
    for position, (size, unit) in enumerate(_UNITS):
        if left >= size:
            rest_size, rest_unit = _UNITS[min(position + 1, len(_UNITS) - 1)]
            rest = left % size // rest_size
            return f"{left // size}{unit}" + (f" {rest}{rest_unit}" if rest else "")
    return "0s"


def format_age(at: datetime | None, now: datetime) -> str:
    """How long ago, or `-`."""
    return NONE if at is None else format_duration(now - at)


def format_time(at: datetime | None, now: datetime) -> str:
    """The instant in the time zone of `now` and how far it lies off, or `-`."""
    if at is None:
        return NONE
    distance = (
        f"{format_duration(now - at)} ago" if at <= now else f"in {format_duration(at - now)}"
    )
    return f"{at.astimezone(now.tzinfo):%Y-%m-%d %H:%M:%S %Z} ({distance})"


def rfc3339(at: datetime, zone: tzinfo = UTC) -> str:
    """As the API writes it, or with the offset of another time zone."""
    return at.astimezone(zone).isoformat().replace("+00:00", "Z")


def format_number(value: Any) -> str:
    """At most three decimals, from 100 on one, none that say nothing."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NONE if value is None else str(value)
    text = f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
    return text.rstrip("0").rstrip(".")


def format_count(count: int) -> str:
    return f"{count:,}"


def plural(count: int, word: str) -> str:
    return f"{format_count(count)} {word}" if count == 1 else f"{format_count(count)} {word}s"


def format_significant(value: float) -> str:
    """Three digits that count, all of a larger number's whole part: `0.123`, `82.5`, `1,234`."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_known(value: float | None, show: Callable[[float], str] = format_number) -> str:
    """As `show` writes it; `?` where nothing is known, which is not the same as none."""
    return UNKNOWN if value is None else show(value)


def format_bytes(value: float) -> str:
    """`1.25 TiB`, in the largest unit that fits."""
    size, unit = float(value), 0
    while abs(size) >= 1023.5 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{format_significant(size)} {_SIZES[unit]}"


_BRANDS = ("NVIDIA-", "NVIDIA ", "nvidia-")


def format_gpu_type(gpu_type: str) -> str:
    """Without the vendor, which every model begins with; `-` where the node's labels name none."""
    for brand in _BRANDS:
        gpu_type = gpu_type.removeprefix(brand)
    return gpu_type or NONE
