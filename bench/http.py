"""A load generator that costs little: GET and POST over kept-alive connections, nothing parsed but the length.

A full HTTP client takes longer than the servers under test and would hide what is measured.
"""

import asyncio
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Connection:
    """One connection to a server on this machine."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    @classmethod
    async def open(cls, url: str) -> Self:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
        return cls(reader, writer, parts.netloc)

    async def send(
        self, method: str, path: str, *, token: str | None = None, body: bytes = b""
    ) -> bytes:
        """The body of a successful answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = await self.reader.readexactly(_length(head))
        assert head.startswith(b"HTTP/1.1 200"), head + found[:300]
        return found

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise AssertionError(f"no length in {head!r}")
