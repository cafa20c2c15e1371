"""A message of an agent, from the bytes as they were sent to the bytes of the answer.

It is inflated and decoded when it is its agent's turn, and a large one beside the event loop; the items of a
batch are decoded one by one, so that others run in between. `Ingest` does this in the process that it lives in;
a server has another process do it (`process.py`).
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec

from watchbill.cluster_node import MAX_NODE_BYTES, MAX_NODES, ClusterNode, Name
from watchbill.errors import Invalid, NotFound, TooLarge
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    BATCH_EVENTS,
    BATCH_ITEMS,
    BATCH_READINGS,
    MAX_NODE_POOLS,
    Batch,
    BatchItem,
    Count,
    Hash,
    Heartbeat,
    HeartbeatReply,
    HelloRequest,
    Instant,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    InventoryMissing,
    KindState,
    Measured,
    NodeChanges,
    NodeNames,
    NodePoolCapacity,
    Scrape,
    Sequence,
    StreamId,
    UnobservedTimes,
)
from watchbill.requests import decode_json, invalid_shape
from watchbill.scheduler_queue import MAX_QUEUE_BYTES, MAX_QUEUES, SchedulerQueue
from watchbill.scheduler_queue import Name as QueueName
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit, inventory_entries
from watchbill.store.ingest.left_out import LeftOut
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database
from watchbill.workload import Wire, WorkloadEvent

Entry = TypeVar("Entry")
BATCH_BYTES = 12 * 1024 * 1024
"""Of a batch once inflated: agents fill one with 8 MiB of records, and one more may not fit any better."""
MESSAGE_BYTES = 4 * 1024 * 1024
"""Of any other message once inflated."""
SMALL_MESSAGE_BYTES = 64 * 1024
"""Once inflated: it is decoded at once, and costs little where it is refused."""
MAX_JSON_VALUES = 750_000
"""In a message: a value takes some sixty bytes of memory, whatever little it takes in the message."""
_PIECE_BYTES = 64 * 1024
HELLO_BYTES = 64 * 1024
ENTRY_BYTES = 4 * 1024 * 1024

_ITEM: msgspec.json.Decoder[BatchItem] = msgspec.json.Decoder(BatchItem)
_MEASURED = msgspec.json.Decoder(Measured)
_EVENT = msgspec.json.Decoder(WorkloadEvent)


class _NodeName(Wire, frozen=True):
    """Of an entry that cannot be decoded, the one thing that is needed."""

    name: Name


class _NodePoolName(Wire, frozen=True):
    node_pool: Name


class _QueueKey(Wire, frozen=True):
    key: QueueName


class _Entries(NamedTuple):
    """How the entries of one member of a heartbeat are decoded one by one."""

    decoder: msgspec.json.Decoder[Any]
    name_decoder: msgspec.json.Decoder[Any]
    most_bytes: int


_NODE_POOLS = _Entries(
    msgspec.json.Decoder(NodePoolCapacity), msgspec.json.Decoder(_NodePoolName), MAX_NODE_BYTES
)
_NODES = _Entries(
    msgspec.json.Decoder(ClusterNode), msgspec.json.Decoder(_NodeName), MAX_NODE_BYTES
)
_QUEUES = _Entries(
    msgspec.json.Decoder(SchedulerQueue), msgspec.json.Decoder(_QueueKey), MAX_QUEUE_BYTES
)


@dataclass(frozen=True, slots=True)
class ReceivedHeartbeat:
    """A heartbeat without what could not be decoded of it, and why that could not."""

    beat: Heartbeat
    left_out: LeftOut = field(default_factory=LeftOut)


class AgentMessage(msgspec.Struct, frozen=True, array_like=True):
    """As it arrived. `agent` is known from the credential, `operation` from the path."""

    operation: str
    agent: AgentIdentity
    received_at: datetime
    body: bytes
    is_gzip: bool


@dataclass(slots=True)
class MessageSize:
    """Of an agent's message once inflated, as far as it came to that."""

    bytes: int = 0


class MessageHandler(Protocol):
    """Applies messages, here or in another process."""

    async def apply(self, message: AgentMessage, size: MessageSize) -> bytes:
        """The answer, as JSON. Raises Invalid, TooLarge, Unavailable, and what the operation does."""


