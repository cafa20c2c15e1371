"""Moments as people type them: so long ago (`30m`, `12h`, `7d`, `4w`), a date, or an instant."""

import re
from datetime import datetime, timedelta

from watchbill.errors import Invalid

_SPAN = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_span(text: str) -> timedelta | None:
    """None for what is no number of minutes, hours, days or weeks."""
    match = _SPAN.fullmatch(text)
    return None if match is None else timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_moment(
    option: str, text: str, now: datetime, *, hint: str = "write 30m, 12h, 7d, 4w or 2026-11-01"
) -> datetime:
    """So long before `now`, or at that time. Raises Invalid, naming the option."""
    from watchbill.query import parse_instant

    span = parse_span(text)
    if span is not None:
        return now - span
    try:
        return parse_instant(option, text)
    except Invalid as error:
        raise Invalid(error.message, details=hint) from error
