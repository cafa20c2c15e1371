"""Reads of what Kubernetes said of a workload, alone and in one line of time with its phases."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.query import Scope
from watchbill.responses.events import (
    EventResponse,
    HistoryMeta,
    HistoryRecord,
    HistorySpec,
    PhaseUpdate,
)
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.select import one_workload
from watchbill.workload_event import InvolvedObject

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
