"""Writes records into the workload table and its children, a run of items at a time.

A record whose hash is the stored one and that brings no new transition writes nothing. Everything else is one
statement per table, whatever the number of items.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID

import msgspec

from watchbill.history import (
    PhaseState,
    apply_transition,
    new_transitions,
    start_intervals,
)
from watchbill.protocol import BatchItem, Record, RefusedItem, Upsert
from watchbill.store.postgres.database import Connection, Row
from watchbill.store.workloads import organisation
from watchbill.store.workloads.changes import change_notify
from watchbill.store.workloads.document import DOCUMENT_FORMAT
from watchbill.store.workloads.pod_write import PodUpdate, pod_forget, pod_write
from watchbill.store.workloads.quotas import within_quota
from watchbill.store.workloads.row import Columns, OrganisationIds, make_row
from watchbill.store.workloads.usage_steps import Observed, usage_write
from watchbill.store.workloads.validation import MAX_DOCUMENT_BYTES, TOO_LARGE
from watchbill.workload import Phase, Transition

MAX_ROWS = 500
"""That are written together, about: while they are made ready everybody else waits."""
EXISTING = (
    "SELECT id, cluster_id, deleted_at, record_hash, document_format, phase, phase_updated_at, "
    "resting_phase, resting_phase_at, transition_count, pending_ms, pending_since, running_ms, "
    "running_since, k8s_phase, k8s_phase_updated_at, witness_group, witness_kind FROM workload "
    "WHERE tenant_id = $1 AND id = ANY($2::uuid[])"
)
ITEMS_PER_TURN = 5
"""Of a batch; then other requests run. The largest item takes a millisecond."""
_OTHER_PODS = (
    "Its pods were sent as a difference from another record; the next inventory repairs it."
)
_HELD_ELSEWHERE = "A live workload of another cluster has the same id."


@dataclass(frozen=True, slots=True)
class _Change:
    row: Columns
    upsert: Upsert
    transitions: list[Transition]
    first_number: int
    observed: Observed


async def record_write(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    upserts: Sequence[Upsert],
    now: datetime,
) -> list[RefusedItem]:
    """Insert, update, revive or leave alone. Refuses an id that lives in another cluster."""
    ids = [upsert.record.workload.id for upsert in upserts]
    existing = {row["id"]: row for row in await connection.fetch(EXISTING, tenant_id, ids)}
    changed, refused = _changed(upserts, existing, cluster_id)
    live = {row["id"] for row in existing.values() if row["deleted_at"] is None}
    changed, excess = await within_quota(connection, tenant_id, cluster_id, changed, live=live)
    refused += excess
    if not changed:
        return refused
    numbers = await organisation.organisation_assign_ids(
        connection, tenant_id, cluster_id, [upsert.record for upsert in changed]
    )
    changes: list[_Change] = []
    for number, upsert in enumerate(changed, start=1):
        if number % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
        changes.append(
            _change(
                upsert,
                existing.get(upsert.record.workload.id),
                organisation=numbers[upsert.record.project_key or upsert.record.workload.namespace],
                tenant_id=tenant_id,
                cluster_id=cluster_id,
                now=now,
            )
        )
    fitting = [change for change in changes if not _is_too_large(change)]
    written = await _upsert(connection, [change.row for change in fitting])
    for change in changes:
        if change.row["id"] not in written:
            reason = TOO_LARGE if _is_too_large(change) else _HELD_ELSEWHERE
            refused.append(RefusedItem(id=change.row["id"], reason=reason))
    changes = [change for change in fitting if change.row["id"] in written]
    await _write_transitions(connection, tenant_id, changes)
    observed = [change.observed for change in changes]
    await usage_write(connection, tenant_id, cluster_id, observed, now)
    await _write_elements(connection, tenant_id, changes)
    await _write_pods(connection, tenant_id, changes, now)
    await _add_to_inventory(connection, tenant_id, cluster_id, written)
    await change_notify(connection, tenant_id, written)
    return refused


def _changed(
    upserts: Sequence[Upsert], existing: Mapping[UUID, Row], cluster_id: UUID
) -> tuple[list[Upsert], list[RefusedItem]]:
    """Those that say something new, and those whose id lives in another cluster."""
    refused: list[RefusedItem] = []
    changed: list[Upsert] = []
    for upsert in upserts:
        stored = existing.get(upsert.record.workload.id)
        if stored and stored["cluster_id"] != cluster_id and stored["deleted_at"] is None:
            refused.append(RefusedItem(id=stored["id"], reason=_HELD_ELSEWHERE))
        elif not _is_base(stored, upsert):
            refused.append(RefusedItem(id=upsert.record.workload.id, reason=_OTHER_PODS))
        elif stored is None or not _is_same(stored, upsert):
            changed.append(upsert)
    return changed, refused


async def _upsert(connection: Connection, rows: Sequence[Columns]) -> set[UUID]:
    """Ids of the rows that were written: all but those of a live workload of another cluster."""
    if not rows:
        return set()
    written = await connection.fetch(_upsert_statement(tuple(rows[0])), rows)
    return {row["id"] for row in written}


@cache
def _upsert_statement(columns: tuple[str, ...]) -> str:
    names = ", ".join(columns)
    replaced = ", ".join(
        f"{column} = excluded.{column}" for column in columns if column not in ("tenant_id", "id")
    )
    return (
        f"INSERT INTO workload AS w ({names}) SELECT {names} FROM unnest($1::workload[]) "
        f"ON CONFLICT (tenant_id, id) DO UPDATE SET {replaced} "
        "WHERE w.cluster_id = excluded.cluster_id OR w.deleted_at IS NOT NULL RETURNING id"
    )


def _is_too_large(change: _Change) -> bool:
    return len(change.row["document"]) + len(change.row["details"] or b"") > MAX_DOCUMENT_BYTES


def _is_base(stored: Row | None, upsert: Upsert) -> bool:
    """Whether the difference of its pods is one from what is stored."""
    if upsert.pods is None or upsert.pods.since is None:
        return True
    is_live = stored is not None and stored["deleted_at"] is None
    if not is_live or stored is None:
        return False
    return stored["record_hash"].hex() in (upsert.pods.since, upsert.record_hash)


def _is_same(stored: Row, upsert: Upsert) -> bool:
    if stored["deleted_at"] is not None or stored["document_format"] != DOCUMENT_FORMAT:
        return False
    if stored["record_hash"].hex() != upsert.record_hash or upsert.steps:
        return False
    phase = upsert.record.workload.phase
    return not new_transitions(
        phase_state_of(stored).last, upsert.transitions, phase=phase, observed_at=upsert.observed_at
    )


def _change(
    upsert: Upsert,
    stored: Row | None,
    *,
    organisation: OrganisationIds,
    tenant_id: int,
    cluster_id: UUID,
    now: datetime,
) -> _Change:
    workload = upsert.record.workload
    state = phase_state_of(stored) if stored else None
    fresh = new_transitions(
        state.last if state else None,
        upsert.transitions,
        phase=workload.phase,
        observed_at=upsert.observed_at,
    )
    if stored is not None and stored["deleted_at"] is not None and not fresh:
        # Deleted before and seen again: its phase interval begins anew.
        fresh = [Transition(phase=workload.phase, at=upsert.observed_at)]
    first_number = state.transition_count if state else 0
    for transition in fresh:
        state = (
            start_intervals(transition) if state is None else apply_transition(state, transition)
        )
    assert state is not None  # a first record always brings a transition
    return _Change(
        row=make_row(
            _with_known_witness(upsert.record, stored),
            record_hash=bytes.fromhex(upsert.record_hash),
            state=state,
            organisation=organisation,
            tenant_id=tenant_id,
            cluster_id=cluster_id,
            k8s_phase_updated_at=_k8s_phase_updated_at(upsert, stored, state),
            now=now,
        ),
        upsert=upsert,
        transitions=fresh,
        first_number=first_number,
        observed=Observed(
            _without_others_time(upsert, stored, cluster_id),
            organisation,
            stored["deleted_at"] if stored else None,
        ),
    )


def _without_others_time(upsert: Upsert, stored: Row | None, cluster_id: UUID) -> Upsert:
    """An id that another cluster had is used anew from its deletion on: what was accounted before stays."""
    if stored is None or stored["cluster_id"] == cluster_id:
        return upsert
    since = stored["deleted_at"]
    steps = tuple(step for step in upsert.steps if step.at > since)
    return msgspec.structs.replace(upsert, observed_at=max(upsert.observed_at, since), steps=steps)


def is_known_by_pods_alone(stored: Row) -> bool:
    """Whether nobody ever read the workload's own object, or it is a pod itself."""
    return (stored["witness_group"], stored["witness_kind"]) == ("", "Pod")


