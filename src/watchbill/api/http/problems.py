"""The one table from errors to statuses, and the one shape of an error's body: the contract's Error."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from watchbill.api.http.reply import RawHeaders, Reply, encode
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

STATUSES: dict[type[WatchbillError], int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Unacceptable: 406,
    Conflict: 409,
    Superseded: 410,
    TooLarge: 413,
    TooMany: 429,
    Unavailable: 503,
}
MESSAGES = {
    404: "No such endpoint.",
    405: "Method not allowed.",
}
OAUTH_ERRORS = {
    401: "invalid_client",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
}
"""RFC 6749's error codes by status; every other status is `invalid_request`."""


def status_of(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return 500


def problem(error: Exception, *, request_id: str, is_oauth: bool = False) -> Reply:
    """The reply to an error. A 500 tells the request's id and nothing else."""
    status = status_of(error)
    message, details, headers = _describe(error, status, request_id)
    body: dict[str, Any] = {"code": status, "message": message}
    if details is not None:
        body["details"] = details
    if is_oauth:
        code = OAUTH_ERRORS.get(status, "invalid_request")
        if isinstance(error, OAuthError):
            code = error.code
        body |= {"error": code, "error_description": message}
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="watchbill"'))
    return Reply(status=status, body=encode(body), headers=headers)


def _describe(error: Exception, status: int, request_id: str) -> tuple[str, str | None, RawHeaders]:
    if isinstance(error, WatchbillError) and status != 500:
        seconds = error.retry_after_seconds
        retry = [] if seconds is None else [(b"retry-after", str(seconds).encode())]
        return error.message, error.details, retry
    if isinstance(error, HTTPException):
        headers: Mapping[str, str] = error.headers or {}
        return (
            MESSAGES.get(status, error.detail),
            None,
            [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        )
    return "Internal server error.", f"Request id: {request_id}", []
