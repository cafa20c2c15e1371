"""What stands between us and the database: refuses poolers that would mix tenants or lose notifications.

A pooler in transaction mode gives the backend to somebody else between two transactions. `session.py` knows one
by the process id that a connection is given, which is no backend's.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg

from watchbill.errors import Invalid
from watchbill.store.postgres.errors import translated

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
            "Something in front of the database shares its connections and hides it.",
            details="Tenants could be mixed. Name the database itself in WATCHBILL_DATABASE_URL, or PgBouncer.",
        )
    if direct is not None and direct.is_shared:
        raise Invalid(
            "WATCHBILL_DATABASE_DIRECT_URL leads to a connection pooler in transaction mode.",
            details="Notifications need a connection that lasts: name the database itself.",
        )
    return route


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
