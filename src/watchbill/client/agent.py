"""The agent's side of `protocol.py`, over HTTP."""

import asyncio
import gzip
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from watchbill.client.transport import Transport, decoded
from watchbill.protocol import (
    Batch,
    BatchReply,
    Heartbeat,
    HeartbeatReply,
    HelloReply,
    HelloRequest,
    InventoryBegin,
    InventoryBegun,
    InventoryCommit,
    InventoryCommitted,
    InventoryEntries,
    InventoryMissing,
)
from watchbill.tracing.tracing import NO_TRACING, SpanKind, Tracing
from watchbill.workload import Wire

COMPRESSED_FROM_BYTES = 1024
LARGE_BYTES = 256 * 1024
"""Bodies of this size are compressed in a thread: it takes too long for the event loop."""
_ENCODER = msgspec.json.Encoder()

Reply = TypeVar("Reply", bound=Wire)


class AgentClient:
    """Speaks for one cluster. Every call raises the error that the answer's status means:
    Superseded for another stream, Conflict for a gap, Unauthenticated, Invalid, TooLarge, Unavailable."""

    def __init__(
        self,
        url: str,
        credential: str,
        *,
        ca_file: Path | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Raises Invalid for a file that holds no certificates."""
        self._tracing = tracing
        self._transport = Transport(url, ca_file=ca_file)
        self._headers = {
            "Authorization": f"Bearer {credential.strip()}",
            "Content-Type": "application/json",
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def hello(self, request: HelloRequest) -> HelloReply:
        return await self._post("hello", request, HelloReply)

    async def batch(self, batch: Batch) -> BatchReply:
        return await self._post("batch", batch, BatchReply)

    async def inventory_begin(self, request: InventoryBegin) -> InventoryBegun:
        return await self._post("inventory", request, InventoryBegun)

    async def inventory_entries(self, request: InventoryEntries) -> InventoryMissing:
        return await self._post("inventory/entries", request, InventoryMissing)

    async def inventory_commit(self, request: InventoryCommit) -> InventoryCommitted:
        return await self._post("inventory/commit", request, InventoryCommitted)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        return await self._post("heartbeat", beat, HeartbeatReply)

    async def _post(self, path: str, message: Wire, reply: type[Reply]) -> Reply:
        items = {"watchbill.items": len(message.items)} if isinstance(message, Batch) else {}
        with self._tracing.span(f"agent {path}", SpanKind.CLIENT, items):
            return await self._send(path, message, reply)

    async def _send(self, path: str, message: Wire, reply: type[Reply]) -> Reply:
        body = _ENCODER.encode(message)
        headers = self._headers | self._tracing.headers()
        if len(body) >= COMPRESSED_FROM_BYTES:
            compress = partial(gzip.compress, body, compresslevel=1)
            is_large = len(body) >= LARGE_BYTES
            body = await asyncio.to_thread(compress) if is_large else compress()
            headers = headers | {"Content-Encoding": "gzip"}
        answer = await self._transport.send("POST", f"/agent/v1/{path}", headers=headers, body=body)
        return decoded(answer, reply)
