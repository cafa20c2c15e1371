"""Logins and tokens of a strict OpenID provider: one that verifies PKCE, tells of people at its userinfo
endpoint alone, issues JWT access tokens, changes its keys, and is away at times."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
import yaml

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database, require
from tests.fixtures.identity import strict_provider
from tests.fixtures.identity.issuer import encoded
from tests.fixtures.identity.oidc_site import ran, session_of, start, watchbill
from tests.fixtures.identity.strict_provider import (
    AUDIENCE,
    CALLBACK,
    PUBLIC_URL,
    Provider,
    new_key,
    running_provider,
)
from tests.fixtures.serving import SETTINGS, Answer, Served, serving
from watchbill.access.oidc import oidc_login

OLD_KEY, KEY, NEXT_KEY = new_key("old"), new_key("present"), new_key("next")
ML_TEAM = {"subject": {"group": "ml-team"}, "role": "viewer", "scope": {"tenant": True}}


@dataclass
class Site:
    """A server whose people log in at the provider, with a clock that tests may move."""

    served: Served
    provider: Provider
    shift: list[timedelta] = field(default_factory=lambda: [timedelta()])

    def later(self, **by: float) -> None:
        self.shift[0] += timedelta(**by)

    async def me(self, token: str) -> Answer:
        return await self.served.get("/api/v1/me", token=token)

    async def logged_in(self, login: str) -> Answer:
        address, kept = await start(self.served)
        query = await self.provider.log_in(address, login)
        return await self.back(query, kept)

    async def back(self, query: str, kept: str) -> Answer:
        return await self.served.get(f"{CALLBACK}?{query}", token=None, headers={"Cookie": kept})

    async def groups_of(self, name: str) -> list[str]:
        users = (await self.served.get("/api/v1/admin/users")).json["users"]
        [result] = [user["groups"] for user in users if user["name"] == name]
        return list(result)


@asynccontextmanager
async def site(engine: Engine, folder: Path, provider: Provider) -> AsyncIterator[Site]:
    secret = folder / "secret"
    secret.write_text(strict_provider.SECRET + "\n")
    issuer = {
        "name": "corp",
        "issuer": provider.url,
        "audience": AUDIENCE,
        "clientId": strict_provider.PAGE_CLIENT,
        "clientSecretFile": str(secret),
        "scopes": ["openid", "email", "groups"],
    }
    path = folder / "access-config.yaml"
    path.write_text(yaml.safe_dump({"issuers": [issuer]}))
    shift = [timedelta()]
    settings = replace(SETTINGS, access_config=path, public_url=PUBLIC_URL)
    clock = lambda: datetime.now(UTC) + shift[0]  # noqa: E731
    async with serving(await fresh_database(engine), settings, clock=clock) as served:
        yield Site(served, provider, shift)


@pytest_asyncio.fixture(scope="module")
async def provider() -> AsyncIterator[Provider]:
    require("strict OpenID provider")
    async with running_provider(KEY) as provider:
        yield provider


@pytest_asyncio.fixture(scope="module")
async def shared_site(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory, provider: Provider
) -> AsyncIterator[Site]:
    async with site(embedded_engine, tmp_path_factory.mktemp("config"), provider) as login_site:
        yield login_site


@pytest.fixture
def at(shared_site: Site) -> Site:
    """For the tests that leave clock, keys and provider alone; none pays for another's failed logins."""
    shared_site.served.services.login_limiter._attempts.clear()
    return shared_site


@pytest_asyncio.fixture
async def own(embedded_engine: Engine, tmp_path: Path) -> AsyncIterator[Site]:
    """A test's own provider and server."""
    require("strict OpenID provider")
    async with (
        running_provider(KEY) as provider,
        site(embedded_engine, tmp_path, provider) as login_site,
    ):
        yield login_site


# Logins of the page


async def test_a_login_whose_pkce_the_provider_verified(at: Site) -> None:
    answer = await at.logged_in("ada")
    assert answer.status == 200, answer.body
    cookie = session_of(answer)
    me = (await at.served.get("/api/v1/me", token=None, headers=cookie)).json
    assert (me["subject"], me["kind"], me["permissions"]) == ("ada@example.com", "user", [])
    # The ID token says neither: both came from the userinfo endpoint.
    assert await at.groups_of("ada@example.com") == ["all", "ml-team"]


async def test_the_provider_refuses_another_verifier(
    at: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_login, "_challenge", lambda _: "x" * 43)
    answer = await at.logged_in("ada")
    assert_is_error(answer, 401)
    assert "watchbill_session" not in str(answer.headers)
    refused = (await at.provider.state())["refusedGrants"]
    assert refused[-1] == "invalid_grant: code_verifier does not match code_challenge"


