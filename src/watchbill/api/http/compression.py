"""Compression of replies by `Accept-Encoding`: gzip, at the level that costs least.

What is small gains nothing. An entity tag names one sequence of bytes, so what has one is sent as it is; so is
a stream of events, which must arrive piece by piece.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from isal import isal_zlib

MIN_BYTES = 4 * 1024
ASIDE_BYTES = 128 * 1024
"""Bodies of this size are compressed in a thread: it takes too long for the event loop."""
EVENT_STREAM = "text/event-stream"
GZIP = (b"content-encoding", b"gzip")
VARY = (b"vary", b"accept-encoding")
_LEVEL = 1
_GZIP_WINDOW = 31  # of 15 bits, in gzip's frame


def takes_gzip(accepted: bytes | None) -> bool:
    for part in (accepted or b"").decode("latin-1").lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def is_compressible(media_type: str, headers: Mapping[bytes, bytes]) -> bool:
    """`headers`: those of the reply."""
    own = headers.keys() & {b"etag", b"content-encoding"}
    return not own and not media_type.startswith(EVENT_STREAM)


async def compressed(body: bytes) -> bytes:
    if len(body) < ASIDE_BYTES:
        return _compress(body)
    return await asyncio.to_thread(_compress, body)


async def compressed_pieces(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes as one gzip member; nothing is held back for long, as pieces are large."""
    compressor = isal_zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
    async with aclosing(pieces):
        async for piece in pieces:
            if data := compressor.compress(piece):
                yield data
    yield compressor.flush()


def _compress(body: bytes) -> bytes:
    data: bytes = isal_zlib.compress(body, _LEVEL, wbits=_GZIP_WINDOW)
    return data
