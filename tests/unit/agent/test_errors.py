"""What a status means, as status and as event, from recorded answers."""

import ssl
from socket import gaierror

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from tests.fixtures.kubernetes.replay import Exchange, recorded
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.errors import (
    ApiFailure,
    ErrorKind,
    cause_of,
    error_kind_of,
    failure_of_event,
    failure_of_response,
)

_SERVER = ConnectionKey("10.0.0.1", 443, True, True, None, None, None)
_UNTRUSTED = ssl.SSLCertVerificationError()
_UNTRUSTED.verify_message = "self-signed certificate"


def _connecting(error: Exception) -> Exception:
    if isinstance(error, ssl.SSLError):
        return aiohttp.ClientConnectorCertificateError(_SERVER, error)
    assert isinstance(error, OSError)
    return aiohttp.ClientConnectorError(_SERVER, error)


MEANING = {
    400: ErrorKind.REFUSED,
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.ABSENT,
    405: ErrorKind.ABSENT,
    406: ErrorKind.REFUSED,
    410: ErrorKind.EXPIRED,
    422: ErrorKind.REFUSED,
    429: ErrorKind.BUSY,
    500: ErrorKind.BUSY,
    503: ErrorKind.BUSY,
    504: ErrorKind.BUSY,
}


def failure(exchange: Exchange) -> ApiFailure:
    return failure_of_response(exchange.status, exchange.headers, exchange.body.encode())


@pytest.mark.parametrize("version", ["1.20", "1.36"])
@pytest.mark.parametrize(
    "name", ["errors", "errors-429", "discovery", "list-variants", "list-expired-continue"]
)
def test_every_recorded_failure_has_a_meaning_and_a_message(version: str, name: str) -> None:
    seen = 0
    for exchange in recorded(version, name):
        if exchange.status in MEANING:
            result = failure(exchange)
            assert result.kind is MEANING[exchange.status], exchange.note
            assert result.message.strip()
            assert "\n" not in result.message
            seen += 1
    assert seen or name == "list-expired-continue"


@pytest.mark.parametrize("version", ["1.20", "1.36"])
def test_overload_is_plain_text_with_a_pause(version: str) -> None:
    busy = [request for request in recorded(version, "errors-429") if request.status == 429]
    assert busy
    for exchange in busy:
        assert exchange.headers["Content-Type"].startswith("text/plain")
        result = failure(exchange)
        assert result.retry_after_seconds == 1.0
        assert result.message == " ".join(exchange.body.split())


def test_the_pause_may_stand_in_the_status_alone() -> None:
    body = b'{"kind":"Status","code":504,"message":"m","details":{"retryAfterSeconds":7}}'
    assert failure_of_response(504, {}, body).retry_after_seconds == 7
    assert failure_of_event(body).retry_after_seconds == 7


@pytest.mark.parametrize("body", [b"", b"[]", b'{"code":"x"}', b"\xff\xfe", b"<html>"])
def test_any_body_gives_a_message(body: bytes) -> None:
    assert failure_of_response(418, {"Retry-After": "Tue, 1 Jan"}, body).message
    assert failure_of_event(body).kind is ErrorKind.BUSY


def test_one_reading_for_status_and_event() -> None:
    for status, meaning in MEANING.items():
        assert error_kind_of(status) is meaning
        assert failure_of_event(b'{"code":%d}' % status).kind is meaning


def test_waits_grow_to_a_bound_and_never_undercut_what_was_asked() -> None:
    backoff = Backoff(first_seconds=1, most_seconds=8, draw=lambda: 1.0)
    assert [backoff.next_seconds() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    assert backoff.next_seconds(at_least_seconds=30) == 38
    assert backoff.next_seconds(at_least_seconds=86_400) == 88, "an absurd wish is bounded"
    backoff.reset()
    assert backoff.next_seconds() == 1
    assert Backoff(draw=lambda: 0.0).next_seconds() == 0, "full jitter starts at nothing"
    assert all(80 <= jittered(100) <= 120 for _ in range(100))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), "no answer in time"),
        (TimeoutError("Timeout on reading data from socket"), "no answer in time"),
        (ConnectionResetError(), "the connection was lost"),
        (OSError(101, "Network is unreachable"), "[Errno 101] Network is unreachable"),
        (_connecting(OSError(111, "Connect call failed ('10.0.0.1', 443)")), "Connection refused"),
        (_connecting(gaierror(-2, "Name or service not known")), "Name or service not known"),
        (_connecting(_UNTRUSTED), "its certificate is not trusted: self-signed certificate"),
    ],
)
def test_why_nothing_answered_is_a_sentence(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
