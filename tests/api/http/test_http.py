"""What comes before a request is understood: heads too large, too slow, or no HTTP at all."""

import asyncio
import json
from collections.abc import Iterable
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.serving import Served
from watchbill import __version__
from watchbill.api.http import listen

HOST = b"Host: localhost\r\n"


async def raw(served: Served, sent: bytes, *, wait: float = 5.0) -> tuple[int, dict[str, object]]:
    """Status and body of the first answer on a connection of its own."""
    address = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(wait):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(
                line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
            )
            body = await reader.readexactly(int(fields[b"content-length"]))
    finally:
        writer.close()
    return int(head.split(b" ", 2)[1]), json.loads(body)


NO_HTTP = [
    b"hello\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"POST /api/v1/token HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"POST /api/v1/token HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    b"POST /api/v1/token HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n",
]


@pytest.mark.parametrize("sent", NO_HTTP)
async def test_what_is_no_http_has_the_same_shape(shared: Served, sent: bytes) -> None:
    status, body = await raw(shared, sent)
    assert status == 400
    assert body["code"] == 400
    assert body["message"]


async def test_endless_heads_are_cut_off(shared: Served) -> None:
    endless = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000
    status, body = await raw(shared, endless)
    assert (status, body["code"]) == (431, 431)


async def test_slow_heads_are_given_up(shared: Served) -> None:
    with patch.object(listen, "HEAD_SECONDS", 0.2):
        status, body = await raw(shared, b"GET / HTTP/1.1\r\nX: ")
    assert (status, body["code"]) == (408, 408)


async def test_silent_connections_are_closed(shared: Served) -> None:
    address = urlsplit(shared.url)
    with patch.object(listen, "HEAD_SECONDS", 0.2):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


async def test_large_bodies_are_not_taken_for_heads(shared: Served) -> None:
    body = b" " * 100_000
    head = b"POST /api/v1/token HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
    status, _ = await raw(shared, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert status == 413


CRUMBS = b"1\r\na\r\n" * 20_000


async def left(served: Served, head: bytes, piece: bytes, *, most: int) -> tuple[bytes, int]:
    """What a connection answers whose body never ends, and how many bytes of it were taken until it ended."""
    address = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    answer = asyncio.create_task(reader.read())
    writer.write(head)
    sent = 0
    try:
        async with asyncio.timeout(120):
            while sent < most:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
    except ConnectionError:
        pass
    finally:
        writer.close()
    (read,) = await asyncio.gather(answer, return_exceptions=True)
    return (read if isinstance(read, bytes) else b""), sent


@pytest.mark.parametrize("path", ["/nosuch", "/api/v1/token", "/agent/v1/batch", "/healthz"])
async def test_a_body_in_crumbs_is_cut_off(shared: Served, path: str) -> None:
    """Each of them costs as much as a piece of 64 KiB, and nothing ends them where there is no length."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    lines = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    _, sent = await left(shared, lines, CRUMBS, most=200 * len(CRUMBS))
    assert sent < 100 * len(CRUMBS)


async def test_a_body_in_pieces_that_fit_its_size_is_read(shared: Served) -> None:
    """As a client sends that streams."""
    form = json.dumps(
        {"grantType": "client_credentials", "clientId": "x", "clientSecret": "y" * 4_000}
    )
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in form[:900].encode())
    rest = form[900:].encode()
    head = b"POST /api/v1/token HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    body = pieces + b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
    status, answer = await raw(shared, head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert status == 401, answer
    status, answer = await raw(shared, head + b"Transfer-Encoding: chunked\r\n\r\n" + CRUMBS)
    assert (status, "small pieces" in str(answer["message"])) in [(400, True), (413, False)]


async def test_a_body_that_goes_on_after_its_answer_is_cut_off(shared: Served) -> None:
    head = b"POST /nosuch HTTP/1.1\r\n" + HOST + b"Content-Length: 900000000000\r\n\r\n"
    answer, sent = await left(shared, head, b" " * 2**20, most=2**28)
    assert sent < 2**27
    assert answer.startswith(b"HTTP/1.1 404") or not answer, "what was answered, unless it was lost"


async def test_requests_one_after_the_other_on_one_connection(shared: Served) -> None:
    address = urlsplit(shared.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    request = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    with patch.object(listen, "HEAD_SECONDS", 0.3):
        for sent in (request, request * 2, request):
            writer.write(sent)
            for _ in range(sent.count(b"GET")):
                assert await reader.readuntil(b'{"status":"ok"}')
            await asyncio.sleep(0.4)
    writer.close()


@pytest.mark.parametrize(
    "host", ["a/?x=", "evil.example.com", "localhost:1/healthz", "[::1", "a b", "\u00e4"]
)
async def test_the_host_never_decides_what_is_served(shared: Served, host: str) -> None:
    """A malformed Host once changed the path that middleware looked at."""
    answer = await shared.get("/api/v1/workloads", token=None, headers={"Host": host})
    assert_is_error(answer, 401)


async def test_tenants_are_not_taken_from_headers(shared: Served) -> None:
    headers = {"X-Scope-OrgID": "2", "X-Tenant": "2", "X-Forwarded-User": "root"}
    answer = await shared.get("/api/v1/me", headers=headers)
    assert answer.json["tenantId"] == 1


async def test_the_server_does_not_name_its_software(shared: Served) -> None:
    assert "Server" not in (await shared.get("/healthz")).headers


async def test_a_client_that_leaves_an_export_frees_its_connection(shared: Served) -> None:
    address = urlsplit(shared.url)
    token = (await shared.token()).encode()
    for _ in range(20):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(
            b"GET /api/v1/workloads/export HTTP/1.1\r\n"
            + HOST
            + b"Authorization: Bearer "
            + token
            + b"\r\n\r\n"
        )
        await writer.drain()
        writer.close()
    assert (await shared.get("/api/v1/workloads/count")).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://127.0.0.1"])
async def test_no_other_sites_script_may_read_anything(shared: Served, origin: str) -> None:
    """Neither asked plainly nor after a question beforehand."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/api/v1/workloads", "/api/v1/me", "/api/v1/token", "/openapi.json"):
        for method in ("GET", "OPTIONS"):
            answer = await shared.ask(method, path, headers=asked)
            assert not any(name.lower().startswith("access-control") for name in answer.headers)
        assert answer.status == 405


