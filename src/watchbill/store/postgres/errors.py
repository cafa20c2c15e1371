"""What a failure of the database means: one table from SQLSTATE codes to what we say and what can be done.

Whatever is not listed here is a bug of ours and passes through as it is. The codes are those of PostgreSQL's
appendix "Error Codes"; a row names a whole code, or the first two characters of a class.
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

import asyncpg

from watchbill.addresses import without_password
from watchbill.errors import Unavailable, WatchbillError

RETRY_AFTER_SECONDS = 2
REFUSED_RETRY_SECONDS = 30

UniqueViolation = asyncpg.UniqueViolationError
CheckViolation = asyncpg.CheckViolationError
DatatypeMismatch = asyncpg.DatatypeMismatchError


class FailureKind(Enum):
    RETRYABLE = "retryable"
    """It passes by itself: a restart, a failover, a conflict, a shortage."""
    READ_ONLY = "read-only"
    """Reads work, writes do not."""
    REFUSED = "refused"
    """The database does not let us: somebody must change its configuration or ours."""
    TIMEOUT = "timeout"
    """The statement ran longer than allowed."""


@dataclass(frozen=True, slots=True)
class DatabaseFailure:
    kind: FailureKind
    message: str
    details: str | None = None

    @property
    def retry_after_seconds(self) -> int | None:
        """None where the same statement would time out again."""
        if self.kind is FailureKind.TIMEOUT:
            return None
        return REFUSED_RETRY_SECONDS if self.kind is FailureKind.REFUSED else RETRY_AFTER_SECONDS


_RETRYABLE, _REFUSED = FailureKind.RETRYABLE, FailureKind.REFUSED
_DISCONNECTED = DatabaseFailure(_RETRYABLE, "The database does not answer.")
_CONFLICT = DatabaseFailure(_RETRYABLE, "The database was busy with a conflicting change.")
_SCHEMA_CHANGED = DatabaseFailure(_RETRYABLE, "The database's schema has just changed.")
_PGBOUNCER = DatabaseFailure(
    _REFUSED,
    "The connection pooler in front of the database mixes prepared statements.",
    "Restart the server if a pooler was put in front of the database while it ran.",
)

FAILURES: dict[str, DatabaseFailure] = {
    "08": _DISCONNECTED,
    "08P01": DatabaseFailure(
        _REFUSED,
        "The database, or a pooler before it, rejects the connection.",
        "Its log says why. PgBouncer works with pool_mode = session or transaction, not statement.",
    ),
    "0A000": _SCHEMA_CHANGED,  # cached plans
    "25006": DatabaseFailure(
        FailureKind.READ_ONLY,
        "The database is read-only.",
        "It may be a replica, or a primary that is being replaced. Reading works; nothing can be stored.",
    ),
    "25P03": _DISCONNECTED,  # idle_in_transaction_session_timeout
    "25P04": _DISCONNECTED,  # transaction_timeout
    "26000": _PGBOUNCER,
    "28": DatabaseFailure(
        _REFUSED,
        "The database refuses the login.",
        "Check user and password in WATCHBILL_DATABASE_URL and the database's pg_hba.conf.",
    ),
    "3D000": DatabaseFailure(
        _REFUSED, "The database does not exist.", "Create it, or correct WATCHBILL_DATABASE_URL."
    ),
    "40": _CONFLICT,
    "42804": _SCHEMA_CHANGED,  # rows that are written whole, by a connection older than a migration
    "42501": DatabaseFailure(
        _REFUSED,
        "The database denies a permission.",
        "The database's log names the object. Migrations grant what the role watchbill_app needs.",
    ),
    "42P05": _PGBOUNCER,
    "53100": DatabaseFailure(
        _RETRYABLE, "The database's disk is full.", "Free space on the database's volume."
    ),
    "53200": DatabaseFailure(_RETRYABLE, "The database is out of memory."),
    "53300": DatabaseFailure(
        _RETRYABLE,
        "The database has no connection left.",
        "Raise max_connections, or lower WATCHBILL_POOL_SIZE.",
    ),
    "53": DatabaseFailure(_RETRYABLE, "The database is short of a resource.", "Its log names it."),
    "55P03": DatabaseFailure(
        _RETRYABLE,
        "The database is busy with a conflicting change.",
        "Something holds a lock for long, perhaps the migration to a newer version: try again.",
    ),
    "57014": DatabaseFailure(
        FailureKind.TIMEOUT,
        "The query timed out.",
        "The database is slow or busy: try again, or narrow the query (more selective filters, a longer search "
        "text, fewer days or hours, a smaller page).",
    ),
    "57P": DatabaseFailure(_RETRYABLE, "The database is restarting."),
    "58": DatabaseFailure(_RETRYABLE, "The database's storage fails.", "See the database's log."),
    "F0": DatabaseFailure(
        _REFUSED, "The database's configuration is invalid.", "See the database's log."
    ),
    "XX": DatabaseFailure(
        _RETRYABLE, "The database reports an internal error.", "See the database's log."
    ),
}

_UNUSABLE_ADDRESS = DatabaseFailure(
    _REFUSED,
    "The address of the database cannot be used.",
    "Correct its options in WATCHBILL_DATABASE_URL: sslmode, the files of its certificates, the user.",
)
_POOL_EXHAUSTED = DatabaseFailure(
    _RETRYABLE,
    "All of the server's connections to the database are in use.",
    "Try again. If it lasts, the database is slow, or WATCHBILL_POOL_SIZE is too small for this many requests.",
)
_TLS = DatabaseFailure(
    _REFUSED,
    "The TLS connection to the database fails.",
    "Check sslmode and sslrootcert in WATCHBILL_DATABASE_URL, and the database's certificate.",
)


class PoolExhausted(Exception):
    """Every connection of a pool was in use for as long as a request waits for one."""


_NAMED_ERRORS: tuple[tuple[type[Exception], DatabaseFailure], ...] = (
    (PoolExhausted, _POOL_EXHAUSTED),
    (asyncpg.exceptions.ClientConfigurationError, _UNUSABLE_ADDRESS),
    (ssl.SSLError, _TLS),
)
"""What has a sentence of its own."""
_DRIVER_ERRORS = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    EOFError,
)
"""A connection that broke, was closed or answers what the driver does not understand."""


def failure_of(error: BaseException) -> DatabaseFailure | None:
    """What the error means; None where it is a bug of ours."""
    if isinstance(error, asyncpg.PostgresError):
        if "statement pooling mode" in str(error):
            return FAILURES["08P01"]
        code: str = getattr(error, "sqlstate", None) or ""
        if code == "42501" and "row-level security" in str(error):
            return None
        for prefix in (code, code[:3], code[:2]):
            if prefix in FAILURES:
                return FAILURES[prefix]
        return None
    for kind, failure in _NAMED_ERRORS:
        if isinstance(error, kind):
            return failure
    return _DISCONNECTED if isinstance(error, _DRIVER_ERRORS) else None


class _KnownFailures(logging.Filter):
    """Of what the driver's pool logs: our sentence in place of a traceback a second while a failure lasts."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        failure = failure_of(error) if error is not None else None
        if failure is not None:
            record.msg, record.args = f"{record.getMessage()}: {failure.message}", ()
            record.exc_info = record.exc_text = None
        return True


