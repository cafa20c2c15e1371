"""Clusters: which agent may report, their last contact, what they cannot see."""

from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID

import msgspec

from watchbill.errors import Invalid
from watchbill.protocol import (
    DEGRADED_AFTER_SECONDS,
    DISCONNECTED_AFTER_SECONDS,
    Delete,
    KindState,
    NodePoolCapacity,
    RefusedItem,
)
from watchbill.query import Scope
from watchbill.responses.fleet import (
    Cluster,
    ClusterPlatform,
    ClusterState,
    ClusterStatus,
    Gap,
    HeldDeletions,
    cluster_state,
)
from watchbill.store.postgres.database import Database, Row
from watchbill.store.postgres.errors import UniqueViolation
from watchbill.store.workloads.deletion import workload_delete

SHOWN_ROWS = 100

_T = TypeVar("_T")


_CLUSTERS = (
    "SELECT c.*, h.held, h.held_since, h.is_held_refused, "
    "(SELECT greatest(0, coalesce(sum(s.bytes), 0))::bigint FROM "
    "(SELECT tenant_id, cluster_id, bytes FROM stored_bytes UNION ALL "
    "SELECT tenant_id, cluster_id, bytes FROM stored_pod_bytes UNION ALL "
    "SELECT tenant_id, cluster_id, bytes FROM measured_bytes) AS s "
    "WHERE s.tenant_id = c.tenant_id AND s.cluster_id = c.id) AS stored_bytes, "
    "(SELECT coalesce(sum(w.workloads), 0)::bigint FROM workload_tally w "
    "WHERE w.tenant_id = c.tenant_id AND w.cluster_id = c.id "
    "AND ($6 OR w.cluster_id = ANY($7::uuid[]) OR w.department_id = ANY($8::int[]) "
    "OR w.project_id = ANY($9::int[]))) AS workloads, (SELECT max(g.to_at) FROM cluster_gap g "
    "WHERE g.tenant_id = $1 AND g.cluster_id = c.id AND g.is_silence) AS silence_ended_at "
    "FROM cluster c "
    "LEFT JOIN LATERAL (SELECT count(*) AS held, min(d.held_at) AS held_since, "
    "bool_and(d.refused_at IS NOT NULL) AS is_held_refused FROM held_deletion d "
    "JOIN workload l ON l.tenant_id = d.tenant_id AND l.id = d.workload_id "
    "AND l.deleted_at IS NULL WHERE d.tenant_id = $1 AND d.cluster_id = c.id) AS h ON true "
    "WHERE c.tenant_id = $1 AND c.removed_at IS NULL "
    "AND ($2 OR c.id = ANY($3::uuid[]) OR EXISTS (SELECT 1 FROM project p "
    "WHERE p.tenant_id = $1 AND p.cluster_id = c.id "
    "AND (p.department_id = ANY($4::int[]) OR p.id = ANY($5::int[])))) ORDER BY c.name"
)
_REFUSED_ITEMS = (
    "SELECT r.cluster_id, r.workload_id AS id, r.reason FROM unnest($2::uuid[]) AS c(id) "
    "CROSS JOIN LATERAL (SELECT * FROM refused_item i WHERE i.tenant_id = $1 "
    "AND i.cluster_id = c.id ORDER BY i.at DESC, i.workload_id LIMIT $3) AS r"
)


_GAPS = (
    "SELECT g.cluster_id, g.from_at, g.to_at FROM unnest($2::uuid[]) AS c(id) "
    "CROSS JOIN LATERAL (SELECT * FROM cluster_gap i WHERE i.tenant_id = $1 "
    "AND i.cluster_id = c.id ORDER BY i.from_at DESC LIMIT $3) AS g"
)


