"""The outermost layer: sizes, request ids, one log line and one measurement per request, no error unanswered.

Logs never hold a header, a query string or a body.
"""

import itertools
import math
import secrets
import time
from collections.abc import Callable, Hashable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchbill.access.audit import Audit
from watchbill.api.problems import problem, status_of
from watchbill.api.proxies import Proxies
from watchbill.api.record import OPERATION, REQUEST_ID, SUBJECT, note

URL_BYTES = 8 * 1024
HEADER_BYTES = 16 * 1024
LOGGED_PATH_CHARACTERS = 200
OAUTH_OPERATIONS = frozenset({"create_token_v2", "revoke_token", "create_device_login"})
REFUSALS = frozenset({400, 401, 403, 404, 405, 408, 413, 414, 415, 429, 431})
REFUSALS_LOGGED_EVERY_SECONDS = 1.0

log = structlog.get_logger("watchbill.api")


class Meters:
    """The server's own metrics. Labels come from the route table, never from a caller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "watchbill_requests",
            "Requests answered.",
            ("operation", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "watchbill_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("operation",),
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "watchbill_requests_in_progress", "Requests being answered.", registry=self.registry
        )


class Quiet:
    """Lets one line a second through per cause, so that a flood of refusals fills no disk; counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[Hashable, tuple[float, int]] = {}

    def admits(self, cause: Hashable) -> int | None:
        """How many lines were left out since the last one; None where this one is left out too."""
        now = self._clock()
        said_at, left_out = self._said.get(cause, (-math.inf, 0))
        if now - said_at < REFUSALS_LOGGED_EVERY_SECONDS:
            self._said[cause] = (said_at, left_out + 1)
            return None
        self._said[cause] = (now, 0)
        return left_out


class Gate:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, meters: Meters, proxies: Proxies, audit: Audit) -> None:
        self._app = app
        self._meters = meters
        self._proxies = proxies
        self._audit = audit
        self._quiet = Quiet()
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.perf_counter()
        scope[REQUEST_ID] = f"{self._prefix}-{next(self._numbers):x}"
        self._proxies.apply(scope)
        outgoing = _Outgoing(send, scope[REQUEST_ID])
        self._meters.in_progress.inc()
        try:
            check_size(scope)
            await self._app(scope, receive, outgoing)
        except Exception as error:
            if outgoing.status is not None:
                log.exception("broken off", request_id=scope[REQUEST_ID])
                raise
            await answer_error(error, scope, receive, outgoing)
        finally:
            self._meters.in_progress.dec()
            self._record(scope, outgoing, time.perf_counter() - started_at)

    def _record(self, scope: Scope, outgoing: "_Outgoing", seconds: float) -> None:
        operation, method = scope.get(OPERATION, "none"), scope["method"]
        status = outgoing.status or 499  # the client left before there was an answer
        known_method = method if OPERATION in scope else "any"
        self._meters.requests.labels(operation, known_method, status).inc()
        self._meters.seconds.labels(operation).observe(seconds)
        note(self._audit, scope, operation, status)
        left_out = 0
        if SUBJECT not in scope and status in REFUSALS:
            admitted = self._quiet.admits((operation, status))
            if admitted is None:
                return
            left_out = admitted
        client = scope.get("client")
        log.info(
            "request",
            request_id=scope[REQUEST_ID],
            operation=operation,
            method=method,
            path=scope["path"][:LOGGED_PATH_CHARACTERS],
            status=status,
            milliseconds=round(seconds * 1000, 1),
            bytes=outgoing.sent_bytes,
            subject=scope.get(SUBJECT),
            client=client[0] if client else None,
            **({"left_out": left_out} if left_out else {}),
        )


class _Outgoing:
    """Passes messages on; notes the status and the size; adds the request's id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = (b"x-request-id", request_id.encode())
        self.status: int | None = None
        self.sent_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], self._id]}
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)


async def answer_error(error: Exception, scope: Scope, receive: Receive, send: Any) -> None:
    """Any error as the contract's Error; what is ours goes to the log in full."""
    if status_of(error) == 500:
        log.error("failed", request_id=scope[REQUEST_ID], exc_info=error)
    is_oauth = scope.get(OPERATION) in OAUTH_OPERATIONS
    reply = problem(error, request_id=scope[REQUEST_ID], is_oauth=is_oauth)
    await reply.send(scope, receive, send)


def check_size(scope: Scope) -> None:
    """Raises HTTPException for an address or header fields beyond the published limits."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_BYTES:
        raise HTTPException(414, "The address is longer than 8 KiB.")
    if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > HEADER_BYTES:
        raise HTTPException(431, "The header fields are larger than 16 KiB.")
