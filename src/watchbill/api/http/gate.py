"""The outermost layer: sizes, request ids, one log line and one measurement per request, no error unanswered.

Where a proxy stands in front, `X-Forwarded-For` and `-Proto` count, from named proxies alone. Logs never hold a
header (but a request's id), a query string or a body, and what nobody logged in for fills no log.
"""

import itertools
import re
import secrets
import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchbill.access.audit import Audit
from watchbill.api.http.audit_event import (
    OPERATION,
    REQUEST_ID,
    SUBJECT,
    client_address,
    record_audit,
)
from watchbill.api.http.base_path import strip_base_path
from watchbill.api.http.problems import problem, status_of
from watchbill.api.http.server_metrics import ServerMetrics
from watchbill.api.limits import LogThrottle, PacedRate, address_unit
from watchbill.errors import Invalid, TooMany
from watchbill.tracing.tracing import RequestSpan, Tracing

MAX_HOPS = 20


class Proxies:
    """The proxies whose word counts. From anybody else these header fields are as good as absent."""

    def __init__(self, networks: Iterable[str], *, is_https: bool = False) -> None:
        """`is_https`: people's own address is, whatever the last hop says. Raises Invalid where one of the
        networks is no address and no network."""
        self._is_https = is_https
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise Invalid(
                    f"WATCHBILL_TRUSTED_PROXIES: '{text}' is not an IP address or network.",
                    details="Write them as in 10.0.0.0/8, separated by commas.",
                ) from error
        self._is_trusted = lru_cache(maxsize=4096)(self._lies_within)

    def apply(self, scope: Scope) -> None:
        """Put the client's own address and scheme into the request."""
        self._apply_headers(scope)
        if self._is_https:
            scope["scheme"] = "https"

    def _apply_headers(self, scope: Scope) -> None:
        client = scope.get("client")
        nearest = (
            client[0] if client is not None else ""
        )  # of a unix socket, whose file mode lets proxies in
        if nearest and not (self._networks and self._is_trusted(nearest)):
            return
        sent = {
            name: value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"x-forwarded-for", b"x-forwarded-proto")
        }
        scheme = sent.get(b"x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        origin = self._origin(nearest, sent.get(b"x-forwarded-for", ""))
        scope["client"] = (origin, 0) if origin else None

    def _origin(self, nearest: str, forwarded: str) -> str:
        """From the right, the first address that is no proxy of ours: whatever stands left of it is hearsay."""
        origin = nearest
        for text in reversed(forwarded.split(",")[-MAX_HOPS:]):
            address = _address(text.strip())
            if address is None:
                return origin
            origin = str(address)
            if not self._is_trusted(origin):
                return origin
        return origin

    def _lies_within(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


URL_BYTES = 8 * 1024
HEADER_BYTES = 16 * 1024
LOGGED_PATH_CHARACTERS = 200
CLIENT_LEFT = 499
"""In place of a status: the client left before there was an answer."""
REQUEST_SPAN = "watchbill.span"
_ESCAPED_SYNTAX = re.compile(rb"%(?:2[ef]|5c|00)", re.IGNORECASE)
"""A dot, slash, backslash or NUL that is escaped: no path of ours has one, and not everybody decodes them."""
PROBES = frozenset({"/livez", "/healthz", "/readyz"})
"""Asked by kubelets and load balancers."""
_ASKED_BY_ADDRESS = PROBES | {"/metrics"}
"""A Prometheus finds each server's pod; it shows a token, which no page that an attacker serves has."""
_PORT = re.compile(r":[0-9]*$")
_SENT_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=-]{7,127}")
OAUTH_OPERATIONS = frozenset({"create_token_v2", "revoke_token", "create_device_login"})

log = structlog.get_logger("watchbill.api")


class Gate:
    """ASGI middleware around everything else."""

    def __init__(
        self,
        app: ASGIApp,
        meters: ServerMetrics,
        proxies: Proxies,
        audit: Audit,
        tracing: Tracing,
        anonymous_rate: PacedRate,
        allowed_hosts: Iterable[str] = (),
        base_path: str = "",
    ) -> None:
        self._app = app
        self._base_path = base_path
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._meters = meters
        self._proxies = proxies
        self._audit = audit
        self._tracing = tracing
        self._anonymous_rate = anonymous_rate
        self._log_throttle = LogThrottle()
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not self._tracing.is_on or scope["path"] in PROBES:
            await self._answer(scope, receive, send)
        else:
            await self._answer_traced(scope, receive, send)

    async def _answer_traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        method = scope["method"]
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        with self._tracing.request_span(method, attributes, headers) as span:
            scope[REQUEST_SPAN] = span
            status = await self._answer(scope, receive, send)
            operation = scope.get(OPERATION, "none")
            attributes = {
                "watchbill.operation": operation,
                "http.response.status_code": status,
                "watchbill.request_id": scope[REQUEST_ID],
            }
            span.describe(f"{method} {operation}", attributes, is_failed=status >= 500)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """The status that was answered."""
        started_at = time.perf_counter()
        scope[REQUEST_ID] = sent_request_id(scope) or f"{self._prefix}-{next(self._numbers):x}"
        self._proxies.apply(scope)
        strip_base_path(scope, self._base_path)
        response = _ResponseRecorder(send, scope[REQUEST_ID])
        self._meters.in_progress += 1
        try:
            check_head(scope)
            check_host(scope, self._allowed_hosts)
            await self._app(scope, receive, response)
        except Exception as error:
            if response.status is not None:
                self._log_abort(scope, error)
                raise
            if OPERATION not in scope:
                error = await self._pace(scope, error)
            await answer_error(error, scope, receive, response)
        finally:
            self._meters.in_progress -= 1
            begin_span(scope, is_caller_trusted=False)
            self._record(scope, response, time.perf_counter() - started_at)
        return response.status or CLIENT_LEFT

    async def _pace(self, scope: Scope, error: Exception) -> Exception:
        """What is to be answered where no operation was named: that, or that its address asks too often."""
        if isinstance(error, TooMany):
            return error  # it waited once
        try:
            await self._anonymous_rate.take(address_unit(client_address(scope)))
        except TooMany as too_many:
            return too_many
        return error

    def _record(self, scope: Scope, response: "_ResponseRecorder", seconds: float) -> None:
        operation, method = scope.get(OPERATION, "none"), scope["method"]
        status = response.status or CLIENT_LEFT
        known_method = method if OPERATION in scope else "any"
        self._meters.note(operation, known_method, status, seconds)
        record_audit(self._audit, scope, operation, status)
        left_out = 0
        if SUBJECT not in scope:
            suppressed = self._log_throttle.admits((operation, status))
            if suppressed is None:
                return
            left_out = suppressed
        client = scope.get("client")
        trace_id = self._tracing.trace_id()
        is_healthy = status == 200 and scope["path"] in PROBES  # asked all day long by every proxy
        (log.debug if is_healthy else log.info)(
            "request",
            request_id=scope[REQUEST_ID],
            operation=operation,
            method=method,
            path=scope["path"][:LOGGED_PATH_CHARACTERS],
            status=status,
            milliseconds=round(seconds * 1000, 1),
            bytes=response.sent_bytes,
            subject=scope.get(SUBJECT),
            client=client[0] if client else None,
            **({"left_out": left_out} if left_out else {}),
            **({"trace_id": trace_id} if trace_id else {}),
        )

    def _log_abort(self, scope: Scope, error: Exception) -> None:
        left_out = self._log_throttle.admits(("aborted", scope.get(OPERATION), type(error)))
        if left_out is not None:
            log.error(
                "response aborted",
                request_id=scope[REQUEST_ID],
                left_out=left_out,
                exc_info=error,
            )


class _ResponseRecorder:
    """Passes messages on; records the status and the size; adds the request's id."""

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
        log.error("request failed", request_id=scope[REQUEST_ID], exc_info=error)
    is_oauth = scope.get(OPERATION) in OAUTH_OPERATIONS
    reply = problem(error, request_id=scope[REQUEST_ID], is_oauth=is_oauth)
    await reply.send(scope, receive, send)


def begin_span(scope: Scope, *, is_caller_trusted: bool) -> None:
    """The request's span, where there is one that has not begun."""
    span: RequestSpan | None = scope.get(REQUEST_SPAN)
    if span is not None:
        span.begin(is_caller_trusted=is_caller_trusted)


def sent_request_id(scope: Scope) -> str | None:
    """The one id that a caller or a proxy gave the request, where it is fit for a log line."""
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) != 1 or _SENT_ID.fullmatch(sent[0]) is None:
        return None
    return str(sent[0].decode("ascii"))


