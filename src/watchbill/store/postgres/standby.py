"""Reads from a standby: how old what it shows may be, and whether a read may go there.

The primary is asked for its position in the write-ahead log, the standby for the one that it has replayed. What
the standby shows is as old as the youngest moment whose position it has reached, by this process's own clock:
a standby that lost its primary grows old, one whose primary writes nothing does not.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from watchbill.errors import Unavailable
from watchbill.store.postgres.database import Database

CHECK_SECONDS = 0.5
ANSWER_SECONDS = 2.0
CATCH_UP_SECONDS = 0.05
"""Between two looks at a standby that somebody waits for."""
_PRIMARY = (
    "SELECT CASE WHEN NOT pg_is_in_recovery() "
    "THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END"
)
_STANDBY = (
    "SELECT CASE WHEN pg_is_in_recovery() "
    "THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END"
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StandbyRead:
    """A standby that may be read now; what it shows is `staleness_seconds` old at most."""

    db: Database
    staleness_seconds: float


class Standby:
    """One per server process. `elapsed`: seconds of a clock that nobody can set; `sleep` waits by the same."""

    def __init__(
        self,
        primary: Database,
        standby: Database,
        *,
        max_staleness_seconds: float,
        elapsed: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._primary = primary
        self._standby = standby
        self._max_staleness_seconds = max_staleness_seconds
        self._elapsed = elapsed
        self._sleep = sleep
        self._checking = asyncio.Lock()
        self._positions: deque[tuple[float, int]] = deque()
        """Of the primary, with the moment before each was asked for; those that the standby has not reached,
        and that are young enough to be of use when it does."""
        self._shows_until: float | None = None
        """The youngest moment whose position the standby has reached; None where it is not to be read."""
        self._failure = ""

    def staleness_seconds(self) -> float | None:
        """None where the standby is too old, or does not answer, to be read."""
        if self._shows_until is None:
            return None
        seconds = self._elapsed() - self._shows_until
        return seconds if seconds <= self._max_staleness_seconds else None

    def read(self) -> StandbyRead | None:
        """Where to read; None = from the primary."""
        seconds = self.staleness_seconds()
        return None if seconds is None else StandbyRead(self._standby, seconds)

    def leave(self, failure: str) -> None:
        """A read there failed: it is not read any more until a check succeeds."""
        self._shows_until = None
        self._report(failure)

    async def check(self) -> None:
        """Compares the two positions. What fails is logged once, and the standby is left as it grows old."""
        async with self._checking:
            asked_at = self._elapsed()
            try:
                self._positions.append((asked_at, await _position(self._primary, _PRIMARY)))
                replayed = await _position(self._standby, _STANDBY)
            except Unavailable as error:
                self._report(error.message)
                return
            oldest = self._elapsed() - self._max_staleness_seconds
            while self._positions and self._positions[0][0] < oldest:
                self._positions.popleft()
            while self._positions and self._positions[0][1] <= replayed:
                self._shows_until = self._positions.popleft()[0]
            is_used = self.staleness_seconds() is not None
            self._report(
                ""
                if is_used
                else "It is further behind than WATCHBILL_READ_STALENESS_SECONDS allows."
            )

    async def catch_up(self) -> None:
        """Returns when no read from the standby can miss what the primary has now: it shows that, or nobody
        reads it any more."""
        since = self._elapsed()
        while (seconds := self.staleness_seconds()) is not None and not self._shows(since):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._max_staleness_seconds - seconds):
                    await self.check()
            if not self._shows(since):
                await self._sleep(CATCH_UP_SECONDS)

    def _shows(self, moment: float) -> bool:
        return self._shows_until is not None and self._shows_until >= moment

    async def close(self) -> None:
        await self._standby.close()

    def _report(self, failure: str) -> None:
        if failure and failure != self._failure:
            log.warning("reads go to the primary, not to the standby", reason=failure)
        elif self._failure and not failure:
            log.info("reads go to the standby")
        self._failure = failure


async def _position(db: Database, sql: str) -> int:
    """Bytes since the log began. Raises Unavailable."""
    async with db.acquire(0) as connection:
        position: int | None = await connection.fetchval(sql, timeout=ANSWER_SECONDS)
    if position is None:
        role = "a primary" if sql is _PRIMARY else "a standby"
        raise Unavailable(f"The database is not {role} at the moment.", retry_after_seconds=2)
    return position
