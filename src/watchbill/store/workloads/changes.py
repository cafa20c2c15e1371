"""Which workloads changed: notified in the transaction that writes, and listened to on one connection.

A notification holds ids alone; what changed about them is read from the table, within a scope.
"""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Connection, Database, NotificationListener
from watchbill.store.workloads.select import conditions

CHANNEL = "watchbill_changes"
IDS_AT_ONCE = 360
"""As many as the 8,000 bytes of one notification hold."""

Notify = Callable[[int, list[UUID]], None]


@dataclass(frozen=True, slots=True)
class ChangedWorkload:
    """A workload that was written, and where it belongs."""

    id: UUID
    cluster_id: UUID
    department_id: int | None
    project_id: int
    is_deleted: bool


async def change_notify(connection: Connection, tenant_id: int, ids: Iterable[UUID]) -> None:
    """Notifies every server once the transaction is committed, and none if it is rolled back."""
    changed = list(ids)
    parts = [changed[start : start + IDS_AT_ONCE] for start in range(0, len(changed), IDS_AT_ONCE)]
    if parts:
        await connection.execute(
            "SELECT pg_notify($1, part) FROM unnest($2::text[]) AS part",
            CHANNEL,
            [_encoded(tenant_id, part) for part in parts],
        )


def _encoded(tenant_id: int, ids: Sequence[UUID]) -> str:
    return f"{tenant_id}:{b64encode(b''.join(id_.bytes for id_ in ids)).decode('ascii')}"


def _decoded(payload: str) -> tuple[int, list[UUID]]:
    tenant_id, _, packed = payload.partition(":")
    data = b64decode(packed)
    return int(tenant_id), [UUID(bytes=data[at : at + 16]) for at in range(0, len(data), 16)]


@asynccontextmanager
async def change_listen(
    db: Database, notify: Notify, *, lost: Callable[[], None]
) -> AsyncIterator[NotificationListener]:
    """Calls `notify` for whatever is committed from now on, and `lost` when the connection is lost."""
    async with db.listening(
        CHANNEL, lambda payload: notify(*_decoded(payload)), lost=lost
    ) as listener:
        yield listener


async def change_marks(db: Database, tenant_id: int) -> dict[UUID, datetime | None]:
    """Of each cluster, when its workloads changed last: for servers that are not notified."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT id, last_change_at FROM cluster WHERE tenant_id = $1", tenant_id
        )
    return {row["id"]: row["last_change_at"] for row in rows}


async def change_list(db: Database, tenant_id: int, ids: Iterable[UUID]) -> list[ChangedWorkload]:
    """What these workloads are now; those that are there no longer are left out."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT id, cluster_id, department_id, project_id, deleted_at IS NOT NULL AS is_deleted "
            "FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])",
            tenant_id,
            list(ids),
        )
    return [ChangedWorkload(**dict(row)) for row in rows]


async def matching_ids(
    db: Database, scope: Scope, query: WorkloadQuery, ids: Iterable[UUID], now: datetime
) -> set[UUID]:
    """Those of the workloads that belong to the answer of the query."""
    statement = conditions(scope, query, now)
    statement.conditions.append(f"w.id = ANY({statement.bind(list(ids), '::uuid[]')})")
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            f"SELECT w.id FROM {statement.source} WHERE {statement.where}", *statement.parameters
        )
    return {row["id"] for row in rows}


def is_in_scope(scope: Scope, changed: ChangedWorkload) -> bool:
    """The scope predicate over one row, in the words of `select.in_scope`."""
    return (
        scope.is_whole_tenant
        or changed.cluster_id in scope.cluster_ids
        or changed.department_id in scope.department_ids
        or changed.project_id in scope.project_ids
    )
