"""A load generator that costs little: GET and POST over kept-alive connections, nothing parsed but the length.

A full HTTP client takes longer than the servers under test and would hide what is measured.
"""

import asyncio
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Connection:
    """One connection to a server on this machine; made again where the server closed it while it idled."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    url: str
    host: str

    @classmethod
    async def open(cls, url: str) -> Self:
        reader, writer = await _connected(url)
        return cls(reader, writer, url, urlsplit(url).netloc)

    async def send(
        self, method: str, path: str, *, token: str | None = None, body: bytes = b""
    ) -> bytes:
        """The body of a successful answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        head = await self._head(request)
        result = await self.reader.readexactly(_length(head))
        assert head.startswith(b"HTTP/1.1 200"), head + result[:300]
        return result

    async def _head(self, request: bytes) -> bytes:
        """A contestant idles through its rivals' turns, which may take longer than it keeps connections."""
        try:
            self.writer.write(request)
            return await self.reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                raise
            self.reader, self.writer = await _connected(self.url)
            self.writer.write(request)
            return await self.reader.readuntil(b"\r\n\r\n")

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def _connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise AssertionError(f"no length in {head!r}")
