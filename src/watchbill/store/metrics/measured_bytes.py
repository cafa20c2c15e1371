"""How many bytes of samples each cluster has stored, by day: a day's count goes with its samples."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from uuid import UUID

from watchbill.store.postgres.database import Connection

_COUNT = (
    "INSERT INTO measured_bytes AS b (tenant_id, cluster_id, day, bytes) "
    "SELECT $1, $2, n.day, n.bytes FROM unnest($3::date[], $4::bigint[]) AS n(day, bytes) "
    "ON CONFLICT (tenant_id, cluster_id, day) DO UPDATE SET bytes = b.bytes + excluded.bytes"
)
_ROW_BYTES = 100
"""Of a row and its place in the index, besides its figures or names."""


async def bytes_count(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    figures: Iterable[tuple[date, int]],
    layouts: Mapping[int, Sequence[str]],
    today: date,
) -> None:
    """Count rows of so many figures, and the names of layouts that nobody has used today: they stay as long as
    somebody uses them, and a day's count goes with its day."""
    known = await connection.fetch(
        "SELECT id FROM measured_layout WHERE tenant_id = $1 AND id = ANY($2::bigint[]) AND used_on >= $3",
        tenant_id,
        list(layouts),
        today,
    )
    sizes: Counter[date] = Counter()
    for day, count in figures:
        sizes[day] += _ROW_BYTES + 8 * count
    for layout in layouts.keys() - {row["id"] for row in known}:
        sizes[today] += _ROW_BYTES + sum(len(name.encode()) for name in layouts[layout])
    await connection.execute(_COUNT, tenant_id, cluster_id, list(sizes), list(sizes.values()))


async def bytes_forget(connection: Connection, tenant_id: int, before: date) -> None:
    await connection.execute(
        "DELETE FROM measured_bytes WHERE tenant_id = $1 AND day < $2", tenant_id, before
    )
