"""Whether this process has run all the time: what it reads after a pause happened at some time in it."""

import asyncio
import time
from datetime import UTC, datetime

TICK_SECONDS = 1.0
PAUSE_SECONDS = 5.0
"""A process that did not run for so long was suspended, or its machine was."""
CATCH_UP_SECONDS = 2.0
"""How long after a pause events of it may still be read."""


def boot_seconds() -> float:
    """Since the machine started, its sleep included, which the event loop's clock leaves out on Linux."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class PauseDetector:
    """Ticks while `run` runs; a tick that is long overdue is a pause."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._ticked = boot_seconds()
        self._ticked_at = datetime.now(UTC)
        self._paused_since: datetime | None = None
        self._resumed_at = self._now()
        self._caught_up = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._tick()
            await asyncio.sleep(TICK_SECONDS)

    @property
    def resumed_at(self) -> float:
        """The event loop's time since which this process has run without a pause, one just ended included."""
        self._tick_if_overdue()
        return self._resumed_at

    def paused_since(self) -> datetime | None:
        """Of a pause that has just ended, when it began. None where there was none."""
        self._tick_if_overdue()
        return self._paused_since if self._now() < self._caught_up else None

    def _tick_if_overdue(self) -> None:
        if boot_seconds() - self._ticked > PAUSE_SECONDS:
            self._tick()

    def _tick(self) -> None:
        now, ticked = self._now(), boot_seconds()
        if ticked - self._ticked > PAUSE_SECONDS:
            self._paused_since, self._caught_up = self._ticked_at, now + CATCH_UP_SECONDS
            self._resumed_at = now
        self._ticked, self._ticked_at = ticked, datetime.now(UTC)
