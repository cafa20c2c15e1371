"""What is known of a standby, by positions in the log and by a clock that tests set."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from watchbill.store.postgres import standby as standbys
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.standby import Standby

MAX_STALENESS_SECONDS = 5.0


class Positions:
    """A database that answers with its position in the log."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position

    @asynccontextmanager
    async def acquire(self, tenant_id: int) -> AsyncIterator["Positions"]:
        yield self

    async def fetchval(self, sql: str, *, timeout: float) -> int:
        return self._position()


@pytest.mark.parametrize("lag_seconds", [0.3, 1.5, 4.0])
async def test_whoever_waits_for_a_standby_that_lags_is_shown_what_there_was(
    lag_seconds: float,
) -> None:
    """However often it is looked at meanwhile, and though the primary writes on: a position a millisecond."""
    elapsed = 100.0

    async def pause(seconds: float) -> None:
        nonlocal elapsed
        elapsed += seconds

    standby = Standby(
        cast("Database", Positions(lambda: int(elapsed * 1000))),
        cast("Database", Positions(lambda: int((elapsed - lag_seconds) * 1000))),
        max_staleness_seconds=MAX_STALENESS_SECONDS,
        elapsed=lambda: elapsed,
        sleep=pause,
    )
    while standby.read() is None:
        await standby.check()
        await pause(standbys.CHECK_SECONDS)
    began = elapsed
    await standby.catch_up()
    assert standby.read() is not None
    assert elapsed - began < lag_seconds + standbys.CHECK_SECONDS
