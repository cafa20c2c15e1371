"""What agents send. Who they are is known from the credential alone; the store applies it.

A message is read, inflated and decoded when it is its agent's turn, and a large one beside the event loop; the
items of a batch are decoded one by one, so that other requests run in between.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

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
from watchbill.cluster_node import MAX_NODE_BYTES, ClusterNode, Name
from watchbill.errors import Invalid
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    Batch,
    BatchEnvelope,
    Heartbeat,
    HeartbeatEnvelope,
    HelloRequest,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    InventoryMissing,
    Item,
    KindState,
    NodeChanges,
    NodePoolCapacity,
)
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit, inventory_entries
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database
from watchbill.workload import Wire

Message = TypeVar("Message")
Member = TypeVar("Member")
HELLO_BYTES = 64 * 1024
ITEM_BYTES = 4 * 1024 * 1024

_ITEM = msgspec.json.Decoder(Item)
_NODE_POOL = msgspec.json.Decoder(NodePoolCapacity)
_NODE = msgspec.json.Decoder(ClusterNode)


class _NamedNode(Wire, frozen=True):
    """Of a node that says what cannot be, the one thing that is needed."""

    name: Name


_NODE_NAME = msgspec.json.Decoder(_NamedNode)


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
    apply = partial(heartbeat_apply, most_bytes=call.services.settings.cluster_stored_bytes)
    return await _answer(call, decode_heartbeat, apply)


def decode_batch(body: bytes) -> Batch:
    """Raises Invalid; its details name the member by its path."""
    envelope = decode_json(body, BatchEnvelope)
    return Batch(
        stream_id=envelope.stream_id,
        seq=envelope.seq,
        items=tuple(_item(number, item) for number, item in enumerate(envelope.items)),
        scrapes=envelope.scrapes,
        events=envelope.events,
    )


def decode_heartbeat(body: bytes) -> Heartbeat:
    """Node pools and nodes that cannot be are left out, and the state of the kind Node says so: of such a node
    nothing older stays, either. Raises Invalid."""
    envelope = decode_json(body, HeartbeatEnvelope)
    pools, reasons = _possible(envelope.node_pools, _NODE_POOL, "node pools")
    nodes: NodeChanges | None = None
    if envelope.nodes is not None:
        changed, more = _possible(envelope.nodes.changed, _NODE, "nodes")
        removed = envelope.nodes.removed
        if more:
            removed += _names_without(envelope.nodes.changed, changed)
        members = {"changed": changed, "removed": removed}
        nodes = NodeChanges(**msgspec.structs.asdict(envelope.nodes) | members)
        reasons += more
    kinds = _with_node_state(envelope.kinds, " ".join(reasons)) if reasons else envelope.kinds
    decoded = {"kinds": kinds, "node_pools": pools, "nodes": nodes}
    return Heartbeat(**msgspec.structs.asdict(envelope) | decoded)


def _names_without(
    entries: tuple[msgspec.Raw, ...], decoded: tuple[ClusterNode, ...]
) -> tuple[str, ...]:
    """Names of the entries that could not be decoded, as far as they can be read."""
    names = set()
    for entry in entries:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            names.add(_NODE_NAME.decode(entry).name)
    return tuple(sorted(names - {node.name for node in decoded}))


def _possible(
    entries: tuple[msgspec.Raw, ...], decoder: msgspec.json.Decoder[Member], name: str
) -> tuple[tuple[Member, ...], list[str]]:
    """Those that can be decoded, and a sentence about the others."""
    decoded: list[Member] = []
    reasons: list[str] = []
    for entry in entries:
        try:
            if len(memoryview(entry)) > MAX_NODE_BYTES:
                raise msgspec.ValidationError(f"larger than {MAX_NODE_BYTES} bytes")
            decoded.append(decoder.decode(entry))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reasons.append(str(error))
    if not reasons:
        return tuple(decoded), []
    return tuple(decoded), [f"{len(reasons)} {name} cannot be and are left out: {reasons[0][:300]}"]


def _with_node_state(kinds: tuple[KindState, ...], message: str) -> tuple[KindState, ...]:
    state = KindState(
        group="",
        kind="Node",
        state="failing",
        since=next((kind.since for kind in kinds if _is_node(kind)), datetime.now(UTC)),
        message=message,
    )
    return (*(kind for kind in kinds if not _is_node(kind)), state)


def _is_node(kind: KindState) -> bool:
    return (kind.group, kind.kind) == ("", "Node")


def _item(number: int, item: msgspec.Raw) -> Item:
    if len(memoryview(item)) > ITEM_BYTES:
        raise Invalid(f"Item {number} of the batch is larger than {ITEM_BYTES} bytes.")
    try:
        decoded: Item = _ITEM.decode(item)
        return decoded
    except msgspec.ValidationError as error:
        raise invalid_shape(str(error).replace("`$", f"`$.items[{number}]", 1)) from error
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
