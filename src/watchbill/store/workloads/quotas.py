"""How much one cluster may have in the database, so that an agent that was taken over fills no disk.

The bytes that an agent may send are limited where they arrive (`api/limits.py`); here are the bytes that are
stored of live and deleted workloads, the number of live ones, and projects and departments, whose numbers are
kept for ever.
"""

from collections.abc import Sequence
from uuid import UUID

from watchbill.protocol import RefusedItem, Upsert
from watchbill.store.postgres.database import Connection

MAX_LIVE_WORKLOADS = 500_000
MAX_PROJECTS = 20_000
"""And as many departments."""
MAX_STORED_BYTES = 2**36
"""Where no setting says otherwise."""
_FOLDED_ROWS = 50

_UNKNOWN = (
    "SELECT 'project' AS kind, key FROM unnest($3::text[]) AS n(key) WHERE NOT EXISTS "
    "(SELECT FROM project p WHERE p.tenant_id = $1 AND p.cluster_id = $2 AND p.key = n.key) "
    "UNION ALL "
    "SELECT 'department', key FROM unnest($4::text[]) AS n(key) WHERE NOT EXISTS "
    "(SELECT FROM department d WHERE d.tenant_id = $1 AND d.cluster_id = $2 AND d.key = n.key)"
)


async def within_quota(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    upserts: Sequence[Upsert],
    *,
    live: set[UUID],
) -> tuple[list[Upsert], list[RefusedItem]]:
    """Those of the upserts that there is room for, and the others refused. `live`: ids that the cluster has."""
    if not upserts:
        return [], []
    refused: dict[UUID, str] = {}
    new = [upsert for upsert in upserts if upsert.record.workload.id not in live]
    if new:
        room = MAX_LIVE_WORKLOADS - await _live_count(connection, tenant_id, cluster_id)
        reason = f"The cluster has {MAX_LIVE_WORKLOADS} live workloads, and may have no more."
        refused |= {upsert.record.workload.id: reason for upsert in new[max(0, room) :]}
    unknown = await connection.fetch(
        _UNKNOWN,
        tenant_id,
        cluster_id,
        list({_project_key(upsert) for upsert in upserts}),
        list({key for upsert in upserts if (key := upsert.record.department_key)}),
    )
    for kind in ("project", "department"):
        keys = sorted(row["key"] for row in unknown if row["kind"] == kind)
        if not keys:
            continue
        room = MAX_PROJECTS - await _count(connection, kind, tenant_id, cluster_id)
        excess = set(keys[max(0, room) :])
        reason = f"The cluster has {MAX_PROJECTS} {kind}s, and may have no more."
        refused |= {
            upsert.record.workload.id: reason
            for upsert in upserts
            if (_project_key(upsert) if kind == "project" else upsert.record.department_key)
            in excess
        }
    return (
        [upsert for upsert in upserts if upsert.record.workload.id not in refused],
        [RefusedItem(id=workload_id, reason=reason) for workload_id, reason in refused.items()],
    )


async def stored_bytes(connection: Connection, tenant_id: int, cluster_id: UUID) -> int:
    """Of all documents, elements and phases of the cluster. The caller holds the cluster's row."""
    row = await connection.fetchrow(
        "SELECT coalesce(sum(bytes), 0)::bigint AS bytes, count(*) AS count FROM stored_bytes "
        "WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    assert row is not None  # an aggregate has a row
    if row["count"] > _FOLDED_ROWS:
        await connection.execute(
            "WITH folded AS (DELETE FROM stored_bytes WHERE tenant_id = $1 AND cluster_id = $2 "
            "RETURNING bytes) INSERT INTO stored_bytes (tenant_id, cluster_id, bytes) "
            "SELECT $1, $2, sum(bytes) FROM folded",
            tenant_id,
            cluster_id,
        )
    return int(row["bytes"])


def refuse_all(upserts: Sequence[Upsert], most_bytes: int) -> list[RefusedItem]:
    """What is said where a cluster has stored as much as it may."""
    reason = (
        f"The cluster has stored {most_bytes} bytes, as much as WATCHBILL_CLUSTER_STORED_BYTES permits: "
        "raise that, or keep deleted workloads for fewer days (WATCHBILL_DELETED_RETENTION_DAYS)."
    )
    return [RefusedItem(id=upsert.record.workload.id, reason=reason) for upsert in upserts]


def _project_key(upsert: Upsert) -> str:
    return upsert.record.project_key or upsert.record.workload.namespace


async def _live_count(connection: Connection, tenant_id: int, cluster_id: UUID) -> int:
    count: int = await connection.fetchval(
        "SELECT coalesce(sum(workloads), 0)::bigint FROM workload_tally "
        "WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    return count


async def _count(connection: Connection, table: str, tenant_id: int, cluster_id: UUID) -> int:
    """`table` is `project` or `department`."""
    count: int = await connection.fetchval(
        f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    return count
