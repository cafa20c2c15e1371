"""What the database takes: bytes and rows of each table, how fast they grow, what PostgreSQL's own upkeep has
left to do, and what is free on the embedded one's disk."""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from watchbill.errors import Unavailable
from watchbill.store.postgres.database import Database

FULL_BYTES = 64 * 1024 * 1024
"""With less than this PostgreSQL can neither write ahead (16 MiB at a time) nor recover from a crash."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """With its indexes, its long values and its partitions. `rows` is the planner's estimate, `dead_rows` those
    that autovacuum has not made room of yet. `growth_bytes_per_day`: over the last week; None where no size of
    a day ago is known."""

    name: str
    size_bytes: int
    rows: int
    dead_rows: int
    growth_bytes_per_day: float | None


def disk_space(folder: Path) -> DiskSpace | None:
    """Of the disk that holds the folder; None where there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return DiskSpace(usage.total, usage.free)


def check_disk(folder: Path) -> None:
    """Raises Unavailable where the disk that holds the folder is full."""
    space = disk_space(folder)
    if space is not None and space.free_bytes < FULL_BYTES:
        raise Unavailable(
            "The database's disk is full.",
            details=f"{space.free_bytes // 2**20} MiB are left for {folder}. "
            "Free space there; the server recovers by itself.",
            retry_after_seconds=30,
        )


GROWTH_DAYS = 7
KEPT_DAYS = 40
_SIZES = """
    SELECT root.relname AS name, sum(pg_total_relation_size(part.oid))::bigint AS size_bytes,
           sum(greatest(part.reltuples, 0))::bigint AS rows,
           coalesce(sum(pg_stat_get_dead_tuples(part.oid)), 0)::bigint AS dead_rows
    FROM pg_class part
    JOIN pg_class root ON root.oid = coalesce(pg_partition_root(part.oid), part.oid)
    WHERE part.relkind IN ('r', 'p') AND part.relnamespace = 'public'::regnamespace
    GROUP BY root.relname
"""
_TABLES = f"""
    SELECT t.name, t.size_bytes, t.rows, t.dead_rows,
           (t.size_bytes - before.size_bytes)
           / (extract(epoch FROM $1::timestamptz - before.measured_at) / 86400)::float8
    FROM ({_SIZES}) AS t
    LEFT JOIN LATERAL (
        SELECT size_bytes, measured_at FROM table_size WHERE name = t.name
        AND measured_at >= $1::timestamptz - interval '{GROWTH_DAYS} days'
        AND measured_at <= $1::timestamptz - interval '1 day'
        ORDER BY measured_at LIMIT 1
    ) AS before ON true
    ORDER BY t.size_bytes DESC
"""
_TRANSACTION_IDS = """
    SELECT greatest(age(datfrozenxid), mxid_age(datminmxid)) FROM pg_database
    WHERE datname = current_database()
"""


async def table_sizes(db: Database, now: datetime) -> tuple[TableSize, ...]:
    """The largest first. Raises Unavailable."""
    async with db.acquire(0) as connection:
        rows = await connection.fetch(_TABLES, now)
    return tuple(TableSize(*row) for row in rows)


async def transaction_id_age(db: Database) -> int:
    """How many transactions ago the oldest row was frozen: at two thousand million PostgreSQL stops. Raises
    Unavailable."""
    async with db.acquire(0) as connection:
        age: int = await connection.fetchval(_TRANSACTION_IDS)
    return age


async def table_size_record(db: Database, now: datetime) -> None:
    """Keep the size of each table, once a UTC day, for KEPT_DAYS. Raises Unavailable."""
    async with db.transaction(0) as connection:
        await connection.execute(
            "INSERT INTO table_size (name, day, measured_at, size_bytes) "
            f"SELECT name, ($1::timestamptz AT TIME ZONE 'UTC')::date, $1, size_bytes FROM ({_SIZES}) AS t "
            "ON CONFLICT (name, day) DO NOTHING",
            now,
        )
        await connection.execute(
            "DELETE FROM table_size WHERE measured_at < $1::timestamptz - make_interval(days => $2)",
            now,
            KEPT_DAYS,
        )
