"""The pool: connections that act as `watchbill_app` for one tenant at a time, and errors that people can
read.

Row security reads the setting `watchbill.tenant_id`. Straight to PostgreSQL, role, limits and tenant are
settings of the session, and statements stay prepared. Behind a pooler the next transaction may run in another
backend, or in this one for somebody else: each transaction sets them for itself, in the round trip that
begins it, and nothing stays prepared. A pooler is known by the process id that a connection is given, which
is no backend's; one that would mix tenants or lose notifications is refused.

The schema's role and revisions are named here too; `migrate` changes the schema. Alembic is loaded on demand:
it takes longer than the rest of this package together.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import asyncpg

from watchbill.errors import Invalid, Unavailable
from watchbill.store.postgres.errors import (
    FAILURES,
    DatatypeMismatch,
    PoolExhausted,
    translated,
    translation,
)
from watchbill.tracing.tracing import NO_TRACING, Tracing

if TYPE_CHECKING:
    from alembic.config import Config

APP_ROLE = "watchbill_app"


def migration_config() -> "Config":
    """Where Alembic finds the revisions."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("watchbill.store.postgres") / "migrations"))
    config.set_main_option("recursive_version_locations", "true")
    return config


@cache
def known_revisions() -> tuple[str, ...]:
    """Of the schema, the present one first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migration_config())
    return tuple(script.revision for script in scripts.walk_revisions())


_HANDLE = re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII)


class Session(asyncpg.Connection):
    """There is nothing to reset when it goes back to the pool: a transaction left open is rolled back by the
    driver, and no code here keeps a session lock, a listener or a cursor beyond one. A reset would cost every
    request a round trip.
    """

    is_direct = False
    """Whether no pooler stands between: the backend is the one that the connection was opened to."""
    _settings: tuple[str, ...] = ()
    _tenant_id: int | None = None
    _first_statements = ""

    def get_reset_query(self) -> str:
        return ""

    async def set_up(self, *, statement_timeout_seconds: float, tracing: Tracing) -> None:
        """Before its first use. Not as startup parameters, of which PgBouncer accepts few."""
        self._settings = (
            f"ROLE {APP_ROLE}",
            f"statement_timeout = {int(statement_timeout_seconds * 1000)}",
            # Sooner, so that whoever waits for a migration learns that, and not to narrow the query.
            f"lock_timeout = {int(statement_timeout_seconds * 900)}",
            "timezone = 'UTC'",
            "jit = off",
        )
        self._stmt_cache_enabled = False
        backend = await self.fetchval("SELECT pg_backend_pid()")
        self.is_direct = backend == self.get_server_pid()
        self._stmt_cache_enabled = self.is_direct
        if self.is_direct:
            await self.execute("; ".join(f"SET {setting}" for setting in self._settings))
        else:
            self._begin_with("", *self._settings)
        if tracing.is_on:
            self.add_query_logger(
                lambda query: tracing.record_query(query.query, query.elapsed, query.exception)
            )

    async def set_tenant(self, tenant_id: int) -> None:
        """For what follows; behind a pooler, for the transactions that follow."""
        if not self.is_direct:
            self._begin_with(str(int(tenant_id)), *self._settings)
        elif self._tenant_id != tenant_id:
            self._tenant_id = None
            await self.execute(
                "SELECT set_config('watchbill.tenant_id', $1, false)", str(tenant_id)
            )
            self._tenant_id = tenant_id

    @contextmanager
    def handle(self, handle: str, value: str) -> Iterator[None]:
        """Within, transactions begin without a tenant and with this handle, in one round trip. Raises
        ValueError for a value that is no handle's."""
        if _HANDLE.fullmatch(value) is None:
            raise ValueError("not the value of a handle")
        settings = () if self.is_direct else self._settings
        self._begin_with("", *settings, f"watchbill.{handle} = '{value}'")
        try:
            yield
        finally:
            if self.is_direct:
                self._first_statements = ""
            else:
                self._begin_with("", *self._settings)

    def _begin_with(self, tenant: str, *settings: str) -> None:
        settings = (*settings, f"watchbill.tenant_id = '{tenant}'")
        self._first_statements = "; ".join(f"SET LOCAL {setting}" for setting in settings)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """As the driver's. A transaction begins with what is to be set first."""
        if self._first_statements and not args and query.startswith("BEGIN"):
            query = f"{query.removesuffix(';')}; {self._first_statements}"
        status: str = await super().execute(query, *args, **options)
        return status


