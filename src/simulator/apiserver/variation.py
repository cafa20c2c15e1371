"""What the protocol leaves open: order of members, chunk sizes, unknown members and event types, compression.

A client must not depend on any of it, so a varied cluster answers differently every time, by its seed.
"""

import asyncio
import base64
import contextlib
import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml
from aiohttp import web

from simulator.apiserver.encoding import PLAIN
from simulator.apiserver.errors import JSON

_CHUNK: Final = 64 * 1024
_UNKNOWN_EVENT: Final = (
    b'{"type":"SIMULATED","object":{"kind":"Notice","apiVersion":"example.com/v1"}}\n'
)


class Variation:
    """`seed` None = as the reference server does it: fixed order, no unknown events."""

    def __init__(self, seed: int | None) -> None:
        self._random = random.Random(seed)
        self.is_on = seed is not None

    def members(self, *members: tuple[str, bytes]) -> bytes:
        """A JSON object of already encoded members, in some order."""
        if self.is_on:
            shuffled = list(members)
            self._random.shuffle(shuffled)
            if self._random.random() < 0.2:
                shuffled.append(("extension", b'{"note":"unknown members are to be ignored"}'))
            members = tuple(shuffled)
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members)

    def layout(self) -> tuple[str, ...]:
        """Order of an object's parts, for one answer."""
        if not self.is_on:
            return PLAIN
        parts = list(PLAIN)
        self._random.shuffle(parts)
        return tuple(parts)

    def chunks(self, body: bytes) -> Iterator[bytes]:
        position = 0
        while position < len(body):
            size = self._random.randint(1000, 2 * _CHUNK) if self.is_on else _CHUNK
            yield body[position : position + size]
            position += size

    def stream(self, lines: list[bytes]) -> list[bytes]:
        """Watch lines as they leave: one a chunk, or several together, or torn in the middle."""
        if not self.is_on:
            return lines
        if self._random.random() < 0.02:
            lines = [*lines, _UNKNOWN_EVENT]
        style = self._random.random()
        if style < 0.6:
            return lines
        whole = b"".join(lines)
        if style < 0.8:
            return [whole]
        cut = self._random.randint(1, max(1, len(whole) - 1))
        return [whole[:cut], whole[cut:]]

    def watch_seconds(self) -> float:
        """How long a watch lasts that names no time of its own."""
        return self._random.uniform(1800, 3600)

    def bookmark_seconds(self) -> float:
        return self._random.uniform(50, 62) if self.is_on else 60.0


_COMPRESSED_BYTES: Final = 128 * 1024
_CHUNKED_BYTES: Final = 2 * 1024


async def send(
    request: web.Request,
    body: bytes,
    variation: Variation,
    *,
    status: int = 200,
    content_type: str = JSON,
    headers: dict[str, str] | None = None,
    is_truncated: bool = False,
) -> web.StreamResponse:
    """Small answers carry their length, large ones come in chunks and, where offered, compressed."""
    sent = {"Content-Type": content_type, "Cache-Control": "no-cache, private"} | (headers or {})
    if len(body) < _CHUNKED_BYTES and not is_truncated:
        return web.Response(status=status, body=body, headers=sent)
    if len(body) >= _COMPRESSED_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(gzip.compress, body, 1)
        sent["Content-Encoding"] = "gzip"
    response = web.StreamResponse(status=status, headers=sent)
    response.enable_chunked_encoding()
    # A client that has disconnected is not told.
    with contextlib.suppress(ConnectionResetError):
        await response.prepare(request)
        if is_truncated:
            await response.write(body[: len(body) // 2])
            if request.transport is not None:
                request.transport.abort()
            return response
        for chunk in variation.chunks(body):
            await response.write(chunk)
        await response.write_eof()
    return response


def write_kubeconfig(path: Path, *, url: str, token: str, ca: bytes | None = None) -> Path:
    """A kubeconfig with one cluster, readable by its owner alone."""
    name = "simulated"
    cluster = {"server": url}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path
