"""Instants, spans and quantities as people read them. Nothing here reads a clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

NONE = "-"
UNKNOWN = "?"
"""Nothing measures it: not the same as none."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def span(duration: timedelta | float) -> str:
    """The two largest units: `2h 11m`, `3d 4h`, `45s`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    left = max(0, int(seconds))
    for position, (size, unit) in enumerate(_UNITS):
        if left >= size:
            rest_size, rest_unit = _UNITS[min(position + 1, len(_UNITS) - 1)]
            rest = left % size // rest_size
            return f"{left // size}{unit}" + (f" {rest}{rest_unit}" if rest else "")
    return "0s"


def instant(text: str | None) -> datetime | None:
    """An instant of the API, or None where there is none or it cannot be read."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def since(text: str | None, now: datetime) -> str:
    """How long ago, or `-`."""
    at = instant(text)
    return span(now - at) if at else NONE


def moment(text: str | None, now: datetime) -> str:
    """The instant in UTC and how far it lies off, or `-`."""
    at = instant(text)
    if at is None:
        return NONE
    distance = f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({distance})"


def number(value: Any) -> str:
    """At most three decimals, none that say nothing."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NONE if value is None else str(value)
    return f"{value:.3f}".rstrip("0").rstrip(".")


def grouped(count: int) -> str:
    return f"{count:,}"


def plural(count: int, word: str) -> str:
    return f"{grouped(count)} {word}" if count == 1 else f"{grouped(count)} {word}s"


def brief(value: float) -> str:
    """Three digits that count, all of a larger number's whole part: `0.123`, `82.5`, `1,234`."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def byte_size(value: float) -> str:
    """`1.25 TiB`, in the largest unit that fits."""
    size, unit = float(value), 0
    while abs(size) >= 1023.5 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{brief(size)} {_SIZES[unit]}"
