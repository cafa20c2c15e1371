"""Ways into a cluster that change while the agent runs, and those that lead through others."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from simulator.apiserver.protocol import SimulatedCluster
from simulator.apiserver.tls import CertificateAuthority
from tests.fixtures.kubernetes.replay import kubeconfig, serving
from tests.sync.test_kubernetes_client import certificate, listed
from watchbill.agent.kubernetes import credentials as credentials_module
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.client import AgentClient
from watchbill.errors import Invalid
from watchbill.protocol import Heartbeat

EMPTY = {"metadata": {"resourceVersion": "1"}, "items": []}
PODS = ServedResource("", "v1", "Pod", "pods")


async def empty(_: web.Request) -> web.StreamResponse:
    return web.json_response(EMPTY)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[KubeClient]:
    credentials = Credentials(path, None)
    await credentials.load()
    async with KubeClient(credentials) as client:
        yield client


@asynccontextmanager
async def serving_tls(
    context: ssl.SSLContext, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[str]:
    """An API server of this machine; yields its address."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def change(path: Path, changed: Callable[[dict[str, Any]], None]) -> Path:
    config = json.loads(path.read_text())
    changed(config)
    path.write_text(json.dumps(config))
    return path


def with_plugin(path: Path, command: str, **section: object) -> Path:
    def add(config: dict[str, Any]) -> None:
        config["users"][0]["user"] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": command,
                **section,
            }
        }

    return change(path, add)


def write_plugin(path: Path, status: dict[str, object]) -> None:
    reported = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(reported)}\nEND\n")
    path.chmod(0o755)


async def test_a_new_authority_is_trusted_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "LOOK_SECONDS", 0.0)
    cluster = SimulatedCluster(authority=CertificateAuthority(), custom=())
    await cluster.start()
    path = cluster.kubeconfig(tmp_path / "config")
    try:
        async with connected(path) as client:
            assert await listed(client) == []
            await cluster.exchange_authority()
            with pytest.raises(ApiFailure, match="certificate"):
                await listed(client)
            cluster.kubeconfig(path)
            assert await listed(client) == []
    finally:
        await cluster.stop()


async def test_a_file_that_is_half_written_leaves_the_old_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "LOOK_SECONDS", 0.0)
    async with serving(empty) as script:
        path = kubeconfig(tmp_path / "config", script.url, token="first")
        async with connected(path) as client:
            path.write_text('{"clusters": [')
            assert await listed(client) == []
            kubeconfig(path, script.url, token="second")
            assert await listed(client) == []
        reported = [request.headers["Authorization"] for request in script.requests]
        assert reported == ["Bearer first", "Bearer second"]


async def test_a_plugin_may_give_token_and_certificate(tmp_path: Path) -> None:
    """Its path is relative to the kubeconfig, and the API server asks for both."""
    made, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made))
    context.load_cert_chain(made, key)
    context.verify_mode = ssl.CERT_REQUIRED
    tokens: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        tokens.append(request.headers.get("Authorization", ""))
        return await empty(request)

    async with serving_tls(context, answer) as url:
        trusting = {"certificate-authority": made.name, "tls-server-name": "kube.example.com"}
        path = with_plugin(kubeconfig(tmp_path / "config", url, **trusting), "bin/plugin")
        pair = {"clientCertificateData": made.read_text(), "clientKeyData": key.read_text()}
        write_plugin(tmp_path / "bin" / "plugin", {"token": "t1", **pair})
        async with connected(path) as client:
            assert await listed(client) == []
        write_plugin(tmp_path / "bin" / "plugin", {"token": "t1"})
        async with connected(path) as client:
            with pytest.raises(ApiFailure):
                await listed(client)
    assert tokens == ["Bearer t1"]


