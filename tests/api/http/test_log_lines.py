"""What credentials leave behind in log, database and answers: nothing; and what a log line may hold."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest.mock import patch

import asyncpg
import pytest
import structlog

from tests.fixtures.serving import Served
from watchbill.access.logins import Sessions
from watchbill.access.tokens.tokens import RefreshTokens
from watchbill.cli.connection.log_setup import log_to_stderr
from watchbill.identity import USER_PRINCIPAL, ExternalLogin, Principal
from watchbill.store.identity.accounts import user_upsert


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logged(stream: io.StringIO) -> Iterator[io.StringIO]:
    """Everything that is logged at the level that says most, as a running server would write it."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    with patch("sys.stderr", stream):
        log_to_stderr("debug")
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**before)


async def everything_secret(served: Served) -> list[str]:
    """Every kind of credential, used rightly and wrongly. Returns them all."""
    now = datetime.now(UTC)
    cluster = (await served.ask("POST", "/api/v1/clusters", json={"name": "logged"})).json
    agent = cluster["credential"]
    body = {"protocol": 1, "agentVersion": "test"}
    assert (await served.ask("POST", "/agent/v1/hello", json=body, token=agent)).status == 200
    token = await served.token_of(served.client_id, served.secret)
    session_body = {"clientId": served.client_id, "clientSecret": served.secret}
    begun = await served.ask("POST", "/api/v1/session", json=session_body, token=None)
    cookie = begun.headers["Set-Cookie"].partition(";")[0]
    await served.get("/api/v1/me", token=None, headers={"Cookie": cookie})
    login = ExternalLogin(
        tenant_id=1, issuer="https://id.example.com", external_id="u-9", name="ada@example.com",
        email=None, groups=(), stated_at=now,
    )  # fmt: skip
    person = await user_upsert(served.db, login, now=now)
    principal = Principal(tenant_id=1, kind=USER_PRINCIPAL, id=person)
    refresh, _ = await RefreshTokens(served.db, lambda: now, lifetime_seconds=600).begin(principal)
    other = await Sessions(served.db, lambda: now, lifetime_seconds=600).begin(principal)
    form = {"grant_type": "refresh_token", "refresh_token": refresh}
    renewed = (await served.ask("POST", "/api/v2/token", data=form, token=None)).json
    await served.ask("POST", "/api/v2/token", data=form, token=None)
    device = await served.ask(
        "POST", "/api/v2/device_authorization", data={"client_id": "x"}, token=None
    )
    secrets = [
        *(agent, token, served.secret, cookie.partition("=")[2], refresh, other),
        *(renewed["access_token"], renewed["refresh_token"], device.json["device_code"]),
        "typed-in-the-wrong-field",
    ]
    for secret in secrets:  # wherever somebody may paste one by mistake
        await served.get(f"/api/v1/me?access_token={secret}&search={secret}", token=None)
        await served.get("/api/v1/workloads", token=secret[:-1] + "x")
        await served.get("/api/v1/workloads", token=None, headers={"X-Api-Key": secret})
        await served.get(f"/api/v1/workloads?filterBy=name=={secret}&search={secret}")
        await served.get(
            "/api/v1/me", token=None, headers={"Cookie": f"watchbill_session={secret}"}
        )
        for typed in ({"appId": secret, "appSecret": "x"}, {"appId": "x", "appSecret": secret}):
            sent = {"grantType": "app_token", **typed}
            await served.ask("POST", "/api/v1/token", json=sent, token=None)
        await served.ask("POST", "/api/v2/token", data={"grant_type": secret}, token=None)
        await served.ask("POST", "/api/v2/revoke", data={"token": secret}, token=None)
    await served.ask("DELETE", f"/api/v1/clusters/{cluster['id']}")
    return secrets


async def test_no_secret_is_logged_at_any_level(server: Served) -> None:
    with logged(io.StringIO()) as stream:
        secrets = await everything_secret(server)
    text = stream.getvalue()
    assert text.count('"event":"request"') > 30
    for secret in secrets:
        assert secret not in text
        assert secret[-20:] not in text


async def dumped(served: Served) -> str:
    """All rows of all tables, as whoever owns the database sees them."""
    owner = await asyncpg.connect(served.db._listening_url)
    tables = await owner.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = 'public'::regnamespace"
    )
    rows: list[str] = []
    async with owner.transaction():
        for table in tables:
            await owner.execute(f"ALTER TABLE {table['name']} NO FORCE ROW LEVEL SECURITY")
            result = await owner.fetch(f"SELECT t::text AS row FROM {table['name']} t")
            rows += [line["row"] for line in result]
    await owner.close()
    return "\n".join(rows)


async def test_no_secret_is_kept_or_shown_again(server: Served) -> None:
    secrets = await everything_secret(server)
    await server.services.audit.flush()
    dump = await dumped(server)
    assert server.client_id in dump, "it sees rows"
    assert "ada@example.com" in dump
    reported = [
        (await server.get(path)).body.decode()
        for path in ("/api/v1/admin/audit?limit=1000", "/api/v1/admin/accounts", "/metrics",
                     "/api/v1/admin/users", "/api/v1/clusters", "/api/v1/me")
    ]  # fmt: skip
    for secret in secrets:
        for text in (dump, *reported):
            assert secret not in text
            assert secret.encode().hex() not in text
            assert secret.rpartition(".")[2] not in text


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["lines", "terminal"])
async def test_nobody_writes_lines_or_orders_into_the_log(
    shared: Served, stream: io.StringIO
) -> None:
    hostile = "%0a%7b%22event%22:%22forged%22%7d%0d%1b%5b2J%1b]0;owned%07%c2%9b31m%e2%80%ae"
    token = await shared.token()
    with logged(stream):
        for path in (f"/api/v1/workloads/{hostile}", f"/{hostile}"):
            await shared.get(path, token=token)
        plain = stream.getvalue()
    lines = plain.splitlines()
    assert any("forged" in line for line in lines)
    if stream.isatty():
        for order in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e", "\r"):
            assert order not in plain, repr(order)
        assert not any(line.startswith("{") for line in lines)
    else:
        for line in lines:
            json.loads(line)
        assert not any(ord(character) < 32 for line in lines for character in line)
