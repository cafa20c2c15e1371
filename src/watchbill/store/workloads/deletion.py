"""Marks workloads as gone. The row stays: it is the tombstone, and the history that people come back for.

A deleted row shows the last phase before it began to leave; its open spell ends with it.

Forgets what was deleted longer ago than it is kept for, from every table.
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
from watchbill.store.workloads.write import EXISTING, phase_state_of, transition_insert
from watchbill.workload import LEAVING_PHASES, Phase, Transition

_GONE = (
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


@dataclass(frozen=True, slots=True)
class _Deletion:
    """`was_leaving`: its last record already told of the leaving, so its message is not of the phase shown."""

    id: UUID
    deleted_at: datetime
    was_leaving: bool
    state: PhaseState
    transitions: list[tuple[UUID, int, Transition]]


async def workload_delete(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    deletes: Sequence[Delete],
    now: datetime,
    *,
    is_inferred: bool = False,
) -> int:
    """Mark rows of this cluster as gone; what is gone already stays as it is. Returns how many went."""
    told = {delete.id: delete for delete in deletes}
    stored = await connection.fetch(
        f"{EXISTING} AND cluster_id = $3 AND deleted_at IS NULL FOR UPDATE",
        tenant_id,
        list(told),
        cluster_id,
    )
    departures = [_deletion(row, told[row["id"]]) for row in stored]
    if departures:
        await _update(connection, tenant_id, departures, now, is_inferred=is_inferred)
        await transition_insert(
            connection, tenant_id, [entry for d in departures for entry in d.transitions]
        )
        await change_notify(connection, tenant_id, (departure.id for departure in departures))
    return len(departures)


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
        Phase(stored["phase"]) in LEAVING_PHASES,
        finish_intervals(state, deleted_at),
        entries,
    )


async def _update(
    connection: Connection,
    tenant_id: int,
    departures: Sequence[_Deletion],
    now: datetime,
    *,
    is_inferred: bool,
) -> None:
    stored = await connection.fetch(
        "SELECT id, document, updated_at FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])",
        tenant_id,
        [departure.id for departure in departures],
    )
    last = {row["id"]: row for row in stored}
    rows = [
        _gone_row(departure, last[departure.id], now, is_inferred=is_inferred)
        for departure in departures
    ]
    await connection.execute(_GONE, tenant_id, now, *map(list, zip(*rows, strict=True)))


def _gone_row(
    departure: _Deletion, last: Row, now: datetime, *, is_inferred: bool
) -> tuple[object, ...]:
    state = departure.state
    document = replace_members(
        last["document"],
        LastState(
            phase=state.resting_phase,
            phase_updated_at=state.resting_phase_at,
            updated_at=now,
            deleted_at=departure.deleted_at,
        ),
        DeletedBetween(not_before=last["updated_at"], not_after=now) if is_inferred else None,
        without=("phaseMessage", "phaseReason") if departure.was_leaving else (),
    )
    return (
        departure.id,
        departure.deleted_at,
        state.resting_phase.value,
        state.resting_phase_at,
        state.transition_count,
        state.pending_ms,
        state.running_ms,
        document,
        revision_of(document),
    )


BATCH = 1_000
_CHILDREN = ("workload_elements", "phase_transition", "usage_sample", "measured_sample")


async def workload_purge(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Remove workloads deleted before `now - keep`, in batches. Returns how many were removed.

    `deleted_at` is the cluster's clock, `updated_at` ours: the later one counts.
    """
    purged = 0
    while True:
        async with db.transaction(tenant_id) as connection:
            ids = [
                row["id"]
                for row in await connection.fetch(
                    "SELECT id FROM workload WHERE tenant_id = $1 AND deleted_at < $2 "
                    "AND updated_at < $2 ORDER BY deleted_at LIMIT $3 FOR UPDATE SKIP LOCKED",
                    tenant_id,
                    now - keep,
                    BATCH,
                )
            ]
            for table in _CHILDREN:
                await connection.execute(
                    f"DELETE FROM {table} WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[])",
                    tenant_id,
                    ids,
                )
            await connection.execute(
                "DELETE FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])", tenant_id, ids
            )
        purged += len(ids)
        if len(ids) < BATCH:
            return purged


async def tenant_list(db: Database) -> list[int]:
    """All tenants; their names and rows stay behind their own locks."""
    async with db.acquire(0) as connection:
        rows = await connection.fetch("SELECT id FROM tenant ORDER BY id")
    return [row["id"] for row in rows]
