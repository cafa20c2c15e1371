"""The pool: connections that act as `watchbill_app` for one tenant at a time, and errors that people can read.

Row security reads the setting `watchbill.tenant_id`; it is changed only when a pooled connection changes
tenant.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

import asyncpg

from watchbill.errors import Unavailable
from watchbill.store.postgres.errors import FAILURES, DatatypeMismatch, translated
from watchbill.store.postgres.migrate import APP_ROLE, known_revisions

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy

Row = asyncpg.Record

LISTENER_TIMEOUT_SECONDS = 5.0
READY_TIMEOUT_SECONDS = 2.0


class _TenantConnection(asyncpg.Connection):
    """Remembers which tenant the session is set to.

    There is nothing to reset when it goes back to the pool: role and tenant stay, a transaction left open is
    rolled back by the driver, and no code here keeps a session lock, a listener or a cursor beyond one. A reset
    would cost every request a round trip.
    """

    tenant_id: int | None = None

    def get_reset_query(self) -> str:
        return ""


class NotificationListener:
    """A connection of its own that receives notifications until it is lost."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def is_lost(self) -> bool:
        return bool(self._connection.is_closed())

    async def check(self) -> None:
        """A connection can be dead without anybody being told. Raises Unavailable."""
        async with translated():
            await self._connection.fetchval("SELECT true", timeout=LISTENER_TIMEOUT_SECONDS)


class Database:
    """One PostgreSQL, reached through a pool. All reads and writes start at `acquire`."""

    def __init__(self, pool: asyncpg.Pool, database_url: str) -> None:
        self._pool = pool
        self._database_url = database_url

    @classmethod
    async def open(
        cls, database_url: str, *, pool_size: int = 10, statement_timeout_seconds: float = 5.0
    ) -> Self:
        """Raises Unavailable when the database does not answer."""

        settings = (
            f"SET ROLE {APP_ROLE}; SET statement_timeout = {int(statement_timeout_seconds * 1000)}; "
            "SET timezone = 'UTC'; SET jit = off"
        )

        async def prepare(connection: asyncpg.Connection) -> None:
            # Not as startup parameters: PgBouncer accepts few of these.
            await connection.execute(settings)

        async with translated():
            pool = await asyncpg.create_pool(
                database_url,
                min_size=min(2, pool_size),
                max_size=pool_size,
                connection_class=_TenantConnection,
                init=prepare,
                statement_cache_size=512,
                server_settings={"application_name": "watchbill"},
            )
        return cls(pool, database_url)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def acquire(self, tenant_id: int) -> AsyncIterator[Connection]:
        """A connection that sees this tenant only. Raises Unavailable, also for what happens inside."""
        async with translated(), self._pool.acquire(timeout=5.0) as connection:
            session: _TenantConnection = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
            if session.tenant_id != tenant_id:
                session.tenant_id = None
                await session.execute(
                    "SELECT set_config('watchbill.tenant_id', $1, false)", str(tenant_id)
                )
                session.tenant_id = tenant_id
            try:
                yield connection
            except DatatypeMismatch:  # a newer server has migrated: what is known of types is old
                await session.reload_schema_state()
                raise

    @asynccontextmanager
    async def transaction(self, tenant_id: int) -> AsyncIterator[Connection]:
        """As `acquire`, inside one transaction."""
        async with self.acquire(tenant_id) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def by_handle(self, handle: str, value: str) -> AsyncIterator[Connection]:
        """A connection that sees the one row whose handle is named, before its tenant is known.

        `handle` is `client_id` (account), `session`, `refresh_token` (hex of the token's hash) or
        `cluster_id`.
        """
        async with translated(), self._pool.acquire(timeout=5.0) as connection:
            session: _TenantConnection = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
            session.tenant_id = None
            async with connection.transaction():
                await connection.execute(
                    "SELECT set_config('watchbill.tenant_id', '', false), set_config($1, $2, true)",
                    f"watchbill.{handle}",
                    value,
                )
                yield connection

    @asynccontextmanager
    async def listening(
        self, channel: str, notify: Callable[[str], None], *, lost: Callable[[], None]
    ) -> AsyncIterator[NotificationListener]:
        """Calls `notify` with what is notified on the channel, and `lost` when nothing more will be. Outside
        the pool, which keeps no listeners."""
        async with translated():
            connection = await asyncpg.connect(
                self._database_url,
                timeout=LISTENER_TIMEOUT_SECONDS,
                server_settings={"application_name": "watchbill listener"},
            )
            try:
                await connection.execute(f"SET ROLE {APP_ROLE}")
                connection.add_termination_listener(lambda _: lost())
                await connection.add_listener(
                    channel, lambda *notification: notify(str(notification[-1]))
                )
                yield NotificationListener(connection)
            finally:
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                    await connection.close(timeout=LISTENER_TIMEOUT_SECONDS)

    async def check_ready(self) -> None:
        """Raises Unavailable, with the reason, unless the database answers, accepts writes and is migrated.

        A newer version's schema is in order: its servers take the place of ours one by one.
        """
        async with translated(), self._pool.acquire(timeout=READY_TIMEOUT_SECONDS) as connection:
            is_read_only = await connection.fetchval(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool",
                timeout=READY_TIMEOUT_SECONDS,
            )
            revision = await connection.fetchval(
                "SELECT version_num FROM public.alembic_version", timeout=READY_TIMEOUT_SECONDS
            )
        if is_read_only:
            failure = FAILURES["25006"]
            raise Unavailable(
                failure.message,
                details=failure.details,
                retry_after_seconds=failure.retry_after_seconds,
            )
        if revision in known_revisions()[1:]:
            raise Unavailable(
                f"The database has the older schema {revision}.",
                details="Somebody restored an old backup into it: restart the server, which migrates.",
                retry_after_seconds=60,
            )