async def cluster_list(
    db: Database,
    scope: Scope,
    now: datetime,
    *,
    workloads: Scope | None = None,
    most_bytes: int | None = None,
) -> list[Cluster]:
    """The clusters in scope, each with the number of its workloads that may be read (`workloads`, else the
    same scope). One of which only a part is granted tells nothing of its other parts."""
    readable = workloads or scope
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            _CLUSTERS,
            scope.tenant_id,
            scope.is_whole_tenant,
            list(scope.cluster_ids),
            list(scope.department_ids),
            list(scope.project_ids),
            readable.is_whole_tenant,
            list(readable.cluster_ids),
            list(readable.department_ids),
            list(readable.project_ids),
        )
        ids = [row["id"] for row in rows]
        refused = await connection.fetch(
            _REFUSED_ITEMS,
            scope.tenant_id,
            ids,
            SHOWN_ROWS,
        )
        gaps = await connection.fetch(
            _GAPS,
            scope.tenant_id,
            ids,
            SHOWN_ROWS,
        )
    return [
        _cluster(
            row,
            now,
            is_whole=scope.is_whole_tenant or row["id"] in scope.cluster_ids,
            most_bytes=most_bytes,
            refused=[entry for entry in refused if entry["cluster_id"] == row["id"]],
            gaps=[gap for gap in gaps if gap["cluster_id"] == row["id"]],
        )
        for row in rows
    ]


_PLATFORM_STATES: dict[
    ClusterState, Literal["WaitingToConnect", "Connected", "ServiceIssues", "Disconnected"]
] = {
    "waiting": "WaitingToConnect",
    "connected": "Connected",
    "degraded": "ServiceIssues",
    "disconnected": "Disconnected",
}


def _cluster(
    row: Row,
    now: datetime,
    *,
    is_whole: bool,
    most_bytes: int | None,
    refused: list[Row],
    gaps: list[Row],
) -> Cluster:
    unbroken_since = row["silence_ended_at"] or row["created_at"]
    state = cluster_state(row["last_contact_at"], now)
    return Cluster(
        uuid=row["id"],
        tenant_id=row["tenant_id"],
        id=row["id"],
        name=row["name"],
        state=state,
        since=_since(state, row["last_contact_at"], unbroken_since),
        created_at=row["created_at"],
        workloads=row["workloads"],
        gaps=tuple(Gap(from_at=gap["from_at"], to_at=gap["to_at"]) for gap in gaps),
        last_contact_at=row["last_contact_at"],
        last_message_at=row["last_message_at"],
        last_inventory_at=row["last_inventory_at"],
        reason=_reason(row, state, now, is_whole=is_whole),
        agent_version=row["agent_version"],
        kubernetes_version=row["kubernetes_version"],
        updated_at=row["last_message_at"],
        last_liveness=row["last_contact_at"],
        status=ClusterStatus(
            state=_PLATFORM_STATES[state],
            platform=ClusterPlatform(kube_version=row["kubernetes_version"]),
        ),
        **(_of_all(row, refused, most_bytes) if is_whole else _OF_A_PART),
    )


_ENTERED_AFTER = {
    "degraded": timedelta(seconds=DEGRADED_AFTER_SECONDS),
    "disconnected": timedelta(seconds=DISCONNECTED_AFTER_SECONDS),
}
_AS_STORED = (
    *(
        "takeovers",
        "last_takeover_at",
        "last_change_at",
        "backlog",
        "digest_compared_at",
        "digest_mismatches",
    ),
    *("agent_clock_ahead_seconds", "cluster_clock_ahead_seconds"),
)
_OF_A_PART: dict[str, Any] = {"takeovers": 0, "kinds": (), "node_pools": (), "refused": ()}


def _of_all(row: Row, refused: list[Row], most_bytes: int | None) -> dict[str, Any]:
    """Ids, messages, capacity and counts may tell of anybody: they are for whoever sees the whole cluster."""
    held = HeldDeletions(
        count=row["held"], since=row["held_since"], is_refused=row["is_held_refused"]
    )
    return {
        **{name: row[name] for name in _AS_STORED},
        "kinds": _decoded(row["kinds"], tuple[KindState, ...]),
        "node_pools": _decoded(row["node_pools"], tuple[NodePoolCapacity, ...]),
        "refused": tuple(RefusedItem(id=entry["id"], reason=entry["reason"]) for entry in refused),
        "held_deletions": held if row["held"] else None,
        "stored_bytes": row["stored_bytes"],
        "stored_bytes_limit": most_bytes,
    }