class Ingest:
    """Applies messages in this process."""

    def __init__(self, db: Database, *, most_bytes: int) -> None:
        """`most_bytes`: stored of one cluster."""
        self._db = db
        self._most_bytes = most_bytes

    async def apply(self, message: AgentMessage, size: MessageSize) -> bytes:
        operation = _operation(message.operation, self._most_bytes)
        body = await _inflated(message, operation.most_bytes)
        size.bytes = len(body)
        await _check_values(body)
        if not operation.may_hold_nul and b"\\u0000" in body:
            raise Invalid("The body contains a NUL character.")
        decoded = await _decoded(body, operation.decode)
        answer = await operation.apply(self._db, message.agent, decoded, message.received_at)
        return msgspec.json.encode(answer)


_decode_hello = partial(decode_json, kind=HelloRequest)
_decode_inventory = partial(decode_json, kind=InventoryBegin)


class _Operation(NamedTuple):
    """Without `may_hold_nul` its texts go into text columns as they are, and these know no NUL."""

    decode: Callable[[bytes], Any]
    apply: Callable[[Database, AgentIdentity, Any, datetime], Awaitable[Any]]
    most_bytes: int = MESSAGE_BYTES
    may_hold_nul: bool = True


def _operation(name: str, most_bytes: int) -> _Operation:
    match name:
        case "hello":
            return _Operation(_decode_hello, stream_open, HELLO_BYTES, may_hold_nul=False)
        case "batch":
            return _Operation(
                decode_batch, partial(batch_apply, most_bytes=most_bytes), BATCH_BYTES
            )
        case "heartbeat":
            return _Operation(decode_heartbeat, partial(_heartbeat_apply, most_bytes=most_bytes))
        case "inventory":
            return _Operation(_decode_inventory, inventory_begin, may_hold_nul=False)
        case "inventory entries":
            return _Operation(partial(decode_json, kind=InventoryEntries), _entries_apply)
        case "inventory commit":
            return _Operation(partial(decode_json, kind=InventoryCommit), inventory_commit)
    raise NotFound(f"Agents send no '{name}'.")


async def _heartbeat_apply(
    db: Database,
    agent: AgentIdentity,
    received: "ReceivedHeartbeat",
    now: datetime,
    *,
    most_bytes: int,
) -> HeartbeatReply:
    return await heartbeat_apply(
        db, agent, received.beat, now, left_out=received.left_out, most_bytes=most_bytes
    )


async def _entries_apply(
    db: Database, agent: AgentIdentity, message: InventoryEntries, _: datetime
) -> InventoryMissing:
    return await inventory_entries(db, agent, message)


async def _inflated(message: AgentMessage, most_bytes: int) -> bytes:
    """The JSON in a body. Raises Invalid, TooLarge."""
    if message.is_gzip:
        return await asyncio.to_thread(inflate, message.body, most_bytes)
    if len(message.body) > most_bytes:
        raise TooLarge(f"The body is larger than {most_bytes} bytes.")
    return message.body


async def _check_values(body: bytes) -> None:
    """Raises TooLarge before anything is made of more values than a message may hold."""
    if len(body) <= SMALL_MESSAGE_BYTES:
        return
    if await asyncio.to_thread(has_more_values, body, MAX_JSON_VALUES):
        raise TooLarge(f"The body holds more than {MAX_JSON_VALUES} values.")


async def _decoded(body: bytes, decode: Callable[[bytes], Any]) -> Any:
    if len(body) <= SMALL_MESSAGE_BYTES:
        return decode(body)
    return await asyncio.to_thread(decode, body)


def inflate(body: bytes, most: int) -> bytes:
    """One gzip member, never more than `most` bytes of it. Raises Invalid, TooLarge."""
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        inflated = decoder.decompress(body, most + 1)
    except zlib.error as error:
        raise Invalid("The body is not gzip.") from error
    if len(inflated) > most:
        raise TooLarge(f"The body is larger than {most} bytes once inflated.")
    if not decoder.eof or decoder.unused_data:
        raise Invalid("The body is not one whole gzip member.")
    return inflated