def _with_known_witness(record: Record, stored: Row | None) -> Record:
    """What was read once and cannot be read for now is proven absent by its own kind's listing, as before."""
    if (
        stored is None
        or stored["deleted_at"] is not None
        or is_known_by_pods_alone(stored)
        or not record.workload.additional_fields.get("isOwnerUnreadable")
    ):
        return record
    witness = msgspec.structs.replace(
        record.witness, group=stored["witness_group"], kind=stored["witness_kind"]
    )
    return msgspec.structs.replace(record, witness=witness)


def _k8s_phase_updated_at(upsert: Upsert, stored: Row | None, state: PhaseState) -> datetime:
    workload = upsert.record.workload
    if stored is not None and stored["k8s_phase"] == workload.k8s_phase:
        at: datetime = stored["k8s_phase_updated_at"]
        return at
    if workload.k8s_phase == workload.phase.value:
        return state.phase_updated_at
    return upsert.observed_at if stored is not None else workload.created_at


def phase_state_of(stored: Row) -> PhaseState:
    return PhaseState(
        phase=Phase(stored["phase"]),
        phase_updated_at=stored["phase_updated_at"],
        resting_phase=Phase(stored["resting_phase"]),
        resting_phase_at=stored["resting_phase_at"],
        transition_count=stored["transition_count"],
        pending_ms=stored["pending_ms"],
        pending_since=stored["pending_since"],
        running_ms=stored["running_ms"],
        running_since=stored["running_since"],
    )


