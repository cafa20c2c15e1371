"""The agent's client: what each status means to it, what it sends, what it makes of nonsense."""

import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.fixtures.identity.certificates import write_certificate
from watchbill.client import AgentClient
from watchbill.errors import (
    Conflict,
    Invalid,
    Superseded,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from watchbill.protocol import PROTOCOL_VERSION, Covered, Heartbeat, HelloRequest, InventoryBegin


class Fake:
    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = b""
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.path, dict(request.headers), body))
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@asynccontextmanager
async def reporting(fake: Fake) -> AsyncIterator[AgentClient]:
    app = web.Application()
    app.router.add_post("/{path:.*}", fake.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        async with AgentClient(f"http://127.0.0.1:{port}", "wba.x.y\n") as client:
            yield client
    finally:
        await runner.cleanup()


HELLO = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="1")


async def test_hello_is_sent_with_the_credential_and_read_back() -> None:
    fake = Fake()
    fake.body = json.dumps(
        {
            "streamId": "s",
            "clusterId": "00000000-0000-0000-0000-000000000001",
            "clusterName": "west",
            "heartbeatSeconds": 15,
        }
    ).encode()
    async with reporting(fake) as client:
        reply = await client.hello(HELLO)
    path, headers, body = fake.seen[0]
    assert (reply.stream_id, reply.cluster_name) == ("s", "west")
    assert path == "/agent/v1/hello"
    assert headers["Authorization"] == "Bearer wba.x.y"
    assert json.loads(body) == {"protocol": PROTOCOL_VERSION, "agentVersion": "1"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthenticated),
        (409, Conflict),
        (410, Superseded),
        (413, TooLarge),
        (429, TooMany),
        (502, Unavailable),
        (503, Unavailable),
    ],
)
async def test_a_status_becomes_its_error(status: int, kind: type[Exception]) -> None:
    fake = Fake()
    fake.status, fake.headers = status, {"Retry-After": "7"}
    fake.body = json.dumps({"code": status, "message": "No.", "details": "42"}).encode()
    async with reporting(fake) as client:
        with pytest.raises(kind) as caught:
            await client.heartbeat(Heartbeat(stream_id="s", seq=1))
    assert caught.value.details == "42"  # type: ignore[attr-defined]
    assert caught.value.retry_after_seconds == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"", b"{}", b"\xff\xfe"])
async def test_a_200_that_is_no_reply_of_ours_is_unavailable(body: bytes) -> None:
    fake = Fake()
    fake.body = body
    async with reporting(fake) as client:
        with pytest.raises(Unavailable, match="not come from a Watchbill server"):
            await client.hello(HELLO)


async def test_a_large_message_goes_compressed() -> None:
    fake = Fake()
    fake.body = b'{"inventoryId":"00000000-0000-0000-0000-000000000001"}'
    coverage = tuple(Covered(group="", kind=f"Kind{n}") for n in range(200))
    async with reporting(fake) as client:
        await client.inventory_begin(InventoryBegin(stream_id="s", coverage=coverage))
    _, headers, body = fake.seen[0]
    # aiohttp's server has inflated the body already; the header tells how it came
    assert headers["Content-Encoding"] == "gzip"
    text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    assert len(json.loads(text)["coverage"]) == 200


@pytest.mark.parametrize(
    ("begins_in_hours", "why"), [(-3.0, "has expired and must be renewed"), (1.0, "not valid yet")]
)
async def test_a_certificate_that_is_not_valid_now_needs_no_authority(
    tmp_path: Path, begins_in_hours: float, why: str
) -> None:
    chain, key = write_certificate(tmp_path, begins_in_hours=begins_in_hours)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    server = TestServer(web.Application(), host="127.0.0.1")
    await server.start_server(ssl=context)
    try:
        url = f"https://127.0.0.1:{server.port}"
        async with AgentClient(url, "wba.1.secret", ca_file=chain) as client:
            with pytest.raises(Unavailable, match=why) as raised:
                await client.hello(HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test"))
        assert "--ca-file" not in raised.value.message
    finally:
        await server.close()
