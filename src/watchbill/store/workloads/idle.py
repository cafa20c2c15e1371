"""Workloads that hold idle GPUs, those with the most idle GPU-hours first.

Hours are those of idle intervals that have ended plus, for the open ones, the idle GPUs times the time since
they began on average; like every running figure they stop at the cluster's last contact.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from watchbill.protocol import IdleHours
from watchbill.query import Scope, WorkloadQuery
from watchbill.responses.workloads import IdleOwner
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.document import (
    DocumentCache,
    document_list,
    finish_document,
    fitting,
)
from watchbill.store.workloads.select import (
    CLUSTER_JOIN,
    PENDING_SECONDS,
    RUNNING_SECONDS,
    conditions,
)
from watchbill.workload import GPU_MILLIONTHS


def _idle_hours(*ends: str) -> str:
    running = (
        f"w.idle_allocated_gpu::float8 / {GPU_MILLIONTHS * 3600.0:.0f} * greatest(0, coalesce("
        f"date_part('epoch', least({', '.join(ends)}) - w.idle_mean_since), 0))"
    )
    return f"(coalesce(w.idle_gpu_hours, 0) + coalesce({running}, 0))"


IDLE_HOURS = _idle_hours("$1::timestamptz", "c.last_contact_at")
"""Of what lives: the index `workload_idle` has all that it reads, and no time of deletion. Never NULL: where it
is unknown whether GPUs idle now, the hours counted before are all there are."""
DELETED_IDLE_HOURS = _idle_hours("$1::timestamptz", "c.last_contact_at", "w.deleted_at")
MAX_OWNERS = 50
MAX_IDLE_HOURS = 10_000
"""Workloads of a cluster whose hours outlive a restart of its agent, those with the most first."""


@dataclass(frozen=True, slots=True)
class IdlePage:
    """`documents`: finished, with `idleGpuHours`. The sums are over all that match, not over the page.

    `owners`: those who hold the most idle GPU-hours, at most `MAX_OWNERS`.
    """

    documents: list[bytes]
    owners: list[IdleOwner]
    next_offset: int | None
    total: int
    idle_gpus: float
    idle_gpu_hours: float


async def idle_list(
    db: Database, cache: DocumentCache, scope: Scope, query: WorkloadQuery, now: datetime
) -> IdlePage:
    """The workloads that hold idle GPUs now; the query's own order does not count."""
    sql, parameters = idle_statement(scope, query, now)
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(sql, *parameters)
        owners = [row for row in rows if row["id"] is None]
        hours = {row["id"]: row["hours"] for row in rows if row["id"] is not None}
        shown = await _totals(connection, scope.tenant_id, list(hours), now)
        shown = shown[: fitting(row["bytes"] for row in shown)]
        ids, revisions = [row["id"] for row in shown], [row["revision"] for row in shown]
        documents = await document_list(connection, cache, scope.tenant_id, ids, revisions)
    total = int(owners[0]["all_workloads"]) if owners else 0
    end = query.offset + len(shown)
    return IdlePage(
        documents=[
            _finished(document, row["pending"], row["running"], float(hours[row["id"]]))
            for row, document in zip(shown, documents, strict=True)
            if document is not None
        ],
        owners=list(map(_owner, owners)),
        next_offset=end if shown and end < total else None,
        total=total,
        idle_gpus=float(owners[0]["all_gpus"] / GPU_MILLIONTHS) if owners else 0.0,
        idle_gpu_hours=round(float(owners[0]["all_hours"]), 4) if owners else 0.0,
    )


def idle_statement(scope: Scope, query: WorkloadQuery, now: datetime) -> tuple[str, list[Any]]:
    """The owners who hold most, each with the sums over all owners, and the page's ids: all of one snapshot.
    Both read the index by several processes; a list that both were taken from would be made by one."""
    statement = conditions(scope, query, now)
    statement.needs_cluster = True
    statement.conditions.append("w.idle_allocated_gpu > 0")
    hours = DELETED_IDLE_HOURS if query.is_deleted else IDLE_HOURS
    idle = f"FROM {statement.source} WHERE {statement.where}"
    page = f"LIMIT {query.limit} OFFSET {statement.bind(query.offset, '::bigint')}"
    sql = (
        "WITH owners AS (SELECT nullif(w.submitted_by, '') AS owner, count(*) AS workloads, "
        f"sum(w.idle_allocated_gpu) AS gpus, sum({hours}) AS hours, sum(count(*)) OVER () "
        "AS all_workloads, sum(sum(w.idle_allocated_gpu)) OVER () AS all_gpus, "
        f"sum(sum({hours})) OVER () AS all_hours {idle} GROUP BY owner "
        f"ORDER BY hours DESC, owner LIMIT {MAX_OWNERS}), "
        f"page AS (SELECT w.id, {hours} AS hours {idle} ORDER BY hours DESC, w.id {page}) "
        "SELECT 1 AS part, NULL::uuid AS id, * FROM owners UNION ALL "
        "SELECT 2, id, NULL, NULL, NULL, hours, NULL, NULL, NULL FROM page "
        "ORDER BY part, hours DESC, owner, id"
    )
    return sql, statement.parameters


async def _totals(
    connection: Connection, tenant_id: int, ids: list[UUID], now: datetime
) -> list[Row]:
    """What a page shows beside the documents, in the order of the ids."""
    return await connection.fetch(
        f"SELECT w.id, w.revision, {PENDING_SECONDS} AS pending, {RUNNING_SECONDS} AS running, "
        f"octet_length(w.document) AS bytes FROM workload w {CLUSTER_JOIN} "
        "WHERE w.tenant_id = $2 AND w.id = ANY($3::uuid[]) ORDER BY array_position($3::uuid[], w.id)",
        now,
        tenant_id,
        ids,
    )


def _owner(row: Row) -> IdleOwner:
    return IdleOwner(
        submitted_by=row["owner"],
        workloads=row["workloads"],
        idle_gpus=float(row["gpus"] / GPU_MILLIONTHS),
        idle_gpu_hours=round(float(row["hours"]), 4),
    )


async def idle_hours_list(
    connection: Connection, tenant_id: int, cluster_id: UUID, now: datetime
) -> tuple[IdleHours, ...]:
    """Of every live workload that was ever seen to idle. To be asked before the contact is renewed: hours
    that nobody observed are none."""
    rows = await connection.fetch(
        f"SELECT w.id, w.idle_measured_since, {IDLE_HOURS} AS hours "
        "FROM workload w JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
        "WHERE w.tenant_id = $2 AND w.cluster_id = $3 AND w.deleted_at IS NULL "
        "AND (w.idle_gpu_hours > 0 OR w.idle_allocated_gpu > 0) "
        "AND w.idle_measured_since IS NOT NULL "
        f"ORDER BY hours DESC LIMIT {MAX_IDLE_HOURS}",
        now,
        tenant_id,
        cluster_id,
    )
    return tuple(
        IdleHours(
            id=row["id"],
            measured_since=row["idle_measured_since"],
            gpu_hours=round(float(row["hours"]), 4),
        )
        for row in rows
    )


def _finished(document: bytes, pending: int, running: int, hours: float) -> bytes:
    return b'%b,"idleGpuHours":%.4f}' % (finish_document(document, pending, running)[:-1], hours)
