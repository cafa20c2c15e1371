"""Brings a database to the present schema, at server start, under an advisory lock.

Two servers starting at once are safe: the second waits for the lock and finds nothing left to do. The role
`watchbill_app`, which pooled connections take on, is made here; without the right to make it, the start stops
with the statements that an administrator must run.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import structlog
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from watchbill.errors import Invalid
from watchbill.store.postgres.database import APP_ROLE, known_revisions, migration_config
from watchbill.store.postgres.errors import translated

_LOCK = 0x7761746368  # any number that only Watchbill uses
_LOCK_HOLDER = (
    "SELECT a.pid, host(a.client_addr) AS address, a.application_name AS application, "
    "a.backend_start::text AS since FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32) | l.objid::bigint = $1"
)
_LOG_EVERY_SECONDS = 10
_TABLES = text(
    "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') "
    "AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"
)
_LOCK_MILLISECONDS = 300
_LOCK_PAUSE_SECONDS = 0.3
_LOCK_ATTEMPTS = 200
_LOCK_NOT_AVAILABLE = "55P03"

log = structlog.get_logger(__name__)

_ROLE_STATEMENTS = (
    f"CREATE ROLE {APP_ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS",
    f"GRANT {APP_ROLE} TO CURRENT_USER",
)


async def migrate(database_url: str) -> None:
    """Apply every revision that is missing.

    Raises Invalid where the role cannot be made; Unavailable where the database does not answer or refuses
    us. Holds two connections; a pooler may stand between, as long as it keeps a transaction together.
    """
    async with translated(), _connection(database_url) as holder, _lock(holder):
        async with _connection(database_url) as connection:
            await ensure_role(connection)
            present = await _revision(connection)
        if present is not None:
            check_revision(present)
        is_used = present not in (None, known_revisions()[0])
        try:
            await asyncio.to_thread(asyncio.run, _upgrade(database_url, is_used=is_used))
        except DBAPIError as error:
            raise (error.driver_exception or error) from error


@asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Without statements that stay prepared, which a pooler loses."""
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _lock(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Waits without blocking the connection, so that a start can be ended, and says whom it waits for."""
    waited_seconds = 0
    while True:
        async with connection.transaction():
            if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield
                return
            if waited_seconds % _LOG_EVERY_SECONDS == 0:
                other = await connection.fetchrow(_LOCK_HOLDER, _LOCK)
                log.warning("waiting for another server's migration", other=dict(other or {}))
        waited_seconds += 1
        await asyncio.sleep(1.0)


async def ensure_role(connection: asyncpg.Connection) -> None:
    """Make the role that pooled connections take on. Raises Invalid with the statements where we may not."""
    create, grant = _ROLE_STATEMENTS
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP_ROLE):
            # Another database of the same server may make it at the same moment.
            with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                await connection.execute(create)
        if not await connection.fetchval(
            "SELECT pg_has_role(current_user, $1, 'MEMBER') AND NOT rolsuper "
            "FROM pg_roles WHERE rolname = current_user",
            APP_ROLE,
        ):
            await connection.execute(grant)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {APP_ROLE}")
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT current_user")
        raise Invalid(
            f"The database user {user} may not make the role {APP_ROLE}.",
            details="Let an administrator of the database run: "
            f'{create}; GRANT {APP_ROLE} TO "{user}";',
        ) from error


async def check_schema(database_url: str) -> None:
    """Raises Invalid unless the database has exactly this version's schema; Unavailable where it fails."""
    async with translated(), _connection(database_url) as connection:
        present = await _revision(connection)
    if present is None:
        raise Invalid(
            "The database has none of Watchbill's tables.",
            details="Start `watchbill server` on it once, or restore a backup into it.",
        )
    check_revision(present)
    current = known_revisions()[0]
    if present != current:
        raise Invalid(
            f"The data has the older schema {present}; this Watchbill works with {current}.",
            details="Start this version's `watchbill server` once, which migrates, or use the older version.",
        )


async def _revision(connection: asyncpg.Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    revision: str = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return revision


def check_revision(present: str) -> None:
    """Raises Invalid for a revision of the schema that this version does not know: it would misread it."""
    if present not in known_revisions():
        raise Invalid(
            f"The data has the schema {present} of a newer Watchbill; this one knows up to "
            f"{known_revisions()[0]}.",
            details="Start the newer version again, or restore a backup that this version made.",
        )


async def _upgrade(database_url: str, *, is_used: bool) -> None:
    """`is_used`: servers of an earlier version may work with it meanwhile."""

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(database_url, statement_cache_size=0)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        poolclass=NullPool,
        connect_args={
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",  # names could meet those of another server
        },
    )
    config = migration_config()
    try:
        async with engine.begin() as connection:
            config.attributes["connection"] = None

            def upgrade(sync_connection: object) -> None:
                config.attributes["connection"] = sync_connection
                command.upgrade(config, "head")

            # Whatever an administrator set for queries: an index of a large table takes longer.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            if is_used:
                await _lock_tables(connection)
            await connection.run_sync(upgrade)
            await connection.execute(text(f"GRANT SELECT ON public.alembic_version TO {APP_ROLE}"))
    finally:
        await engine.dispose()


async def _lock_tables(connection: AsyncConnection) -> None:
    """All at once, before anything is changed, giving up sooner than PostgreSQL looks for deadlocks: whoever
    reads and writes waits for the migration, and neither it nor they are broken off. Raises DBAPIError."""
    tables = ", ".join((await connection.execute(_TABLES)).scalars())
    await connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}"))
    for is_last in (*[False] * _LOCK_ATTEMPTS, True):
        try:
            async with connection.begin_nested():
                await connection.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
            break
        except DBAPIError as error:
            if is_last or getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            await asyncio.sleep(_LOCK_PAUSE_SECONDS)
    await connection.execute(text("SET LOCAL lock_timeout = 0"))
