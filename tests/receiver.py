"""The server's end of the agent protocol, in memory over real HTTP, strict about every rule of it.

It keeps what an agent told, so that tests can compare that with what the cluster held; it can lose replies,
refuse, and forget, as a real server may at any time.
"""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
from aiohttp import web

from tests.replay import Script, serving
from watchbill.sync import (
    Batch,
    BatchReply,
    Delete,
    Heartbeat,
    HeartbeatReply,
    HelloReply,
    HelloRequest,
    IdleSoFar,
    InventoryBegin,
    InventoryBegun,
    InventoryCommit,
    InventoryCommitted,
    InventoryEntries,
    InventoryMissing,
    Record,
    Refused,
    Upsert,
    record_hash,
)
from watchbill.workload import Transition

CLUSTER_ID = UUID("6f0a7c1e-3c1b-4b7e-9a55-0d6c2f1a9b10")
CREDENTIAL = f"wba.{CLUSTER_ID}.s3cret"


@dataclass
class Row:
    """One workload as told. `changes` counts acknowledged upserts."""

    record: Record
    hash: str
    transitions: list[Transition] = field(default_factory=list)
    deleted_at: datetime | None = None
    is_inferred: bool = False
    deletions: int = 0
    changes: int = 0


@dataclass
class Receiver:
    """`fault(path, message)` may answer in place of the receiver, before or instead of applying."""

    rows: dict[UUID, Row] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    seq: int = 0
    beats: list[Heartbeat] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    inventories: list[InventoryBegin] = field(default_factory=list)
    commits: int = 0
    loses_replies: int = 0
    refused: set[UUID] = field(default_factory=set)
    wants_resync: bool = False
    idle: tuple[IdleSoFar, ...] = ()
    fault: Callable[[str, Any], web.Response | None] = lambda *_: None
    script: Script | None = None
    _entries: set[UUID] = field(default_factory=set)
    _inventory: UUID | None = None
    _last: BatchReply | None = None

    @property
    def url(self) -> str:
        assert self.script is not None
        return self.script.url

    def live(self) -> dict[UUID, Row]:
        return {uid: row for uid, row in self.rows.items() if row.deleted_at is None}

    def by_name(self, kind: str, name: str) -> Row:
        found = [
            row
            for row in self.rows.values()
            if (row.record.workload.type, row.record.workload.name) == (kind, name)
        ]
        assert found, f"{kind} {name} was never told: {self.told()}"
        return found[-1]

    def told(self) -> list[str]:
        return sorted(
            f"{row.record.workload.type}/{row.record.workload.name}: "
            + (
                f"gone, was {row.record.workload.phase}"
                if row.deleted_at
                else row.record.workload.phase
            )
            for row in self.rows.values()
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {CREDENTIAL}":
            return _error(401, "unknown credential")
        path = request.path.removeprefix("/agent/v1/")
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        kind, apply = _ROUTES[path]
        message = msgspec.json.decode(body, type=kind)
        faulty = self.fault(path, message)
        if faulty is not None:
            return faulty
        if path != "hello" and message.stream_id != self.streams[-1]:
            return _error(410, "superseded")
        reply = apply(self, message)
        if self.loses_replies and path == "batch":
            self.loses_replies -= 1
            return _error(503, "the reply was lost")
        if isinstance(reply, web.Response):
            return reply
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json")

    def hello(self, message: HelloRequest) -> HelloReply:
        self.streams.append(str(uuid4()))
        self.seq, self._last, self._inventory = 0, None, None
        return HelloReply(
            stream_id=self.streams[-1],
            cluster_id=CLUSTER_ID,
            cluster_name="c",
            heartbeat_seconds=1,
            idle=self.idle,
        )

    def batch(self, message: Batch) -> BatchReply | web.Response:
        if message.seq == self.seq and self._last is not None:
            return self._last
        if message.seq != self.seq + 1:
            return _error(409, "gap", str(self.seq + 1))
        assert message.items or message.scrapes, "an empty batch says nothing"
        refused = []
        for item in message.items:
            uid = item.record.workload.id if isinstance(item, Upsert) else item.id
            if uid in self.refused:
                refused.append(Refused(id=uid, reason="refused by the test"))
            elif isinstance(item, Upsert):
                self._upsert(item)
            else:
                self._delete(item)
        self.batches.append(message)
        self.seq = message.seq
        self._last = BatchReply(seq=message.seq, refused=tuple(refused))
        return self._last

    def _upsert(self, item: Upsert) -> None:
        assert item.record_hash == record_hash(item.record)
        uid = item.record.workload.id
        self._entries.add(uid)
        row = self.rows.get(uid)
        if row is None:
            row = self.rows[uid] = Row(item.record, item.record_hash)
            assert item.transitions, "a first record tells how it came here"
        row.record, row.hash, row.deleted_at = item.record, item.record_hash, None
        row.changes += 1
        self._told(row, item.transitions)

    def _delete(self, item: Delete) -> None:
        row = self.rows.get(item.id)
        if row is None or row.deleted_at is not None:
            return
        self._told(row, item.transitions)
        row.deleted_at, row.is_inferred = item.deleted_at, False
        row.deletions += 1

    def _told(self, row: Row, transitions: tuple[Transition, ...]) -> None:
        """A history that is told again may hold what we never heard: of that only what follows counts."""
        times = [transition.at for transition in transitions]
        assert times == sorted(times), "a history goes back in time"
        if not row.transitions:
            row.transitions.extend(transitions)
            return
        last = row.transitions[-1]
        row.transitions += (
            transitions[transitions.index(last) + 1 :]
            if last in transitions
            else [transition for transition in transitions if transition.at > last.at]
        )

    def inventory_begin(self, message: InventoryBegin) -> InventoryBegun:
        self._inventory, self._entries = uuid4(), set()
        self.inventories.append(message)
        return InventoryBegun(inventory_id=self._inventory)

    def inventory_entries(self, message: InventoryEntries) -> InventoryMissing | web.Response:
        if message.inventory_id != self._inventory:
            return _error(409, "not open")
        self._entries |= {entry.id for entry in message.entries}
        live = self.live()
        return InventoryMissing(
            missing=tuple(
                entry.id
                for entry in message.entries
                if entry.id not in live or live[entry.id].hash != entry.record_hash
            )
        )

    def inventory_commit(self, message: InventoryCommit) -> InventoryCommitted | web.Response:
        if message.inventory_id != self._inventory or len(self._entries) < message.count:
            return _error(409, "not open, or incomplete")
        covered = {(found.group, found.kind) for found in self.inventories[-1].coverage}
        gone = [
            row
            for uid, row in self.live().items()
            if uid not in self._entries
            and (row.record.witness.group, row.record.witness.kind) in covered
        ]
        for row in gone:
            row.deleted_at, row.is_inferred = datetime.now(UTC), True
            row.deletions += 1
        self.commits += 1
        return InventoryCommitted(deleted=len(gone), held=False)

    def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        self.beats.append(message)
        resync, self.wants_resync = self.wants_resync, False
        return HeartbeatReply(seq=self.seq, resync=resync or message.seq != self.seq)


_ROUTES: dict[str, tuple[Any, Callable[[Receiver, Any], Any]]] = {
    "hello": (HelloRequest, Receiver.hello),
    "batch": (Batch, Receiver.batch),
    "inventory": (InventoryBegin, Receiver.inventory_begin),
    "inventory/entries": (InventoryEntries, Receiver.inventory_entries),
    "inventory/commit": (InventoryCommit, Receiver.inventory_commit),
    "heartbeat": (Heartbeat, Receiver.heartbeat),
}


def _error(status: int, message: str, details: str | None = None) -> web.Response:
    body = {"code": status, "message": message} | ({"details": details} if details else {})
    return web.json_response(body, status=status)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    async with serving(found.answer) as script:
        found.script = script
        yield found
