"""What time something was observed at, whatever this machine's clock is set to meanwhile."""

import time
from datetime import UTC, datetime, timedelta

SET_BY = timedelta(seconds=5)
"""A clock that shows so much more, or less, than has passed was set; what it is corrected by is less."""


def boot_seconds() -> float:
    """Since the machine started, its sleep included, which the event loop's clock leaves out on Linux."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SteadyClock:
    """This machine's clock until it is set; then what it would have shown, until the API server's clock says
    that it was set right."""

    def __init__(self) -> None:
        self._follow(datetime.now(UTC))

    def now(self) -> datetime:
        shown, expected = datetime.now(UTC), self._expected()
        if abs(shown - expected) > SET_BY:
            return expected
        self._follow(shown)
        return shown

    def compare(self, other: datetime) -> None:
        """With what another machine's clock shows."""
        shown, expected = datetime.now(UTC), self._expected()
        if abs(shown - expected) > SET_BY and abs(shown - other) < abs(expected - other):
            self._follow(shown)

    def _expected(self) -> datetime:
        return self._at + timedelta(seconds=boot_seconds() - self._at_boot_seconds)

    def _follow(self, shown: datetime) -> None:
        self._at, self._at_boot_seconds = shown, boot_seconds()


CLOCK = SteadyClock()
"""Of this process."""


def observed_now() -> datetime:
    return CLOCK.now()
