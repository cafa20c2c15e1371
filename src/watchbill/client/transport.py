"""One request to the server, and its answer or its stream of events; failures raised as our own errors."""

import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from watchbill import __version__
from watchbill.client.proxies import connector_for, is_socks, proxy_for
from watchbill.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    OAuthError,
    Superseded,
    TooLarge,
    TooMany,
    Unacceptable,
    Unauthenticated,
    Unavailable,
    WatchbillError,
)
from watchbill.responses.workloads import StreamChange, StreamReady, StreamReason

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 300
REACH_ADVICE = "check the URL, and that `watchbill server` runs there"

ERRORS: dict[int, type[WatchbillError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    406: Unacceptable,
    409: Conflict,
    410: Superseded,
    413: TooLarge,
    429: TooMany,
}


Parameters = Sequence[tuple[str, str]]
Reply = TypeVar("Reply")


class _ErrorBody(msgspec.Struct):
    message: str
    details: str | None = None
    error: str | None = None
    """OAuth's code, where a token was requested."""


class Transport:
    """A connection pool to one server. Use as `async with`."""

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        """`ca_file`: certificates to trust in addition to the system's. Raises Invalid where it holds none."""
        self.url = url.rstrip("/")
        self._tls = True if ca_file is None else _tls_context(ca_file)
        self._proxy = proxy_for(self.url)
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=connector_for(self._proxy),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
                ),
                headers={"User-Agent": f"watchbill/{__version__}"},
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The successful answer, its body still to be read. Raises what the status means."""
        try:
            async with self.session.request(
                method,
                self.url + path,
                params=list(parameters),
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._tls,
                proxy=None if is_socks(self._proxy) else self._proxy,
            ) as answer:
                if answer.status >= 300:
                    raise await _error(answer)
                yield answer
        except aiohttp.InvalidURL as error:
            raise Invalid(f"'{self.url}' is not the URL of a server.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"Cannot reach {self.url}: {_reason(error)}.", details=REACH_ADVICE
            ) from error

    async def send(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The whole body of a successful answer."""
        async with self.open(
            method, path, parameters=parameters, headers=headers, body=body
        ) as answer:
            return await answer.read()


def _tls_context(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else None
        raise Invalid(
            f"{ca_file} cannot be used as certificate authorities: {reason or 'it holds none'}.",
            details="Name a PEM file with --ca-file or WATCHBILL_CA_FILE.",
        ) from error
    return context


def decoded(answer: bytes, kind: type[Reply]) -> Reply:
    """The body of a successful answer. Raises Unavailable where something else than our server spoke."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(
            "The answer did not come from a Watchbill server.",
            details=f"Something else may listen at that address, or a proxy stand between: {error}",
        ) from error


async def _error(answer: aiohttp.ClientResponse) -> WatchbillError:
    text = await answer.read()
    try:
        body = msgspec.json.decode(text, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _ErrorBody(
            f"HTTP {answer.status}, and not from a Watchbill server.", details=REACH_ADVICE
        )
    if body.error is not None and answer.status == 400:
        return OAuthError(body.error, body.message, details=body.details)
    kind = ERRORS.get(answer.status, Unavailable if answer.status >= 500 else Invalid)
    return kind(
        body.message, details=body.details, retry_after_seconds=_retry_after(answer.headers)
    )


def _retry_after(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Retry-After", "")
    return min(int(text), MAX_RETRY_AFTER_SECONDS) if text.isascii() and text.isdigit() else None


_NOT_VALID_NOW = {
    9: "its certificate is not valid yet, or this machine's clock is behind",
    10: "its certificate has expired and must be renewed, or this machine's clock is ahead",
}
"""By OpenSSL's code of the failed verification: no authority mends these."""


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS; is the address http://… ?"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code: int = getattr(error.certificate_error, "verify_code", 0)
        return _NOT_VALID_NOW.get(code) or (
            f"its certificate is not trusted ({error.certificate_error}); "
            "name its authority with --ca-file"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number) if number and number > 0 else str(error.os_error)
    return str(error) or type(error).__name__


MAX_EVENT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """`name` is `ready`, `change`, `resync` or `end`; any other comes from a newer server."""

    name: str
    data: StreamReady | StreamChange | StreamReason | None


_KINDS: dict[str, type[StreamReady | StreamChange | StreamReason]] = {
    "ready": StreamReady,
    "change": StreamChange,
    "resync": StreamReason,
    "end": StreamReason,
}


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[StreamEvent]:
    """Server-sent events as they come, without comments. Raises Unavailable where another server spoke."""
    block: dict[str, str] = {}
    size = 0
    async for line in answer.content:
        size += len(line)
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if size > MAX_EVENT_BYTES:
            raise Unavailable("The stream did not come from a Watchbill server.")
        if text:
            field, _, value = text.partition(":")
            block[field] = value.removeprefix(" ")
            continue
        if "event" in block:
            yield _event(block)
        block, size = {}, 0


def _event(block: dict[str, str]) -> StreamEvent:
    kind = _KINDS.get(block["event"])
    if kind is None:
        return StreamEvent(block["event"], None)
    return StreamEvent(block["event"], decoded(block.get("data", "{}").encode(), kind))
