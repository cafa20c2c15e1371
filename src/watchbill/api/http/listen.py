"""The HTTP server around the application, with its certificate and limits on what arrives before there is a
request.

A request header that is too large, too slow or malformed never reaches the application; it is answered here,
in the shape of every other error. A connection that sends on without reading is closed. The certificate is
read again whenever its files have changed: new connections get the new one, and a file that cannot be used
leaves the old one in place.
"""

import asyncio
import errno
import json
import logging
import os
import socket
import ssl
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn
from cryptography import x509
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from watchbill.api.limits import LogThrottle
from watchbill.errors import Invalid, Unavailable

RELOAD_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Certificate:
    """A chain and its key, each a PEM file."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises Invalid where they cannot be used."""
        self._files = (chain, key)
        self._seen = self._state()
        self.context = self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.expires_at = self._expiry()
        """Of what new connections get; None where it cannot be read."""

    async def reload(self, now: datetime) -> None:
        """Raises Invalid where the files have changed into something that cannot be used, or have expired."""
        present = self._state()
        expires_at = self._expiry()
        if expires_at is not None and expires_at <= now:
            name = self._files[0]
            raise Invalid(f"The certificate {name} expired at {expires_at:%Y-%m-%d %H:%M} UTC.")
        if present == self._seen:
            return
        self._loaded(
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        )  # a pair that does not fit changes nothing
        self._loaded(self.context)
        self._seen, self.expires_at = present, expires_at
        log.info("reloaded the certificate", file=str(self._files[0]))

    def _expiry(self) -> datetime | None:
        try:
            return x509.load_pem_x509_certificate(self._files[0].read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            return None  # loading says what is wrong with it

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        chain, key = self._files
        try:
            context.load_cert_chain(chain, key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = (
                getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            )
            raise Invalid(
                f"The certificate {chain} with the key {key} cannot be used: {reason}.",
                details="Both are PEM files, the chain begins with the server's own certificate, and the key "
                "has no passphrase.",
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _state(self) -> tuple[object, ...]:
        """Differs when a file was written or, as Kubernetes does, replaced behind a link.

        Raises Invalid, also for what is no file: reading a pipe would keep the server for ever."""
        try:
            entries = [file.stat() for file in self._files]
        except OSError as error:
            raise Invalid(f"{error.filename} cannot be read: {error.strerror}.") from error
        for file, entry in zip(self._files, entries, strict=True):
            if not stat.S_ISREG(entry.st_mode) or entry.st_size > MAX_PEM_BYTES:
                raise Invalid(f"{file} cannot be read: it is no file of a mebibyte at most.")
        return tuple((entry.st_ino, entry.st_mtime_ns, entry.st_size) for entry in entries)


def _no_password() -> str:
    """Instead of asking on the terminal, as OpenSSL would."""
    raise ValueError("the key has a passphrase")


HEAD_BYTES = 32 * 1024
"""Above what the gate lets through, so that whatever is only a little too large gets its exact status."""
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 20
MAX_PIPELINED = 8
"""Requests of one connection that wait for earlier ones. Clients that pipeline at all send a few."""
MAX_BODY_PIECES, LEAST_PIECE_BYTES = 1_000, 64
"""A body in more pieces than these and one for each so many bytes: each piece costs as much as a large one."""
MAX_PEM_BYTES = 1024 * 1024
MAX_LEFT_BYTES = 8 * 1024 * 1024
"""Of a body that goes on after its response, so that whoever sends it reads why it was refused."""
WRITE_SECONDS = 90.0
"""A connection whose responses nobody reads is closed after so long; longer than any stream waits."""


class _LogFilter(logging.Filter):
    """What uvicorn logs of connections, one line a second of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self._throttle = LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        return self._throttle.admits(record.msg) is not None


logging.getLogger("uvicorn.error").addFilter(_LogFilter())


def listening_on(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """The one configuration of the HTTP server. `options` are uvicorn's."""
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **options,
    )


LISTEN_HINTS = {
    errno.EADDRINUSE: "Another program holds the port; end it, or choose one with --port.",
    errno.EADDRNOTAVAIL: "This machine has no such address; name one of its own with --host, "
    "or 0.0.0.0 for all.",
    errno.EACCES: "Ports below 1024 are for root; choose another with --port.",
    socket.EAI_NONAME: "The name in --host is not known here; name an address.",
}


class TooManyPipelined(Exception):
    """The connection sends requests without reading the responses."""


class BodyRefused(Exception):
    """It comes in crumbs, or goes on and on after its response."""


def open_listener(host: str, port: int) -> socket.socket:
    """Raises Unavailable where the port cannot be had."""
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            details=LISTEN_HINTS.get(
                error.errno or 0, "Check --host and --port: they name where to listen."
            ),
        ) from error
    return listener


def open_unix_listener(path: Path) -> socket.socket:
    """A socket that its owner and group may use. One that a killed server left is replaced; one that somebody
    listens on is not. Raises Unavailable."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"Cannot listen on {path}: {error.strerror or error}.",
            details="Check --socket: its folder must be there and writable, and nobody else listen on it.",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    """Raises OSError where somebody answers, or where something else has the name."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class _ResponseWriter:
    """What a response is written to. Its head waits for what follows, and both leave in one system call."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None
        """Empty once it was written."""

    def write(self, data: bytes) -> None:
        if self._head is None and self._cycle.response_started:  # before that, "100 Continue"
            self._head = data
        elif self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Write the head of a response that has no body."""
        if self._head:
            self.write(b"")

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        self._transport.close()


class LimitedProtocol(HttpToolsProtocol):
    """Allows a request header ten seconds and 32 KiB, a body a number of pieces that fits its size, and a
    connection a few pipelined requests."""

    _head_bytes = 0
    _body_bytes = 0
    _body_pieces = 0
    _left_bytes = 0
    _is_body_refused = False
    _is_head_open = True
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_write_timer()
        self.pipeline.clear()
        if self._running is not None:
            self._running.disconnected = (
                True  # uvicorn marks only the last request that was received
            )
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        cycle.transport = _ResponseWriter(cycle)  # type: ignore[assignment]

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if not cycle.disconnected:  # it may have been left before its turn came
                await app(scope, receive, send)

        super()._start_asgi_task(cycle, answer)

    def on_response_complete(self) -> None:
        assert self._running is not None
        cast("_ResponseWriter", self._running.transport).flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            if self._running is not None:
                self._running.disconnected = True
            self.transport.abort()
            return
        if self._is_head_open and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, "The request header is larger than 16 KiB.")
            elif self._head_timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        if len(self.pipeline) > MAX_PIPELINED:
            raise TooManyPipelined  # ends the parsing of what was received
        super().on_message_begin()
        self._body_bytes = self._body_pieces = self._left_bytes = 0
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._is_head_open = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._body_pieces += 1
        if self.cycle.response_complete:
            self._left_bytes += len(body)
        are_crumbs = self._body_pieces > MAX_BODY_PIECES + self._body_bytes // LEAST_PIECE_BYTES
        if are_crumbs or self._left_bytes > MAX_LEFT_BYTES:
            self._is_body_refused = True
            raise BodyRefused  # ends the parsing of what was received
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if len(self.pipeline) > MAX_PIPELINED:
            return
        if not self._is_body_refused:
            self._refuse(400, "Malformed HTTP request.")
        elif self.cycle.response_started or self._running is not self.cycle:
            self.transport.abort()
        else:
            self._refuse(400, "The request body comes in too many small pieces.")

    def _begin_head(self) -> None:
        self._is_head_open, self._head_bytes = True, 0
        self._stop_timer()

    def _start_timer(self) -> None:
        """For a head that did not come in one piece, as most do."""
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(408, "The request header was sent too slowly.")
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"code": status, "message": message}).encode()
        lines = (
            b"content-type: application/json",
            b"content-length: " + str(len(body)).encode(),
            b"x-content-type-options: nosniff",
            b"cache-control: no-store",
            b"connection: close",
        )
        self.transport.write(STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()
