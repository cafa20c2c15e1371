"""Server-sent events, as the live stream has them: a name and a JSON object each; comments are passed over."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from watchbill.client.transport import decoded
from watchbill.errors import Unavailable
from watchbill.responses.workloads import StreamChange, StreamReady, StreamReason

MAX_BYTES = 256 * 1024
"""Of one event."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """`name` is `ready`, `change`, `resync` or `end`; any other comes from a newer server."""

    name: str
    data: StreamReady | StreamChange | StreamReason | None


_KINDS: dict[str, type[StreamReady | StreamChange | StreamReason]] = {
    "ready": StreamReady,
    "change": StreamChange,
    "resync": StreamReason,
    "end": StreamReason,
}


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[StreamEvent]:
    """As they come. Raises Unavailable where something else than our server spoke."""
    block: dict[str, str] = {}
    size = 0
    async for line in answer.content:
        size += len(line)
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if size > MAX_BYTES:
            raise Unavailable("The stream did not come from a Watchbill server.")
        if text:
            field, _, value = text.partition(":")
            block[field] = value.removeprefix(" ")
            continue
        if "event" in block:
            yield _event(block)
        block, size = {}, 0


def _event(block: dict[str, str]) -> StreamEvent:
    kind = _KINDS.get(block["event"])
    if kind is None:
        return StreamEvent(block["event"], None)
    return StreamEvent(block["event"], decoded(block.get("data", "{}").encode(), kind))
