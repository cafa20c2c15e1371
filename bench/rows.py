"""A database of a million workloads in minutes: some through the product's own ingest, then copies in SQL.

A copy has its own id, name, creation time and phase times; everything else is its original's, so filters keep
their shares. Triggers and indexes are the schema's own, and the tally is as exact as after ingest.
"""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from bench.data import fill
from watchbill.store.postgres.database import Database

SEEDS = 2_000
COPIES_AT_ONCE = 10
"""Copies of every seed in one statement: 20,000 rows."""

# Of a copy, what differs from its seed `s`; {gone}: whether copy number n was deleted. The copies of a million
# are spread over eighty days, as what is gone is kept for ninety.
_OWN = {
    "id": "md5(s.id::text || n)::uuid",
    "name": "s.name || '-' || n",
    "search": "lower(s.name) || '-' || n || substr(s.search, length(s.name) + 1)",
    "created_at": "s.created_at - n * interval '4 hours 97 seconds'",
    "phase_updated_at": "s.phase_updated_at - n * interval '4 hours 89 seconds'",
    "updated_at": "s.updated_at - n * interval '4 hours 83 seconds'",
    "pending_since": "CASE WHEN {gone} THEN NULL ELSE s.pending_since - n * interval '4 hours 89 seconds' END",
    "running_since": "CASE WHEN {gone} THEN NULL ELSE s.running_since - n * interval '4 hours 89 seconds' END",
    "idle_mean_since": "s.idle_mean_since - n * interval '4 hours 89 seconds'",
    "deleted_at": "CASE WHEN {gone} THEN s.updated_at - n * interval '4 hours 61 seconds' END",
    "revision": "decode(md5(s.id::text || n), 'hex')",
    "document": "convert_to(replace(convert_from(s.document, 'UTF8'), s.id::text, "
    "md5(s.id::text || n)::uuid::text), 'UTF8')",
}


async def multiply(connection: asyncpg.Connection, *, total: int, live: int) -> None:
    """From what is live to `total` rows, the first `live` of them live; `connection` is the owner's.

    `total` and `live` are reached to within `SEEDS`.
    """
    columns = [
        row["column_name"]
        for row in await connection.fetch(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_name = 'workload' ORDER BY ordinal_position"
        )
    ]
    await connection.execute("CREATE TEMP TABLE seed AS SELECT * FROM workload")
    seeds = await connection.fetchval("SELECT count(*) FROM seed")
    last, last_live = total // seeds - 1, live // seeds - 1
    values = [_OWN.get(column, f"s.{column}").format(gone=f"n > {last_live}") for column in columns]
    insert = (
        f"INSERT INTO workload ({', '.join(columns)}) SELECT {', '.join(values)} "
        "FROM generate_series($1::int, $2::int) n, seed s"
    )
    async with without_indexes(connection, "workload", "workload_search"):
        for first in range(1, last + 1, COPIES_AT_ONCE):
            until = min(first + COPIES_AT_ONCE - 1, last)
            await connection.execute(insert, first, until, timeout=600)
    await connection.execute("DROP TABLE seed")


@asynccontextmanager
async def without_indexes(connection: asyncpg.Connection, *tables: str) -> AsyncIterator[None]:
    """Made again at the end: that is several times as fast as keeping them row by row."""
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "AND tablename = ANY($1::text[]) AND indexname NOT LIKE '%_pkey'",
        tables,
    )
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['indexname']}")
    yield
    await connection.execute("SET maintenance_work_mem = '256MB'")
    for index in indexes:
        await connection.execute(index["indexdef"], timeout=1800)


async def fill_million(database_url: str, *, total: int, live: int, seeds: int = SEEDS) -> None:
    """A fresh, migrated database becomes one of `total` workloads, `live` of them live."""
    began = time.perf_counter()
    seeds = min(seeds, live)
    db = await Database.open(database_url, pool_size=2)
    await fill(db, total=seeds, live=seeds)
    await db.close()
    connection = await asyncpg.connect(database_url)
    try:
        await multiply(connection, total=total, live=live)
        await connection.execute("VACUUM ANALYZE", timeout=1800)
    finally:
        await connection.close()
    print(f"{total} workloads after {time.perf_counter() - began:.0f} s", file=sys.stderr)
