"""Writes the pods that records bring: those that are new or changed, and the end of those that are gone.

A pod that is gone stays as its workload's history, the newest `MAX_PODS` of a workload, until it is purged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from watchbill.protocol import PodChanges, Upsert
from watchbill.quantity import parse_quantity
from watchbill.store.postgres.database import Connection, Database
from watchbill.store.workloads.row import without_nul
from watchbill.workload import GPU_MILLIONTHS, AllocatedResources
from watchbill.workload_pod import MAX_PODS, WorkloadPod

KEEP_GONE = timedelta(days=14)
"""How long a pod that is gone is kept, where its workload lives on."""
BATCH_ROWS = 5_000
MAX_CORES = 1e6
MAX_MEMORY_BYTES = 2**50
"""Of one pod; what is more cannot be, and sums stay exact."""

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class PodUpdate:
    """The pods that one record brings. `is_difference`: the others that are stored stay as they are."""

    workload_id: UUID
    changes: PodChanges
    observed_at: datetime
    is_difference: bool


_COLUMNS = {
    "workload_id": "uuid",
    "id": "uuid",
    "name": "text",
    "node_name": "text",
    "current_node_pool": "text",
    "k8s_phase": "text",
    "k8s_phase_updated_at": "timestamptz",
    "created_at": "timestamptz",
    "completed_at": "timestamptz",
    "gpu_millionths": "bigint",
    "cpu_millicores": "bigint",
    "cpu_memory_bytes": "bigint",
    "document": "bytea",
}
_KEYS = ("workload_id", "id")
_NAMES = ", ".join(_COLUMNS)
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), 3))
_REPLACED = ", ".join(
    f"{column} = excluded.{column}"
    for column in _COLUMNS
    if column not in (*_KEYS, "k8s_phase_updated_at")
)
_UPSERT = (
    f"INSERT INTO workload_pod AS p (tenant_id, updated_at, {_NAMES}) "
    f"SELECT $1, $2, n.* FROM unnest({_ARRAYS}) AS n "
    f"ON CONFLICT (tenant_id, workload_id, id) DO UPDATE SET {_REPLACED}, updated_at = $2, "
    "deleted_at = NULL, k8s_phase_updated_at = CASE WHEN p.k8s_phase = excluded.k8s_phase "
    "THEN p.k8s_phase_updated_at ELSE excluded.k8s_phase_updated_at END "
    "WHERE p.document <> excluded.document OR p.deleted_at IS NOT NULL"
)
_END = (
    "UPDATE workload_pod p SET deleted_at = n.at, updated_at = $2 "
    "FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[]) AS n(workload_id, id, at) "
    "WHERE p.tenant_id = $1 AND p.workload_id = n.workload_id AND p.id = n.id "
    "AND p.deleted_at IS NULL"
)
_END_OTHERS = (
    "UPDATE workload_pod p SET deleted_at = n.at, updated_at = $2 "
    "FROM unnest($3::uuid[], $4::timestamptz[]) AS n(workload_id, at) "
    "WHERE p.tenant_id = $1 AND p.workload_id = n.workload_id AND p.deleted_at IS NULL "
    "AND NOT EXISTS (SELECT FROM unnest($5::uuid[], $6::uuid[]) AS k(workload_id, id) "
    "WHERE k.workload_id = p.workload_id AND k.id = p.id)"
)
_END_EXCESS = (
    "WITH excess AS MATERIALIZED (SELECT n.workload_id, n.at, e.id "
    "FROM unnest($3::uuid[], $4::timestamptz[]) AS n(workload_id, at) CROSS JOIN LATERAL "
    "(SELECT x.id FROM workload_pod x WHERE x.tenant_id = $1 AND x.workload_id = n.workload_id "
    f"AND x.deleted_at IS NULL ORDER BY x.updated_at DESC, x.id OFFSET {MAX_PODS}) AS e) "
    "UPDATE workload_pod p SET deleted_at = excess.at, updated_at = $2 FROM excess "
    "WHERE p.tenant_id = $1 AND p.workload_id = excess.workload_id AND p.id = excess.id"
)
"""Agents tell no more than `MAX_PODS`; one that was taken over adds to them without end."""
_DROP_EXCESS = (
    "WITH excess AS MATERIALIZED (SELECT w.id AS workload_id, e.id "
    "FROM unnest($2::uuid[]) AS w(id) CROSS JOIN LATERAL "
    "(SELECT x.id FROM workload_pod x WHERE x.tenant_id = $1 AND x.workload_id = w.id "
    f"AND x.deleted_at IS NOT NULL ORDER BY x.deleted_at DESC, x.id OFFSET {MAX_PODS}) AS e) "
    "DELETE FROM workload_pod p USING excess "
    "WHERE p.tenant_id = $1 AND p.workload_id = excess.workload_id AND p.id = excess.id"
)
"""What is too much is named first: before the first statistics of the table a plan did so anew for each pod."""


async def without_new_pods(
    connection: Connection, tenant_id: int, upserts: Sequence[Upsert]
) -> tuple[list[Upsert], set[UUID]]:
    """The upserts with the pods that are stored already, and the workloads of which some were left out.

    These are stored under another hash than their own, so the next inventory asks for them again.
    """
    pod_ids = [
        (upsert.record.workload.id, pod.id)
        for upsert in upserts
        if upsert.pods is not None
        for pod in upsert.pods.changed
    ]
    rows = await connection.fetch(
        "SELECT p.workload_id, p.id FROM unnest($2::uuid[], $3::uuid[]) AS n(workload_id, id) "
        "JOIN workload_pod p ON p.tenant_id = $1 AND p.workload_id = n.workload_id AND p.id = n.id",
        tenant_id,
        [workload_id for workload_id, _ in pod_ids],
        [pod_id for _, pod_id in pod_ids],
    )
    stored = {(row["workload_id"], row["id"]) for row in rows}
    incomplete = {
        workload_id for workload_id, pod_id in pod_ids if (workload_id, pod_id) not in stored
    }
    return [
        _only_stored(upsert, stored) if upsert.record.workload.id in incomplete else upsert
        for upsert in upserts
    ], incomplete


def _only_stored(upsert: Upsert, stored: set[tuple[UUID, UUID]]) -> Upsert:
    assert upsert.pods is not None  # something of them is left out
    workload_id = upsert.record.workload.id
    kept = tuple(pod for pod in upsert.pods.changed if (workload_id, pod.id) in stored)
    other_hash = bytes(byte ^ 0xFF for byte in bytes.fromhex(upsert.record_hash)).hex()
    return msgspec.structs.replace(
        upsert,
        pods=msgspec.structs.replace(upsert.pods, changed=kept),
        record_hash=other_hash,
    )


async def pod_write(
    connection: Connection, tenant_id: int, updates: Sequence[PodUpdate], now: datetime
) -> None:
    """One statement for each thing that can happen, whatever the number of pods."""
    changed = [(update, pod) for update in updates for pod in update.changes.changed]
    if changed:
        rows = {(row[0], row[1]): row for row in (_row(*entry) for entry in changed)}
        columns = map(list, zip(*rows.values(), strict=True))
        await connection.execute(_UPSERT, tenant_id, now, *columns)
    ended = [
        (update.workload_id, pod_id, update.observed_at)
        for update in updates
        for pod_id in update.changes.removed
    ]
    if ended:
        await connection.execute(_END, tenant_id, now, *map(list, zip(*ended, strict=True)))
    whole = [update for update in updates if not update.is_difference]
    if whole:
        await _end_others(connection, tenant_id, whole, now)
    grown = {u.workload_id: u.observed_at for u in updates if u.is_difference and u.changes.changed}
    if grown:
        await connection.execute(_END_EXCESS, tenant_id, now, list(grown), list(grown.values()))
    shrunk = {workload_id for workload_id, _, _ in ended} | {u.workload_id for u in whole}
    if shrunk or grown:
        await connection.execute(_DROP_EXCESS, tenant_id, list(shrunk | grown.keys()))


async def pod_forget(connection: Connection, tenant_id: int, workload_ids: Sequence[UUID]) -> None:
    """These workloads' pods are not reported, as by an agent that went back to an older version: whether
    those that were reported before still live is not known."""
    if workload_ids:
        await connection.execute(
            "DELETE FROM workload_pod WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[]) "
            "AND deleted_at IS NULL",
            tenant_id,
            workload_ids,
        )


async def _end_others(
    connection: Connection, tenant_id: int, updates: Sequence[PodUpdate], now: datetime
) -> None:
    """These updates name every pod that there is: the others are gone."""
    kept = [(update.workload_id, pod.id) for update in updates for pod in update.changes.changed]
    await connection.execute(
        _END_OTHERS,
        tenant_id,
        now,
        [update.workload_id for update in updates],
        [update.observed_at for update in updates],
        [workload_id for workload_id, _ in kept],
        [pod_id for _, pod_id in kept],
    )


def _row(update: PodUpdate, pod: WorkloadPod) -> tuple[object, ...]:
    """In the order of `_COLUMNS`."""
    document = _ENCODER.encode(msgspec.structs.replace(pod, k8s_phase_updated_at=None))
    return (
        update.workload_id,
        pod.id,
        without_nul(pod.name),
        without_nul(pod.node_name) if pod.node_name is not None else None,
        without_nul(pod.current_node_pool) if pod.current_node_pool is not None else None,
        without_nul(pod.k8s_phase),
        pod.k8s_phase_updated_at or update.observed_at,
        pod.created_at,
        pod.completed_at,
        *_allocated(pod.allocated_resources),
        document[:-1],
    )


def _allocated(resources: AllocatedResources | None) -> tuple[int | None, int, int]:
    """What it holds of its node: millionths of a GPU (None = not known), thousandths of a core, bytes.

    A pod that asks for no processor or memory has none allocated, as Kubernetes counts."""
    if resources is None:
        return 0, 0, 0
    gpus = None if resources.gpu is None else round(resources.gpu * GPU_MILLIONTHS)
    memory = parse_quantity(resources.cpu_memory)
    cores = min(resources.cpu or 0.0, MAX_CORES)
    return gpus, round(cores * 1000), min(int(memory or 0), MAX_MEMORY_BYTES)


async def pod_end_all(
    connection: Connection, tenant_id: int, ends: Mapping[UUID, datetime], now: datetime
) -> None:
    """The pods of workloads that are gone are gone too. `ends`: when, by workload."""
    await connection.execute(
        "UPDATE workload_pod p SET deleted_at = n.at, updated_at = $2 "
        "FROM unnest($3::uuid[], $4::timestamptz[]) AS n(workload_id, at) "
        "WHERE p.tenant_id = $1 AND p.workload_id = n.workload_id AND p.deleted_at IS NULL",
        tenant_id,
        now,
        list(ends),
        list(ends.values()),
    )


async def pod_purge(db: Database, tenant_id: int, *, now: datetime) -> int:
    """Remove pods that are gone for longer than they are kept, in batches. Returns how many."""
    purged, count = 0, BATCH_ROWS
    while count == BATCH_ROWS:
        async with db.transaction(tenant_id) as connection:
            rows = await connection.fetch(
                "DELETE FROM workload_pod WHERE tenant_id = $1 AND (workload_id, id) IN "
                "(SELECT workload_id, id FROM workload_pod WHERE tenant_id = $1 "
                "AND deleted_at < $2 AND updated_at < $2 ORDER BY deleted_at LIMIT $3) "
                "RETURNING id",
                tenant_id,
                now - KEEP_GONE,
                BATCH_ROWS,
            )
        count = len(rows)
        purged += count
    return purged
