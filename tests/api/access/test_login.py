"""Who may pass: tokens, the page's session, agents' credentials, rights. And who may not."""

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.samples import OPERATIONS, SAMPLES, of_login
from tests.fixtures.serving import SETTINGS, Answer, Served, listening, serving
from watchbill.access.roles import Permission
from watchbill.access.tokens.keyring import Keyring
from watchbill.api.app import build_app
from watchbill.api.http.call import services_of
from watchbill.api.http.contract import LoginRequirement
from watchbill.api.http.guard import SESSION_COOKIE, set_cookie
from watchbill.identity import Rule
from watchbill.store.identity.accounts import account_create, account_create_first, account_disable
from watchbill.store.postgres.database import Database

FORM = "application/x-www-form-urlencoded"
OF_PEOPLE = {"create_access_key", "delete_access_key"}
VIEWER = (Permission.WORKLOADS_READ, Permission.CLUSTERS_READ)


def test_the_inventory_has_a_sample_for_every_operation() -> None:
    assert SAMPLES.keys() == OPERATIONS.keys()


async def ask(served: Served, name: str, token: str | None) -> Answer:
    sample = SAMPLES[name]
    return await served.ask(OPERATIONS[name].method, sample.path, token=token, **sample.options)


async def agent_credential(served: Served, name: str = "north") -> str:
    answer = await served.ask("POST", "/api/v1/clusters", json={"name": name})
    assert answer.status == 201
    return str(answer.json["credential"])


# Every route, every kind of principal


@pytest.mark.parametrize("name", of_login(LoginRequirement.CALLER, LoginRequirement.NONE))
async def test_an_agent_opens_no_route_of_callers(server: Served, name: str) -> None:
    credential = await agent_credential(server)
    answer = await ask(server, name, credential)
    if OPERATIONS[name].login is LoginRequirement.CALLER:
        assert_is_error(answer, 401)


async def test_a_token_opens_no_route_of_agents(server: Served) -> None:
    for name in of_login(LoginRequirement.AGENT):
        assert_is_error(await ask(server, name, await server.token()), 401)


async def test_an_account_without_rules_reads_nothing(shared: Served) -> None:
    token = await shared.account()
    for name in of_login(LoginRequirement.CALLER):
        answer = await ask(shared, name, token)
        if OPERATIONS[name].permission is None:
            assert answer.status != 403 or name in OF_PEOPLE, name
        else:
            assert_is_error(answer, 403)


async def test_only_administrators_administer(shared: Served) -> None:
    token = await shared.account(("viewer", "tenant", "1"))
    for name in of_login(LoginRequirement.CALLER):
        answer = await ask(shared, name, token)
        if OPERATIONS[name].permission in (None, *VIEWER):
            assert answer.status != 403 or name in OF_PEOPLE, name
        else:
            assert_is_error(answer, 403)


async def test_open_routes_need_nothing(shared: Served) -> None:
    for name in ("get_health", "get_readiness", "get_openapi", "get_contract"):
        assert (await ask(shared, name, None)).status == 200


# Tokens


@pytest.mark.parametrize(
    "body",
    [
        {"grantType": "app_token", "AppId": 1, "AppSecret": 2},
        {"grantType": "client_credentials", "clientId": 1, "clientSecret": 2},
        {"granttype": "client_credentials", "clientID": 1, "CLIENTSECRET": 2},
        {"GrantType": "app_token", "appID": 1, "appSecret": 2, "more": [1]},
    ],
)
async def test_tokens_for_clients_of_every_spelling(
    shared: Served, body: dict[str, object]
) -> None:
    filled = {1: shared.client_id, 2: shared.secret}
    sent = {name: filled.get(value, value) for name, value in body.items() if value != [1]}
    answer = await shared.ask("POST", "/api/v1/token", json=sent, token=None)
    assert answer.status == 200
    assert answer.json["expiresIn"] == SETTINGS.token_lifetime_seconds
    assert answer.headers["Cache-Control"] == "no-store"
    payload = json.loads(base64.b64decode(answer.json["accessToken"].split(".")[1] + "=="))
    assert payload["exp"] - payload["iat"] == SETTINGS.token_lifetime_seconds
    assert (await shared.get("/api/v1/me", token=answer.json["accessToken"])).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"grantType": "password", "clientId": "a", "clientSecret": "b"}, 400),
        ({"grantType": 1}, 400),
        ({"grantType": "app_token"}, 400),
        ({"grantType": "app_token", "appId": "a"}, 400),
        ({"grantType": "app_token", "appId": 5, "appSecret": None}, 400),
        ({"grantType": "app_token", "appId": "a", "appSecret": "b"}, 401),
        ({"grantType": "app_token", "appId": "a\0", "appSecret": "b"}, 401),
        ({"grantType": "app_token", "appId": "a" * 500, "appSecret": "b"}, 401),
        ({"grantType": "app_token", "appId": "' OR 1=1 --", "appSecret": "b"}, 401),
    ],
)
async def test_no_token(shared: Served, body: dict[str, object], status: int) -> None:
    assert_is_error(await shared.ask("POST", "/api/v1/token", json=body, token=None), status)


