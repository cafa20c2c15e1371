"""Server-sent events, as the live stream has them: a name and a JSON object each; comments are passed over."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from watchbill.errors import Unavailable

MOST_BYTES = 256 * 1024
"""Of one event."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """`name` is `ready`, `change`, `resync` or `end`."""

    name: str
    data: dict[str, Any]


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[StreamEvent]:
    """As they come. Raises Unavailable where something else than our server spoke."""
    block: dict[str, str] = {}
    size = 0
    async for line in answer.content:
        size += len(line)
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if size > MOST_BYTES:
            raise Unavailable("The stream did not come from a Watchbill server.")
        if text:
            field, _, value = text.partition(":")
            block[field] = value.removeprefix(" ")
            continue
        if "event" in block:
            yield _event(block)
        block, size = {}, 0


def _event(block: dict[str, str]) -> StreamEvent:
    try:
        data = msgspec.json.decode(block.get("data", "{}"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Unavailable("The stream did not come from a Watchbill server.") from error
    return StreamEvent(block["event"], data)
