"""What the server still has to be told, workload by workload. Pure: no clock, no I/O.

Records may overtake one another, for only the newest counts; transitions may not: they pile up per workload
until the server has acknowledged them. A life that ended unacknowledged is still told, from beginning to end.
The backlog is bounded by workloads, never by events.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.kinds.derive import Derived
from watchbill.protocol import Delete, InventoryEntry, Item, Record, Upsert, record_hash
from watchbill.workload import Phase, Transition

KEPT_RECORDS = 500
"""Unsent records kept decoded; those beyond are derived again when their turn comes."""
KEPT_LIVES = 50_000
"""Ended lives kept for a server that does not answer; beyond it the oldest are lost, and counted."""


Read = Callable[[str], Derived | None]


@dataclass(slots=True)
class WorkloadState:
    """Where one living workload stands. `last`: the newest transition known, told or not."""

    hash: str = ""
    acknowledged: str | None = None
    refused: str | None = None
    last: Transition | None = None
    pending: list[Transition] = field(default_factory=list)
    told_by_objects: int = 0
    """How many of `pending` are the history that objects told at first sight."""
    lacks_history: bool = False
    """The server may have lost what it was told: the next record comes with the objects' whole history."""
    record: Record | None = None
    observed_at: datetime | None = None

    @property
    def is_told(self) -> bool:
        return not self.pending and self.hash in (self.acknowledged, self.refused)


@dataclass(frozen=True, slots=True)
class Deleted:
    """A life that is over: its last record, packed, where the server lacks it, and its end."""

    packed: bytes | None
    delete: Delete


@dataclass(slots=True)
class Outgoing:
    """Items of one batch, and what their acknowledgement means."""

    items: list[Item] = field(default_factory=list)
    ended: list[tuple[str, Deleted]] = field(default_factory=list)
    upserts: list[tuple[str, str, int]] = field(default_factory=list)
    """Root, record hash, number of transitions told."""

    @property
    def units(self) -> int:
        return len(self.ended) + len(self.upserts)


class PendingChanges:
    """Standings of the living, the ended that are still to be told, and what is unsent."""

    def __init__(self) -> None:
        self.standings: dict[str, WorkloadState] = {}
        self.unsent: OrderedDict[str, None] = OrderedDict()
        self.ended: OrderedDict[int, tuple[str, Deleted]] = OrderedDict()
        self.lost_lives = 0
        self._next_number = 0

    def __len__(self) -> int:
        return len(self.unsent) + len(self.ended)

    def note(self, root: str, derived: Derived, now: datetime, *, is_last: bool = False) -> None:
        """A workload was derived anew; `is_last`: it is about to end, and cannot be derived again."""
        standing = self.standings.setdefault(root, WorkloadState())
        record = derived.record
        fresh = new_transitions(
            standing.last, derived.transitions, phase=record.workload.phase, now=now
        )
        if standing.last is None:
            standing.told_by_objects = len(fresh)
        standing.pending += fresh
        if fresh:
            standing.last = fresh[-1]
        found = record_hash(record)
        if found != standing.hash:
            standing.hash, standing.observed_at = found, now
        if standing.is_told:
            standing.record = None
            self.unsent.pop(root, None)
            return
        self.unsent.setdefault(root)
        standing.record = record if is_last or len(self.unsent) <= KEPT_RECORDS else None

    def end(self, root: str, at: datetime) -> None:
        """A workload is gone; what the server lacks of its life is kept until it is told."""
        standing = self.standings.pop(root, None)
        self.unsent.pop(root, None)
        if standing is None:
            return
        packed = None
        if standing.record is not None and not standing.is_told:
            packed = zlib.compress(msgspec.json.encode(_upsert(standing, standing.record)), 1)
        delete = Delete(id=UUID(root), deleted_at=at, transitions=tuple(standing.pending))
        self._push_ended(root, Deleted(packed, delete))

    def next_batch(self, *, units: int, most_bytes: int, read: Read) -> Outgoing:
        """The oldest items first, ended lives before changes. `read` derives what was not kept."""
        outgoing = Outgoing()
        size = 0
        for number in tuple(self.ended):
            if outgoing.units >= units or size > most_bytes:
                return outgoing
            root, ended = self.ended.pop(number)
            outgoing.ended.append((root, ended))
            for part in _items(ended):
                outgoing.items.append(part)
                size += _size(part)
        for root in tuple(self.unsent):
            if outgoing.units >= units or size > most_bytes:
                return outgoing
            item = self._take(root, read)
            if item is not None:
                outgoing.items.append(item)
                outgoing.upserts.append((root, item.record_hash, len(item.transitions)))
                size += _size(item)
        return outgoing

    def acknowledge(self, outgoing: Outgoing, refused: Iterable[UUID]) -> None:
        """The server took the batch, but for what it refused."""
        turned_down = {str(found) for found in refused}
        for root, told, count in outgoing.upserts:
            standing = self.standings.get(root)
            if standing is None:
                continue
            del standing.pending[:count]
            standing.told_by_objects = 0
            if root in turned_down:
                standing.acknowledged, standing.refused = None, told
            else:
                standing.acknowledged, standing.refused = told, None
            if standing.is_told:
                standing.record = None
                self.unsent.pop(root, None)
            else:
                self.unsent.setdefault(root)

    def put_back(self, outgoing: Outgoing) -> None:
        """The batch was not taken: everything in it is to be told again, before anything newer."""
        for root, _, _ in reversed(outgoing.upserts):
            if root in self.standings:
                self.unsent[root] = None
                self.unsent.move_to_end(root, last=False)
        for root, ended in reversed(outgoing.ended):
            self._push_ended(root, ended)
            self.ended.move_to_end(self._next_number - 1, last=False)

    def forget_server(self) -> None:
        """A new stream: what the server holds is for the inventory to say."""
        for standing in self.standings.values():
            standing.acknowledged = None

    def entries(self, roots: Iterable[str]) -> Iterator[InventoryEntry]:
        """One per living workload; one that was never derived is there without a hash."""
        for root in roots:
            found = _uuid(root)
            if found is not None:
                standing = self.standings.get(root)
                yield InventoryEntry(found, standing.hash if standing else "")

    def compare(self, entries: Sequence[InventoryEntry], missing: Iterable[UUID]) -> None:
        """Take in what the server lacks of `entries`; the rest it has, as of the hash that was listed."""
        lacking = set(missing)
        for entry in entries:
            root = str(entry.id)
            standing = self.standings.get(root)
            if standing is None or not entry.record_hash:
                continue
            if entry.id in lacking:
                standing.acknowledged, standing.lacks_history = None, True
            else:
                standing.acknowledged = entry.record_hash
                del standing.pending[: standing.told_by_objects]
                standing.told_by_objects = 0
            if standing.is_told:
                self.unsent.pop(root, None)
            else:
                self.unsent.setdefault(root)

    def _take(self, root: str, read: Read) -> Upsert | None:
        del self.unsent[root]
        standing = self.standings.get(root)
        if standing is None:
            return None
        record = standing.record
        if record is None or standing.lacks_history:
            derived = read(root)
            self.unsent.pop(root, None)
            if derived is None:
                return None
            record = derived.record
            if standing.lacks_history:
                standing.pending = _retold(derived.transitions, standing)
                standing.lacks_history = False
        return None if standing.is_told else _upsert(standing, record)

    def _push_ended(self, root: str, ended: Deleted) -> None:
        self.ended[self._next_number] = (root, ended)
        self._next_number += 1
        if len(self.ended) > KEPT_LIVES:
            self.ended.popitem(last=False)
            self.lost_lives += 1