async def test_a_lone_surrogate_is_no_text(shared: Served) -> None:
    body = b'{"grantType":"app_token","appId":"\\ud800","appSecret":"b"}'
    answer = await shared.ask(
        "POST", "/api/v1/token", data=body, token=None, headers={"Content-Type": "application/json"}
    )
    assert_is_error(answer, 400)


async def test_oauth_by_form_and_by_basic(shared: Served) -> None:
    form = {"grant_type": "client_credentials"}
    client = {"client_id": shared.client_id, "client_secret": shared.secret}
    by_form = await shared.ask("POST", "/api/v2/token", data=form | client, token=None)
    pair = f"{shared.client_id}:{shared.secret}".encode()
    by_basic = await shared.ask(
        "POST",
        "/api/v2/token",
        data=form,
        token=None,
        headers={"Authorization": f"Basic {base64.b64encode(pair).decode()}"},
    )
    for answer in (by_form, by_basic):
        assert answer.status == 200
        assert answer.json["token_type"] == "Bearer"
        assert answer.json["expires_in"] == SETTINGS.token_lifetime_seconds
        token = answer.json["access_token"]
        assert (await shared.get("/api/v1/me", token=token)).status == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, 400, "invalid_request"),
        (
            {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"},
            401,
            "invalid_client",
        ),
        ("grant_type=client_credentials&grant_type=password", 400, "invalid_request"),
        ("grant_type=%ff", 400, "invalid_request"),
        ("grant_type", 400, "invalid_request"),
    ],
)
async def test_oauth_errors_speak_both_languages(
    shared: Served, form: dict[str, str] | str, status: int, error: str
) -> None:
    answer = await shared.ask(
        "POST", "/api/v2/token", data=form, token=None, headers={"Content-Type": FORM}
    )
    assert_is_error(answer, status, is_oauth=True)
    assert answer.json["error"] == error


@pytest.mark.parametrize("credential", ["%%%", "", base64.b64encode(b"\xff:\xff").decode()])
async def test_malformed_basic(shared: Served, credential: str) -> None:
    answer = await shared.ask(
        "POST",
        "/api/v2/token",
        data={"grant_type": "client_credentials"},
        token=None,
        headers={"Authorization": f"Basic {credential}"},
    )
    assert_is_error(answer, 401, is_oauth=True)


async def test_ten_failures_a_minute_and_no_more(server: Served) -> None:
    body = {"grantType": "app_token", "appId": server.client_id, "appSecret": "wrong"}
    for _ in range(10):
        assert_is_error(await server.ask("POST", "/api/v1/token", json=body, token=None), 401)
    refused = await server.ask("POST", "/api/v1/token", json=body, token=None)
    assert_is_error(refused, 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    right = body | {"appSecret": server.secret}
    assert_is_error(await server.ask("POST", "/api/v1/token", json=right, token=None), 429)
    page = {"clientId": server.client_id, "clientSecret": server.secret}
    assert_is_error(await server.ask("POST", "/api/v1/session", json=page, token=None), 429)


async def test_two_authorization_fields_are_refused(shared: Served) -> None:
    token = f"Bearer {await shared.token()}"
    async with shared.session.get(
        f"{shared.url}/api/v1/me",
        headers=[("Authorization", token), ("Authorization", token)],  # type: ignore[arg-type]
    ) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("written", "status"),
    [("Bearer {0}", 200), ("bearer {0}", 200), ("BEARER {0}", 200), ("Bearer  {0}", 401),
     ("Bearer Bearer {0}", 401), ("{0}", 401), ("Token {0}", 401), ("Bearer", 401), ("Basic {0}", 401)],
)  # fmt: skip
async def test_the_scheme(shared: Served, written: str, status: int) -> None:
    header = {"Authorization": written.format(await shared.token())}
    assert (await shared.get("/api/v1/me", token=None, headers=header)).status == status


