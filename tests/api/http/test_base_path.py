"""Behind a prefix, whether the proxy strips it or not, and behind a unix socket."""

import asyncio
import re
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import uvicorn

from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import SETTINGS, Served, serving
from watchbill.api.app import build_app
from watchbill.api.http.listen import listening_on, open_unix_listener
from watchbill.errors import Invalid, Unavailable
from watchbill.settings.server import server_settings

BASE = "/watchbill"


async def test_a_prefix_is_served_with_and_without_it(embedded_engine: Engine) -> None:
    settings = replace(SETTINGS, public_url=f"https://tools.example.com{BASE}/")
    async with serving(await fresh_database(embedded_engine), settings) as served:
        for prefix in ("", BASE):
            assert (await served.get(f"{prefix}/api/v1/me")).status == 200
            assert (await served.get(f"{prefix}/readyz", token=None)).status == 200
        for path in ("/watchbillx/api/v1/me", "/watchbill/watchbill/api/v1/me", "//watchbill/"):
            assert (await served.get(path)).status == 404, path
        assert (await served.get(f"{BASE}/api/v1/%2e%2e/me")).status == 404
        document = (await served.get(f"{BASE}/openapi.json")).json
        assert document["servers"] == [{"url": BASE}]
        await check_cookie(served)
        device = (await served.get(f"{BASE}/device", token=None)).body.decode()
        assert set(re.findall(r'(?:href|action)="([^"]*)"', device)) == {f"{BASE}/login"}


async def check_cookie(served: Served) -> None:
    """For this path alone: the host has other programs."""
    login = {"clientId": served.client_id, "clientSecret": served.secret}
    answer = await served.ask("POST", f"{BASE}/api/v1/session", json=login, token=None)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Secure-watchbill_session=")
    assert re.search(r"; Path=/watchbill; HttpOnly; SameSite=Strict; Secure$", cookie)
    sent = {"Cookie": cookie.partition(";")[0]}
    assert (await served.ask("GET", f"{BASE}/api/v1/me", token=None, headers=sent)).status == 200


@pytest.mark.parametrize("path", ["/a b", "/a%2Fb", "/../x", "/x/./y", '/"x', "//x"])
def test_a_prefix_that_cannot_be_served_stops_the_start(path: str) -> None:
    with pytest.raises(Invalid):
        server_settings({"WATCHBILL_PUBLIC_URL": f"https://tools.example.com{path}"})


async def test_a_proxy_on_a_unix_socket_is_believed(shared: Served, tmp_path: Path) -> None:
    path = tmp_path / "watchbill.sock"
    with open_unix_listener(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o660
        server = uvicorn.Server(listening_on(build_app(shared.services)))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                forwarded = {"X-Forwarded-For": "198.51.100.4", "X-Forwarded-Proto": "https"}
                login = {"clientId": shared.client_id, "clientSecret": shared.secret}
                url = "http://watchbill/api/v1/session"
                async with session.post(url, json=login, headers=forwarded) as answer:
                    assert answer.status == 200
                    assert answer.headers["Set-Cookie"].startswith("__Host-")
                async with session.get("http://watchbill/readyz") as answer:
                    assert answer.status == 200
            with pytest.raises(Unavailable, match="Address already in use"):
                open_unix_listener(path)
        finally:
            server.should_exit = True
            await task


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "watchbill.sock"
    open_unix_listener(path).close()
    with open_unix_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    path.unlink()
    path.write_text("a file of somebody's")
    with pytest.raises(Unavailable):
        open_unix_listener(path)
    assert path.read_text() == "a file of somebody's"
