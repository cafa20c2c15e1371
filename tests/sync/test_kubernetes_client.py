"""The client for Kubernetes against recorded answers, over real HTTP."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fixtures.kubernetes.replay import (
    Exchange,
    exchange_with,
    kubeconfig,
    recorded,
    replay,
    serving,
    stream,
)
from watchbill.agent.kubernetes import client as kube
from watchbill.agent.kubernetes import credentials as credentials_module
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.kubernetes.discovery import discover
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.watch_stream import WatchEvent, read_head
from watchbill.errors import Invalid
from watchbill.kinds.objects.objects import GroupKind

PODS = ServedResource("", "v1", "Pod", "pods")


@asynccontextmanager
async def client(folder: Path, url: str) -> AsyncIterator[KubeClient]:
    credentials = Credentials(kubeconfig(folder / "config", url), None)
    await credentials.load()
    async with KubeClient(credentials) as kube:
        yield kube


async def listed(kubernetes: KubeClient, resource: ServedResource = PODS) -> list[str]:
    return [
        read_head(body).uid
        async for page in kubernetes.list_pages(resource)
        for body in page.items or ()
    ]


async def watched(kubernetes: KubeClient, resource: ServedResource = PODS) -> list[WatchEvent]:
    async with kubernetes.watch(resource, "1") as events:
        return [event async for event in events]


def pages_of(exchanges: tuple[Exchange, ...]) -> dict[str, Exchange]:
    """Recorded pages by the continue token that asks for them."""
    pages = {}
    token = ""
    for exchange in exchanges:
        if exchange.note.startswith("page"):
            pages[token] = exchange
            token = json.loads(exchange.body)["metadata"].get("continue", "")
            if not token:
                return pages
    raise LookupError


@pytest.mark.parametrize(("version", "count"), [("1.20", 245), ("1.36", 223)])
async def test_all_pages_of_one_list(tmp_path: Path, version: str, count: int) -> None:
    pages = pages_of(recorded(version, "list-paging"))

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.path == "/api/v1/pods"
        assert set(request.query) <= {"limit", "continue"}, "no version, no selector"
        assert request.query["limit"] == "500"
        return await replay(request, pages[request.query.get("continue", "")])

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        uids = await listed(kube)
        assert len(uids) == len(set(uids)) == count
        assert len(script.requests) == 5
        assert script.requests[0].headers["Authorization"] == "Bearer t0ken"


async def test_a_token_that_expires_between_pages_is_a_failure_not_an_end(tmp_path: Path) -> None:
    exchanges = recorded("1.20", "list-expired-continue")
    first, expired = (
        exchange_with(exchanges, "page 1"),
        exchange_with(exchanges, "continue, at once"),
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        return await replay(request, expired if "continue" in request.query else first)

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        with pytest.raises(ApiFailure) as caught:
            await listed(kube)
        assert caught.value.kind is ErrorKind.EXPIRED


async def test_a_list_cut_short_is_a_failure(tmp_path: Path) -> None:
    first = recorded("1.36", "list-paging")[0]

    async def answer(request: web.Request) -> web.StreamResponse:
        half = first.body.encode()[: len(first.body) // 2]
        return await stream(request, half, is_cut="gentle" not in request.path)

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        with pytest.raises(ApiFailure) as caught:
            await listed(kube)
        assert caught.value.kind is ErrorKind.UNREACHABLE
        with pytest.raises(ApiFailure) as caught:
            await listed(kube, ServedResource("gentle", "v1", "Pod", "pods"))
        assert caught.value.kind is ErrorKind.BUSY


@pytest.mark.parametrize("version", ["1.20", "1.36"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096, None])
async def test_a_recorded_watch_in_any_chunks(
    tmp_path: Path, version: str, chunk_bytes: int | None
) -> None:
    exchange = exchange_with(recorded(version, "watch-bookmarks"), "timeoutSeconds=10:")
    exchange = (
        exchange
        if chunk_bytes == 1
        else exchange_with(recorded(version, "watch-basic"), "from the RV")
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.query["allowWatchBookmarks"] == "true"
        assert 240 <= int(request.query["timeoutSeconds"]) <= 300
        return await replay(request, exchange, chunk_bytes=chunk_bytes)

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        events = await watched(kube)
        assert [event.type for event in events] == [
            json.loads(line)["type"] for line in exchange.lines or ()
        ]


async def test_a_killed_server_in_the_middle_of_a_line(tmp_path: Path) -> None:
    exchange = exchange_with(recorded("1.36", "watch-basic"), "from the RV")
    data = "".join(line.rstrip("\n") + "\n" for line in exchange.lines or ()).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await stream(request, data[: len(data) - 100], is_cut=True)

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        seen: list[WatchEvent] = []
        with pytest.raises(ApiFailure) as caught:
            async with kube.watch(PODS, "1") as events:
                async for event in events:
                    seen.append(event)
        assert caught.value.kind is ErrorKind.UNREACHABLE
        assert len(seen) == len(exchange.lines or ()) - 1


async def test_silence_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(kube, "SILENCE_SECONDS", 0.2)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await stream(request, b"", stays_open_seconds=5)

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        with pytest.raises(ApiFailure) as caught:
            await watched(kubernetes)
        assert caught.value.kind is ErrorKind.UNREACHABLE


async def test_a_watch_that_is_never_accepted_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "ANSWER_SECONDS", 0.2)

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        with pytest.raises(ApiFailure) as caught:
            await watched(kubernetes)
        assert caught.value.kind is ErrorKind.UNREACHABLE


def test_a_list_may_take_longer_than_an_api_server_gives_itself() -> None:
    """Kubernetes' own --request-timeout is 60 seconds."""
    limits = (kube._LIST_TIMEOUT.sock_read, kube._LIST_TIMEOUT.total)
    assert all(limit is not None and limit > 60 for limit in limits)


