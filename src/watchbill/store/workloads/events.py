"""What Kubernetes reported about a workload: each event kept once, with its count, the newest of each
workload; read alone and in one line of time with the phases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.query import Scope
from watchbill.responses.workloads import (
    EventResponse,
    HistoryMeta,
    HistoryRecord,
    HistorySpec,
    PhaseUpdate,
)
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.row import without_nul
from watchbill.store.workloads.select import one_workload
from watchbill.workload import MAX_EVENTS, InvolvedObject, WorkloadEvent

EVENT_RETENTION = timedelta(days=14)
BATCH_ROWS = 5_000

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
    purged, count = 0, BATCH_ROWS
    while count == BATCH_ROWS:
        async with db.transaction(tenant_id) as connection:
            rows = await connection.fetch(
                "DELETE FROM workload_event WHERE tenant_id = $1 AND (workload_id, id) IN "
                "(SELECT workload_id, id FROM workload_event WHERE tenant_id = $1 "
                "AND last_at < $2 ORDER BY last_at LIMIT $3) RETURNING id",
                tenant_id,
                now - EVENT_RETENTION,
                BATCH_ROWS,
            )
        count = len(rows)
        purged += count
    return purged


_EVENT_COLUMNS = (
    "id, type, reason, message, source, count, first_at, last_at, "
    "object_uid, object_kind, object_name, object_namespace"
)
_HISTORY = (
    f"SELECT last_at AS at, NULL AS phase, NULL::int AS number, {_EVENT_COLUMNS} "
    "FROM workload_event WHERE tenant_id = $1 AND workload_id = $2 UNION ALL "
    "SELECT at, phase, number, NULL, NULL, NULL, message, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "
    "NULL FROM phase_transition WHERE tenant_id = $1 AND workload_id = $2 "
    "ORDER BY at DESC, number DESC NULLS LAST, id LIMIT $3 OFFSET $4"
)


@dataclass(frozen=True, slots=True)
class EventPage:
    """`next_offset` None = there is no more."""

    events: list[EventResponse]
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Newest first; `next_offset` None = there is no more."""

    records: list[HistoryRecord]
    next_offset: int | None


async def event_list(
    db: Database,
    scope: Scope,
    workload_id: UUID,
    *,
    is_ascending: bool = False,
    offset: int,
    limit: int,
    now: datetime,
) -> EventPage | None:
    """A page of events, in the order of when they happened last. None = no such workload in scope."""
    direction = "ASC" if is_ascending else "DESC"
    async with db.acquire(scope.tenant_id) as connection:
        cluster_id = await _cluster_of(connection, scope, workload_id, now)
        if cluster_id is None:
            return None
        rows = await connection.fetch(
            f"SELECT {_EVENT_COLUMNS} FROM workload_event WHERE tenant_id = $1 AND workload_id = $2 "
            f"ORDER BY last_at {direction}, id {direction} LIMIT $3 OFFSET $4",
            scope.tenant_id,
            workload_id,
            limit + 1,
            offset,
        )
    events = [_event(row, cluster_id) for row in rows[:limit]]
    return EventPage(events, offset + limit if len(rows) > limit else None)


async def history_list(
    db: Database, scope: Scope, workload_id: UUID, *, offset: int, limit: int, now: datetime
) -> HistoryPage | None:
    """A page of events and changes of phase together. None = no such workload in scope."""
    async with db.acquire(scope.tenant_id) as connection:
        cluster_id = await _cluster_of(connection, scope, workload_id, now)
        if cluster_id is None:
            return None
        rows = await connection.fetch(_HISTORY, scope.tenant_id, workload_id, limit + 1, offset)
    records = [_record(row, cluster_id) for row in rows[:limit]]
    return HistoryPage(records, offset + limit if len(rows) > limit else None)


async def _cluster_of(
    connection: Connection, scope: Scope, workload_id: UUID, now: datetime
) -> UUID | None:
    statement = one_workload(scope, workload_id, now)
    cluster_id: UUID | None = await connection.fetchval(
        f"SELECT w.cluster_id FROM workload w WHERE {statement.where}", *statement.parameters
    )
    return cluster_id


def _record(row: Row, cluster_id: UUID) -> HistoryRecord:
    if row["phase"] is None:
        spec = HistorySpec(event=_event(row, cluster_id))
        return HistoryRecord(
            meta=HistoryMeta(creation_timestamp=row["at"], type="Event"), spec=spec
        )
    update = PhaseUpdate(phase=row["phase"], phase_message=row["message"] or "")
    meta = HistoryMeta(creation_timestamp=row["at"], type="PhaseUpdate")
    return HistoryRecord(meta=meta, spec=HistorySpec(phase_update=update))


def _event(row: Row, cluster_id: UUID) -> EventResponse:
    return EventResponse(
        id=row["id"],
        created_at=row["last_at"],
        type=row["type"],
        cluster_id=cluster_id,
        message=row["message"],
        reason=row["reason"],
        source=row["source"],
        involved_object=InvolvedObject(
            uid=row["object_uid"],
            kind=row["object_kind"],
            name=row["object_name"],
            namespace=row["object_namespace"],
        ),
        count=row["count"],
        first_at=row["first_at"],
    )