async def test_tokens_elsewhere_open_nothing(shared: Served) -> None:
    token = await shared.token()
    for path in (f"/api/v1/me?access_token={token}", f"/api/v1/me?token={token}"):
        assert_is_error(await shared.get(path, token=None), 401)
    cookie = {"Cookie": f"watchbill_session={token}; access_token={token}"}
    assert_is_error(await shared.get("/api/v1/me", token=None, headers=cookie), 401)


async def test_a_disabled_account_is_out_within_a_minute(embedded_engine: Engine) -> None:
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with serving(await fresh_database(embedded_engine), clock=clock) as served:
        rule = Rule(role="viewer", scope_kind="tenant", scope_id="1")
        now = datetime.now(UTC)
        client_id, secret = await account_create(served.db, 1, "ci", (rule,), now=now)
        token = await served.token_of(client_id, secret)
        assert (await served.get("/api/v1/workloads", token=token)).status == 200
        assert await account_disable(served.db, 1, client_id, now=now)
        shift = timedelta(seconds=59)
        assert_is_error(await served.get("/api/v1/workloads", token=token), 401)
        body = {"grantType": "app_token", "appId": client_id, "appSecret": secret}
        assert_is_error(await served.ask("POST", "/api/v1/token", json=body, token=None), 401)
        assert not await account_disable(served.db, 1, "nobody", now=now)


async def test_a_token_ends(embedded_engine: Engine) -> None:
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with serving(await fresh_database(embedded_engine), clock=clock) as served:
        token = await served.token()
        assert (await served.get("/api/v1/me", token=token)).status == 200
        shift = timedelta(seconds=SETTINGS.token_lifetime_seconds + 60)
        assert_is_error(await served.get("/api/v1/me", token=token), 401)


# Several servers, one database


