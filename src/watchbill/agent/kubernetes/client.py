"""HTTP to one Kubernetes API server: get, list in pages, watch. Knows no kinds and keeps no state.

Selectors never use fields that may change: an object that leaves a selection looks deleted in a watch,
so DELETED means deleted only without them.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from watchbill import __version__
from watchbill.agent.kubernetes import steady_clock
from watchbill.agent.kubernetes.bounded_json import BoundedDecoder, decode_object
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind, cause_of, failure_of_response
from watchbill.agent.kubernetes.watch_stream import LineSplitter, WatchEvent, read_event
from watchbill.client.proxies import connector_for, is_socks

PAGE_OBJECTS = 500
PAGE_BYTES = 16 * 1024 * 1024
"""Where a page is larger, fewer objects are asked for at a time: whoever creates them chooses their size."""
SLOW_ANSWER_SECONDS = 1.0
MOST_PAGE_OBJECTS = 8 * PAGE_OBJECTS
"""Where answers are slow: small pages one after the other would take their time."""
LEAST_PAGE_BYTES = 64 * 1024 * 1024
"""A page of one object has room for any that an API server stores."""
WATCH_SECONDS = (240, 300)
SILENCE_SECONDS = 30.0
"""How long a watch may outlive its own timeoutSeconds before it counts as dead."""
BOOKMARKED_SILENCE_SECONDS = 150.0
"""The same once bookmarks arrive, about one a minute: more than two of them are missing."""
MAX_CLOCK_DIFFERENCE_SECONDS = 1e9
"""Beyond it a date is no clock's, and the server does not take it."""
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=15, sock_read=30)
ANSWER_SECONDS = 75.0
"""Until a list begins to come, or a watch is accepted: an API server itself gives up after 60 seconds."""
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=15, sock_read=ANSWER_SECONDS)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15)
_NEW_CREDENTIALS = ": the API server does not accept these credentials; renew the kubeconfig's user"
_ERROR_BYTES = 64 * 1024
BEGINNING_BYTES = 64 * 1024
"""Of a page: so much, or all of a smaller one, comes before it takes room from others."""
SLOW_BODY_SECONDS = 30.0
LEAST_BYTES_A_SECOND = 8 * 1024
"""A page that takes longer has come at this rate, or it is given up: an aggregated API that sends a byte a
second would keep others waiting for as long as it likes."""
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class ServedResource:
    """A kind as the server serves it."""

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True
    field_selector: str = ""
    """On fields that never change, for lists and watches alike."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, *, namespace: str = "", name: str = "") -> str:
        """Raises ApiFailure if no object can have these names."""
        segments = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.is_namespaced:
            segments += ["namespaces", namespace]
        return request_path(*segments, self.plural, *([name] if name else []))


_SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._~:@-]{1,253}")
"""Characters that no URL parser decodes or encodes; no dot segments."""


def request_path(*segments: str) -> str:
    """An absolute path; every URL of the agent is put together here.

    Raises ApiFailure for a segment that is no name and could lead to another object: an empty one, dots, a
    separator, anything that is encoded or would have to be.
    """
    for segment in segments:
        if _SEGMENT.fullmatch(segment) is None:
            raise ApiFailure(ErrorKind.ABSENT, f"{segment[:60]!a} cannot be part of a path")
    return "".join(f"/{segment}" for segment in segments)


Slots = AbstractAsyncContextManager[object]
"""To be entered again and again: a semaphore, or what limits nothing."""
UNLIMITED: Slots = nullcontext()


class ListSlots(NamedTuple):
    """Of kinds that are listed at once."""

    asking: asyncio.Semaphore
    """How many wait for an answer or read it."""
    reading: Slots
    """How many have a page in memory."""


CountBytes = Callable[[int], None]


def uncounted(_count: int) -> None:
    """Of what nobody has a budget for."""


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: Any = None
    """An int where the server says it; what else it may say makes no list unreadable."""


class ListPage(msgspec.Struct, frozen=True):
    """One page of a list; its items are not yet decoded and carry neither kind nor apiVersion."""

    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_PAGE = BoundedDecoder(ListPage, envelope_levels=2)


class KubeClient:
    """A client of one API server with one set of credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.clock_ahead_seconds: float | None = None
        """Of the API server's clock, as its last answer gave it, against ours; to the second."""
        self._sessions: dict[str | None, aiohttp.ClientSession] = {}
        """By SOCKS proxy; None = none of these."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, proxy: str | None) -> aiohttp.ClientSession:
        """Made anew where the credentials name another proxy than before."""
        key = proxy if is_socks(proxy) else None
        if key not in self._sessions:
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector_for(proxy, limit=0),
                headers={"User-Agent": f"watchbill-agent/{__version__}"},
                auto_decompress=True,
            )
        return self._sessions[key]

    async def get(
        self,
        path: str,
        *,
        accept: str = "application/json",
        limits: aiohttp.ClientTimeout = _REQUEST_TIMEOUT,
    ) -> tuple[bytes, str]:
        """Body and content type. Raises ApiFailure."""
        try:
            response = await self._open(path, accept=accept, limits=limits)
            async with response:
                body = bytearray()
                await _read_bounded(response, body, PAGE_BYTES)
                return bytes(body), response.content_type + _profile(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error

    async def read(
        self,
        path: str,
        *,
        max_bytes: int,
        seconds: float,
        count: CountBytes = uncounted,
        accept: str = "text/plain",
    ) -> bytes:
        """A page from behind the API server, of a proxied or an aggregated target. Raises ApiFailure."""
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=seconds)
        try:
            response = await self._open(path, accept=accept, limits=limits, is_plain=True)
            async with response:
                return await bounded_body(response, max_bytes, count)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error

    async def get_object(
        self, resource: ServedResource, *, namespace: str, name: str, is_metadata: bool
    ) -> dict[str, Any]:
        """One object, or its metadata alone. Raises ApiFailure."""
        accept = _METADATA if is_metadata else "application/json"
        body, _ = await self.get(resource.path(namespace=namespace, name=name), accept=accept)
        return _decoded_object(body)

    async def list_pages(
        self,
        resource: ServedResource,
        *,
        is_metadata: bool = False,
        objects: int | None = None,
        reading: Slots = UNLIMITED,
    ) -> AsyncGenerator[ListPage, None]:
        """All pages of one consistent list; the resource version is unset, so that it is the newest. `objects`:
        as many in the first page, or fewer.

        `reading` is held from when a page's beginning is here until the next is wanted: close the iterator.
        Raises ApiFailure, also between pages: then the list is incomplete and proves nothing.
        """
        accept = _METADATA_LIST if is_metadata else "application/json"
        token, objects = "", objects or PAGE_OBJECTS
        while True:
            began = time.monotonic()
            async with self._opened_page(resource, accept, objects, token) as response:
                is_slow = time.monotonic() - began > SLOW_ANSWER_SECONDS
                body = bytearray()
                async with AsyncExitStack() as held:
                    try:
                        await self._read_page(response, body, objects, BEGINNING_BYTES)
                        await held.enter_async_context(reading)
                        await self._read_page(response, body, objects)
                    except BodyTooLarge:
                        if objects == 1:
                            raise
                        objects = max(1, objects // 8)
                        continue
                    if len(body) < PAGE_BYTES // 8:
                        most = MOST_PAGE_OBJECTS if is_slow else max(objects, PAGE_OBJECTS)
                        objects = min(most, 2 * objects)
                    page = _decoded_page(_taken(body))
                    yield page
            token = page.metadata.continue_
            if not token:
                return

    @asynccontextmanager
    async def _opened_page(
        self, resource: ServedResource, accept: str, objects: int, token: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Entered once the page begins to come. Raises ApiFailure."""
        query = {"limit": str(objects)} | _selection(resource)
        if token:
            query["continue"] = token
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._open(
                    f"{resource.path()}?{urlencode(query)}", accept=accept, limits=_LIST_TIMEOUT
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error
        async with response:
            yield response

    async def _read_page(
        self,
        response: aiohttp.ClientResponse,
        body: bytearray,
        objects: int,
        enough: float = inf,
    ) -> None:
        """Add to `body` what comes of it, up to `enough` bytes. Raises ApiFailure, BodyTooLarge before all
        of it is read."""
        most = PAGE_BYTES if objects > 1 else LEAST_PAGE_BYTES
        now = asyncio.get_running_loop().time
        began, read_before = now(), len(body)
        try:
            async with asyncio.timeout(SLOW_BODY_SECONDS) as limit:
                await _read_bounded(
                    response,
                    body,
                    most,
                    lambda _: limit.reschedule(
                        began + SLOW_BODY_SECONDS + (len(body) - read_before) / LEAST_BYTES_A_SECOND
                    ),
                    enough,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error

    async def newest_version(self, resource: ServedResource) -> str:
        """The resource version that a list has now. Raises ApiFailure."""
        page = await self.first_page(resource, objects=1)
        return page.metadata.resource_version

    async def first_page(self, resource: ServedResource, *, objects: int) -> ListPage:
        """The metadata of a list's first objects, or fewer, at the newest version. Raises ApiFailure."""
        async with aclosing(self.list_pages(resource, is_metadata=True, objects=objects)) as pages:
            return await anext(pages)

    @asynccontextmanager
    async def watch(
        self, resource: ServedResource, resource_version: str, *, is_metadata: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Events since `resource_version`, until the server ends the stream in good order.

        Entered once the server accepts. Raises ApiFailure, also while events are read: for an ERROR event, a
        line cut short, a lost connection and for silence.
        """
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": resource_version,
        } | _selection(resource)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._open(
                    f"{resource.path()}?{urlencode(query)}",
                    accept=_METADATA if is_metadata else "application/json",
                    limits=_WATCH_TIMEOUT,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error
        async with response:
            yield self._events(response, silence_seconds=seconds + SILENCE_SECONDS)

    async def _events(
        self, response: aiohttp.ClientResponse, *, silence_seconds: float
    ) -> AsyncIterator[WatchEvent]:
        splitter = LineSplitter()
        while chunk := await self._chunk(response, silence_seconds):
            for line in splitter.feed(chunk):
                event = read_event(line)
                if event.type == "BOOKMARK":
                    silence_seconds = BOOKMARKED_SILENCE_SECONDS
                yield event

    @property
    def host(self) -> str:
        """The API server's name or address."""
        return URL(self._credentials.server).host or ""

    async def _chunk(self, response: aiohttp.ClientResponse, silence_seconds: float) -> bytes:
        """The next chunk, b"" at the end. Raises ApiFailure if the connection is lost or silent."""
        try:
            async with asyncio.timeout(silence_seconds):
                return await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._credentials.server, error) from error

    async def _open(
        self, path: str, *, accept: str, limits: aiohttp.ClientTimeout, is_plain: bool = False
    ) -> aiohttp.ClientResponse:
        """A response of status 200; a 401 is retried once if the credentials can be renewed."""
        try:
            response = await self._send(path, accept=accept, limits=limits, is_plain=is_plain)
        except (aiohttp.ClientSSLError, aiohttp.ServerDisconnectedError):
            # The server's certificate is of another authority now, or it does not accept ours any more.
            if not await self._credentials.renew():
                raise
            response = await self._send(path, accept=accept, limits=limits, is_plain=is_plain)
        if response.status == 401 and await self._credentials.renew():
            response.release()
            response = await self._send(path, accept=accept, limits=limits, is_plain=is_plain)
        if response.status != 200:
            async with response:
                body = await response.content.read(_ERROR_BYTES)
                failure = failure_of_response(response.status, response.headers, body)
                if failure.kind is ErrorKind.UNAUTHENTICATED:
                    failure.message += _NEW_CREDENTIALS
                raise failure
        return response

    async def _send(
        self, path: str, *, accept: str, limits: aiohttp.ClientTimeout, is_plain: bool
    ) -> aiohttp.ClientResponse:
        """`path` is sent as it is: decoding or normalizing it could lead to another object.

        `is_plain`: nothing is decompressed, so what is read is never more than what was sent.
        """
        headers = {"Accept": accept} | ({"Accept-Encoding": "identity"} if is_plain else {})
        authorization = await self._credentials.authorization()
        if authorization:
            headers["Authorization"] = authorization
        proxy = self._credentials.proxy
        response = await self._session(proxy).get(
            URL(str(URL(self._credentials.server)).rstrip("/") + path, encoded=True),
            headers=headers,
            timeout=limits,
            ssl=self._credentials.tls,
            server_hostname=self._credentials.tls_server_name,
            proxy=None if is_socks(proxy) else proxy,
            allow_redirects=False,
            auto_decompress=not is_plain,
        )
        if not is_plain:  # a proxied target chooses its own date
            self._compare_clocks(response.headers.get("Date", ""))
        return response

    def _compare_clocks(self, date: str) -> None:
        try:
            cluster = parsedate_to_datetime(date)
        except (ValueError, OverflowError):
            return
        if cluster.tzinfo is None:
            return
        steady_clock.CLOCK.compare(cluster)
        ahead = (cluster - datetime.now(UTC)).total_seconds()
        self.clock_ahead_seconds = ahead if abs(ahead) <= MAX_CLOCK_DIFFERENCE_SECONDS else None


class BodyTooLarge(ApiFailure):
    """A page of a target exceeds its limit."""


async def bounded_body(
    response: aiohttp.ClientResponse, max_bytes: int, count: CountBytes = uncounted
) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is, ApiFailure for a compressed one.

    `count` is called with what has come, so that a body counts that never ends."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiFailure(ErrorKind.REFUSED, "the page is compressed although that was not accepted")
    body = bytearray()
    await _read_bounded(response, body, max_bytes, count)
    return bytes(body)


async def _read_bounded(
    response: aiohttp.ClientResponse,
    body: bytearray,
    max_bytes: int,
    count: CountBytes = uncounted,
    enough: float = inf,
) -> None:
    """Add to `body` until it ends or has `enough` bytes."""
    while len(body) < enough and (chunk := await response.content.readany()):
        body += chunk
        count(len(chunk))
        if len(body) > max_bytes:
            raise BodyTooLarge(ErrorKind.REFUSED, f"the page is larger than {max_bytes} bytes")


def _selection(resource: ServedResource) -> dict[str, str]:
    return {"fieldSelector": resource.field_selector} if resource.field_selector else {}


def _taken(body: bytearray) -> bytes:
    """What is in it; it is empty then."""
    text = bytes(body)
    body.clear()
    return text


def _decoded_page(body: bytes) -> ListPage:
    try:
        return _PAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiFailure(ErrorKind.BUSY, f"the response is not a list: {error}") from error


def _decoded_object(body: bytes) -> dict[str, Any]:
    try:
        return decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiFailure(ErrorKind.BUSY, f"the response is not an object: {error}") from error


def _profile(response: aiohttp.ClientResponse) -> str:
    """The content type's parameters, which distinguish an aggregated response from a plain one."""
    header: Mapping[str, str] = response.headers
    _, semicolon, rest = header.get("Content-Type", "").partition(";")
    return semicolon + rest


def _unreachable(server: str, error: Exception) -> ApiFailure:
    return ApiFailure(ErrorKind.UNREACHABLE, f"{server} does not respond: {cause_of(error)}")
