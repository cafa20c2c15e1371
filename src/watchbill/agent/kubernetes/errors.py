"""What can go wrong between the agent and a Kubernetes API server, in one table. No I/O.

A status means the same whether it is an HTTP status or the code of an ERROR event inside a watch.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

_MESSAGE_LENGTH = 500


class ErrorKind(StrEnum):
    """What the agent does about a failure depends on this alone."""

    EXPIRED = "expired"
    """The resource version or the continue token is too old: list again from the start."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    ABSENT = "absent"
    """The server does not serve the kind, or the object is not there."""
    BUSY = "busy"
    """The server cannot answer now; trying again helps."""
    REFUSED = "refused"
    """The server understood and will not do it; the same request will not help."""
    UNREACHABLE = "unreachable"
    """No answer, or one that broke off."""


_TROUBLE_OF_STATUS = {
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.ABSENT,
    405: ErrorKind.ABSENT,
    408: ErrorKind.BUSY,
    410: ErrorKind.EXPIRED,
    429: ErrorKind.BUSY,
}


class ApiFailure(Exception):
    """An answer of the API server that is not the one asked for, or no answer."""

    def __init__(
        self,
        trouble: ErrorKind,
        message: str,
        *,
        status: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    retry_after_seconds: float | None = None


class Status(msgspec.Struct, frozen=True):
    """A Kubernetes `Status`; every member may be missing."""

    code: int = 0
    message: str = ""
    reason: str = ""
    details: _Details | None = None


def error_kind_of(status: int) -> ErrorKind:
    """The one reading of a status code."""
    if status >= 500:
        return ErrorKind.BUSY
    return _TROUBLE_OF_STATUS.get(status, ErrorKind.REFUSED)


def failure_of_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiFailure:
    """A failed response, whose body may be a JSON Status or plain text of any kind."""
    told = _read_status(body)
    text = told.message if told else body.decode("utf-8", "replace")
    return ApiFailure(
        error_kind_of(status),
        _short(text) or f"HTTP status {status}",
        status=status,
        retry_after_seconds=_seconds(headers.get("Retry-After")) or _told_seconds(told),
    )


def failure_of_event(body: bytes) -> ApiFailure:
    """The ERROR event of a watch: its object is a Status whose code counts, the HTTP status was 200."""
    told = _read_status(body) or Status()
    return ApiFailure(
        error_kind_of(told.code or 500),
        _short(told.message) or told.reason or "the watch ended with an error",
        status=told.code,
        retry_after_seconds=_told_seconds(told),
    )


def _read_status(body: bytes) -> Status | None:
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _told_seconds(told: Status | None) -> float | None:
    return told.details.retry_after_seconds if told and told.details else None


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; a date there is not read (API servers send none)."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _short(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_LENGTH]
