"""Refuses a connection pooler that gives the session to somebody else between two transactions.

Tenants are told apart by a setting of the session, migrations lock it, and prepared statements live in it. What
stands behind a connection must therefore be one backend of PostgreSQL, for as long as the connection lasts.
"""

from contextlib import AsyncExitStack

import asyncpg

from watchbill.errors import Invalid

_ATTEMPTS = 3


async def check_pooler(database_url: str) -> None:
    """Raises Invalid where a pooler in transaction or statement mode stands before the database."""
    try:
        is_shared = await _is_shared(database_url)
    except asyncpg.PostgresConnectionError as error:
        if "pooling mode" not in str(
            error
        ):  # PgBouncer's words for a transaction in statement mode
            raise
        is_shared = True
    if is_shared:
        raise Invalid(
            "A connection pooler in transaction mode stands before the database.",
            details="Watchbill needs sessions of its own. Use the pooler's session mode (PgBouncer: "
            "pool_mode = session), or name the database itself in WATCHBILL_DATABASE_URL.",
        )


async def _is_shared(database_url: str) -> bool:
    """Whether two open connections ever meet the same backend, or one meets two."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connection = await asyncpg.connect(database_url, statement_cache_size=0)
            stack.callback(connection.terminate)
            connections.append(connection)
        backends: list[set[int]] = [set(), set()]
        for _ in range(_ATTEMPTS):
            for connection, pids in zip(connections, backends, strict=True):
                async with connection.transaction():
                    pids.add(await connection.fetchval("SELECT pg_backend_pid()"))
    return bool(backends[0] & backends[1]) or any(len(pids) > 1 for pids in backends)
