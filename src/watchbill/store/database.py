"""The pool: connections that act as `watchbill_app` for one tenant at a time, and errors that people can read.

Row security reads the setting `watchbill.tenant_id`; it is changed only when a pooled connection changes
tenant.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import asyncpg

from watchbill.errors import Unavailable, WatchbillError
from watchbill.store.migrate import APP_ROLE

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy

RETRY_AFTER_SECONDS = 2


class _TenantConnection(asyncpg.Connection):
    """Remembers which tenant the session is set to.

    There is nothing to reset when it goes back to the pool: role and tenant stay, a transaction left open is
    rolled back by the driver, and no code here keeps a session lock, a listener or a cursor beyond one. A reset
    would cost every request a round trip.
    """

    tenant_id: int | None = None

    def get_reset_query(self) -> str:
        return ""


class Database:
    """One PostgreSQL, reached through a pool. All reads and writes start at `acquire`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(
        cls, database_url: str, *, pool_size: int = 10, statement_timeout_seconds: float = 5.0
    ) -> Self:
        """Raises Unavailable when the database does not answer."""

        async def set_role(connection: asyncpg.Connection) -> None:
            await connection.execute(f"SET ROLE {APP_ROLE}")

        async with _translated():
            pool = await asyncpg.create_pool(
                database_url,
                min_size=min(2, pool_size),
                max_size=pool_size,
                connection_class=_TenantConnection,
                init=set_role,
                statement_cache_size=512,
                server_settings={
                    "application_name": "watchbill",
                    "statement_timeout": str(int(statement_timeout_seconds * 1000)),
                    "timezone": "UTC",
                    "jit": "off",
                },
            )
        return cls(pool)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def acquire(self, tenant_id: int) -> AsyncIterator[Connection]:
        """A connection that sees this tenant only. Raises Unavailable, also for what happens inside."""
        async with _translated(), self._pool.acquire(timeout=5.0) as connection:
            session: _TenantConnection = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
            if session.tenant_id != tenant_id:
                session.tenant_id = None
                await session.execute(
                    "SELECT set_config('watchbill.tenant_id', $1, false)", str(tenant_id)
                )
                session.tenant_id = tenant_id
            yield connection

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
        async with _translated(), self._pool.acquire(timeout=5.0) as connection:
            session: _TenantConnection = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
            session.tenant_id = None
            async with connection.transaction():
                await connection.execute(
                    "SELECT set_config('watchbill.tenant_id', '', false), set_config($1, $2, true)",
                    f"watchbill.{handle}",
                    value,
                )
                yield connection

    async def is_ready(self) -> bool:
        """Whether the database answers now."""
        try:
            async with _translated(), self._pool.acquire(timeout=2.0) as connection:
                return bool(await connection.fetchval("SELECT true", timeout=2.0))
        except Unavailable:
            return False


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Database errors as ours, the original kept as cause."""
    try:
        yield
    except WatchbillError:
        raise
    except asyncpg.QueryCanceledError as error:
        raise Unavailable(
            "The question took too long to answer.",
            details="Narrow it: fewer or more selective filters, a longer search text, a smaller page.",
        ) from error
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.DiskFullError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    ) as error:
        raise Unavailable(
            "The database does not answer.", retry_after_seconds=RETRY_AFTER_SECONDS
        ) from error
