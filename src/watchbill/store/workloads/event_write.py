"""Writes what Kubernetes said of workloads: each event once, with its count, the newest of each workload."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.store.postgres.database import Connection, Database
from watchbill.store.workloads.row import without_nul
from watchbill.workload_event import MAX_EVENTS, WorkloadEvent

KEEP = timedelta(days=14)
BATCH = 5_000

_COLUMNS = {
    "workload_id": "uuid",
    "id": "uuid",
    "type": "text",
    "reason": "text",
    "message": "text",
    "source": "text",
    "count": "int",
    "first_at": "timestamptz",
    "last_at": "timestamptz",
    "object_uid": "uuid",
    "object_kind": "text",
    "object_name": "text",
    "object_namespace": "text",
}
_NAMES = ", ".join(_COLUMNS)
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), 3))
_INSERT = (
    f"INSERT INTO workload_event AS e (tenant_id, {_NAMES}) SELECT $1, n.* "
    f"FROM unnest({_ARRAYS}) AS n({_NAMES}) JOIN workload w ON w.tenant_id = $1 "
    "AND w.id = n.workload_id AND w.cluster_id = $2 "
    "ON CONFLICT (tenant_id, workload_id, id) DO UPDATE SET message = excluded.message, "
    "count = excluded.count, last_at = excluded.last_at "
    "WHERE e.last_at < excluded.last_at OR e.count < excluded.count RETURNING workload_id"
)
_DROP_EXCESS = (
    "DELETE FROM workload_event e USING unnest($2::uuid[]) AS w(id) CROSS JOIN LATERAL "
    "(SELECT x.id FROM workload_event x WHERE x.tenant_id = $1 AND x.workload_id = w.id "
    f"ORDER BY x.last_at DESC, x.id OFFSET {MAX_EVENTS}) AS excess "
    "WHERE e.tenant_id = $1 AND e.workload_id = w.id AND e.id = excess.id"
)


async def event_write(
    connection: Connection, tenant_id: int, cluster_id: UUID, events: Sequence[WorkloadEvent]
) -> None:
    """Events of workloads that are not this cluster's are left out: nobody speaks of another's."""
    if not events:
        return
    rows = {(event.workload_id, event.id): _row(event) for event in events}
    columns = map(list, zip(*rows.values(), strict=True))
    written = await connection.fetch(_INSERT, tenant_id, cluster_id, *columns)
    if written:
        ids = list({row["workload_id"] for row in written})
        await connection.execute(_DROP_EXCESS, tenant_id, ids)


def _row(event: WorkloadEvent) -> tuple[object, ...]:
    """In the order of `_COLUMNS`."""
    involved = event.involved_object
    texts = (event.type, event.reason, event.message, event.source)
    return (
        event.workload_id,
        event.id,
        *map(without_nul, texts),
        event.count,
        event.first_at,
        event.last_at,
        involved.uid,
        *map(without_nul, (involved.kind, involved.name, involved.namespace)),
    )


async def event_purge(db: Database, tenant_id: int, *, now: datetime) -> int:
    """Remove events that happened last longer ago than they are kept, in batches. Returns how many."""
    purged, count = 0, BATCH
    while count == BATCH:
        async with db.transaction(tenant_id) as connection:
            rows = await connection.fetch(
                "DELETE FROM workload_event WHERE tenant_id = $1 AND (workload_id, id) IN "
                "(SELECT workload_id, id FROM workload_event WHERE tenant_id = $1 "
                "AND last_at < $2 ORDER BY last_at LIMIT $3) RETURNING id",
                tenant_id,
                now - KEEP,
                BATCH,
            )
        count = len(rows)
        purged += count
    return purged
