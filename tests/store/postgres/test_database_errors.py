"""A failure of the database is reported as such and never taken for a bug of ours; a bug is never hidden."""

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from watchbill.errors import Unavailable
from watchbill.store.postgres import database
from watchbill.store.postgres.database import Database, allow_seconds
from watchbill.store.postgres.errors import FailureKind, failure_of
from watchbill.store.postgres.migrate import migrate

# Appendix A of PostgreSQL's documentation.
NOT_OURS = {
    "25006": "read-only",
    "28P01": "refuses the login",
    "28000": "refuses the login",
    "3D000": "does not exist",
    "40001": "conflicting change",
    "40P01": "conflicting change",
    "42501": "denies a permission",
    "53100": "disk is full",
    "53200": "out of memory",
    "53300": "no connection left",
    "53400": "short of a resource",
    "55P03": "conflicting change",
    "57014": "timed out",
    "57P01": "restarting",
    "57P02": "restarting",
    "57P03": "restarting",
    "58030": "storage fails",
    "08006": "does not answer",
    "XX000": "internal error",
    "XX001": "internal error",
}
OURS = ("42601", "42703", "42P01", "22P02", "23505", "25P02", "P0001")


async def fail_with(db: Database, code: str) -> None:
    async with db.transaction(1) as connection:
        await connection.execute(
            f"DO $$ BEGIN RAISE EXCEPTION 'secret row' USING ERRCODE = '{code}'; END $$"
        )


@pytest.mark.parametrize(("code", "words"), NOT_OURS.items())
async def test_a_failure_of_the_database_is_unavailability(
    db: Database, code: str, words: str
) -> None:
    with pytest.raises(Unavailable, match=words) as raised:
        await fail_with(db, code)
    assert "secret row" not in f"{raised.value.message} {raised.value.details}"
    assert (raised.value.retry_after_seconds is None) == (code == "57014")
    await db.check_ready()


async def test_a_pool_in_use_is_no_database_that_does_not_answer(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ACQUIRE_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        with pytest.raises(Unavailable, match="connections to the database are in use") as raised:
            while True:
                await stack.enter_async_context(db.acquire(1))
    assert raised.value.retry_after_seconds is not None
    assert "WATCHBILL_POOL_SIZE" in (raised.value.details or "")
    await db.check_ready()


@pytest.mark.parametrize(
    ("error", "message", "is_explained"),
    [
        (asyncpg.InvalidPasswordError("x"), "cannot refill: The database refuses the login.", True),
        (asyncpg.UndefinedTableError("x"), "cannot refill", False),
    ],
)
def test_the_drivers_pool_logs_a_traceback_only_of_what_nobody_expected(
    error: Exception, message: str, is_explained: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asyncpg.pool"):
        logging.getLogger("asyncpg.pool").warning("cannot %s", "refill", exc_info=error)
    [record] = caplog.records
    assert record.getMessage() == message
    assert (record.exc_info is None) == is_explained


async def test_who_waits_for_a_lock_is_told_of_it_before_the_statement_times_out(
    db: Database,
) -> None:
    async with db.transaction(1) as connection:
        for seconds in (None, 60):
            if seconds is not None:
                await allow_seconds(connection, seconds)
            limits = [
                await connection.fetchval(
                    "SELECT extract(epoch FROM current_setting($1)::interval)", name
                )
                for name in ("lock_timeout", "statement_timeout")
            ]
            assert limits == ([60, 60] if seconds else [4.5, 5])


@pytest.mark.parametrize("code", OURS)
async def test_a_bug_stays_a_bug(db: Database, code: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as raised:
        await fail_with(db, code)
    assert raised.value.sqlstate == code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        asyncpg.ProtocolError("unexpected"),
        asyncpg.TargetServerAttributeNotMatched("no primary"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_driver_says_of_a_broken_connection(error: Exception) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.kind is FailureKind.RETRYABLE


def test_a_row_that_row_security_refuses_is_a_bug() -> None:
    error = asyncpg.InsufficientPrivilegeError(
        'new row violates row-level security policy for table "workload"'
    )
    assert failure_of(error) is None


async def test_a_read_only_database_is_read_but_not_ready(db: Database, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await owner.close()
    async with opened(database_url) as read_only:
        async with read_only.acquire(1) as connection:
            assert await connection.fetchval("SELECT count(*) FROM workload") == 0
        with pytest.raises(Unavailable, match="read-only"):
            async with read_only.acquire(1) as connection:
                await connection.execute("DELETE FROM workload WHERE tenant_id = 1")
        with pytest.raises(Unavailable, match="read-only"):
            await read_only.check_ready()


async def test_a_database_that_refuses_us_says_what_to_change(database_url: str) -> None:
    parts = urlsplit(database_url)
    missing = urlunsplit(parts._replace(path="/no_such_database"))
    with pytest.raises(Unavailable, match="does not exist") as raised:
        await migrate(missing)
    assert raised.value.details is not None
    assert "WATCHBILL_DATABASE_URL" in raised.value.details


@asynccontextmanager
async def opened(url: str):  # type: ignore[no-untyped-def]
    database = await Database.open(url, pool_size=2)
    try:
        yield database
    finally:
        await database.close()
