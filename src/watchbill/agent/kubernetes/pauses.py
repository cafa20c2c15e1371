"""Whether this process has run all the time; what is read after a silence happened at some time during it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from math import inf

import structlog

from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.agent.kubernetes.steady_clock import boot_seconds, observed_now

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
PAUSE_SECONDS = 5.0
"""A process that did not run for so long was suspended, or its machine was."""
CATCH_UP_SECONDS = 2.0
"""How long after a pause events of it may still be read."""
BACKLOG_SHARE = 0.5
MAX_BACKLOG_SECONDS = 120.0
"""What came in a silence is read within such a share of it, where nothing says what is of it."""


class PauseDetector:
    """Ticks while `run` runs; a tick that is long overdue is a pause."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._ticked = boot_seconds()
        self._ticked_at = observed_now()
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
        self._ticked, self._ticked_at = ticked, observed_now()


class Backlog:
    """What a watch tells after a silence happened at some time during it, until it has told all of that.

    Then a list is asked for its version: what is not newer may be of the silence, however late it is read.
    Where versions are no numbers, or nobody answers, the backlog counts as read after a share of the silence.
    """

    def __init__(self, pauses: PauseDetector, newest_version: Callable[[], Awaitable[str]]) -> None:
        self._pauses = pauses
        self._newest_version = newest_version
        self._now = asyncio.get_running_loop().time
        self._since: datetime | None = None
        """When the silence began; None where nothing of one is to be read."""
        self._began = self._until = self._read_at = -inf
        """By the event loop's clock: when reading it began, when it counts as read where nothing else tells,
        and when something of it was read last."""
        self._newest: int | None = None
        self._asked_at: datetime | None = None
        self._asking: asyncio.Task[None] | None = None

    def expect(self, current_at: datetime | None, *, after_seconds: float) -> None:
        """Something is about to be read: of the time since all was current, where that is so long ago."""
        now = observed_now()
        if current_at is not None and (now - current_at).total_seconds() > after_seconds:
            is_inside = self._now() < max(self._until, self._read_at + MAX_BACKLOG_SECONDS)
            since = min(self._since, current_at) if self._since and is_inside else current_at
            self._begin(since, (now - current_at).total_seconds())

    def _begin(self, since: datetime, seconds: float) -> None:
        self._since, self._began = since, self._now()
        self._until = (
            self._began + CATCH_UP_SECONDS + min(seconds * BACKLOG_SHARE, MAX_BACKLOG_SECONDS)
        )
        self._newest, self._asked_at = None, observed_now()
        self.close()
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            self._newest = version_number(await self._newest_version())
        except ApiFailure as failure:
            log.info("newest version not known", error=failure.message)
        finally:
            self._asking = None

    def end(self) -> None:
        """A list was read: versions begin anew with it."""
        self._since = None
        self.close()

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def unseen_since(self, version: str) -> datetime | None:
        """Since when what is read now may have happened; None where it has just happened."""
        if self._since is not None and self._is_past(version):
            asked_at, is_behind = self._asked_at, self._now() - self._read_at < PAUSE_SECONDS
            self._since = None
            if self._newest is not None and is_behind:
                # What came while all this was read is late too.
                self.expect(asked_at, after_seconds=PAUSE_SECONDS)
        if self._since is None:
            return self._pauses.paused_since()
        self._read_at = self._now()
        return self._since

    def _is_past(self, version: str) -> bool:
        number = version_number(version)
        if self._asking is not None:
            return False
        if self._newest is None or number is None:
            return self._now() >= self._until
        return number > self._newest

    def unread_since(self, opened_at: float) -> datetime | None:
        """Since when things may have happened of which a watch that ends did not tell all, for it stood still,
        or this process did. None where it has told all."""
        stood_still_at = max(self._pauses.resumed_at, self._began)
        is_unread = stood_still_at > opened_at and self._now() < self._until
        return self._since if is_unread else None


def version_number(version: str) -> int | None:
    """Versions are compared as numbers, as Kubernetes says of its own since 1.35 and etcd makes them all."""
    return (
        int(version) if version.isascii() and version.isdecimal() and len(version) <= 40 else None
    )