async def test_after_a_bookmark_silence_is_noticed_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "BOOKMARKED_SILENCE_SECONDS", 0.2)
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}\n'

    async def answer(request: web.Request) -> web.StreamResponse:
        return await stream(request, bookmark, stays_open_seconds=5)

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        with pytest.raises(ApiFailure):
            await watched(kubernetes)


@pytest.mark.parametrize(
    ("name", "words", "error_kind"),
    [
        ("errors-429", ("max-requests",), ErrorKind.BUSY),
        ("errors", ("404 /apis/nosuch.example.com",), ErrorKind.ABSENT),
        ("errors", ("403 cluster-wide",), ErrorKind.FORBIDDEN),
        ("errors", ("401 wrong token",), ErrorKind.UNAUTHENTICATED),
    ],
)
async def test_refusals_of_lists_and_watches(
    tmp_path: Path, name: str, words: tuple[str, ...], error_kind: ErrorKind
) -> None:
    exchange = next(
        result
        for result in recorded("1.36", name)
        if result.status != 200 and all(word in result.note for word in words)
    )

    async def answer(request: web.Request) -> web.StreamResponse:
        return await replay(request, exchange)

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        for ask in (listed, watched):
            with pytest.raises(ApiFailure) as caught:
                await ask(kube)
            assert (caught.value.kind, caught.value.status) == (error_kind, exchange.status)


def discovery_answers(version: str, *, is_aggregated: bool) -> dict[str, Exchange]:
    collected: dict[str, Exchange] = {}
    for exchange in recorded(version, "discovery"):
        reported = exchange.headers.get("Content-Type", "")
        if exchange.method != "GET" or exchange.status not in (200, 404, 503):
            continue
        is_root = exchange.path in ("/api", "/apis")
        if is_root and ("APIGroupDiscoveryList" in reported) != is_aggregated:
            continue
        collected.setdefault(exchange.path, exchange)
    return collected


@pytest.mark.parametrize(
    ("version", "is_aggregated"), [("1.20", False), ("1.36", False), ("1.36", True)]
)
async def test_discovery(tmp_path: Path, version: str, is_aggregated: bool) -> None:
    answers = discovery_answers(version, is_aggregated=is_aggregated)

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = answers.get(request.path)
        if exchange is None:
            return web.json_response({"kind": "APIResourceList", "resources": []})
        return await replay(request, exchange)

    groups = frozenset({"", "apps", "batch", "metrics.k8s.io", "ray.io"})
    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        served = await discover(kube, groups)
    assert served.is_aggregated is is_aggregated
    assert served.kubernetes_version.startswith(f"v{version}")
    assert served.resources[GroupKind("", "Pod")] == PODS
    assert served.resources[GroupKind("apps", "Deployment")].path() == "/apis/apps/v1/deployments"
    assert not served.resources[GroupKind("", "Node")].is_namespaced
    cronjob = served.resources.get(GroupKind("batch", "CronJob"))
    if version == "1.36":
        assert cronjob is not None
        assert cronjob.version == "v1"
        assert "metrics.k8s.io" in served.unknown_groups, "a group without a backend is not absent"