_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Route:
    """How an address leads to PostgreSQL."""

    is_pooled: bool
    """Something between gives connections process ids of its own."""
    is_shared: bool
    """Two open connections meet the same backend, or one meets two."""


async def check_pooler(database_url: str, direct_url: str | None) -> Route:
    """Of `database_url`. Raises Invalid where a pooler shares backends and hides it, and where `direct_url`
    leads to one that shares them; Unavailable where the database does not answer, or not with transactions.
    """
    async with translated():
        route = await _route(database_url)
        direct = await _route(direct_url) if direct_url is not None else None
    if route.is_shared and not route.is_pooled:
        raise Invalid(
            "A pooler in front of the database shares connections between sessions and hides it.",
            details="Tenants could be mixed. Name the database itself in WATCHBILL_DATABASE_URL, or PgBouncer.",
        )
    if direct is not None and direct.is_shared:
        raise Invalid(
            "WATCHBILL_DATABASE_DIRECT_URL leads to a connection pooler in transaction mode.",
            details="Notifications need a connection that lasts: name the database itself.",
        )
    return route


async def check_direct(database_url: str) -> None:
    """For what goes on over several connections, and sets roles for longer than a transaction. Raises Invalid
    where a pooler shares connections, Unavailable where the database does not answer."""
    async with translated():
        route = await _route(database_url)
    if route.is_shared:
        raise Invalid(
            "A connection pooler in transaction mode stands before the database.",
            details="Name the database itself: --database-url, or WATCHBILL_DATABASE_DIRECT_URL.",
        )


async def _route(url: str) -> Route:
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connection = await asyncpg.connect(url, statement_cache_size=0)
            stack.callback(connection.terminate)
            connections.append(connection)
        backends: list[set[int]] = [set(), set()]
        for _ in range(_ATTEMPTS):
            for connection, pids in zip(connections, backends, strict=True):
                async with connection.transaction():
                    pids.add(await connection.fetchval("SELECT pg_backend_pid()"))
        named = {connection.get_server_pid() for connection in connections}
    is_shared = bool(backends[0] & backends[1]) or any(len(pids) > 1 for pids in backends)
    return Route(is_pooled=not named & (backends[0] | backends[1]), is_shared=is_shared)


if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy

Row = asyncpg.Record

ACQUIRE_SECONDS = 5.0
LISTENER_TIMEOUT_SECONDS = 5.0
READY_TIMEOUT_SECONDS = 2.0


async def fetch_only_row(connection: Connection, sql: str, *parameters: Any) -> Row:
    """Of a statement that yields one row, which several processes of PostgreSQL may work out. They may not
    where a driver asks for the first row only, as `fetchrow` and `fetchval` do."""
    (row,) = await connection.fetch(sql, *parameters)
    return row


async def allow_seconds(connection: Connection, seconds: float) -> None:
    """How long each further statement of this transaction may take, and wait for locks."""
    milliseconds = int(seconds * 1000)
    await connection.execute(
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"
    )


@dataclass(frozen=True, slots=True)
class _SessionOptions:
    statement_timeout_seconds: float
    tracing: Tracing

    async def set_up(self, connection: asyncpg.Connection) -> None:
        await cast("Session", connection).set_up(
            statement_timeout_seconds=self.statement_timeout_seconds, tracing=self.tracing
        )


async def _pool(url: str, least: int, most: int, options: _SessionOptions) -> asyncpg.Pool:
    return await asyncpg.create_pool(
        url,
        min_size=least,
        max_size=most,
        connection_class=Session,
        init=options.set_up,
        statement_cache_size=512,
        server_settings={"application_name": "watchbill"},
    )