async def test_a_new_client_certificate_is_taken_up_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are named relative to the kubeconfig; the API server accepts the new one alone."""
    monkeypatch.setattr(credentials_module, "LOOK_SECONDS", 0.0)
    pairs = {}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        pairs[name] = certificate(tmp_path / name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pairs["new"][0]))
    context.load_cert_chain(*pairs["new"])
    context.verify_mode = ssl.CERT_REQUIRED

    def put(name: str) -> None:
        for made, file in zip(pairs[name], ("client.crt", "client.key"), strict=True):
            (tmp_path / file).write_bytes(made.read_bytes())

    async with serving_tls(context, empty) as url:
        trusting = {"certificate-authority": "new/tls.crt", "tls-server-name": "kube.example.com"}
        path = change(
            kubeconfig(tmp_path / "config", url, **trusting),
            lambda config: config["users"][0].update(
                user={"client-certificate": "client.crt", "client-key": "client.key"}
            ),
        )
        put("old")
        async with connected(path) as client:
            with pytest.raises(ApiFailure):
                await listed(client)
            put("new")
            assert await listed(client) == []


async def test_another_proxy_is_taken_up_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "LOOK_SECONDS", 0.0)
    async with serving(empty) as first, serving(empty) as second:
        path = tmp_path / "config"
        kubeconfig(path, "http://kube.example.com", **{"proxy-url": first.url})
        async with connected(path) as client:
            assert await listed(client) == []
            kubeconfig(path, "http://kube.example.com", **{"proxy-url": second.url})
            assert await listed(client) == []
        assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, "neither token nor certificate"),
        ({"clientCertificateData": "x"}, "certificate without key"),
    ],
)
async def test_a_plugin_that_gives_too_little_is_named(
    tmp_path: Path, status: dict[str, object], reason: str
) -> None:
    write_plugin(tmp_path / "bin" / "plugin", status)
    path = with_plugin(kubeconfig(tmp_path / "config", "http://127.0.0.1:1"), "./bin/plugin")
    with pytest.raises(Invalid, match=reason):
        await Credentials(path, None).load()


async def test_a_plugin_gets_the_cluster_it_is_for(tmp_path: Path) -> None:
    """With its own variables, where the kubeconfig asks for that."""
    info = tmp_path / "info"
    write_plugin(tmp_path / "bin" / "plugin", {"token": "t1"})
    script = tmp_path / "bin" / "plugin"
    script.write_text(
        script.read_text().replace("cat <<", 'echo "$KUBERNETES_EXEC_INFO" > "$OUT"\ncat <<')
    )
    path = with_plugin(
        kubeconfig(tmp_path / "config", "http://127.0.0.1:1"),
        "bin/plugin",
        provideClusterInfo=True,
        env=[{"name": "OUT", "value": str(info)}],
    )
    await Credentials(path, None).load()
    spec = json.loads(info.read_text())["spec"]
    assert spec == {"interactive": False, "cluster": {"server": "http://127.0.0.1:1"}}


async def test_requests_go_through_the_environment_s_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the API server and to our own server; the kubeconfig's own proxy counts more."""
    async with serving(empty) as proxy, serving(empty) as nearer:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        path = kubeconfig(tmp_path / "config", "http://kube.example.com")
        async with connected(path) as client:
            assert await listed(client) == []
        assert [request.host for request in proxy.requests] == ["kube.example.com"]
        change(
            path, lambda config: config["clusters"][0]["cluster"].update({"proxy-url": nearer.url})
        )
        async with connected(path) as client:
            assert await listed(client) == []
        assert [request.host for request in nearer.requests] == ["kube.example.com"]
        async with AgentClient("http://watchbill.example.com", "wba.x.y") as agent:
            with pytest.raises(Exception, match="did not come from a Watchbill server"):
                await agent.heartbeat(Heartbeat(stream_id="s", seq=0))
        assert proxy.requests[-1].host == "watchbill.example.com"
        monkeypatch.setenv("NO_PROXY", "example.com")
        assert Credentials(path, None) is not None
        async with AgentClient("http://watchbill.example.com:1", "wba.x.y") as agent:
            assert agent._transport._proxy is None


@asynccontextmanager
async def socks_proxy(target_port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """A SOCKS5 proxy that leads everything to one port of this machine; the names it was asked for."""
    asked: list[str] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        assert kind == 3, "the name is resolved by the proxy"
        (length,) = await reader.readexactly(1)
        asked.append((await reader.readexactly(length)).decode())
        await reader.readexactly(2)
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        there, back = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


async def test_a_kubeconfig_may_name_a_socks_proxy(tmp_path: Path) -> None:
    async with (
        serving(empty) as script,
        socks_proxy(int(script.url.rpartition(":")[2])) as (proxy, asked),
    ):
        path = kubeconfig(
            tmp_path / "config", "http://kube.example.com:6443", **{"proxy-url": proxy}
        )
        async with connected(path) as client:
            assert await listed(client) == []
        assert asked == ["kube.example.com"]
        assert len(script.requests) == 1
