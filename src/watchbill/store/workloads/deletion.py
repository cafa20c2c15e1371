"""Marks workloads as deleted, and removes them once they were deleted long enough ago.

A deleted row stays as the workload's history. It shows the last phase before the workload began to leave; its
open phase interval ends with it. `deletedBetween` says where nobody saw the deletion as it happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.history import (
    PhaseState,
    apply_transition,
    finish_intervals,
    new_transitions,
)
from watchbill.protocol import Delete
from watchbill.responses.contract import DeletedBetween
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.changes import change_notify
from watchbill.store.workloads.document import (
    LastState,
    replace_members,
    revision_of,
)
from watchbill.store.workloads.pod_write import pod_end_all
from watchbill.store.workloads.write import (
    EXISTING,
    is_known_by_pods_alone,
    phase_state_of,
    transition_insert,
)
from watchbill.workload import LEAVING_PHASES, Phase, Transition

_MARK_DELETED = (
    "UPDATE workload w SET deleted_at = n.deleted_at, updated_at = $2, phase = n.phase, "
    "phase_updated_at = n.phase_updated_at, resting_phase = n.phase, "
    "resting_phase_at = n.phase_updated_at, transition_count = n.transition_count, "
    "pending_ms = n.pending_ms, pending_since = NULL, running_ms = n.running_ms, "
    "running_since = NULL, document = n.document, revision = n.revision "
    "FROM unnest($3::uuid[], $4::timestamptz[], $5::text[], $6::timestamptz[], $7::int[], "
    "$8::bigint[], $9::bigint[], $10::bytea[], $11::bytea[]) AS n(id, deleted_at, phase, "
    "phase_updated_at, transition_count, pending_ms, running_ms, document, revision) "
    "WHERE w.tenant_id = $1 AND w.id = n.id"
)
_NOTE_CHANGE = "UPDATE cluster SET last_change_at = $3 WHERE tenant_id = $1 AND id = $2"

BATCH_ROWS = 1_000
ROWS_AT_ONCE = 200
"""As many as a batch brings. An inventory may infer tens of thousands, and a statement has a few seconds."""
WITHDRAWABLE_FOR = timedelta(minutes=5)
"""After a workload was first seen: an agent waits two minutes for an owner before it shows a pod as its own."""
_WITHDRAWABLE = (
    "SELECT n AS id FROM unnest($2::uuid[]) AS n WHERE (SELECT min(at) >= $3 AND max(allocated_gpu) = 0 "
    "FROM usage_step u WHERE u.tenant_id = $1 AND u.workload_id = n)"
)
_CHILDREN = (
    *("workload_elements", "phase_transition", "usage_sample", "measured_sample"),
    *("usage_step", "usage_state", "workload_pod", "workload_event"),
)
_ACCOUNTS = ("usage_day", "usage_workload")
"""What is kept longer than the workload, if there ever was one."""
_PURGED = "FROM workload WHERE tenant_id = $1 AND deleted_at < $2 AND updated_at < $2"
_OLDEST = "ORDER BY deleted_at LIMIT $3"
_LOCK_CLUSTERS = (
    f"SELECT id FROM cluster WHERE tenant_id = $1 AND id IN (SELECT cluster_id {_PURGED} {_OLDEST}) "
    "ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_WORKLOADS = (
    f"SELECT id {_PURGED} AND cluster_id = ANY($4::uuid[]) {_OLDEST} FOR UPDATE SKIP LOCKED"
)


@dataclass(frozen=True, slots=True)
class _Deletion:
    """`was_leaving`: its last record was of a phase of leaving, so its message is not of the phase shown."""

    id: UUID
    deleted_at: datetime
    between: DeletedBetween | None
    was_leaving: bool
    state: PhaseState
    transitions: list[tuple[UUID, int, Transition]]


async def workload_delete(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    deletes: Sequence[Delete],
    now: datetime,
) -> int:
    """Mark rows of this cluster as deleted, unless they are already. Returns how many were marked.

    What never existed is removed with all that is kept of it, unless it was there for longer than a mistake
    lasts or held GPUs: who gives a pod another owner later would take what it used out of the accounts.
    However many there are, no statement takes longer than for `ROWS_AT_ONCE` of them.
    """
    return sum(
        [
            await _delete(connection, tenant_id, cluster_id, deletes[first:][:ROWS_AT_ONCE], now)
            for first in range(0, len(deletes), ROWS_AT_ONCE)
        ]
    )


async def _delete(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    deletes: Sequence[Delete],
    now: datetime,
) -> int:
    by_id = {delete.id: delete for delete in deletes}
    stored = await connection.fetch(
        f"{EXISTING} AND cluster_id = $3 AND deleted_at IS NULL FOR UPDATE",
        tenant_id,
        list(by_id),
        cluster_id,
    )
    deletions = [
        _deletion(row, by_id[row["id"]])
        for row in stored
        if is_known_by_pods_alone(row) or not by_id[row["id"]].is_owner_unreadable
    ]
    if deletions:
        await _update(connection, tenant_id, deletions, now)
        await transition_insert(
            connection,
            tenant_id,
            [entry for deletion in deletions for entry in deletion.transitions],
        )
        ends = {deletion.id: deletion.deleted_at for deletion in deletions}
        await pod_end_all(connection, tenant_id, ends, now)
        await connection.execute(_NOTE_CHANGE, tenant_id, cluster_id, now)
        await change_notify(connection, tenant_id, ends)
    withdrawn = [deletion.id for deletion in deletions if by_id[deletion.id].never_existed]
    if withdrawn:
        rows = await connection.fetch(_WITHDRAWABLE, tenant_id, withdrawn, now - WITHDRAWABLE_FOR)
        await _remove(connection, tenant_id, [row["id"] for row in rows], (*_CHILDREN, *_ACCOUNTS))
    return len(deletions)


def _deletion(stored: Row, delete: Delete) -> _Deletion:
    state = phase_state_of(stored)
    last = delete.transitions[-1].phase if delete.transitions else state.phase
    leaving = last if last in LEAVING_PHASES else Phase.DELETING
    fresh = new_transitions(
        state.last, delete.transitions, phase=leaving, observed_at=delete.deleted_at
    )
    entries = [
        (delete.id, number, transition)
        for number, transition in enumerate(fresh, state.transition_count)
    ]
    for transition in fresh:
        state = apply_transition(state, transition)
    deleted_at = max(delete.deleted_at, state.phase_updated_at)
    return _Deletion(
        delete.id,
        deleted_at,
        None
        if delete.not_before is None
        else DeletedBetween(not_before=delete.not_before, not_after=deleted_at),
        Phase(stored["phase"]) in LEAVING_PHASES,
        finish_intervals(state, deleted_at),
        entries,
    )


async def _update(
    connection: Connection,
    tenant_id: int,
    deletions: Sequence[_Deletion],
    now: datetime,
) -> None:
    stored = await connection.fetch(
        "SELECT id, document FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])",
        tenant_id,
        [deletion.id for deletion in deletions],
    )
    documents = {row["id"]: row["document"] for row in stored}
    rows = [_deleted_row(deletion, documents[deletion.id], now) for deletion in deletions]
    await connection.execute(_MARK_DELETED, tenant_id, now, *map(list, zip(*rows, strict=True)))


def _deleted_row(deletion: _Deletion, last_document: bytes, now: datetime) -> tuple[object, ...]:
    state = deletion.state
    document = replace_members(
        last_document,
        LastState(
            phase=state.resting_phase,
            phase_updated_at=state.resting_phase_at,
            updated_at=now,
            deleted_at=deletion.deleted_at,
        ),
        deletion.between,
        without=("phaseMessage", "phaseReason") if deletion.was_leaving else (),
    )
    return (
        deletion.id,
        deletion.deleted_at,
        state.resting_phase.value,
        state.resting_phase_at,
        state.transition_count,
        state.pending_ms,
        state.running_ms,
        document,
        revision_of(document),
    )


async def workload_purge(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Remove workloads deleted before `now - keep`, in batches. Returns how many were removed.

    `deleted_at` is the cluster's clock, `updated_at` ours: the later one counts. Who writes what is counted
    of a cluster holds its row, and takes it before any other.
    """
    purged = 0
    while True:
        async with db.transaction(tenant_id) as connection:
            batch = (tenant_id, now - keep, BATCH_ROWS)
            clusters = [row["id"] for row in await connection.fetch(_LOCK_CLUSTERS, *batch)]
            rows = await connection.fetch(_LOCK_WORKLOADS, *batch, clusters)
            await _remove(connection, tenant_id, [row["id"] for row in rows])
        purged += len(rows)
        if len(rows) < BATCH_ROWS:
            return purged


async def _remove(
    connection: Connection, tenant_id: int, ids: Sequence[UUID], tables: Sequence[str] = _CHILDREN
) -> None:
    """Remove deleted workloads and what these tables keep of them."""
    for table in tables:
        await connection.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[])",
            tenant_id,
            ids,
        )
    await connection.execute(
        "DELETE FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])", tenant_id, ids
    )


async def tenant_name_get(db: Database, tenant_id: int) -> str:
    """The name that people gave the tenant."""
    async with db.acquire(tenant_id) as connection:
        name: str = await connection.fetchval("SELECT name FROM tenant WHERE id = $1", tenant_id)
    return name


async def tenant_list(db: Database) -> list[int]:
    """All tenants; their names and rows stay behind their own locks."""
    async with db.acquire(0) as connection:
        rows = await connection.fetch("SELECT id FROM tenant ORDER BY id")
    return [row["id"] for row in rows]
