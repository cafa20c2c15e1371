"""How much one cluster may have in the database, so that an agent that was taken over fills no disk.

The bytes that an agent may send are limited where they arrive (`api/limits.py`); here are the bytes that are
stored of live and deleted workloads with their pods, events and samples, the number of live ones, and projects
and departments, whose numbers are kept for ever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from watchbill.protocol import BATCH_ITEMS, RefusedItem, Upsert
from watchbill.store.postgres.database import Connection

MAX_LIVE_WORKLOADS = 500_000
MAX_PROJECTS = 20_000
"""And as many departments."""
MAX_STORED_BYTES = 2**36
"""Where no setting says otherwise."""
_POD_SHARE = 0.5
"""Of these, what pods, events and samples may take: workloads always have the rest."""
_SAMPLE_SHARE = 0.4
"""Of these, what samples may take: no pod and no event is refused for figures."""
MAX_RETRIES = 5 * BATCH_ITEMS
"""Of refused workloads with each heartbeat, so that a cluster near its limit does little else."""
MAX_RETRIES_AMONG_UNITS = 20
"""The same where a cluster has all the projects or departments that it may have: most would be refused again,
but not those whose own has come to be known."""
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
    out_of_room: set[UUID] = set()
    refused: dict[UUID, str] = {}
    new = [upsert for upsert in upserts if upsert.record.workload.id not in live]
    if new:
        room = MAX_LIVE_WORKLOADS - await _live_count(connection, tenant_id, cluster_id)
        reason = f"The cluster has {MAX_LIVE_WORKLOADS} live workloads, and may have no more."
        out_of_room = {upsert.record.workload.id for upsert in new[max(0, room) :]}
        refused |= dict.fromkeys(out_of_room, reason)
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
        room = MAX_PROJECTS - await unit_count(connection, kind, tenant_id, cluster_id)
        excess = set(keys[max(0, room) :])
        reason = f"The cluster has {MAX_PROJECTS} {kind}s, and may have no more."
        beyond = {
            upsert.record.workload.id: reason
            for upsert in upserts
            if (_project_key(upsert) if kind == "project" else upsert.record.department_key)
            in excess
        }
        out_of_room |= beyond.keys()
        refused |= beyond
    return (
        [upsert for upsert in upserts if upsert.record.workload.id not in refused],
        [
            RefusedItem(id=id_, reason=reason, is_out_of_room=id_ in out_of_room)
            for id_, reason in refused.items()
        ],
    )


async def room(connection: Connection, tenant_id: int, cluster_id: UUID, *, most_bytes: int) -> int:
    """For how many workloads that were refused for want of it there is room now."""
    is_waited_for = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM refused_item WHERE tenant_id = $1 AND cluster_id = $2)",
        tenant_id,
        cluster_id,
    )
    if not is_waited_for:
        return 0
    if not (await stored_bytes(connection, tenant_id, cluster_id)).has_room(most_bytes):
        return 0
    free = MAX_LIVE_WORKLOADS - await _live_count(connection, tenant_id, cluster_id)
    units = [
        await unit_count(connection, kind, tenant_id, cluster_id)
        for kind in ("project", "department")
    ]
    return min(MAX_RETRIES if max(units) < MAX_PROJECTS else MAX_RETRIES_AMONG_UNITS, max(0, free))


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """What a cluster has stored. `pods`: of pods, events and samples, a part of `total`; `samples` of these."""

    total: int
    pods: int
    samples: int

    def has_room(self, most_bytes: int) -> bool:
        return self.total < most_bytes

    def has_room_for_pods(self, most_bytes: int) -> bool:
        return self.has_room(most_bytes) and self.pods < most_bytes * _POD_SHARE

    def has_room_for_samples(self, most_bytes: int) -> bool:
        return self.has_room_for_pods(most_bytes) and self.samples < most_bytes * _SAMPLE_SHARE


async def stored_bytes(connection: Connection, tenant_id: int, cluster_id: UUID) -> StoredBytes:
    """Of all that is stored of the cluster's workloads. The caller holds the cluster's row."""
    workloads = await _folded_bytes(connection, "stored_bytes", tenant_id, cluster_id)
    pods = await _folded_bytes(connection, "stored_pod_bytes", tenant_id, cluster_id)
    samples: int = await connection.fetchval(
        "SELECT coalesce(sum(bytes), 0)::bigint FROM measured_bytes "
        "WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    return StoredBytes(total=workloads + pods + samples, pods=pods + samples, samples=samples)


async def _folded_bytes(
    connection: Connection, table: str, tenant_id: int, cluster_id: UUID
) -> int:
    """The sum of the cluster's rows, which become one where they are many."""
    row = await connection.fetchrow(
        f"SELECT coalesce(sum(bytes), 0)::bigint AS bytes, count(*) AS count FROM {table} "
        "WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    assert row is not None  # an aggregate has a row
    if row["count"] > _FOLDED_ROWS:
        await connection.execute(
            f"WITH folded AS (DELETE FROM {table} WHERE tenant_id = $1 AND cluster_id = $2 "
            f"RETURNING bytes) INSERT INTO {table} (tenant_id, cluster_id, bytes) "
            "SELECT $1, $2, sum(bytes) FROM folded",
            tenant_id,
            cluster_id,
        )
    return int(row["bytes"])


def refuse_all(upserts: Sequence[Upsert], most_bytes: int) -> list[RefusedItem]:
    """The message where a cluster has stored as much as it may."""
    reason = (
        f"The cluster has stored {most_bytes} bytes, as much as WATCHBILL_CLUSTER_STORED_BYTES permits: "
        "raise that, or keep deleted workloads for fewer days (WATCHBILL_DELETED_RETENTION_DAYS)."
    )
    return [
        RefusedItem(id=upsert.record.workload.id, reason=reason, is_out_of_room=True)
        for upsert in upserts
    ]


def no_room_for_pods(workload_ids: Iterable[UUID]) -> list[RefusedItem]:
    """The message about workloads that are stored without some of their pods or events."""
    reason = (
        "It is stored without new pods and events: those of the cluster, with its samples, take as much "
        "as half of WATCHBILL_CLUSTER_STORED_BYTES permits."
    )
    return [RefusedItem(id=workload_id, reason=reason) for workload_id in workload_ids]


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


async def unit_count(connection: Connection, table: str, tenant_id: int, cluster_id: UUID) -> int:
    """`table` is `project` or `department`."""
    count: int = await connection.fetchval(
        f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND cluster_id = $2",
        tenant_id,
        cluster_id,
    )
    return count