def check_host(scope: Scope, allowed: frozenset[str]) -> None:
    """Raises HTTPException for a name that is not ours, such as one that an attacker lets lead to us."""
    if not allowed or scope["path"] in _ASKED_BY_ADDRESS:
        return
    sent = next((value for name, value in scope["headers"] if name == b"host"), b"")
    if _PORT.sub("", sent.decode("latin-1").lower()) not in allowed:
        raise HTTPException(421, "The server is not called by this name.")


def check_head(scope: Scope) -> None:
    """Raises HTTPException for a URL or header beyond the published limits, and for what a proxy in front may
    read otherwise than we do."""
    raw_path = scope.get("raw_path") or b""
    if len(raw_path) + len(scope["query_string"]) > URL_BYTES:
        raise HTTPException(414, "The URL is longer than 8 KiB.")
    size, hosts, is_other_coding = 0, 0, False
    for name, value in scope["headers"]:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            is_other_coding |= value.strip().lower() != b"chunked"
    if size > HEADER_BYTES:
        raise HTTPException(431, "The request header is larger than 16 KiB.")
    if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
        raise HTTPException(400, f"The request has {hosts} Host fields instead of one.")
    if is_other_coding:
        raise HTTPException(501, "The only Transfer-Encoding here is chunked.")
    if _ESCAPED_SYNTAX.search(raw_path):
        raise HTTPException(404)