async def test_a_kind_outside_the_preferred_version_is_found(tmp_path: Path) -> None:
    versions = [{"version": "v1"}, {"version": "v1beta1"}]
    answers = {
        "/version": {"gitVersion": "v1.20.2"},
        "/api": {"versions": ["v1"]},
        "/apis": {
            "groups": [
                {"name": "batch", "versions": versions, "preferredVersion": {"version": "v1"}}
            ]
        },
        "/apis/batch/v1": {"resources": [_served("jobs", "Job")]},
        "/apis/batch/v1beta1": {
            "resources": [_served("cronjobs", "CronJob"), _served("jobs", "Job")]
        },
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(answers[request.path])

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        served = await discover(kube, frozenset({"batch"}))
    assert served.resources[GroupKind("batch", "Job")].version == "v1"
    assert served.resources[GroupKind("batch", "CronJob")].version == "v1beta1"


def _served(plural: str, kind: str) -> dict[str, object]:
    return {"name": plural, "kind": kind, "namespaced": True, "verbs": ["get", "list", "watch"]}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (None, "cannot be read"),
        ("", "cannot be used"),
        ("not: a kubeconfig", "cannot be used"),
        ("{broken", "cannot be used"),
    ],
)
async def test_a_bad_kubeconfig_says_so(tmp_path: Path, text: str | None, hint: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Invalid) as caught:
        await Credentials(path, None).load()
    assert hint in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.details


async def test_an_unknown_context_says_so(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    with pytest.raises(Invalid, match="elsewhere"):
        await Credentials(path, "elsewhere").load()


async def test_outside_a_cluster_without_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Invalid, match="in-cluster") as caught:
        await Credentials(None, None).load()
    assert "--kubeconfig" in (caught.value.details or "")


async def test_a_token_turned_down_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "_RELOAD_SECONDS", 0.0)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            return web.Response(status=401, text="Unauthorized")
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        with pytest.raises(ApiFailure) as caught:
            await listed(kube)
        assert caught.value.kind is ErrorKind.UNAUTHENTICATED
        assert "renew" in caught.value.message
        kubeconfig(tmp_path / "config", script.url, token="second")
        assert await listed(kube) == []


async def test_exec_credentials_are_renewed_before_they_end(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    counter = tmp_path / "n"
    status = {"token": "tNUMBER", "expirationTimestamp": "2020-01-01T00:00:00Z"}
    reported = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    plugin.write_text(
        f"#!/bin/sh\necho >> {counter}\n"
        f"echo '{json.dumps(reported)}' | sed s/NUMBER/$(wc -l < {counter})/\n"
    )
    plugin.chmod(0o755)
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    config = json.loads(path.read_text())
    config["users"][0]["user"] = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    }
    path.write_text(json.dumps(config))
    credentials = Credentials(path, None)
    await credentials.load()
    first, second = await credentials.authorization(), await credentials.authorization()
    assert first != second
    assert (first or "").startswith("Bearer t")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kube.example.com")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "tls.crt", folder / "tls.key"


async def test_tls_is_checked_against_the_clusters_own_authority(tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made, key)

    async def empty(_: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    app = web.Application()
    app.router.add_get("/{path:.*}", empty)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    trusting = {"certificate-authority": str(made), "tls-server-name": "kube.example.com"}
    try:
        for cluster, works in (
            (trusting, True),
            ({"insecure-skip-tls-verify": True}, True),
            ({}, False),
            ({"certificate-authority": str(made)}, False),
        ):
            path = kubeconfig(tmp_path / "config", url, **cluster)
            credentials = Credentials(path, None)
            await credentials.load()
            async with KubeClient(credentials) as kube:
                if works:
                    assert await listed(kube) == []
                else:
                    with pytest.raises(ApiFailure) as caught:
                        await listed(kube)
                    assert caught.value.kind is ErrorKind.UNREACHABLE
    finally:
        await runner.cleanup()


async def test_nobody_answers(tmp_path: Path) -> None:
    async with client(tmp_path, "http://127.0.0.1:1") as kube:
        async with asyncio.timeout(60):
            with pytest.raises(ApiFailure, match="does not respond"):
                await listed(kube)


@pytest.mark.parametrize(
    ("date", "is_acknowledged"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("Fri, 01 Jan 9999 00:00:00 GMT", False),
        ("Wed, 01 Jan 2020 00:00:00 +99999999999999", False),
        ("Wed, 01 Jan 99999999999999999999 00:00:00 GMT", False),
        ("soon", False),
        ("Wed, 01 Jan 2020 00:00:00 GMT", True),
    ],
)
async def test_only_the_api_servers_own_possible_dates_tell_its_clock(
    tmp_path: Path, date: str, is_acknowledged: bool
) -> None:
    """What stands behind its proxy answers with header fields of its own choice."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text='{"metadata": {}, "items": []}', headers={"Date": date})

    async with serving(answer) as script, client(tmp_path, script.url) as kube:
        await kube.read("/api/v1/namespaces/vision/pods/a:1/proxy/x", max_bytes=99, seconds=9)
        assert kube.clock_ahead_seconds is None
        assert await listed(kube) == []
        ahead = kube.clock_ahead_seconds
        assert (ahead is not None) is is_acknowledged
        assert ahead is None or -1e9 <= ahead <= 1e9