def new_transitions(
    last: Transition | None, history: Sequence[Transition], *, phase: Phase, now: datetime
) -> list[Transition]:
    """The transitions that follow the last one known, ending at the present phase.

    Objects tell times in whole seconds and may tell an old history anew: what follows our last in their list
    is new or, where it is not in there, what is later. A phase that no history tells was observed now.
    """
    fresh: list[Transition] = []
    previous = last
    for told in _after(last, history):
        transition = told if told.at <= now else msgspec.structs.replace(told, at=now)
        if previous is None or (
            transition.phase is not previous.phase and transition.at >= previous.at
        ):
            fresh.append(transition)
            previous = transition
    if previous is None or previous.phase is not phase:
        at = now if previous is None else max(now, previous.at)
        message = history[-1].message if history and history[-1].phase is phase else None
        fresh.append(Transition(phase=phase, at=at, message=message))
    return fresh


def _after(last: Transition | None, history: Sequence[Transition]) -> Sequence[Transition]:
    if last is None:
        return history
    for index in range(len(history) - 1, -1, -1):
        if history[index].phase is last.phase and history[index].at == last.at:
            return history[index + 1 :]
    return [transition for transition in history if transition.at > last.at]


def _retold(history: Sequence[Transition], standing: WorkloadState) -> list[Transition]:
    """The objects' history up to what is still pending, or up to the last transition that is known."""
    until = standing.pending[0] if standing.pending else standing.last
    if until is None:
        return standing.pending
    found: list[Transition] = []
    for told in history:
        if told.at <= until.at and told not in standing.pending:
            found.append(told)
    rest = standing.pending or [until]
    while found and found[-1].phase is rest[0].phase:
        found.pop()
    return found + rest


def _upsert(standing: WorkloadState, record: Record) -> Upsert:
    assert standing.observed_at is not None  # a record was derived at some time
    return Upsert(
        record=record,
        record_hash=standing.hash,
        transitions=tuple(standing.pending),
        observed_at=standing.observed_at,
    )


def _items(ended: Deleted) -> Iterator[Item]:
    if ended.packed is not None:
        yield msgspec.json.decode(zlib.decompress(ended.packed), type=Upsert)
    yield ended.delete


def _size(item: Item) -> int:
    """About how many bytes an item takes on the wire: elements make records large."""
    return 4_000 + 300 * len(item.record.elements) if isinstance(item, Upsert) else 200


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
