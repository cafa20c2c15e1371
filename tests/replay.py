"""Recorded exchanges with Kubernetes API servers, answered again over real HTTP.

Bodies and lines are the recorded bytes; how they are cut into chunks and how a stream ends is for the test to
choose, the recorded end being the default.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

RECORDINGS = Path(__file__).parent / "recordings"
_HOP_BY_HOP = frozenset({"Content-Length", "Transfer-Encoding", "Content-Encoding", "Date"})


@dataclass(frozen=True)
class Exchange:
    """One request and its answer. `lines` are a watch's; `is_cut` = it ended without the last chunk.

    `status` 0 = there was no answer.
    """

    note: str
    method: str
    path: str
    status: int
    headers: dict[str, str]
    body: str
    lines: tuple[str, ...] | None
    is_cut: bool


@cache
def recorded(version: str, name: str) -> tuple[Exchange, ...]:
    """All exchanges of one protocol recording."""
    with gzip.open(RECORDINGS / version / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return tuple(
            _exchange(line) for line in map(json.loads, file) if line["request"]["method"] != "NOTE"
        )


def _exchange(line: dict[str, Any]) -> Exchange:
    request, response = line["request"], line["response"]
    stream = response.get("stream")
    return Exchange(
        note=line["note"],
        method=request["method"],
        path=request["path"],
        status=response.get("status", 0),
        headers=response.get("headers", {}),
        body=response.get("body") or "",
        lines=None if stream is None else tuple(text for _, text in stream),
        is_cut="WITHOUT" in str(response.get("end")),
    )


def one(exchanges: tuple[Exchange, ...], *words: str) -> Exchange:
    """The first exchange whose note or path has all of these words."""
    for found in exchanges:
        if all(word in found.note or word in found.path for word in words):
            return found
    raise LookupError(words)


@dataclass
class Script:
    """What to answer, request by request; every request is remembered."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Script]:
    """A server on a free port of this machine for as long as the block lasts."""
    script = Script(answer)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield script
    finally:
        await runner.cleanup()


async def replay(
    request: web.Request, exchange: Exchange, *, chunk_bytes: int | None = None
) -> web.StreamResponse:
    """The recorded answer: status, headers, body or stream, and how it ended."""
    headers = {k: v for k, v in exchange.headers.items() if k not in _HOP_BY_HOP}
    if exchange.lines is None:
        return web.Response(status=exchange.status, headers=headers, body=exchange.body.encode())
    data = b"".join(line.rstrip("\n").encode() + b"\n" for line in exchange.lines)
    return await stream(
        request, data, headers=headers, chunk_bytes=chunk_bytes, is_cut=exchange.is_cut
    )


async def stream(
    request: web.Request,
    data: bytes,
    *,
    headers: dict[str, str] | None = None,
    chunk_bytes: int | None = None,
    is_cut: bool = False,
    stays_open_seconds: float = 0.0,
) -> web.StreamResponse:
    """Bytes in chunks of a given size; `is_cut`: the connection ends without the closing chunk."""
    response = web.StreamResponse(headers=headers or {"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    size = chunk_bytes or max(1, len(data))
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        await asyncio.sleep(0)
    if stays_open_seconds:
        await asyncio.sleep(stays_open_seconds)
    if is_cut and request.transport is not None:
        request.transport.close()
        return response
    await response.write_eof()
    return response


def kubeconfig(path: Path, url: str, *, token: str = "t0ken", **cluster: Any) -> Path:
    """A kubeconfig file for a server that takes a bearer token."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "c", "cluster": {"server": url} | cluster}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path