async def test_any_server_takes_what_another_signed(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    async with serving(url) as first:
        token = await first.token()
        other = await Database.open(url, pool_size=2)
        async with listening(build_app(services_of(other, SETTINGS))) as elsewhere:
            second = replace(first, url=elsewhere)
            assert (await second.get("/api/v1/me", token=token)).status == 200
        await other.close()


async def test_servers_that_start_at_once_agree(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    db = await Database.open(url, pool_size=6)
    now = datetime.now(UTC)
    made = await asyncio.gather(*(account_create_first(db, now=now) for _ in range(6)))
    assert sum(cookie is not None for cookie in made) == 1
    rings = [Keyring(db, lambda: now) for _ in range(6)]
    keys = await asyncio.gather(*(ring.signing() for ring in rings))
    assert len({key.kid for key in keys}) == 1
    await db.close()


async def test_another_installations_tokens_open_nothing(embedded_engine: Engine) -> None:
    async with (
        serving(await fresh_database(embedded_engine)) as server,
        serving(await fresh_database(embedded_engine)) as other,
    ):
        assert_is_error(await other.get("/api/v1/me", token=await server.token()), 401)


# The page's session


async def log_in(served: Served, **options: object) -> Answer:
    body = {"clientId": served.client_id, "clientSecret": served.secret}
    return await served.ask("POST", "/api/v1/session", json=body, token=None, **options)


def cookie_of(answer: Answer) -> dict[str, str]:
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


async def test_a_session_reads_and_ends(server: Served) -> None:
    answer = await log_in(server)
    assert answer.status == 200
    assert answer.json["isAdministrator"] is True
    assert answer.json == (await server.get("/api/v1/me")).json
    attributes = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert "Domain" not in answer.headers["Set-Cookie"]
    cookie = cookie_of(answer)
    for name in of_login(LoginRequirement.CALLER):
        operation, sample = OPERATIONS[name], SAMPLES[name]
        if operation.method == "GET":
            got = await server.get(sample.path, token=None, headers=cookie)
            assert got.status in ((200, 404) if operation.takes_session else (401,)), name
        elif operation.takes_session:
            assert name in ("delete_session", "decide_device_login")
        else:
            got = await server.ask(
                operation.method, sample.path, token=None, headers=cookie, **sample.options
            )
            assert_is_error(got, 401)
    end = await server.ask("DELETE", "/api/v1/session", token=None, headers=cookie)
    assert end.status == 204
    assert "Max-Age=0" in end.headers["Set-Cookie"]
    assert_is_error(await server.get("/api/v1/me", token=None, headers=cookie), 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"Origin": "http://evil.example.com"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": "OURS"}, 200),
        ({"Origin": "OURS", "Sec-Fetch-Site": "cross-site"}, 401),
    ],
)
async def test_a_session_serves_its_own_origin(
    shared: Served, headers: dict[str, str], status: int
) -> None:
    cookie = cookie_of(await log_in(shared))
    sent = {name: shared.url if value == "OURS" else value for name, value in headers.items()}
    answer = await shared.get("/api/v1/workloads/count", token=None, headers=sent | cookie)
    assert answer.status == status


async def test_another_sites_page_signs_nobody_in(shared: Served) -> None:
    for headers in ({"Origin": "http://evil.example.com"}, {"Sec-Fetch-Site": "cross-site"}):
        assert_is_error(await log_in(shared, headers=headers), 403)


async def test_a_wrong_password_begins_no_session(shared: Served) -> None:
    body = {"clientId": shared.client_id, "clientSecret": "wrong"}
    answer = await shared.ask("POST", "/api/v1/session", json=body, token=None)
    assert_is_error(answer, 401)
    assert "Set-Cookie" not in answer.headers


async def test_sessions_end_by_themselves_and_are_kept_as_hashes(embedded_engine: Engine) -> None:
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with serving(await fresh_database(embedded_engine), clock=clock) as served:
        cookie = cookie_of(await log_in(served))
        assert (await served.get("/api/v1/me", token=None, headers=cookie)).status == 200
        value = cookie["Cookie"].partition("=")[2]
        async with served.db.acquire(1) as connection:
            rows = await connection.fetch("SELECT * FROM session")
            assert len(rows) == 1
            assert value.encode() not in rows[0]["token_hash"]
        shift = timedelta(seconds=SETTINGS.session_lifetime_seconds)
        assert_is_error(await served.get("/api/v1/me", token=None, headers=cookie), 401)


async def test_over_https_the_cookie_is_bound_to_the_host() -> None:
    name, value = set_cookie({"scheme": "https"}, SESSION_COOKIE, "x", max_age_seconds=5)
    assert name == b"set-cookie"
    assert value.startswith(b"__Host-watchbill_session=x; ")
    assert value.endswith(b"; Secure")


# Clusters and their agents


async def test_an_agents_credential_ends_with_its_cluster(server: Served) -> None:
    credential = await agent_credential(server)
    hello = await ask(server, "agent_hello", credential)
    assert hello.status == 200
    assert hello.json["clusterName"] == "north"
    (cluster,) = (await server.get("/api/v1/clusters")).json
    assert cluster["state"] == "connected"
    gone = await server.ask("DELETE", f"/api/v1/clusters/{cluster['id']}")
    assert gone.status == 204
    assert_is_error(await ask(server, "agent_hello", credential), 401)
    assert_is_error(await server.ask("DELETE", f"/api/v1/clusters/{cluster['id']}"), 404)
    assert (await server.get("/api/v1/clusters")).json == []


@pytest.mark.parametrize("name", ["", "a" * 64, "a b", "-a", "a\n", "ü", "<b>", "a/b", 5, None])
async def test_names_that_no_cluster_may_have(shared: Served, name: object) -> None:
    assert_is_error(await shared.ask("POST", "/api/v1/clusters", json={"name": name}), 400)


async def test_a_credential_is_shown_once_and_kept_as_a_hash(server: Served) -> None:
    credential = await agent_credential(server)
    secret = credential.rpartition(".")[2]
    assert secret not in json.dumps((await server.get("/api/v1/clusters")).json)
    async with server.db.acquire(1) as connection:
        row = await connection.fetchrow("SELECT c::text AS text FROM cluster c")
    assert secret not in row["text"]
    assert_is_error(await server.ask("POST", "/api/v1/clusters", json={"name": "north"}), 400)


async def test_the_right_cluster_with_the_wrong_secret(server: Served) -> None:
    credential = await agent_credential(server)
    other = (await agent_credential(server, "south")).rpartition(".")[2]
    swapped = f"{credential.rpartition('.')[0]}.{other}"
    assert_is_error(await ask(server, "agent_hello", swapped), 401)


async def test_requests_of_a_client_that_keeps_cookies(server: Served) -> None:
    """As a browser does it: log in, read, log out, with nothing but the jar."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        body = {"clientId": server.client_id, "clientSecret": server.secret}
        async with browser.post(f"{server.url}/api/v1/session", json=body) as response:
            assert response.status == 200
        async with browser.get(f"{server.url}/api/v1/workloads") as response:
            assert response.status == 200
        async with browser.delete(f"{server.url}/api/v1/session") as response:
            assert response.status == 204
        async with browser.get(f"{server.url}/api/v1/workloads") as response:
            assert response.status == 401
