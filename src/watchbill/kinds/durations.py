"""Go's durations (`1h30m`), as custom resources write them; and durations in words."""

import re
from typing import Any

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_LONGEST_SECONDS = 100 * 365 * 86_400


def parse_duration(value: Any) -> float | None:
    """Seconds, at most a hundred years; None where it is no duration."""
    if not isinstance(value, str) or not 0 < len(value) <= 40:
        return None
    seconds = 0.0
    position = 0
    for match in _PART.finditer(value):
        if match.start() != position:
            return None
        seconds += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return min(seconds, _LONGEST_SECONDS) if position == len(value) else None
