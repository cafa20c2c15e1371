"""Errors between the agent and a Kubernetes API server, classified by status code. No I/O.

A status means the same whether it is an HTTP status or the code of an ERROR event inside a watch.
"""

import os
import ssl
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from watchbill.agent.kubernetes.bounded_json import BoundedDecoder

_MESSAGE_LENGTH = 500


class ErrorKind(StrEnum):
    """Decides what the agent does about a failure."""

    EXPIRED = "expired"
    """The resource version or the continue token is too old: list again from the start."""
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    ABSENT = "absent"
    """The server does not serve the kind, or the object is not there."""
    BUSY = "busy"
    """The server cannot answer now; trying again helps."""
    REFUSED = "refused"
    """The server rejected the request; repeating it does not help."""
    UNREACHABLE = "unreachable"
    """No answer, or one that was cut short."""


_KIND_OF_STATUS = {
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.ABSENT,
    405: ErrorKind.ABSENT,
    408: ErrorKind.BUSY,
    410: ErrorKind.EXPIRED,
    429: ErrorKind.BUSY,
}


class ApiFailure(Exception):
    """A request to the API server that failed, or whose answer cannot be used."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
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


_STATUS = BoundedDecoder(Status)


def error_kind_of(status: int) -> ErrorKind:
    """The error kind of a status code."""
    if status >= 500:
        return ErrorKind.BUSY
    return _KIND_OF_STATUS.get(status, ErrorKind.REFUSED)


def failure_of_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiFailure:
    """A failed response, whose body may be a JSON Status or plain text."""
    status_object = _read_status(body)
    text = status_object.message if status_object else body.decode("utf-8", "replace")
    return ApiFailure(
        error_kind_of(status),
        _short(text) or f"HTTP status {status}",
        status=status,
        retry_after_seconds=_seconds(headers.get("Retry-After")) or _status_seconds(status_object),
    )


def cause_of(error: Exception) -> str:
    """Why a request got no answer, in words: of a timeout, a lost connection or what aiohttp reports."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # aiohttp adds its own objects to the text of what it wraps.
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {_short(cause.verify_message)}"
    if cause is not error and isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        number = cause.errno or 0
        known = os.strerror(number) if number > 0 else cause.strerror
        return _short(known or str(cause))
    return _short(str(cause)) or "the connection was lost"


def failure_of_event(body: bytes) -> ApiFailure:
    """The ERROR event of a watch: its object is a Status whose code counts, the HTTP status was 200."""
    status_object = _read_status(body) or Status()
    return ApiFailure(
        error_kind_of(status_object.code or 500),
        _short(status_object.message) or status_object.reason or "the watch ended with an error",
        status=status_object.code,
        retry_after_seconds=_status_seconds(status_object),
    )


def _read_status(body: bytes) -> Status | None:
    try:
        return _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _status_seconds(status_object: Status | None) -> float | None:
    return (
        status_object.details.retry_after_seconds
        if status_object and status_object.details
        else None
    )


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; a date there is not read (API servers send none)."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _short(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_LENGTH]
