"""Counts of what is gone, remembered: of a million rows that took long to count, the few that changed since.

What is gone hardly changes: it comes at one end of time, and is purged at the other. So of a count that took
long its middle is remembered, beside what was deleted before and after, which is counted each time. The
database gives each hour of deletion time another version whenever anything that is deleted in them is
added, changed or removed (see its migration): a middle with the same versions has the same rows. Both are read
in one statement, so an answer is never older than the rows are.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cachetools import LRUCache

from watchbill.query import DEFAULT_LIMIT, PodQuery, Scope, WorkloadQuery
from watchbill.store.postgres.database import Connection, Database
from watchbill.store.workloads.select import Statement

SEGMENT = timedelta(hours=1)
"""As the function `gone_segment_begins` has it."""
WORTH_SECONDS = 0.05
"""What takes less to count is not remembered."""
MAX_AROUND = 30_000
"""Rows that may lie around a middle: with more, counting them each time costs too much."""
MAX_COUNTS = 2_000
MAX_VERSIONS = 5_000
"""Of a tenant, beyond which the older ones become one."""
SWEPT_AFTER = timedelta(days=2)
_SWEPT = 0
"""In place of a backend: what many versions became. It belongs to every middle, as nobody knows any more which
of them it came from."""
GoneQuery = WorkloadQuery | PodQuery
Selection = tuple[str, Statement]
"""Tables and conditions of the matches."""


@dataclass(frozen=True, slots=True)
class _Middle:
    """What was deleted from `begins_at` on and before `ends_at`: how many match, and the version of all."""

    begins_at: datetime
    ends_at: datetime
    version: int
    count: int


class GoneCounts:
    """What was counted of what is gone, by who asked for what."""

    def __init__(self, *, worth_seconds: float = WORTH_SECONDS) -> None:
        self.worth_seconds = worth_seconds
        self._middles: LRUCache[tuple[Scope, GoneQuery], _Middle] = LRUCache(MAX_COUNTS)

    def get(self, scope: Scope, query: GoneQuery) -> _Middle | None:
        return self._middles.get((scope, _unpaged(query)))

    def put(self, scope: Scope, query: GoneQuery, middle: _Middle) -> None:
        self._middles[scope, _unpaged(query)] = middle


def _unpaged(query: GoneQuery) -> GoneQuery:
    """Without what a count does not depend on."""
    return replace(query, sort_by="createdAt", is_descending=False, offset=0, limit=DEFAULT_LIMIT)


@dataclass(frozen=True, slots=True)
class GoneCounting:
    """One count of what is gone. `table`: whose rows, bearing the name `alias`; `select`: which of them match,
    where few are read; `count_all`: how many, in the fastest way that there is."""

    db: Database
    counts: GoneCounts
    scope: Scope
    query: GoneQuery
    table: str
    alias: str
    select: Callable[[Connection], Awaitable[Selection]]
    count_all: Callable[[Connection], Awaitable[int]]

    async def count(self, now: datetime) -> int:
        async with self.db.snapshot(self.scope.tenant_id) as connection:
            known = self.counts.get(self.scope, self.query)
            if known is not None:
                first, last = await self._bounds(connection, now)
                begins_at = min(max(known.begins_at, first), known.ends_at)
                ends_at = max(known.ends_at, last)
                parts = await self._parts(connection, known, begins_at, ends_at)
                if parts.version == known.version:
                    count = known.count - parts.leaving + parts.entering
                    middle = _Middle(begins_at, ends_at, parts.next_version, count)
                    self.counts.put(self.scope, self.query, middle)
                    return parts.before + known.count + parts.entering + parts.after
            return await self._count_anew(connection, now)

    async def _count_anew(self, connection: Connection, now: datetime) -> int:
        began = time.perf_counter()
        total = await self.count_all(connection)
        if time.perf_counter() - began >= self.counts.worth_seconds:
            begins_at, ends_at = await self._bounds(connection, now)
            if begins_at < ends_at and await self._is_most(connection, begins_at, ends_at):
                middle = _Middle(begins_at, ends_at, 0, 0)
                parts = await self._parts(connection, middle, begins_at, ends_at)
                count = total - parts.before - parts.after
                middle = replace(middle, version=parts.version, count=count)
                self.counts.put(self.scope, self.query, middle)
        return total

    async def _bounds(self, connection: Connection, now: datetime) -> tuple[datetime, datetime]:
        """Between which hardly anything changes: after what is purged next, before what is deleted now."""
        row = await connection.fetchrow(
            "SELECT gone_segment_begins((SELECT min(deleted_at) "
            f"FROM {self.table} WHERE tenant_id = $1 AND deleted_at IS NOT NULL)) AS oldest, "
            "gone_segment_begins($2) AS latest",
            self.scope.tenant_id,
            now,
        )
        assert row is not None
        last: datetime = row["latest"] - SEGMENT
        return (row["oldest"] or last) + 2 * SEGMENT, last

    async def _is_most(
        self, connection: Connection, begins_at: datetime, ends_at: datetime
    ) -> bool:
        """Whether few rows of the table are gone that were not deleted between the two."""

        def count(condition: str) -> str:
            return (
                f"(SELECT count(*) FROM (SELECT FROM {self.table} WHERE tenant_id = $1 "
                f"AND deleted_at {condition} LIMIT {MAX_AROUND + 1}) AS around)"
            )

        sql = f"SELECT {count('< $2::timestamptz')} + {count('>= $3::timestamptz')}"
        around: int = await connection.fetchval(sql, self.scope.tenant_id, begins_at, ends_at)
        return around <= MAX_AROUND

    async def _parts(
        self, connection: Connection, middle: _Middle, begins_at: datetime, ends_at: datetime
    ) -> "_Parts":
        """In one statement. `begins_at`, `ends_at`: of the middle as it is to be."""
        source, statement = await self.select(connection)
        begin, end, next_begin, next_end = (
            statement.bind(at, "::timestamptz")
            for at in (middle.begins_at, middle.ends_at, begins_at, ends_at)
        )
        tenant = statement.bind(self.scope.tenant_id, "::int")

        def version(begin: str, end: str) -> str:
            return (
                "(SELECT coalesce(sum(version), 0) FROM gone_segment "
                f"WHERE tenant_id = {tenant} AND source = '{self.table}' "
                f"AND (begins_at >= {begin} AND begins_at < {end} OR backend = {_SWEPT}))"
            )

        def count(*bounds: str) -> str:
            conditions = (statement.where, *(f"{self.alias}.deleted_at {each}" for each in bounds))
            return f"(SELECT count(*) FROM {source} WHERE {' AND '.join(conditions)})"

        row = await connection.fetchrow(
            f"SELECT {version(begin, end)}, {version(next_begin, next_end)}, "
            f"{count(f'< {begin}')}, {count(f'>= {begin}', f'< {next_begin}')}, "
            f"{count(f'>= {end}', f'< {next_end}')}, {count(f'>= {next_end}')}",
            *statement.parameters,
        )
        assert row is not None
        return _Parts(*map(int, row))


@dataclass(frozen=True, slots=True)
class _Parts:
    """Of a middle and of what it is to be: their versions; of the matches how many were deleted before it, in
    what leaves it, in what enters it, and after that."""

    version: int
    next_version: int
    before: int
    leaving: int
    entering: int
    after: int


async def gone_segment_sweep(db: Database, tenant_id: int, *, now: datetime) -> None:
    """Many versions become one, which differs from every sum of them."""
    async with db.transaction(tenant_id) as connection:
        count = await connection.fetchval(
            "SELECT count(*) FROM gone_segment WHERE tenant_id = $1", tenant_id
        )
        if count > MAX_VERSIONS:
            await connection.execute(
                "WITH old AS MATERIALIZED (SELECT source, begins_at, backend FROM gone_segment "
                "WHERE tenant_id = $1 AND begins_at < $2 FOR UPDATE SKIP LOCKED), "
                "swept AS (DELETE FROM gone_segment s USING old WHERE s.tenant_id = $1 "
                "AND (s.source, s.begins_at, s.backend) = (old.source, old.begins_at, old.backend) "
                f"AND s.backend <> {_SWEPT} RETURNING s.source, s.begins_at) "
                "INSERT INTO gone_segment AS s (tenant_id, source, begins_at, backend, version) "
                f"SELECT $1, source, max(begins_at), {_SWEPT}, hashtextextended(gen_random_uuid()::text, 0) "
                "FROM swept GROUP BY source "
                "ON CONFLICT (tenant_id, source, begins_at, backend) DO UPDATE SET version = excluded.version",
                tenant_id,
                now - SWEPT_AFTER,
            )