@pytest.mark.parametrize(
    "field", ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"]
)
async def test_no_header_field_changes_what_is_asked(shared: Served, field: str) -> None:
    token = await shared.account(("viewer", "tenant", "1"))
    for value in ("DELETE", "/api/v1/admin/rules"):
        answer = await shared.get("/api/v1/workloads/count", token=token, headers={field: value})
        assert list(answer.json) == ["count"]


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
async def test_a_living_server_says_so_to_anybody(shared: Served, path: str) -> None:
    assert (await shared.get(path, token=None)).json == {"status": "ok"}


async def test_the_version_is_shown_to_anybody(shared: Served) -> None:
    assert (await shared.get("/version", token=None)).json == {"version": __version__}


@pytest.mark.parametrize("path", ["/livez", "/api/v1/me", "/none"])
async def test_a_request_keeps_the_id_that_it_came_with(shared: Served, path: str) -> None:
    sent = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await shared.get(path, token=None, headers={"X-Request-Id": sent})
    assert answer.headers["X-Request-Id"] == sent


@pytest.mark.parametrize(
    "sent", ["", "short", "a" * 129, "spaces in it", "{json}-12345678", "1234567\u00e9"]
)
async def test_an_id_that_is_unfit_for_a_log_is_replaced(shared: Served, sent: str) -> None:
    answer = await shared.get("/livez", token=None, headers={"X-Request-Id": sent})
    assert answer.headers["X-Request-Id"] not in ("", sent)


class Wire(asyncio.Transport):
    """Keeps what is written, call by call: one that takes several pieces is one system call."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += [bytes(data)] if data else []

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


async def read_and_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    length = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("request_line", "fields", "ends"),
    [
        (b"GET", b"", [b"\r\n\r\nok"]),
        (b"HEAD", b"", [b"\r\n\r\n"]),
        (b"POST", b"Expect: 100-continue\r\n", [b" 100 Continue\r\n\r\n", b"\r\n\r\nok"]),
    ],
)
async def test_an_answer_leaves_as_a_whole(
    request_line: bytes, fields: bytes, ends: list[bytes]
) -> None:
    config, wire = listen.listening_on(read_and_answer), Wire()
    config.load()
    protocol = listen.LimitedProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(wire)
    protocol.data_received(
        request_line + b" / HTTP/1.1\r\n" + HOST + fields + b"Connection: close\r\n\r\n"
    )
    await wire.closed.wait()
    assert len(wire.written) == len(ends)
    for written, end in zip(wire.written, ends, strict=True):
        assert written.startswith(b"HTTP/1.1 ")
        assert written.endswith(end)
    protocol.connection_lost(None)