class NotificationListener:
    """A connection of its own that receives notifications until it is lost."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def is_lost(self) -> bool:
        return bool(self._connection.is_closed())

    async def check(self) -> None:
        """A connection can be dead without anybody noticing. Raises Unavailable."""
        async with translated():
            await self._connection.fetchval("SELECT true", timeout=LISTENER_TIMEOUT_SECONDS)


class _Lease:
    """A connection for one tenant, until the block ends; `is_one_transaction`: behind a pooler. A class, since
    every request takes one and a generator costs more. Raises Unavailable."""

    def __init__(
        self, pool: asyncpg.Pool, tenant_id: int, *, is_one_transaction: bool = False
    ) -> None:
        self._pool = pool
        self._tenant_id = tenant_id
        self._is_one_transaction = is_one_transaction
        self._transaction: asyncpg.transaction.Transaction | None = None

    async def __aenter__(self) -> Connection:
        async with translated():
            try:
                async with asyncio.timeout(ACQUIRE_SECONDS):
                    self._connection = await self._pool.acquire()
            except TimeoutError as error:
                if self._pool.get_size() < self._pool.get_max_size():
                    raise  # it could not make another one
                raise PoolExhausted from error
            try:
                await self._begin(_session(self._connection))
            except BaseException:
                await self._pool.release(self._connection)
                raise
        return self._connection

    async def _begin(self, session: Session) -> None:
        await session.set_tenant(self._tenant_id)
        if self._is_one_transaction and not session.is_direct:
            self._transaction = self._connection.transaction()
            await self._transaction.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with translated():
            try:
                if self._transaction is not None:
                    await self._transaction.__aexit__(kind, error, trace)
                if isinstance(error, DatatypeMismatch):  # a newer server has migrated
                    await _session(self._connection).reload_schema_state()
            finally:
                await self._pool.release(self._connection)
        if (meant := translation(error)) is not None:
            raise meant from error


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
        options = _SessionOptions(statement_timeout_seconds, tracing)
        async with translated():
            pool = await _pool(database_url, min(2, pool_size), pool_size, options)
            async with pool.acquire() as connection:
                is_direct = _session(connection).is_direct
        return cls(pool, direct_url or (database_url if is_direct else None))

    @classmethod
    async def open_standby(
        cls,
        database_url: str,
        *,
        pool_size: int,
        statement_timeout_seconds: float,
        tracing: Tracing,
    ) -> Self:
        """To read from; it connects when it is first asked, so that a standby may be away. Raises Unavailable
        where the address cannot be used."""
        options = _SessionOptions(statement_timeout_seconds, tracing)
        async with translated():
            return cls(await _pool(database_url, 0, pool_size, options), None)

    async def close(self) -> None:
        await self._pool.close()

    @property
    def can_listen(self) -> bool:
        """Whether notifications arrive: behind a pooler, only by a direct connection."""
        return self._listening_url is not None

    def acquire(self, tenant_id: int) -> AbstractAsyncContextManager[Connection]:
        """A connection that sees this tenant only; behind a pooler all that is done with it is one transaction.
        Raises Unavailable, also for what happens inside."""
        return _Lease(self._pool, tenant_id, is_one_transaction=True)

    @asynccontextmanager
    async def transaction(self, tenant_id: int) -> AsyncIterator[Connection]:
        """As `acquire`, inside one transaction."""
        async with _Lease(self._pool, tenant_id) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self, tenant_id: int) -> AsyncIterator[Connection]:
        """As `acquire`; all reads see the same moment."""
        async with (
            _Lease(self._pool, tenant_id) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def by_handle(self, handle: str, value: str) -> AsyncIterator[Connection]:
        """A connection that sees the one row whose handle is named, before its tenant is known.

        `handle` is `client_id` (account), `session`, `refresh_token` (hex of the token's hash) or
        `cluster_id`.
        """
        async with translated(), self._pool.acquire(timeout=5.0) as connection:
            with _session(connection).handle(handle, value):
                async with connection.transaction():
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
