"""The pool: connections that act as `watchbill_app` for one tenant at a time, and errors that people can read.

Row security reads the setting `watchbill.tenant_id`, which `session.py` sets.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self, cast

import asyncpg

from watchbill.errors import Unavailable
from watchbill.store.postgres.errors import FAILURES, DatatypeMismatch, translated
from watchbill.store.postgres.migrate import APP_ROLE, known_revisions
from watchbill.store.postgres.session import Session
from watchbill.tracing.tracing import NO_TRACING, Tracing

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy

Row = asyncpg.Record

LISTENER_TIMEOUT_SECONDS = 5.0
READY_TIMEOUT_SECONDS = 2.0


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

    def __init__(self, pool: asyncpg.Pool, listening_url: str | None) -> None:
        self._pool = pool
        self._listening_url = listening_url

    @classmethod
    async def open(
        cls,
        database_url: str,
        *,
        direct_url: str | None = None,
        pool_size: int = 10,
        statement_timeout_seconds: float = 5.0,
        tracing: Tracing = NO_TRACING,
    ) -> Self:
        """`direct_url`: the same database without a pooler between. Raises Unavailable when the database does
        not answer."""

        async def set_up(connection: asyncpg.Connection) -> None:
            await cast("Session", connection).set_up(
                statement_timeout_seconds=statement_timeout_seconds, tracing=tracing
            )

        async with translated():
            pool = await asyncpg.create_pool(
                database_url,
                min_size=min(2, pool_size),
                max_size=pool_size,
                connection_class=Session,
                init=set_up,
                statement_cache_size=512,
                server_settings={"application_name": "watchbill"},
            )
            async with pool.acquire() as connection:
                is_direct = _session(connection).is_direct
        return cls(pool, direct_url or (database_url if is_direct else None))

    async def close(self) -> None:
        await self._pool.close()

    @property
    def can_listen(self) -> bool:
        """Whether notifications arrive: behind a pooler, only by a direct connection."""
        return self._listening_url is not None

    @asynccontextmanager
    async def acquire(self, tenant_id: int) -> AsyncIterator[Connection]:
        """A connection that sees this tenant only; behind a pooler all that is done with it is one transaction.
        Raises Unavailable, also for what happens inside."""
        async with self._for_tenant(tenant_id) as connection:
            if _session(connection).is_direct:
                yield connection
            else:
                async with connection.transaction():
                    yield connection

    @asynccontextmanager
    async def transaction(self, tenant_id: int) -> AsyncIterator[Connection]:
        """As `acquire`, inside one transaction."""
        async with self._for_tenant(tenant_id) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self, tenant_id: int) -> AsyncIterator[Connection]:
        """As `acquire`; all reads see the same moment."""
        async with (
            self._for_tenant(tenant_id) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def _for_tenant(self, tenant_id: int) -> AsyncIterator[Connection]:
        async with translated(), self._pool.acquire(timeout=5.0) as connection:
            session = _session(connection)
            await session.set_tenant(tenant_id)
            try:
                yield connection
            except DatatypeMismatch:  # a newer server has migrated: what is known of types is old
                await session.reload_schema_state()
                raise

    @asynccontextmanager
    async def by_handle(self, handle: str, value: str) -> AsyncIterator[Connection]:
        """A connection that sees the one row whose handle is named, before its tenant is known.

        `handle` is `client_id` (account), `session`, `refresh_token` (hex of the token's hash) or
        `cluster_id`.
        """
        async with translated(), self._pool.acquire(timeout=5.0) as connection:
            _session(connection).set_no_tenant()
            async with connection.transaction():
                await connection.execute(
                    "SELECT set_config('watchbill.tenant_id', '', true), set_config($1, $2, true)",
                    f"watchbill.{handle}",
                    value,
                )
                yield connection

    @asynccontextmanager
    async def listening(
        self, channel: str, notify: Callable[[str], None], *, lost: Callable[[], None]
    ) -> AsyncIterator[NotificationListener]:
        """Calls `notify` with what is notified on the channel, and `lost` when nothing more will be. Outside
        the pool, which keeps no listeners. Only where `can_listen`."""
        async with translated():
            connection = await asyncpg.connect(
                self._listening_url,
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


def _session(connection: Connection) -> Session:
    session: Session = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
    return session
