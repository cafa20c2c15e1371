"""How an answer's bytes leave: with their length or in chunks, compressed where that is worth it."""

import asyncio
import gzip
from pathlib import Path
from typing import Final

import yaml
from aiohttp import web

from watchbill.demo.answers import JSON
from watchbill.demo.variation import Variation

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
) -> web.StreamResponse:
    """Small answers carry their length, large ones come in chunks and, where offered, compressed."""
    sent = {"Content-Type": content_type, "Cache-Control": "no-cache, private"} | (headers or {})
    if len(body) < _CHUNKED_BYTES:
        return web.Response(status=status, body=body, headers=sent)
    if len(body) >= _COMPRESSED_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(gzip.compress, body, 1)
        sent["Content-Encoding"] = "gzip"
    response = web.StreamResponse(status=status, headers=sent)
    response.enable_chunked_encoding()
    await response.prepare(request)
    for chunk in variation.chunks(body):
        await response.write(chunk)
    await response.write_eof()
    return response


def write_kubeconfig(path: Path, *, url: str, token: str) -> Path:
    """A kubeconfig with one cluster, readable by its owner alone."""
    name = "simulated"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path