@pytest.mark.parametrize("left_out", ["code_challenge", "code_challenge_method"])
async def test_the_provider_wants_a_challenge(at: Site, left_out: str) -> None:
    address, kept = await start(at.served)
    without = re.sub(rf"&{left_out}=[^&]*", "", address)
    query = await at.provider.log_in(without, "ada")
    assert parse_qs(query)["error"] == ["invalid_request"]
    assert_is_error(await at.back(query, kept), 401)


@pytest.mark.parametrize("member", ["state", "nonce"])
async def test_a_login_that_was_begun_with_something_else(at: Site, member: str) -> None:
    """The provider itself says state and nonce as it was asked to: another one is another login's."""
    address, kept = await start(at.served)
    other = re.sub(rf"&{member}=[^&]*", f"&{member}=" + "o" * 43, address)
    assert other != address
    assert_is_error(await at.back(await at.provider.log_in(other, "ada"), kept), 401)


async def test_a_code_is_good_once_and_for_its_own_login(at: Site) -> None:
    address, kept = await start(at.served)
    query = await at.provider.log_in(address, "ada")
    other_address, other_kept = await start(at.served)
    other = parse_qs(await at.provider.log_in(other_address, "ada"))
    mixed = re.sub(r"code=[^&]*", f"code={other['code'][0]}", query)
    assert_is_error(await at.back(mixed, kept), 401)  # the other login's code, by its verifier
    assert_is_error(await at.back(query, other_kept), 401)
    assert (await at.back(query, kept)).status == 200
    assert_is_error(await at.back(query, kept), 401)


async def test_the_issuer_must_name_itself(at: Site) -> None:
    """This provider says that its answers name it (RFC 9207): one that does not is another's."""
    address, kept = await start(at.served)
    query = await at.provider.log_in(address, "ada")
    assert "iss=" in query
    assert_is_error(await at.back(re.sub(r"&iss=[^&]*", "", query), kept), 401)


async def test_an_unverified_address_opens_nothing(at: Site) -> None:
    assert_is_error(await at.logged_in("grace"), 401)


@pytest.mark.parametrize(
    ("login", "groups"), [("ada", ["all", "ml-team"]), ("text", ["ml-team"]), ("none", []), ("many", [])]
)  # fmt: skip
async def test_groups_in_logins_and_tokens(at: Site, login: str, groups: list[str]) -> None:
    """A list; one text; none; and so many that the provider only says where to ask: nobody's guess."""
    assert (await at.logged_in(login)).status == 200
    assert await at.groups_of(f"{login}@example.com") == groups
    token = (await at.provider.tokens(login))["access_token"]
    assert (await at.me(token)).json["subject"] == f"{login}@example.com"
    assert await at.groups_of(f"{login}@example.com") == groups


# Tokens on the API


async def test_its_access_tokens_open_the_api(own: Site) -> None:
    token = (await own.provider.tokens("ada"))["access_token"]
    me = (await own.me(token)).json
    assert (me["subject"], me["kind"], me["permissions"]) == ("ada@example.com", "user", [])
    assert_is_error(await own.served.get("/api/v1/workloads", token=token), 403)
    assert (await own.served.ask("POST", "/api/v1/admin/rules", json=ML_TEAM)).status == 201
    own.later(seconds=31)
    assert (await own.served.get("/api/v1/workloads", token=token)).status == 200


async def test_its_other_tokens_do_not(at: Site) -> None:
    granted = await at.provider.tokens("ada")
    elsewhere = await at.provider.tokens("ada", resource="urn:somebody:else")
    opaque = await at.provider.tokens("ada", resource=None)
    for name, token in {
        "ID token": granted["id_token"],
        "another audience": elsewhere["access_token"],
        "for the userinfo endpoint": opaque["access_token"],
        "signature of another": granted["access_token"].rpartition(".")[0]
        + "."
        + elsewhere["access_token"].rpartition(".")[2],
    }.items():
        answer = await at.me(token)
        assert_is_error(answer, 401)
        assert answer.json["message"] == "The token is not valid.", name
    unverified = (await at.provider.tokens("grace"))["access_token"]
    assert_is_error(await at.me(unverified), 401)


# Its keys, and its absence


async def test_keys_change_with_an_overlap(own: Site) -> None:
    old = (await own.provider.tokens("ada"))["access_token"]
    assert (await own.me(old)).status == 200
    await own.provider.stop()
    await own.provider.start([NEXT_KEY, KEY])
    own.later(seconds=31)
    new = (await own.provider.tokens("ada"))["access_token"]
    assert (await own.me(new)).status == 200
    assert (await own.me(old)).status == 200
    await own.provider.stop()
    await own.provider.start([NEXT_KEY])
    own.later(minutes=11)
    await own.me(new)  # makes the server look, aside
    for _ in range(100):
        if (await own.me(old)).status == 401:
            break
        await asyncio.sleep(0.05)
    assert_is_error(await own.me(old), 401)
    assert (await own.me(new)).status == 200


