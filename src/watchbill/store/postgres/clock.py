"""By which clock history is removed: the database's, while nothing suggests that a clock has jumped."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from watchbill.errors import Conflict
from watchbill.store.postgres.database import Database

MAX_SKEW = timedelta(minutes=5)
MAX_PAUSE = timedelta(days=2)
"""Longer than this between two purges, and the time that passed does not count at once."""
HOLD = timedelta(days=1)
"""How long a server then runs before it purges, so that a wrong clock is noticed before history is gone."""
_PURGE = "purge"


class RetentionClock:
    """One per server process. `elapsed`: seconds of a clock that nobody can set."""

    def __init__(self, db: Database, *, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._elapsed = elapsed
        self._held_since: float | None = None

    async def check(self, now: datetime) -> datetime:
        """The database's time. Raises Conflict where ours differs by more than MAX_SKEW."""
        async with self._db.acquire(0) as connection:
            database_now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        skew = now - database_now
        if abs(skew) > MAX_SKEW:
            direction = "ahead of" if skew > timedelta(0) else "behind"
            raise Conflict(
                f"This server's clock is {_words(abs(skew))} {direction} the database's.",
                details="Nothing is removed or recorded meanwhile. Synchronise both clocks (NTP).",
            )
        return database_now

    async def purge_time(self, now: datetime) -> datetime:
        """The time to purge by, noted for the next round.

        Raises Conflict where clocks disagree, and for a day after a pause of more than MAX_PAUSE: either no
        server ran for so long, or the clock has jumped.
        """
        database_now = await self.check(now)
        async with self._db.transaction(0) as connection:
            last: datetime | None = await connection.fetchval(
                "SELECT last_at FROM upkeep WHERE task = $1 FOR UPDATE", _PURGE
            )
            if last is not None and database_now - last > MAX_PAUSE:
                self._hold(database_now - last)
            self._held_since = None
            await connection.execute(
                "INSERT INTO upkeep (task, last_at) VALUES ($1, $2) "
                "ON CONFLICT (task) DO UPDATE SET last_at = $2",
                _PURGE,
                database_now,
            )
        return database_now

    def _hold(self, pause: timedelta) -> None:
        elapsed = self._elapsed()
        if self._held_since is None:
            self._held_since = elapsed
        if elapsed - self._held_since < HOLD.total_seconds():
            raise Conflict(
                f"The last purge was {_words(pause)} ago by the database's clock.",
                details="Nothing is removed for a day, in case the clock has jumped: check it.",
            )


def _words(span: timedelta) -> str:
    if span >= timedelta(days=2):
        return f"{span.days} days"
    if span >= timedelta(hours=2):
        return f"{span // timedelta(hours=1)} hours"
    return f"{span // timedelta(minutes=1)} minutes"
