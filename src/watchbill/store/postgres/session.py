"""One connection of the pool: it acts as `watchbill_app`, for one tenant at a time.

Straight to PostgreSQL, role, limits and tenant are settings of the session, and statements stay prepared.
Behind a pooler the next transaction may run in another backend, or in this one for somebody else: each
transaction sets them for itself, in the round trip that begins it, and nothing stays prepared.
"""

from typing import Any

import asyncpg

from watchbill.store.postgres.migrate import APP_ROLE
from watchbill.tracing.tracing import Tracing


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
            self._begin_with("")
        if tracing.is_on:
            self.add_query_logger(
                lambda query: tracing.record_query(query.query, query.elapsed, query.exception)
            )

    async def set_tenant(self, tenant_id: int) -> None:
        """For what follows; behind a pooler, for the transactions that follow."""
        if not self.is_direct:
            self._begin_with(str(int(tenant_id)))
        elif self._tenant_id != tenant_id:
            self._tenant_id = None
            await self.execute(
                "SELECT set_config('watchbill.tenant_id', $1, false)", str(tenant_id)
            )
            self._tenant_id = tenant_id

    def set_no_tenant(self) -> None:
        """Behind a pooler the transactions that follow begin without one; else each must unset it itself."""
        if not self.is_direct:
            self._begin_with("")

    def _begin_with(self, tenant: str) -> None:
        settings = (*self._settings, f"watchbill.tenant_id = '{tenant}'")
        self._first_statements = "; ".join(f"SET LOCAL {setting}" for setting in settings)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """As the driver's. Behind a pooler a transaction begins with its settings."""
        if self._first_statements and not args and query.startswith("BEGIN"):
            query = f"{query.removesuffix(';')}; {self._first_statements}"
        status: str = await super().execute(query, *args, **options)
        return status