async def test_while_it_is_away(own: Site) -> None:
    token = (await own.provider.tokens("ada"))["access_token"]
    assert (await own.me(token)).status == 200
    address, kept = await start(own.served)
    query = await own.provider.log_in(address, "ada")
    await own.provider.stop()
    for _ in range(5):
        own.later(minutes=12)
        assert (await own.me(token)).status == 200, "known keys serve"
    assert_is_error(await own.back(query, kept), 401)  # an hour later: begun too long ago
    _, kept = await start(own.served)
    state = parse_qs(urlsplit((await start(own.served))[0]).query)["state"][0]
    answer = await own.back(f"code=x&state={state}&iss={own.provider.url}", kept)
    assert_is_error(answer, 401)
    address, kept = await start(own.served)
    state = parse_qs(urlsplit(address).query)["state"][0]
    away = await own.back(f"code=x&state={state}&iss={own.provider.url}", kept)
    assert_is_error(away, 503)
    await own.provider.start([KEY])
    assert (await own.logged_in("ada")).status == 200


async def test_a_server_that_starts_while_it_is_away(own: Site) -> None:
    token = (await own.provider.tokens("ada"))["access_token"]
    await own.provider.stop()
    assert_is_error(await own.me(token), 503)
    assert_is_error(await own.served.get("/api/v1/session/oidc/corp/start", token=None), 503)
    assert (await own.served.get("/api/v1/workloads")).status == 200, "others are not concerned"
    await own.provider.start([KEY])
    own.later(seconds=31)
    assert (await own.me(token)).status == 200


@pytest.mark.parametrize("fault", ["500", "garbage", "huge", "twins"])
async def test_its_keys_cannot_be_had(own: Site, fault: str) -> None:
    token = (await own.provider.tokens("ada"))["access_token"]
    await own.provider.state(fault)
    answer = await own.me(token)
    assert_is_error(answer, 401 if fault == "twins" else 503)
    await own.provider.state("")
    own.later(seconds=31)
    assert (await own.me(token)).status == 200
    await own.provider.state(fault)
    own.later(minutes=11)
    if fault != "twins":
        for _ in range(3):
            assert (await own.me(token)).status == 200, "known keys serve"
            await asyncio.sleep(0.05)


async def test_a_storm_of_unknown_keys(own: Site) -> None:
    """Whatever key ids are invented, the provider is asked once in half a minute."""
    head, body, signature = (await own.provider.tokens("ada"))["access_token"].split(".")
    assert (await own.me(f"{head}.{body}.{signature}")).status == 200
    before = (await own.provider.state())["jwks"]

    def invented(number: int) -> str:
        header = json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"invented-{number}"})
        return f"{encoded(header.encode())}.{body}.{signature}"

    for minute in range(3):
        own.later(seconds=31)
        answers = await asyncio.gather(*(own.me(invented(minute * 100 + n)) for n in range(40)))
        assert {answer.status for answer in answers} == {401}
        assert (await own.provider.state())["jwks"] == before + minute + 1


# A program that logs in by a device code


async def test_the_command_line_logs_in(own: Site, tmp_path: Path) -> None:
    assert (await own.served.ask("POST", "/api/v1/admin/rules", json=ML_TEAM)).status == 201
    cookie = session_of(await own.logged_in("ada"))
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHBILL", "RUNAI"))
    } | {"WATCHBILL_LOGIN_FILE": str(tmp_path / "login.json")}
    process = await watchbill(env, "login", "--url", own.served.url)
    assert process.stderr is not None
    text = ""
    while "confirm the code" not in text:
        line = (await process.stderr.readline()).decode()
        assert line, text
        text += line
    code = re.search(r"([A-Z]{4}-[A-Z]{4})\.", text)
    assert code is not None
    page = await own.served.get(f"/device?user_code={code[1]}", token=None, headers=cookie)
    assert b"ada@example.com" in page.body
    form = {"user_code": code[1].replace("-", ""), "decision": "approve"}
    done = await own.served.ask(
        "POST", "/api/v1/session/device", data=form, token=None, headers=cookie
    )
    assert done.status == 200
    await process.communicate()
    assert process.returncode == 0
    assert (await ran(env, "count"))[0].strip() == "0"
    events = (await own.served.get("/api/v1/admin/audit?operation=create_token_v2")).json["events"]
    assert ("ada@example.com", 200) in {(event["subject"], event["outcome"]) for event in events}
