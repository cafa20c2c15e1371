"""A load generator that costs little: GET and POST over kept-alive connections, nothing parsed but the length.

A full HTTP client takes longer than the servers under test and would hide what is measured; so would a stream
that copies a body of a megabyte twice on its way.
"""

import asyncio
from typing import Self
from urllib.parse import urlsplit

ROOM_BYTES = 2**24
LAST_CHUNK = b"0\r\n\r\n"
"""A chunked answer to one request at a time ends with it: a JSON text does not."""


class Connection(asyncio.BufferedProtocol):
    """One connection to a server on this machine; made again where the server closed it while it idled."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._host = urlsplit(url).netloc
        self._room = memoryview(bytearray(ROOM_BYTES))
        self._filled = 0
        self._body_at: int | None = None
        self._end = 0
        self._is_chunked = False
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        connection = cls(url)
        await connection._connect()
        return connection

    async def send(
        self, method: str, path: str, *, token: str | None = None, body: bytes = b""
    ) -> memoryview:
        """The body of a successful answer, as it is until the next one comes."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        try:
            await self._answer(request)
        except ConnectionError:  # it idled through its rivals' turns for longer than it is kept
            await self._connect()
            await self._answer(request)
        status = bytes(self._room[:12])
        assert status == b"HTTP/1.1 200", bytes(self._room[: self._end][:500])
        return self._room[self._body_at : self._end]

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        parts = urlsplit(self._url)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, parts.hostname, parts.port)

    async def _answer(self, request: bytes) -> None:
        if self._transport is None:
            raise ConnectionResetError
        self._filled, self._body_at, self._is_chunked = 0, None, False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answered is not None and not self._answered.done():
            broken = self._filled > 0
            self._answered.set_exception(EOFError() if broken else ConnectionResetError())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._body_at is None:
            self._read_head()
        if self._is_chunked and self._room[self._filled - 5 : self._filled] == LAST_CHUNK:
            self._end = self._filled
        is_whole = self._body_at is not None and self._filled >= self._end
        if is_whole and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _read_head(self) -> None:
        head, end, _ = bytes(self._room[: min(self._filled, 65_536)]).partition(b"\r\n\r\n")
        if end:
            self._body_at = len(head) + len(end)
            length = _length(head)
            self._is_chunked = length is None
            self._end = ROOM_BYTES if length is None else self._body_at + length


def _length(head: bytes) -> int | None:
    """None where it comes in chunks."""
    lines = head.lower().split(b"\r\n")
    for line in lines:
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    assert b"transfer-encoding: chunked" in lines, f"no length in {head!r}"
    return None
