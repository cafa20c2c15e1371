"""Workloads that hold idle GPUs, those with the most idle GPU-hours first.

Hours are those of idle intervals that have ended plus, for the open ones, the idle GPUs times the time since
they began on average; like every running figure they stop at the cluster's last contact.
"""

from dataclasses import dataclass
from datetime import datetime
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
from watchbill.store.workloads.select import PENDING_SECONDS, RUNNING_SECONDS, conditions
from watchbill.workload import GPU_MILLIONTHS

_RUNNING_HOURS = (
    f"w.idle_allocated_gpu / {GPU_MILLIONTHS}.0 * greatest(0, coalesce(extract(epoch FROM "
    "(least($1::timestamptz, c.last_contact_at, w.deleted_at) - w.idle_mean_since)), 0)) / 3600"
)
IDLE_HOURS = f"(coalesce(w.idle_gpu_hours, 0) + coalesce({_RUNNING_HOURS}, 0))"
"""Never NULL: where it is unknown whether GPUs idle now, the hours counted before are all there are."""
_SUMS = (
    f"count(*) AS total, coalesce(sum(w.idle_allocated_gpu), 0) / {GPU_MILLIONTHS}.0 AS gpus, "
    f"coalesce(sum({IDLE_HOURS}), 0) AS hours"
)


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
    statement = conditions(scope, query, now)
    statement.needs_cluster = True
    statement.conditions.append("w.idle_allocated_gpu > 0")
    matching = f"FROM {statement.source} WHERE {statement.where}"
    counting = f"SELECT {_SUMS} {matching}"
    owning = (
        f"SELECT nullif(w.submitted_by, '') AS owner, {_SUMS} {matching} "
        f"GROUP BY owner ORDER BY hours DESC, owner LIMIT {MAX_OWNERS}"
    )
    parameters = list(statement.parameters)
    offset = statement.bind(query.offset, "::bigint")
    listing = (
        f"SELECT w.id, w.revision, {PENDING_SECONDS}, {RUNNING_SECONDS}, {IDLE_HOURS}, "
        f"octet_length(w.document) AS bytes {matching} "
        f"ORDER BY 5 DESC, w.id LIMIT {query.limit} OFFSET {offset}"
    )
    async with db.acquire(scope.tenant_id) as connection:
        sums = await connection.fetchrow(counting, *parameters)
        owners = await connection.fetch(owning, *parameters)
        rows = await connection.fetch(listing, *statement.parameters)
        rows = rows[: fitting(row["bytes"] for row in rows)]
        revisions = [(row["id"], row["revision"]) for row in rows]
        documents = await document_list(connection, cache, scope.tenant_id, revisions)
    assert sums is not None  # an aggregate always has its row
    end = query.offset + len(rows)
    return IdlePage(
        documents=[
            _finished(documents[row["id"]], row[2], row[3], float(row[4]))
            for row in rows
            if row["id"] in documents
        ],
        owners=list(map(_owner, owners)),
        next_offset=end if rows and end < sums["total"] else None,
        total=sums["total"],
        idle_gpus=float(sums["gpus"]),
        idle_gpu_hours=round(float(sums["hours"]), 4),
    )


def _owner(row: Row) -> IdleOwner:
    return IdleOwner(
        submitted_by=row["owner"],
        workloads=row["total"],
        idle_gpus=float(row["gpus"]),
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
