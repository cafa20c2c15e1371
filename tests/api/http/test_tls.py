"""The server's own TLS, a private authority on the side of clients and agents, and the names it answers to."""

import os
import re
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from tests.conftest import Engine, fresh_database, running_server
from tests.fixtures.command_line import watchbill
from tests.fixtures.identity.certificates import write_certificate
from watchbill.api.http.listen import MAX_PEM_BYTES, Certificate
from watchbill.client import AgentClient, Client
from watchbill.errors import Invalid, Unauthenticated, Unavailable
from watchbill.protocol import HelloRequest
from watchbill.serve import address_of, certificate_of
from watchbill.settings.server import server_settings


async def test_https_with_a_private_authority(embedded_engine: Engine, tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    url = await fresh_database(embedded_engine)
    async with running_server(url, tls_cert=chain, tls_key=key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        login = (server.url, server.client_id, server.client_secret)
        async with Client(*login, ca_file=chain) as client:
            assert (await client.me()).is_administrator
            cluster = await client.cluster_create("east")
            token = await client.token()
        async with Client(*login) as client:
            with pytest.raises(Unavailable, match="certificate is not trusted"):
                await client.me()
        hello = HelloRequest(
            protocol=1, agent_version="test", kubernetes_version="v1.36.0", cluster_uid="u"
        )
        async with AgentClient(server.url, cluster.credential, ca_file=chain) as agent:
            assert (await agent.hello(hello)).cluster_name == "east"
        async with AgentClient(server.url, f"{cluster.credential}x", ca_file=chain) as agent:
            with pytest.raises(Unauthenticated):
                await agent.hello(hello)
        environ = {
            "WATCHBILL_URL": server.url,
            "WATCHBILL_CLIENT_ID": server.client_id,
            "WATCHBILL_CLIENT_SECRET": server.client_secret,
        }
        refused = await watchbill("clusters", environ=environ)
        assert refused.code == 3
        assert "its certificate is not trusted" in refused.err
        by_flag = await watchbill("clusters", "--ca-file", str(chain), environ=environ)
        assert (by_flag.code, "east" in by_flag.out) == (0, True), by_flag.err
        by_variable = await watchbill(
            "clusters", environ=environ | {"WATCHBILL_CA_FILE": str(chain)}
        )
        assert by_variable.code == 0, by_variable.err
        cookie = {"clientId": server.client_id, "clientSecret": server.client_secret}
        tls = ssl.create_default_context(cafile=str(chain))
        async with aiohttp.ClientSession(server.url) as http:
            answer = await http.post("/api/v1/session", json=cookie, ssl=tls)
            assert answer.headers["Set-Cookie"].startswith("__Host-")
            scraper = {"Authorization": f"Bearer {token}"}
            metrics = await (await http.get("/metrics", headers=scraper, ssl=tls)).text()
        shown = re.search(r"^watchbill_certificate_expires_\w+ (\S+)$", metrics, re.MULTILINE)
        expires_at = x509.load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc
        assert shown is not None
        assert float(shown[1]) == expires_at.timestamp()


async def test_a_renewed_certificate_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    chain, key = write_certificate(tmp_path)
    certificate = Certificate(chain, key)
    now = datetime.now(UTC)
    first = _certificate_shown(certificate.context, chain)
    shutil.copy(write_certificate(tmp_path / "new")[0], chain)  # without its key
    with pytest.raises(Invalid, match="cannot be used"):
        await certificate.reload(now)
    assert _certificate_shown(certificate.context, None) == first
    shutil.copy(tmp_path / "new" / "tls.key", key)
    await certificate.reload(now)
    renewed = _certificate_shown(certificate.context, chain)
    assert renewed != first
    with pytest.raises(Invalid, match="expired at"):
        await certificate.reload(now + timedelta(hours=2))
    assert _certificate_shown(certificate.context, None) == renewed
    chain.unlink()
    with pytest.raises(Invalid, match="cannot be read"):
        await certificate.reload(now)
    os.mkfifo(chain)
    with pytest.raises(Invalid, match="no file"):  # and does not wait for somebody to write
        await certificate.reload(now)
    chain.unlink()
    chain.write_bytes(b"\n" * (MAX_PEM_BYTES + 1))
    with pytest.raises(Invalid, match="no file"):
        await certificate.reload(now)
    assert _certificate_shown(certificate.context, None) == renewed


def _certificate_shown(server: ssl.SSLContext, authority: Path | None) -> bytes:
    """What a client is shown in a handshake over memory; verified where an authority is named."""
    client = ssl.create_default_context()
    if authority is None:
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    else:
        client.load_verify_locations(authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (asking, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = asking.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    with pytest.raises(Invalid, match="cannot be read"):
        Certificate(tmp_path / "none", key)
    with pytest.raises(Invalid, match="cannot be used"):
        Certificate(key, chain)
    with pytest.raises(Invalid, match="cannot be used as certificate authorities"):
        Client("https://127.0.0.1", ca_file=key)
    for environ in ({"WATCHBILL_TLS_CERT": str(chain)}, {"WATCHBILL_TLS_KEY": str(key)}):
        with pytest.raises(Invalid, match="needs its key"):
            certificate_of(server_settings(environ))


async def test_only_the_names_that_were_allowed(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    async with (
        running_server(url, allowed_hosts=("watchbill.example.com", "[::1]")) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        for host, status in (
            ("watchbill.example.com", 401),
            ("Watchbill.Example.com:8600", 401),
            ("[::1]:8600", 401),
            ("watchbill.example.com.evil.example.com", 421),
            ("127.0.0.1", 421),
            ("", 421),
        ):
            answer = await http.get("/api/v1/me", headers={"Host": host})
            assert answer.status == status, host
        for probe in ("/livez", "/healthz", "/readyz"):
            assert (await http.get(probe, headers={"Host": "10.0.0.7:8600"})).status == 200
        assert (await http.get("/metrics", headers={"Host": "10.0.0.7:8600"})).status == 401


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert address_of("::1", 8600, is_tls=False) == "http://[::1]:8600"
    assert address_of("[::1]", 8600, is_tls=True) == "https://[::1]:8600"
    assert address_of("127.0.0.1", 8600, is_tls=False) == "http://127.0.0.1:8600"