def has_more_values(body: bytes, most: int) -> bool:
    """Whether a JSON text may hold more values than that, looked at piece by piece: other threads get their
    turn in between."""
    values = 0
    for start in range(0, len(body), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        values += sum(body.count(mark, start, end) for mark in (b",", b"[", b"{"))
        if values > most:
            return True
    return False


def decode_batch(body: bytes) -> Batch:
    """Raises Invalid; its details name the member by its path."""
    envelope = decode_json(body, BatchEnvelope)
    scrapes = (
        Scrape(
            at=scrape.at,
            counted_since=scrape.counted_since,
            workloads=_entries(_MEASURED, scrape.workloads, f"scrapes[{number}].workloads"),
        )
        for number, scrape in enumerate(envelope.scrapes)
    )
    return Batch(
        stream_id=envelope.stream_id,
        seq=envelope.seq,
        items=_entries(_ITEM, envelope.items, "items"),
        scrapes=tuple(scrapes),
        events=_entries(_EVENT, envelope.events, "events"),
    )


def decode_heartbeat(body: bytes) -> ReceivedHeartbeat:
    """Node pools, nodes and queues that cannot be are left out: of such a node nothing older stays, either.
    Raises Invalid."""
    envelope = decode_json(body, HeartbeatEnvelope)
    pools, pool_reasons = _decoded_entries(envelope.node_pools, _NODE_POOLS)
    queues, queue_reasons = _decoded_entries(envelope.queues or (), _QUEUES)
    nodes: NodeChanges | None = None
    node_reasons: dict[str, str] = {}
    if envelope.nodes is not None:
        changed, node_reasons = _decoded_entries(envelope.nodes.changed, _NODES)
        undecoded = tuple(sorted(filter(None, node_reasons)))
        members = {"changed": changed, "removed": envelope.nodes.removed + undecoded}
        nodes = NodeChanges(**msgspec.structs.asdict(envelope.nodes) | members)
    decoded = {
        "node_pools": pools,
        "nodes": nodes,
        "queues": None if envelope.queues is None else queues,
    }
    return ReceivedHeartbeat(
        Heartbeat(**msgspec.structs.asdict(envelope) | decoded),
        LeftOut(node_pools=pool_reasons, nodes=node_reasons, queues=queue_reasons),
    )


def _decoded_entries(
    entries: Iterable[msgspec.Raw], kind: _Entries
) -> tuple[tuple[Any, ...], dict[str, str]]:
    """Those that can be decoded, and why the others cannot, by name ("" where it cannot be read, either)."""
    decoded: list[Any] = []
    reasons: dict[str, str] = {}
    for entry in entries:
        try:
            if len(memoryview(entry)) > kind.most_bytes:
                raise msgspec.ValidationError(f"larger than {kind.most_bytes} bytes")
            decoded.append(kind.decoder.decode(entry))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reasons.setdefault(_entry_name(entry, kind), str(error))
    return tuple(decoded), reasons


def _entry_name(entry: msgspec.Raw, kind: _Entries) -> str:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        (name,) = msgspec.structs.astuple(kind.name_decoder.decode(entry))
        return str(name)
    return ""


def _entries(
    decoder: msgspec.json.Decoder[Entry], entries: Iterable[msgspec.Raw], member: str
) -> tuple[Entry, ...]:
    """One by one: other threads, the event loop's among them, get their turn in between."""
    return tuple(
        _entry(decoder, entry, f"{member}[{number}]") for number, entry in enumerate(entries)
    )


def _entry(decoder: msgspec.json.Decoder[Entry], entry: msgspec.Raw, path: str) -> Entry:
    if len(memoryview(entry)) > ENTRY_BYTES:
        raise Invalid(f"{path} of the batch is larger than {ENTRY_BYTES} bytes.")
    try:
        return decoder.decode(entry)
    except msgspec.ValidationError as error:
        raise invalid_shape(str(error).replace("`$", f"`$.{path}", 1)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("The body is not JSON.") from error


class ScrapeEnvelope(Wire, frozen=True):
    """A scrape without its figures."""

    at: Instant
    counted_since: Instant
    workloads: tuple[msgspec.Raw, ...]


class BatchEnvelope(Wire, frozen=True):
    """A batch without its items, figures and events."""

    stream_id: StreamId
    seq: Sequence
    items: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=2 * BATCH_ITEMS)]
    scrapes: Annotated[tuple[ScrapeEnvelope, ...], msgspec.Meta(max_length=BATCH_READINGS)] = ()
    events: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=BATCH_EVENTS)] = ()


class NodeChangesEnvelope(Wire, frozen=True):
    """Changes of nodes without the nodes."""

    digest: Annotated[str, msgspec.Meta(max_length=32)]
    since: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    changed: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_NODES)] = ()
    removed: NodeNames = ()
    names: NodeNames = ()


class HeartbeatEnvelope(Wire, frozen=True):
    """A heartbeat without its node pools, nodes and queues."""

    stream_id: StreamId
    seq: Sequence
    kinds: Annotated[tuple[KindState, ...], msgspec.Meta(max_length=2_000)] = ()
    node_pools: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_NODE_POOLS)] = ()
    observed_seconds_ago: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = 0.0
    backlog: Count = 0
    sent_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    cluster_clock_ahead_seconds: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    digest: Hash | None = None
    nodes: NodeChangesEnvelope | None = None
    queues: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_QUEUES)] | None = None
    unobserved: UnobservedTimes = ()
    unbroken_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
