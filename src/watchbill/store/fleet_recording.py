"""Keeps the fleet's series going: every server tries, at every instant; the first one to get there writes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from watchbill.errors import Unavailable
from watchbill.store.database import Database
from watchbill.store.fleet import STEP_SECONDS, last_instant, record_fleet
from watchbill.store.purge import tenant_ids

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


async def keep_recording(
    db: Database,
    *,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Runs until it is cancelled. An instant that the database slept through stays empty: nobody knows it."""
    while True:
        now = clock()
        await sleep(STEP_SECONDS - now.timestamp() % STEP_SECONDS)
        at = last_instant(clock())
        try:
            for tenant_id in await tenant_ids(db):
                await record_fleet(db, tenant_id, at)
        except Unavailable as error:
            log.warning("could not record the fleet's figures", at=at, reason=error.message)
