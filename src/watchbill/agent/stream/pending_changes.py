"""Changes that the server has not acknowledged, by workload. Pure: no clock, no I/O.

Records may overtake one another, for only the newest counts; transitions, and the steps that usage is
accounted from, may not: they pile up per workload until the server has acknowledged them. A workload that is
deleted unacknowledged is still sent.
The backlog is bounded by workloads and their bytes, never by events.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, takewhile
from uuid import UUID

import msgspec

from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.stream.fair_share import (
    Deleted,
    drop_deletions,
    joinable_count,
    thin_out,
    thin_out_largest,
)
from watchbill.agent.stream.kept_record import (
    MAX_LOOSE_BYTES,
    KeptRecord,
    UnsentRecord,
    unsent_record,
)
from watchbill.agent.stream.object_changes import PodHashes, pod_changes
from watchbill.history import new_transitions, not_after, with_history
from watchbill.kinds.derive import Derived
from watchbill.protocol import (
    BatchItem,
    Delete,
    InventoryEntry,
    RefusedItem,
    Upsert,
    canonical_bytes,
    digest_of,
    hash_of,
)
from watchbill.workload import MAX_STEPS, Transition, WorkloadStep

MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Of unsent records in memory, nearly all compressed; further ones are derived again when they are sent."""
MAX_DELETED_BYTES = 128 * 1024 * 1024
"""Of deletions that are kept for a server that does not answer, with their last records, compressed, which
cannot be derived again: a kilobyte or two each, 45 KB of a pod written to be large."""
MAX_KEPT_STEPS = 50_000
"""Of all workloads, about 1 KB each."""


Derive = Callable[[str], Derived | None]


@dataclass(slots=True)
class WorkloadState:
    """What is sent and unsent of one live workload. `last`: the newest transition, sent or not."""

    namespace: str = ""
    hash: str = ""
    acknowledged: str | None = None
    refused: str | None = None
    last: Transition | None = None
    last_stated: Transition | None = None
    """The same at the time that the objects state, which a clock that is behind has not reached."""
    pending: list[Transition] = field(default_factory=list)
    initial_transitions: int = 0
    """How many of `pending` are the history that the objects had when first seen."""
    is_compared: bool = False
    """Whether this stream knows what the server has of it."""
    needs_full_history: bool = False
    """The server may lack older transitions: the next record comes with the objects' whole history."""
    kept: KeptRecord | None = None
    """The record and its pods, while they are not sent."""
    acknowledged_pods: PodHashes | None = None
    observed_at: datetime | None = None
    step: WorkloadStep | None = None
    """Of the present record, until the server has it."""
    steps: list[WorkloadStep] = field(default_factory=list)
    """Of earlier ones that were not reported to the server."""
    steps_on_their_way: int = 0
    """The first of these that are in an unanswered batch, the record in it among them once another came."""

    @property
    def may_be_known(self) -> bool:
        """Whether the server may have a record of it."""
        return self.acknowledged is not None or not self.is_compared

    @property
    def is_acknowledged(self) -> bool:
        has_history = bool(self.pending or self.steps)
        return not has_history and self.hash in (self.acknowledged, self.refused)


@dataclass(slots=True)
class PreparedBatch:
    """Items of one batch, and what their acknowledgement means."""

    max_workloads: int
    max_bytes: int
    items: list[BatchItem] = field(default_factory=list)
    deleted: list[tuple[str, Deleted]] = field(default_factory=list)
    upserts: list[tuple[str, str, int, tuple[WorkloadStep, ...]]] = field(default_factory=list)
    """Root, record hash, number of transitions sent, and the earlier steps."""
    pods: dict[str, PodHashes] = field(default_factory=dict)
    """What the server has of a root's pods once the batch is applied."""
    differences: set[str] = field(default_factory=set)
    """Roots of whose pods only the difference is sent."""
    roots: set[str] = field(default_factory=set)
    size_bytes: int = 0

    @property
    def workload_count(self) -> int:
        return len(self.deleted) + len(self.upserts)

    @property
    def is_full(self) -> bool:
        return self.workload_count >= self.max_workloads or self.size_bytes > self.max_bytes

    def add(self, item: BatchItem) -> None:
        self.items.append(item)
        self.size_bytes += _size(item)