async def _write_transitions(
    connection: Connection, tenant_id: int, changes: Iterable[_Change]
) -> None:
    await transition_insert(
        connection,
        tenant_id,
        [
            (change.row["id"], number, transition)
            for change in changes
            for number, transition in enumerate(change.transitions, change.first_number)
        ],
    )


async def transition_insert(
    connection: Connection, tenant_id: int, entries: Sequence[tuple[UUID, int, Transition]]
) -> None:
    """Add to the phase history: workload, number in its history, transition."""
    rows = [
        (workload_id, number, transition.at, transition.phase.value, transition.message)
        for workload_id, number, transition in entries
    ]
    if rows:
        await connection.execute(
            "INSERT INTO phase_transition (tenant_id, workload_id, number, at, phase, message) "
            "SELECT $1, n.* FROM unnest($2::uuid[], $3::int[], $4::timestamptz[], $5::text[], "
            "$6::text[]) AS n",
            tenant_id,
            *map(list, zip(*rows, strict=True)),
        )


async def _write_pods(
    connection: Connection, tenant_id: int, changes: Iterable[_Change], now: datetime
) -> None:
    updates: list[PodUpdate] = []
    unreported: list[UUID] = []
    for change in changes:
        workload_id, pods = change.upsert.record.workload.id, change.upsert.pods
        if pods is None:
            unreported.append(workload_id)
            continue
        is_difference = pods.since is not None
        updates.append(
            PodUpdate(workload_id, pods, change.upsert.observed_at, is_difference=is_difference)
        )
    await pod_write(connection, tenant_id, updates, now)
    await pod_forget(connection, tenant_id, unreported)


async def _write_elements(
    connection: Connection, tenant_id: int, changes: Sequence[_Change]
) -> None:
    with_elements = [change for change in changes if change.upsert.record.elements_total]
    without = [change.row["id"] for change in changes if not change.upsert.record.elements_total]
    if without:
        await connection.execute(
            "DELETE FROM workload_elements WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[])",
            tenant_id,
            without,
        )
    if with_elements:
        await connection.executemany(
            "INSERT INTO workload_elements AS e (tenant_id, workload_id, total, elements) "
            "VALUES ($1, $2, $3, $4::bytea[]) ON CONFLICT (tenant_id, workload_id) "
            "DO UPDATE SET total = $3, elements = $4 "
            "WHERE e.total <> $3 OR e.elements IS DISTINCT FROM $4",
            [
                (
                    tenant_id,
                    change.row["id"],
                    change.upsert.record.elements_total,
                    [msgspec.json.encode(e) for e in change.upsert.record.elements],
                )
                for change in with_elements
            ],
        )


async def _add_to_inventory(
    connection: Connection, tenant_id: int, cluster_id: UUID, ids: Iterable[UUID]
) -> None:
    """What a batch brings while an inventory is open is present, whether or not the inventory listed it."""
    await connection.execute(
        "INSERT INTO inventory_entry (tenant_id, inventory_id, workload_id) "
        "SELECT $1, i.id, n FROM inventory i, unnest($3::uuid[]) AS n "
        "WHERE i.tenant_id = $1 AND i.cluster_id = $2 ON CONFLICT DO NOTHING",
        tenant_id,
        cluster_id,
        list(ids),
    )


def runs_of(items: Sequence[BatchItem]) -> list[list[BatchItem]]:
    """Items that are written together: of one action, each id once, and so many rows at most.

    What is sent of one workload keeps its order; that of different ones does not matter, so the records and
    ends of many lives are no more runs than those of one. Deletions that nothing precedes come first: they
    make room.
    """
    steps: dict[UUID, int] = {}
    by_step: dict[int, list[BatchItem]] = {}
    for item in items:
        step, is_upsert = steps.get(item_id(item), -1) + 1, isinstance(item, Upsert)
        if step % 2 != is_upsert:
            step += 1
        steps[item_id(item)] = step
        by_step.setdefault(step, []).append(item)
    runs: list[list[BatchItem]] = []
    for step in sorted(by_step):
        rows = 0
        for number, item in enumerate(by_step[step]):
            if number == 0 or rows + _rows(item) > MAX_ROWS:
                runs.append([])
                rows = 0
            runs[-1].append(item)
            rows += _rows(item)
    return runs


def _rows(item: BatchItem) -> int:
    """What is written of it, about."""
    count = 1 + len(item.transitions)
    if isinstance(item, Upsert):
        pods = item.pods
        count += len(item.steps) + len(item.record.elements)
        count += 0 if pods is None else len(pods.changed) + len(pods.removed)
    return count


def item_id(item: BatchItem) -> UUID:
    return item.record.workload.id if isinstance(item, Upsert) else item.id