logging.getLogger("asyncpg.pool").addFilter(_KnownFailures())


class _Translated:
    """A class, since every request comes through it and a generator costs more."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if (meant := translation(error)) is not None:
            raise meant from error


_TRANSLATED = _Translated()


def translated() -> _Translated:
    """Raises Unavailable in place of every failure in the table, the original as its cause."""
    return _TRANSLATED


def translation(error: BaseException | None) -> Unavailable | None:
    """What to raise in place of the error; None = the error itself, if there is one."""
    if not isinstance(error, Exception) or isinstance(error, WatchbillError):
        return None
    failure = failure_of(error)
    if failure is None:
        return None
    return Unavailable(
        failure.message,
        details=failure.details,
        retry_after_seconds=failure.retry_after_seconds,
    )


@asynccontextmanager
async def naming_database(url: str | None) -> AsyncIterator[None]:
    """Raises what was raised, with the address of a named database and the cause beside it: for a start,
    where somebody can correct the address. None = the embedded database, which has no address to correct."""
    try:
        yield
    except Unavailable as error:
        if url is None:
            raise
        cause = _cause(error.__cause__)
        lines = [
            *([error.details] if error.details else ()),
            f"WATCHBILL_DATABASE_URL is {without_password(url)}",
            *([f"the cause: {cause}"] if cause else ()),
        ]
        raise Unavailable(error.message, details="\n".join(lines)) from error


def _cause(error: BaseException | None) -> str:
    """In words, without the number that the operating system gives to it."""
    if isinstance(error, socket.gaierror):
        return "the host's name is not known; check it for a typing error"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused; check host and port, and that PostgreSQL listens there"
    if isinstance(error, TimeoutError):
        return "nothing answers at this host and port; a firewall may drop the packets"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error or "").partition("\nHINT:")[0].strip()


_VALUE_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (OverflowError, "A number in the record is too large to be stored."),
    (asyncpg.NumericValueOutOfRangeError, "A number in the record is too large to be stored."),
    (asyncpg.CharacterNotInRepertoireError, "A text holds a character that cannot be stored."),
    (asyncpg.UntranslatableCharacterError, "A text holds a character that cannot be stored."),
    (asyncpg.ProgramLimitExceededError, "A text is too long to be indexed."),
    (asyncpg.IntegrityConstraintViolationError, "The record contradicts what is stored already."),
)
VALUE_ERRORS = (
    OverflowError,
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.IntegrityConstraintViolationError,
)
"""A value cannot be stored, whoever sent it and however often."""


def value_reason(error: Exception) -> str:
    """Why a value cannot be stored, without the database's own message: it quotes the row."""
    for kind, reason in _VALUE_REASONS:
        if isinstance(error, kind):
            return reason
    return "A value in the record cannot be stored."