class PendingChanges:
    """The state of live workloads, the deletions not yet acknowledged, and the roots with unsent changes."""

    def __init__(self) -> None:
        self.workloads: dict[str, WorkloadState] = {}
        self.unsent: OrderedDict[str, int] = OrderedDict()
        """Roots in the order in which they are sent, each with its number among all changes."""
        self.deleted: OrderedDict[int, tuple[str, Deleted]] = OrderedDict()
        self.deleted_bytes = 0
        self.out_of_room: OrderedDict[str, None] = OrderedDict()
        """Workloads that the server refused for want of room, the longest first."""
        self.dropped_deletions = 0
        """Of workloads that the server may have: of these at most the end is reported, not what was before."""
        self.step_count = 0
        """Of earlier records."""
        self.kept_bytes = self._loose_bytes = 0
        """Of unsent records; and of those of them that are not compressed."""
        self.is_synced = False
        """Whether a workload seen for the first time is new. Before, the server may have it already."""
        self.next_number = 0
        """Of the change that comes next."""
        self._first_number = 0

    def __len__(self) -> int:
        return len(self.unsent) + len(self.deleted)

    def has_sent(self, before: int) -> bool:
        """Whether the server has all changes before the one with that number, if nothing is on its way."""
        first = (*islice(self.unsent.values(), 1), *islice(self.deleted, 1))
        return all(number >= before for number in first)

    def update(self, root: str, derived: Derived, now: datetime, *, is_last: bool = False) -> None:
        """A workload was derived again; `is_last`: it is about to be deleted and cannot be derived later."""
        state = self.workloads.setdefault(root, WorkloadState(is_compared=self.is_synced))
        record = derived.record
        state.namespace = record.workload.namespace
        stated = new_transitions(
            state.last_stated,
            derived.transitions,
            phase=record.workload.phase,
            observed_at=now,
        )
        added = not_after(stated, now, state.last)
        if state.last is None:
            state.initial_transitions = len(added)
        state.pending += added
        if added:
            state.last, state.last_stated = added[-1], stated[-1]
        encoded = canonical_bytes(record)
        new_hash = hash_of(encoded)
        if new_hash != state.hash:
            self._add_step(state, record.step(now))
            state.hash, state.observed_at = new_hash, now
        self._keep(state, None)
        if state.is_acknowledged:
            self.unsent.pop(root, None)
            return
        self._queue(root)
        if is_last or self.kept_bytes < MAX_KEPT_BYTES:
            left = MAX_LOOSE_BYTES - self._loose_bytes
            self._keep(state, KeptRecord(derived, encoded, loose_bytes_left=left))

    def delete(
        self,
        root: str,
        at: datetime,
        not_before: datetime | None = None,
        *,
        is_owner_unreadable: bool = False,
    ) -> None:
        """A workload was deleted; what the server does not have of it is kept until it is acknowledged.

        `not_before`: when it was last known to exist, where nobody saw its deletion as it happened.
        `is_owner_unreadable`: only its pods are known to be gone.
        """
        state = self.workloads.pop(root, None)
        self._forget(root)
        if state is None:
            return
        compressed, may_be_known = None, state.may_be_known
        if state.kept is not None and not state.is_acknowledged:
            # An unanswered batch may change what the server has of it: nobody would repair a difference.
            state.acknowledged_pods = None
            upsert, _ = _upsert(state, state.kept.unsent())
            compressed = zlib.compress(msgspec.json.encode(upsert), 1)
        self._keep(state, None)
        self._forget_steps(state, state.steps)
        if (workload_id := _uuid(root)) is None:
            return  # an inventory, which cannot have it, ends it
        delete = Delete(
            id=workload_id,
            deleted_at=at,
            transitions=tuple(state.pending),
            not_before=not_before,
            is_owner_unreadable=is_owner_unreadable,
        )
        self._queue_deleted(root, Deleted(state.namespace, compressed, delete, may_be_known))

    def withdraw(self, root: str, at: datetime) -> None:
        """It never was a workload of its own: whatever the server has of it is to be forgotten."""
        self._forget(root)
        state = self.workloads.pop(root, None)
        if state is not None:
            self._keep(state, None)
            self._forget_steps(state, state.steps)
            if (workload_id := _uuid(root)) is not None:
                delete = Delete(id=workload_id, deleted_at=at, never_existed=True)
                self._queue_deleted(
                    root, Deleted(state.namespace, None, delete, state.may_be_known)
                )

    def next_batch(self, *, max_workloads: int, max_bytes: int, derive: Derive) -> PreparedBatch:
        """The oldest changes first, deletions before updates. `derive` makes records that were not kept."""
        prepared = PreparedBatch(max_workloads=max_workloads, max_bytes=max_bytes)
        while not self.extend_batch(prepared, derive, steps=max_workloads):
            pass
        return prepared

    def extend_batch(self, prepared: PreparedBatch, derive: Derive, *, steps: int) -> bool:
        """Add at most `steps` workloads to the batch. Returns whether it is complete."""
        for number in list(islice(self.deleted, steps)):
            if prepared.is_full:
                return True
            root, deleted = self.deleted.pop(number)
            self.deleted_bytes -= deleted.size_bytes()
            prepared.deleted.append((root, deleted))
            for part in deleted.items():
                prepared.add(part)
        if self.deleted:
            return prepared.is_full
        roots = list(islice((root for root in self.unsent if root not in prepared.roots), steps))
        for root in roots:
            if prepared.is_full:
                return True
            made = self._next_upsert(root, derive)
            if made is not None:
                item, prepared.pods[root] = made
                prepared.add(item)
                if item.pods is not None and item.pods.since is not None:
                    prepared.differences.add(root)
                prepared.roots.add(root)
                self.workloads[root].steps_on_their_way = len(item.steps) + 1
                prepared.upserts.append((root, item.record_hash, len(item.transitions), item.steps))
        return len(roots) < steps or prepared.is_full

    def uncompared(self, limit: int) -> list[str]:
        """Roots with unsent changes of which this stream does not know what the server has."""
        return list(islice((r for r in self.unsent if not self._is_compared(r)), limit))

    def compared_count(self, most: int) -> int:
        """How many of the oldest unsent changes, up to `most`, come before one of which this is not known."""
        return sum(1 for _ in takewhile(self._is_compared, islice(self.unsent, most)))

    def _is_compared(self, root: str) -> bool:
        """What is no UUID has no entry in an inventory: nobody can compare it, and it holds up nothing."""
        return self.workloads[root].is_compared or _uuid(root) is None

    def acknowledge(self, prepared: PreparedBatch, refused: Iterable[RefusedItem]) -> None:
        """The server applied the batch, except for what it refused."""
        is_out_of_room = {str(item.id): item.is_out_of_room for item in refused}
        refused_roots = is_out_of_room.keys()
        for root, sent_hash, transitions, steps in prepared.upserts:
            state = self.workloads.get(root)
            if state is None:
                continue
            reported = state.steps[: state.steps_on_their_way]
            state.steps_on_their_way = 0
            self.out_of_room.pop(root, None)
            if is_out_of_room.get(root):
                self.out_of_room[root] = None
            if root in refused_roots and root in prepared.differences:
                # Perhaps only because the server holds other pods: all of them are sent before it counts.
                state.acknowledged = None
                self._queue(root)
                continue
            del state.pending[:transitions]
            self._forget_steps(state, steps if root in refused_roots else reported)
            state.initial_transitions = 0
            state.is_compared = True
            if root in refused_roots:
                state.acknowledged, state.refused = None, sent_hash
            else:
                state.acknowledged, state.refused = sent_hash, None
                state.acknowledged_pods = prepared.pods[root]
            if state.is_acknowledged:
                self._keep(state, None)
                state.step = None
                self.unsent.pop(root, None)
            else:
                self._queue(root)

    def retry_out_of_room(self, count: int) -> None:
        """There is room for so many of the workloads that were refused for want of it."""
        for root in list(islice(self.out_of_room, count)):
            del self.out_of_room[root]
            state = self.workloads.get(root)
            if state is not None and state.refused is not None:
                state.refused, state.needs_full_history = None, True
                self._queue(root)

    def put_back(self, prepared: PreparedBatch) -> None:
        """The batch was not applied: its changes are sent again, before anything newer."""
        for root, *_ in reversed(prepared.upserts):
            if root in self.workloads:
                self.workloads[root].steps_on_their_way = 0
                self.unsent[root] = self._number_before_all()
                self.unsent.move_to_end(root, last=False)
        for root, deleted in reversed(prepared.deleted):
            number = self._number_before_all()
            self.deleted[number] = (root, deleted)
            self.deleted_bytes += deleted.size_bytes()
            self.deleted.move_to_end(number, last=False)

    def reset_acknowledged(self) -> None:
        """A new stream: the inventory tells what the server has."""
        for state in self.workloads.values():
            state.acknowledged, state.is_compared = None, False

    def is_acknowledged(self, root: str) -> bool:
        """Whether the server has a record of the workload, or got the report that it is gone."""
        state = self.workloads.get(root)
        return state is None or state.acknowledged is not None

    def digest(self) -> str:
        """Of the records that the server has acknowledged, of live workloads."""
        return digest_of(
            state.acknowledged for state in self.workloads.values() if state.acknowledged
        )

    def inventory_entries(self, roots: Iterable[str]) -> Iterator[InventoryEntry]:
        """One entry per workload: the hash that the server should have, "" if it was never derived."""
        for root in roots:
            workload_id = _uuid(root)
            if workload_id is not None:
                state = self.workloads.get(root)
                record_hash = (state.acknowledged or state.hash) if state else ""
                yield InventoryEntry(workload_id, record_hash)

    def possible_entries(self, owners: Iterable[OwnerKey]) -> Iterator[InventoryEntry]:
        """Entries for owners that cannot be read: each may be a workload of the namespace that names it."""
        for owner in owners:
            workload_id = _uuid(owner.uid)
            if workload_id is not None:
                yield InventoryEntry(workload_id, "", owner.namespace)

    def apply_inventory(self, entries: Sequence[InventoryEntry], missing: Iterable[UUID]) -> None:
        """`missing`: the entries that the server does not have; it has the others, as of the hash in the
        entry."""
        missing_ids = set(missing)
        for entry in entries:
            root = str(entry.id)
            state = self.workloads.get(root)
            if state is None or not entry.record_hash:
                continue
            state.is_compared = True
            if entry.id in missing_ids:
                state.acknowledged, state.needs_full_history = None, True
            else:
                state.acknowledged = entry.record_hash
                del state.pending[: state.initial_transitions]
                state.initial_transitions = 0
            if state.is_acknowledged:
                state.step = None
                self.unsent.pop(root, None)
            else:
                self._queue(root)

    def _next_upsert(self, root: str, derive: Derive) -> tuple[Upsert, PodHashes] | None:
        del self.unsent[root]
        state = self.workloads.get(root)
        if state is None:
            return None
        is_history_missing = state.needs_full_history and not state.initial_transitions
        if state.kept is None or is_history_missing:
            derived = derive(root)
            self.unsent.pop(root, None)
            if derived is None:
                return None
            unsent = unsent_record(derived)
            if is_history_missing:
                state.pending = with_history(derived.transitions, state.pending, state.last)
        else:
            unsent = state.kept.unsent()
        state.needs_full_history = False
        return None if state.is_acknowledged else _upsert(state, unsent)

    def _add_step(self, state: WorkloadState, step: WorkloadStep) -> None:
        """The record before this one, if it was not reported, becomes an earlier step where it differs."""
        before, state.step = state.step, step
        is_known = not state.steps and state.hash in (state.acknowledged, state.refused)
        if before is None or is_known or msgspec.structs.replace(before, at=step.at) == step:
            return
        state.steps.append(before)
        self.step_count += 1
        if joinable_count(state) > MAX_STEPS:
            self.step_count -= len(state.steps)
            thin_out(state)
            self.step_count += len(state.steps)
        if self.step_count > MAX_KEPT_STEPS:
            thin_out_largest(self.workloads.values(), MAX_KEPT_STEPS)
            self.step_count = sum(len(each.steps) for each in self.workloads.values())

    def _forget_steps(self, state: WorkloadState, steps: Iterable[WorkloadStep]) -> None:
        """Those that are still there: some may have been joined meanwhile."""
        forgotten = set(map(id, steps))
        left = [step for step in state.steps if id(step) not in forgotten]
        self.step_count -= len(state.steps) - len(left)
        state.steps = left

    def _keep(self, state: WorkloadState, kept: KeptRecord | None) -> None:
        for record, sign in ((kept, 1), (state.kept, -1)):
            if record is not None:
                self.kept_bytes += sign * record.size_bytes
                self._loose_bytes += sign * record.loose_bytes
        state.kept = kept

    def _forget(self, root: str) -> None:
        self.unsent.pop(root, None)
        self.out_of_room.pop(root, None)

    def _queue(self, root: str) -> None:
        if root not in self.unsent:
            self.unsent[root] = self._number()

    def _queue_deleted(self, root: str, deleted: Deleted) -> None:
        self.deleted[self._number()] = (root, deleted)
        self.deleted_bytes += deleted.size_bytes()
        if self.deleted_bytes > MAX_DELETED_BYTES:
            self.dropped_deletions += drop_deletions(self.deleted, MAX_DELETED_BYTES)
            self.deleted_bytes = sum(each.size_bytes() for _, each in self.deleted.values())

    def _number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def _number_before_all(self) -> int:
        self._first_number -= 1
        return self._first_number


def _upsert(state: WorkloadState, unsent: UnsentRecord) -> tuple[Upsert, PodHashes]:
    assert state.observed_at is not None  # a record has been derived
    changes, hashes = pod_changes(
        unsent.pods, state.hash, state.acknowledged, state.acknowledged_pods
    )
    upsert = Upsert(
        record=unsent.record,
        record_hash=state.hash,
        transitions=tuple(state.pending),
        observed_at=state.observed_at,
        pods=changes,
        steps=tuple(state.steps),
    )
    return upsert, hashes


def _size(item: BatchItem) -> int:
    """Approximate bytes on the wire: elements and pods make records large."""
    if isinstance(item, Delete):
        return 200
    pods = len(item.pods.changed) if item.pods is not None else 0
    return 4_000 + 300 * len(item.record.elements) + 1_000 * pods + 500 * len(item.steps)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
