"""Replies: which media type the request's `Accept` prefers, a body at once or a stream of pieces, compressed
or not, and the header fields that every reply carries.

What is small gains nothing by gzip. An entity tag names one sequence of bytes, so what has one is sent as it
is; so is a stream of events, which must arrive piece by piece.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from isal import isal_zlib
from starlette.types import Receive, Scope, Send

from watchbill.errors import Unacceptable

MIN_BYTES = 4 * 1024
ASIDE_BYTES = 128 * 1024
"""Bodies of this size are compressed in a thread: it takes too long for the event loop."""
EVENT_STREAM = "text/event-stream"
GZIP = (b"content-encoding", b"gzip")
VARY = (b"vary", b"accept-encoding")
_LEVEL = 1
_GZIP_WINDOW = 31  # of 15 bits, in gzip's frame
_NOT_AT_ALL = re.compile(r"q=0(\.0{0,3})?")


def takes_gzip(accepted: bytes | None) -> bool:
    return accepts(accepted, "gzip")


def accepts(accepted: bytes | None, name: str) -> bool:
    """The header names it, and not with a weight of 0."""
    for part in (accepted or b"").decode("latin-1").lower().split(","):
        accepted_name, *parameters = part.replace(" ", "").split(";")
        if accepted_name == name:
            return not any(_NOT_AT_ALL.fullmatch(parameter) for parameter in parameters)
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


def negotiate(accept: str | None, offers: tuple[str, ...]) -> str:
    """The first offer unless `Accept` ranks another higher; of equal ones the one that it names more
    exactly. Raises Unacceptable."""
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_read(part) for part in accept.split(",") if part.strip()]
    ranked = [(_rank(offer, ranges), -position, offer) for position, offer in enumerate(offers)]
    (quality, _), _, best = max(ranked)
    if quality <= 0:
        raise Unacceptable(
            "None of the requested media types is available.",
            details=f"Available: {', '.join(offers)}.",
        )
    return best


def _read(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = _quality(value.strip())
    return media_range, quality


def _quality(text: str) -> float:
    """RFC 9110 knows 0 to 1 with at most three decimals; what is none of these asks for nothing."""
    try:
        quality = float(text) if len(text) <= 5 else 0.0
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _rank(offer: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Quality and exactness of the most exact range that covers the offer; (0, 0) where none does."""
    patterns = {offer: 2, f"{offer.partition('/')[0]}/*": 1, "*/*": 0}
    matching = [(patterns[name], quality) for name, quality in ranges if name in patterns]
    if not matching:
        return 0.0, 0
    exactness, quality = max(matching)
    return quality, exactness


JSON = "application/json"
CSV = "text/csv"
HTML = "text/html; charset=utf-8"

RawHeaders = list[tuple[bytes, bytes]]

_EVERYWHERE: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NO_STORE = (b"cache-control", b"no-store")
_ENCODER = msgspec.json.Encoder(decimal_format="number", uuid_format="canonical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer. `headers` may replace the policy and the caching that API replies have."""

    body: bytes = b""
    status: int = 200
    media_type: str = JSON
    headers: Sequence[tuple[bytes, bytes]] = field(default=())
    _zipped: list[asyncio.Future[bytes]] = field(
        default_factory=list, init=False, compare=False, repr=False
    )
    """The body compressed, once one takes it so: several requests may share an answer."""

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(self.headers, self.media_type if self.body else None)
        body = self.body
        if len(body) >= MIN_BYTES and _negotiates_gzip(headers, self.media_type, scope):
            if not self._zipped:
                self._zipped.append(asyncio.ensure_future(compressed(body)))
            body = await asyncio.shield(self._zipped[0])
        if self.status not in (204, 304):
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingReply:
    """An answer in pieces. An error half-way breaks the connection, so that nobody takes a part for the
    whole."""

    pieces: AsyncGenerator[bytes, None]
    media_type: str
    headers: Sequence[tuple[bytes, bytes]] = field(default=())
    status: int = 200
    send_seconds: float | None = None
    """Whoever takes longer to take a piece is left, connection and all."""

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(self.headers, self.media_type)
        is_zipped = _negotiates_gzip(headers, self.media_type, scope)
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        async with aclosing(compressed_pieces(self.pieces) if is_zipped else self.pieces) as pieces:
            if scope["method"] == "HEAD":
                await send(start)
            else:
                first = await anext(pieces, b"")  # an error before it is still an answer of its own
                await send(start)
                await _pour(first, pieces, receive, partial(self._send_piece, send))
        await send({"type": "http.response.body", "body": b""})

    async def _send_piece(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(self.send_seconds):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _pour(
    first: bytes,
    pieces: AsyncGenerator[bytes, None],
    receive: Receive,
    send: Callable[[bytes], Awaitable[None]],
) -> None:
    """Send piece after piece for as long as somebody listens; one that is awaited is not waited for once
    nobody does."""
    gone = asyncio.ensure_future(_disconnected(receive))
    piece: bytes | None = first
    try:
        while piece is not None:
            await send(piece)
            following = asyncio.ensure_future(anext(pieces, None))
            try:
                await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait({following})
            piece = None if gone.done() and following.cancelled() else following.result()
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


Answer = Reply | StreamingReply


def encode(value: Any) -> bytes:
    return _ENCODER.encode(value)


def json_reply(value: Any, *, status: int = 200) -> Reply:
    return Reply(body=encode(value), status=status)


def list_reply(
    member: str, documents: Iterable[tuple[bytes | memoryview, ...]], next_offset: int | None
) -> Reply:
    """A page of documents that are JSON already, in pieces that are copied once: it may have megabytes."""
    pieces: list[bytes | memoryview] = [b'{"%s":[' % member.encode()]
    for document in documents:
        pieces += document
        pieces.append(b",")
    if len(pieces) > 1:
        pieces.pop()
    pieces.append(b"]}" if next_offset is None else b'],"next":%d}' % next_offset)
    return Reply(body=b"".join(pieces))


def _negotiates_gzip(headers: RawHeaders, media_type: str, scope: Scope) -> bool:
    """Whether the body is to be compressed, which is added to the header fields."""
    if not is_compressible(media_type, dict(headers)):
        return False
    headers.append(VARY)
    if not takes_gzip(dict(scope["headers"]).get(b"accept-encoding")):
        return False
    headers.append(GZIP)
    return True


def _headers(own: Sequence[tuple[bytes, bytes]], media_type: str | None) -> RawHeaders:
    headers = [*_EVERYWHERE, *own]
    names = {name for name, _ in own}
    headers += [header for header in (_API_POLICY, _NO_STORE) if header[0] not in names]
    if media_type is not None:
        headers.append((b"content-type", media_type.encode()))
    return headers
