"""What the database takes: bytes and rows of each table, and what is left on the embedded one's disk."""

import shutil
from dataclasses import dataclass
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
    """With its indexes, its long values and its partitions. `rows` is the planner's estimate."""

    name: str
    size_bytes: int
    rows: int


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


_TABLES = """
    SELECT root.relname, sum(pg_total_relation_size(part.oid))::bigint,
           sum(greatest(part.reltuples, 0))::bigint
    FROM pg_class part
    JOIN pg_class root ON root.oid = coalesce(pg_partition_root(part.oid), part.oid)
    WHERE part.relkind IN ('r', 'p') AND part.relnamespace = 'public'::regnamespace
    GROUP BY root.relname ORDER BY 2 DESC
"""


async def table_sizes(db: Database) -> tuple[TableSize, ...]:
    """The largest first. Raises Unavailable."""
    async with db.acquire(0) as connection:
        rows = await connection.fetch(_TABLES)
    return tuple(TableSize(*row) for row in rows)
