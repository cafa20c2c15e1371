"""What clients of an API server must bear: what the protocol leaves open, and what can be made to go wrong.

A varied cluster answers differently every time, by its seed: order of members, chunk sizes, unknown members
and event types, compression. Faults are switched from within the process and act on the next requests;
`cut_watches` and its like act on what is open now.
"""

import asyncio
import base64
import contextlib
import gzip
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from aiohttp import web

from simulator.apiserver.encoding import PLAIN
from simulator.apiserver.errors import JSON
from simulator.apiserver.store import Ending, Store
from simulator.resources import NAMESPACES, ResourceType

_CHUNK: Final = 64 * 1024
_UNKNOWN_EVENT: Final = (
    b'{"type":"SIMULATED","object":{"kind":"Notice","apiVersion":"example.com/v1"}}\n'
)


class AnswerVariation:
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
    variation: AnswerVariation,
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
    # A client that has disconnected gets no answer.
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


_SYSTEM: Final = "kube-system"
"""The namespace whose UID stands for the cluster."""

READ_VERBS: Final = ("get", "list", "watch")


@dataclass(slots=True)
class Faults:
    """`store` is whose subscriptions are ended."""

    store: Store
    forbidden: set[tuple[str, str, str]] = field(default_factory=set)
    """(group, plural, verb) of requests that are answered 403."""
    hanging: set[tuple[str, str]] = field(default_factory=set)
    """(group, plural) of kinds whose requests are not answered until they leave the set."""
    revokes_tokens: bool = False
    """Every token is answered 401; open watches go on."""
    delay_seconds: float = 0.0
    """Every answer waits this long first."""
    too_many_requests: int = 0
    """So many of the next requests are answered 429."""
    unavailable_requests: int = 0
    """So many of the next requests are answered 503."""
    page_breaks: int = 0
    """So many of the next `continue` tokens are answered 410, as if history had been compacted."""
    stalls_watches: bool = False
    """Watches stay open and deliver nothing until this ends: a half-open connection."""
    loses_events: Callable[[ResourceType], bool] | None = None
    """Watches of these kinds lose their events for good, while bookmarks go on."""

    holds_requests: bool = False
    """Requests are taken and not answered until this ends, as by a server that hangs."""
    truncated_answers: int = 0
    """So many of the next answers break off in the middle."""
    clock_skew_seconds: float = 0.0
    """How far the API server's clock, as its Date headers tell it, is ahead."""
    torn_bytes: int = 0
    """Lines of watches are torn into pieces of this size; 0 = they are not."""

    def forbid(self, resource: ResourceType, *verbs: str) -> None:
        """These verbs, else all that read, are answered 403 from now on; open watches end with theirs."""
        forbidden = verbs or READ_VERBS
        self.forbidden |= {(resource.group, resource.plural, verb) for verb in forbidden}
        if "watch" in forbidden:
            self._end(Ending.CLEAN, resource)

    def allow(self, resource: ResourceType) -> None:
        self.forbidden -= {(resource.group, resource.plural, verb) for verb in READ_VERBS}

    def hang(self, resource: ResourceType) -> None:
        """New requests for the kind get no answer, as from an aggregated API server that is down."""
        self.hanging.add((resource.group, resource.plural))

    def resume(self, resource: ResourceType) -> None:
        self.hanging.discard((resource.group, resource.plural))

    async def until_answered(self, group: str, plural: str) -> None:
        while (group, plural) in self.hanging:
            await asyncio.sleep(0.05)

    def replace_cluster(self) -> None:
        """Another cluster answers under the same address: its kube-system has another UID."""
        stored = self.store.get(NAMESPACES, None, _SYSTEM)
        document = stored.decode() if stored is not None else {"metadata": {"name": _SYSTEM}}
        document["metadata"]["uid"] = str(uuid.uuid4())
        self.store.delete(NAMESPACES, None, _SYSTEM)
        self.store.put(NAMESPACES, document)

    def cut_watches(self, resource: ResourceType | None = None) -> None:
        """Connections end without the protocol's end of stream, as when a server is killed."""
        self._end(Ending.CUT, resource)

    def end_watches(self, resource: ResourceType | None = None) -> None:
        """A clean end, as after timeoutSeconds."""
        self._end(Ending.CLEAN, resource)

    def expire_watches(self, resource: ResourceType | None = None) -> None:
        """An ERROR event with code 410, then the end."""
        self._end(Ending.EXPIRED, resource)

    def compact(self) -> None:
        """History is forgotten and every connection lost: old revisions have expired."""
        self.store.compact()
        self.cut_watches()

    @contextmanager
    def losing_changes(self) -> Iterator[None]:
        """Changes meanwhile are seen by lists alone: their events are lost."""
        tables = self.store.tables()
        try:
            for table in tables:
                table.loses_changes = True
            yield
        finally:
            for table in tables:
                table.loses_changes = False

    def _end(self, ending: Ending, resource: ResourceType | None) -> None:
        for table in self.store.tables():
            if resource is None or table.resource == resource:
                for subscription in table.subscriptions:
                    subscription.end(ending)