def _reason(row: Row, state: ClusterState, now: datetime, *, is_whole: bool) -> str | None:
    """Why the data is old; messages of the cluster's API server are for whoever sees the whole cluster."""
    if state not in ("degraded", "disconnected"):
        return None
    message_at = row["last_message_at"]
    if message_at is None or now - message_at >= timedelta(seconds=DEGRADED_AFTER_SECONDS):
        return "No contact with its agent."
    kinds = _decoded(row["kinds"], tuple[KindState, ...])
    pods = next((kind for kind in kinds if (kind.group, kind.kind) == ("", "Pod")), None)
    if pods is not None and pods.state != "complete":
        message = f": {pods.message}" if pods.message and is_whole else "."
        return f"Its agent cannot read pods ({pods.state}){message}"
    return "Its agent is not in step with the cluster yet, or its changes are not taken."


def _decoded(stored: bytes | None, kind: type[_T]) -> _T:
    """What the agent reported; nothing where an agent before today's bounds reported what cannot be."""
    try:
        return msgspec.json.decode(stored or b"[]", type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(b"[]", type=kind)


def _since(
    state: ClusterState, last_contact_at: datetime | None, unbroken_since: datetime
) -> datetime:
    """When it entered the state."""
    if last_contact_at is None or state not in _ENTERED_AFTER:
        return unbroken_since
    return last_contact_at + _ENTERED_AFTER[state]


async def cluster_create(
    db: Database,
    tenant_id: int,
    *,
    cluster_id: UUID,
    name: str,
    credential_salt: bytes,
    credential_hash: bytes,
    now: datetime,
) -> None:
    """Raises Invalid where a cluster of that name exists."""
    async with db.acquire(tenant_id) as connection:
        try:
            await connection.execute(
                "INSERT INTO cluster (tenant_id, id, name, credential_salt, credential_hash, "
                "created_at) VALUES ($1, $2, $3, $4, $5, $6)",
                tenant_id,
                cluster_id,
                name,
                credential_salt,
                credential_hash,
                now,
            )
        except UniqueViolation as error:
            raise Invalid(f"A cluster named '{name}' exists already.") from error


async def cluster_delete(db: Database, scope: Scope, cluster_id: UUID, now: datetime) -> bool:
    """Remove a cluster: its agent is shut out, its workloads are deleted now. False = not there."""
    async with db.transaction(scope.tenant_id) as connection:
        removed = await connection.fetchval(
            "UPDATE cluster SET removed_at = $3, stream_id = NULL "
            "WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL RETURNING id",
            scope.tenant_id,
            cluster_id,
            now,
        )
        if removed is None:
            return False
        await connection.execute(
            "DELETE FROM cluster_node WHERE tenant_id = $1 AND cluster_id = $2",
            scope.tenant_id,
            cluster_id,
        )
        rows = await connection.fetch(
            "SELECT id FROM workload "
            "WHERE tenant_id = $1 AND cluster_id = $2 AND deleted_at IS NULL",
            scope.tenant_id,
            cluster_id,
        )
        deletes = [Delete(id=row["id"], deleted_at=now) for row in rows]
        await workload_delete(connection, scope.tenant_id, cluster_id, deletes, now)
    return True


async def cluster_repin(db: Database, scope: Scope, cluster_id: UUID) -> bool:
    """Forget which cluster it is: the next agent's is kept. False = not there."""
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchval(
            "UPDATE cluster SET cluster_uid = NULL "
            "WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL RETURNING id",
            scope.tenant_id,
            cluster_id,
        )
    return row is not None
