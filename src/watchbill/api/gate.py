"""The outermost layer: sizes, request ids, one log line and one measurement per request, no error unanswered.

Logs never hold a header, a query string or a body.
"""

import itertools
import secrets
import time
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchbill.api.problems import problem, status_of

URL_BYTES = 8 * 1024
HEADER_BYTES = 16 * 1024
LOGGED_PATH_CHARACTERS = 200
OPERATION = "watchbill.operation"
SUBJECT = "watchbill.subject"
REQUEST_ID = "watchbill.request_id"
OAUTH_OPERATION = "create_token_v2"

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


class Gate:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters
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
    is_oauth = scope.get(OPERATION) == OAUTH_OPERATION
    reply = problem(error, request_id=scope[REQUEST_ID], is_oauth=is_oauth)
    await reply.send(scope, receive, send)


def check_size(scope: Scope) -> None:
    """Raises HTTPException for an address or header fields beyond the published limits."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_BYTES:
        raise HTTPException(414, "The address is longer than 8 KiB.")
    if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > HEADER_BYTES:
        raise HTTPException(431, "The header fields are larger than 16 KiB.")
