"""What agents send. Who they are is known from the credential alone; the store applies it.

A message is read, inflated and decoded when it is its agent's turn, and a large one beside the event loop; the
items of a batch are decoded one by one, so that other requests run in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from watchbill.api.http.call import (
    AGENT_BATCH_BYTES,
    AGENT_MESSAGE_BYTES,
    Call,
    decode_json,
    invalid_shape,
)
from watchbill.api.http.reply import Answer, json_reply
from watchbill.api.limits import SMALL_MESSAGE_BYTES
from watchbill.cluster_node import MAX_NODE_BYTES, MAX_NODES, ClusterNode, Name
from watchbill.errors import Invalid
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
from watchbill.scheduler_queue import MAX_QUEUE_BYTES, MAX_QUEUES, SchedulerQueue
from watchbill.scheduler_queue import Name as QueueName
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit, inventory_entries
from watchbill.store.ingest.left_out import LeftOut
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database
from watchbill.workload import Wire, WorkloadEvent

Message = TypeVar("Message")
Entry = TypeVar("Entry")
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


async def agent_hello(call: Call) -> Answer:
    decode = partial(decode_json, kind=HelloRequest)
    return await _answer(call, decode, stream_open, most_bytes=HELLO_BYTES, may_hold_nul=False)


async def agent_batch(call: Call) -> Answer:
    apply = partial(batch_apply, most_bytes=call.services.settings.cluster_stored_bytes)
    return await _answer(call, decode_batch, apply, most_bytes=AGENT_BATCH_BYTES)


async def agent_inventory(call: Call) -> Answer:
    decode = partial(decode_json, kind=InventoryBegin)
    return await _answer(call, decode, inventory_begin, may_hold_nul=False)


async def agent_inventory_entries(call: Call) -> Answer:
    async def apply(
        db: Database, agent: AgentIdentity, message: InventoryEntries, _: datetime
    ) -> InventoryMissing:
        return await inventory_entries(db, agent, message)

    return await _answer(call, partial(decode_json, kind=InventoryEntries), apply)


async def agent_inventory_commit(call: Call) -> Answer:
    return await _answer(call, partial(decode_json, kind=InventoryCommit), inventory_commit)


async def agent_heartbeat(call: Call) -> Answer:
    async def apply(
        db: Database, agent: AgentIdentity, received: ReceivedHeartbeat, now: datetime
    ) -> HeartbeatReply:
        most_bytes = call.services.settings.cluster_stored_bytes
        return await heartbeat_apply(
            db, agent, received.beat, now, left_out=received.left_out, most_bytes=most_bytes
        )

    return await _answer(call, decode_heartbeat, apply)


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


async def _answer(
    call: Call,
    decode: Callable[[bytes], Message],
    apply: Callable[[Database, AgentIdentity, Message, datetime], Awaitable[Any]],
    *,
    most_bytes: int = AGENT_MESSAGE_BYTES,
    may_hold_nul: bool = True,
) -> Answer:
    """Raises TooMany, Invalid, TooLarge, and what `apply` does.

    Without `may_hold_nul` its texts go into text columns as they are, and these know no NUL.
    """
    assert call.agent is not None, "the route lets nobody in but agents"
    limiter = call.services.agent_limiter
    async with limiter.message(call.agent), limiter.slow_refusal() as size:
        body = await call.agent_body()
        async with limiter.processing(call.agent):
            body = await call.inflate_agent_body(body, most_bytes)
            size.bytes = len(body)
            limiter.charge(call.agent, len(body))
            if not may_hold_nul and b"\\u0000" in body:
                raise Invalid("The body contains a NUL character.")
            message = await _decoded(body, decode)
            return json_reply(await apply(call.db, call.agent, message, call.now))


async def _decoded(body: bytes, decode: Callable[[bytes], Message]) -> Message:
    if len(body) <= SMALL_MESSAGE_BYTES:
        return decode(body)
    return await asyncio.to_thread(decode, body)


HANDLERS = (
    agent_hello,
    agent_batch,
    agent_inventory,
    agent_inventory_entries,
    agent_inventory_commit,
    agent_heartbeat,
)


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
