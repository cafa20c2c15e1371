"""Logins of people against a real OpenID provider: the page's, a program's, and what follows from them."""

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.api.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import SETTINGS, Answer, Served, serving
from watchbill.access.oidc.oidc_login import local_path
from watchbill.identity import administrator_rule
from watchbill.store.identity.administration import RuleChange, rule_change

CLIENT_ID = "watchbill-page"
ADA = {
    "sub": "ada",
    "email": "ada@example.com",
    "email_verified": True,
    "groups": ["ml-team"],
}
GRACE = {"sub": "grace", "email": "grace@example.com", "email_verified": False}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture(scope="module")
async def provider() -> AsyncIterator[str]:
    """The address of a provider that knows Ada and Grace."""
    port = _free_port()
    users = [part for user in (ADA, GRACE) for part in ("--user-claims", json.dumps(user))]
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *users],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(200):
                try:
                    async with session.get(f"{url}/.well-known/openid-configuration") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


class Site:
    """A server where people log in through the provider, with a clock that tests may move."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.shift = timedelta()


@asynccontextmanager
async def site(engine: Engine, folder: Path, provider: str) -> AsyncIterator[Site]:
    secret = folder / "secret"
    secret.write_text("page-secret\n")
    configured = {
        "name": "corp",
        "title": "Example Corp",
        "issuer": provider,
        "clientId": CLIENT_ID,
        "clientSecretFile": str(secret),
    }
    path = folder / "access-config.yaml"
    path.write_text(yaml.safe_dump({"issuers": [configured]}))
    shift = [timedelta()]
    public = "http://watchbill.example.com"
    settings = replace(SETTINGS, access_config=path, public_url=public)
    clock = lambda: datetime.now(UTC) + shift[0]  # noqa: E731
    async with serving(await fresh_database(engine), settings, clock=clock) as served:
        found = Site(served)
        type(found).shift = property(  # type: ignore[assignment, method-assign]
            lambda _: shift[0], lambda _, value: shift.__setitem__(0, value)
        )
        found.shift = timedelta()
        yield found


@pytest_asyncio.fixture
async def at(embedded_engine: Engine, tmp_path: Path, provider: str) -> AsyncIterator[Site]:
    async with site(embedded_engine, tmp_path, provider) as found:
        yield found


CALLBACK = "/api/v1/session/oidc/corp/callback"


async def start(served: Served, then: str = "/workloads") -> tuple[str, str]:
    """The address at the provider, and the cookie that the browser keeps."""
    answer = await served.get(f"/api/v1/session/oidc/corp/start?next={quote(then)}", token=None)
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"]
    assert "SameSite=Lax" in cookie
    assert "HttpOnly" in cookie
    return answer.headers["Location"], cookie.partition(";")[0]


async def authorize(address: str, user: str) -> str:
    """What the provider sends the browser back with."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.post(address, data={"sub": user}, allow_redirects=False) as answer,
    ):
        assert answer.status == 302
        back = urlsplit(answer.headers["Location"])
        assert (
            f"{back.scheme}://{back.netloc}{back.path}" == f"http://watchbill.example.com{CALLBACK}"
        )
        return back.query


async def logged_in(served: Served, user: str = "ada", then: str = "/workloads") -> Answer:
    address, kept = await start(served, then)
    query = await authorize(address, user)
    return await served.get(f"{CALLBACK}?{query}", token=None, headers={"Cookie": kept})


def session_of(answer: Answer) -> dict[str, str]:
    for text in answer.headers.getall("Set-Cookie"):  # type: ignore[attr-defined]
        if text.startswith("watchbill_session="):
            assert "SameSite=Strict" in text
            return {"Cookie": text.partition(";")[0]}
    raise AssertionError("no session came with the answer")


async def test_a_login_through_the_provider(at: Site) -> None:
    served = at.served
    assert (await served.get("/api/v1/session/oidc", token=None)).json == {
        "issuers": [{"name": "corp", "title": "Example Corp"}]
    }
    address, _ = await start(served)
    sent = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert sent["code_challenge_method"] == "S256"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", sent["code_challenge"])
    assert sent["redirect_uri"] == f"http://watchbill.example.com{CALLBACK}"
    answer = await logged_in(served)
    assert answer.status == 200, answer.body
    assert b'url=/workloads"' in answer.body
    cookie = session_of(answer)
    me = (await served.get("/api/v1/me", token=None, headers=cookie)).json
    assert (me["subject"], me["kind"], me["permissions"]) == ("ada@example.com", "user", [])
    # The first login may do nothing.
    assert_is_error(await served.get("/api/v1/workloads", token=None, headers=cookie), 403)
    rule = {"subject": {"group": "ml-team"}, "role": "viewer", "scope": {"tenant": True}}
    assert (await served.ask("POST", "/api/v1/admin/rules", json=rule)).status == 201
    at.shift = timedelta(seconds=31)
    assert (await served.get("/api/v1/workloads", token=None, headers=cookie)).status == 200
    events = (await served.get("/api/v1/admin/audit?operation=finish_oidc_login")).json["events"]
    assert [(one["subject"], one["outcome"]) for one in events] == [("ada@example.com", 200)]


async def test_who_is_not_verified_does_not_come_in(at: Site) -> None:
    assert_is_error(await logged_in(at.served, "grace"), 401)


async def test_a_login_belongs_to_the_browser_that_began_it(at: Site) -> None:
    served = at.served
    address, kept = await start(served)
    query = await authorize(address, "ada")
    _, other = await start(served)
    state = f"state={parse_qs(query)['state'][0]}"
    for cookie, sent in (
        ({}, query),
        ({"Cookie": other}, query),
        ({"Cookie": kept + "x"}, query),
        ({"Cookie": "watchbill_login=" + await served.token()}, query),
        ({"Cookie": kept}, query.replace(state, "state=other")),
        ({"Cookie": kept}, query.replace(state, "")),
        ({"Cookie": kept}, query + "&iss=https%3A%2F%2Fevil.example.com"),
        ({"Cookie": kept}, query + "&error=access_denied"),
        ({"Cookie": kept}, state),
        ({"Cookie": kept}, f"{state}&code=invented"),
    ):
        answer = await served.get(f"{CALLBACK}?{sent}", token=None, headers=cookie)
        assert answer.status in (401, 503), sent
        assert "watchbill_session" not in str(answer.headers)
    fine = await served.get(f"{CALLBACK}?{query}", token=None, headers={"Cookie": kept})
    assert fine.status == 200


async def test_a_login_across_a_change_of_keys(at: Site) -> None:
    """An ordinary change ends no login that was begun; one at once does, as it ends every token."""
    for at_once, status in ((False, 200), (True, 401)):
        address, kept = await start(at.served)
        query = await authorize(address, "ada")
        body = {"atOnce": at_once}
        changed = await at.served.ask("POST", "/api/v1/admin/keys/rotate", json=body)
        assert changed.status < 300, changed.body
        answer = await at.served.get(f"{CALLBACK}?{query}", token=None, headers={"Cookie": kept})
        assert answer.status == status, at_once


async def test_a_login_that_took_too_long(at: Site) -> None:
    address, kept = await start(at.served)
    query = await authorize(address, "ada")
    at.shift = timedelta(seconds=601)
    answer = await at.served.get(f"{CALLBACK}?{query}", token=None, headers={"Cookie": kept})
    assert_is_error(answer, 401)


@pytest.mark.parametrize(
    "sent",
    ["//evil.example.com", "https://evil.example.com", "/\\evil.example.com", "javascript:alert(1)",
     "/a\nb", "/%0d%0aSet-Cookie:x=y" + "a" * 600, "", "workloads", "/<script>", '/"onload="x'],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(sent: str) -> None:
    assert local_path(sent) == "/"


def test_paths_of_this_site_are_kept() -> None:
    for path in ("/", "/workloads?filterBy=phase==Pending", "/device?user_code=BCDF-GHJK"):
        assert local_path(path) == path


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browser_is_brought_back_to_the_login_with_a_word(at: Site) -> None:
    """And with nothing of what the issuer, or whoever pretends to be it, has sent."""
    address, kept = await start(at.served, "/fleet?by=type")
    query = await authorize(address, "grace")
    state = f"state={parse_qs(query)['state'][0]}"
    hostile = quote('"><script>alert(1)</script>')
    for cookie, sent, word, then in (
        ({}, f"code={hostile}&state={hostile}", "expired", "/"),
        ({"Cookie": "watchbill_login=x.y.z"}, query, "expired", "/"),
        ({"Cookie": kept}, f"{state}&error={hostile}&error_description={hostile}", "declined", None),
        ({"Cookie": kept}, f"{state}&error=access_denied&iss=https%3A%2F%2Fevil.example.com",
         "declined", None),
        ({"Cookie": kept}, f"{state}&code={hostile}", "refused", None),
        ({"Cookie": kept}, query, "refused", None),
    ):  # fmt: skip
        answer = await at.served.get(f"{CALLBACK}?{sent}", token=None, headers=BROWSER | cookie)
        assert answer.status == 401, sent
        assert answer.headers["Content-Type"].startswith("text/html")
        text = answer.body.decode()
        then = then if then is not None else "/fleet?by=type"
        back = f"/login?failed={word}&amp;issuer=corp&amp;next={quote(then, safe='')}"
        assert text.count("<a href=") == 1
        assert f'<a href="{back}">' in text
        assert f'content="0;url={back}"' in text
        assert "script" not in text
        assert "evil" not in text
        (cleared,) = answer.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
        assert cleared.startswith("watchbill_login=; Max-Age=0;")


async def test_failures_of_one_login_keep_no_other_out(at: Site) -> None:
    """All behind one proxy have one address here: only the login that was begun has its tries used up."""
    address, kept = await start(at.served)
    state = parse_qs(urlsplit(address).query)["state"][0]
    bad = f"{CALLBACK}?state={state}&code=invented"
    seen = []
    for _ in range(11):
        answer = await at.served.get(bad, token=None, headers=BROWSER | {"Cookie": kept})
        seen.append(answer.status)
    assert seen == [401] * 10 + [429]
    assert b"failed=busy" in answer.body
    for _ in range(30):
        assert_is_error(await at.served.get(f"{CALLBACK}?code=x", token=None), 401)
    assert (await logged_in(at.served)).status == 200


async def test_unknown_issuers(at: Site) -> None:
    for name in ("nobody", "..", "corp%2F..", "CORP"):
        answer = await at.served.get(f"/api/v1/session/oidc/{name}/start", token=None)
        assert_is_error(answer, 404)


# Programs


async def begin(served: Served) -> dict[str, str]:
    form = {"client_id": "watchbill-cli"}
    answer = await served.ask("POST", "/api/v2/device_authorization", data=form, token=None)
    assert answer.status == 200
    return dict(answer.json)


async def grant(served: Served, **form: str) -> Answer:
    return await served.ask("POST", "/api/v2/token", data=form, token=None)


DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


async def confirmed(served: Served, cookie: dict[str, str], decision: str = "approve") -> Answer:
    """A device login from its begin to the answer that the program gets."""
    begun = await begin(served)
    page = await served.get(
        urlsplit(begun["verification_uri_complete"])._replace(scheme="", netloc="").geturl(),
        token=None,
        headers=cookie,
    )
    assert b"ada@example.com" in page.body
    assert begun["user_code"].replace("-", "").encode() in page.body
    form = {"user_code": begun["user_code"], "decision": decision}
    headers = cookie | {"Origin": served.url}
    done = await served.ask(
        "POST", "/api/v1/session/device", data=form, token=None, headers=headers
    )
    assert done.status == 200
    return await grant(served, grant_type=DEVICE, device_code=begun["device_code"])


async def test_a_device_login(at: Site) -> None:
    served = at.served
    cookie = session_of(await logged_in(served))
    begun = await begin(served)
    waiting = await grant(served, grant_type=DEVICE, device_code=begun["device_code"])
    assert (waiting.status, waiting.json["error"]) == (400, "authorization_pending")
    again = await grant(served, grant_type=DEVICE, device_code=begun["device_code"])
    assert again.json["error"] == "slow_down"
    granted = await confirmed(served, cookie)
    assert granted.status == 200, granted.body
    token = granted.json["access_token"]
    assert (await served.get("/api/v1/me", token=token)).json["subject"] == "ada@example.com"
    refused = await confirmed(served, cookie, "deny")
    assert refused.json["error"] == "access_denied"
    at.shift = timedelta(minutes=11)
    late = await grant(served, grant_type=DEVICE, device_code=begun["device_code"])
    assert late.json["error"] == "expired_token"


async def test_a_device_login_is_confirmed_by_our_page_alone(at: Site) -> None:
    served = at.served
    cookie = session_of(await logged_in(served))
    begun = await begin(served)
    form = {"user_code": begun["user_code"], "decision": "approve"}
    for headers, status in (
        (cookie | {"Origin": "https://evil.example.com"}, 401),
        (cookie | {"Sec-Fetch-Site": "cross-site"}, 401),
        ({}, 401),
        ({"Authorization": f"Bearer {await served.token()}"}, 400),
    ):
        answer = await served.ask(
            "POST", "/api/v1/session/device", data=form, token=None, headers=headers
        )
        assert_is_error(answer, status)
    waiting = await grant(served, grant_type=DEVICE, device_code=begun["device_code"])
    assert waiting.json["error"] == "authorization_pending"
    unknown = form | {"user_code": "BBBB-BBBB"}
    answer = await served.ask(
        "POST", "/api/v1/session/device", data=unknown, token=None, headers=cookie
    )
    assert_is_error(answer, 404)
    assert b"Log in with Example Corp" in (await served.get("/device", token=None)).body


async def test_refresh_tokens_are_good_once(at: Site) -> None:
    served = at.served
    granted = await confirmed(served, session_of(await logged_in(served)))
    first = granted.json["refresh_token"]
    second = await grant(served, grant_type="refresh_token", refresh_token=first)
    assert second.status == 200
    token, fresh = second.json["access_token"], second.json["refresh_token"]
    assert fresh != first
    as_json = {"grantType": "refresh_token", "refreshToken": fresh}
    third = await served.ask("POST", "/api/v1/token", json=as_json, token=None)
    assert third.status == 200
    assert (await served.get("/api/v1/me", token=token)).status == 200
    # The first one again: somebody has it who should not. Nothing of this login is good any more.
    reused = await grant(served, grant_type="refresh_token", refresh_token=first)
    assert (reused.status, reused.json["error"]) == (400, "invalid_grant")
    newest = third.json["refreshToken"]
    after = await grant(served, grant_type="refresh_token", refresh_token=newest)
    assert after.json["error"] == "invalid_grant"
    at.shift = timedelta(seconds=59)
    for stale in (token, third.json["accessToken"], granted.json["access_token"]):
        assert_is_error(await served.get("/api/v1/me", token=stale), 401)
    async with served.db.acquire(1) as connection:
        kept = await connection.fetch("SELECT t::text AS text FROM refresh_token t")
    assert not any(first[4:] in row["text"] for row in kept)


async def test_two_uses_at_once_are_one_and_a_theft(at: Site) -> None:
    served = at.served
    granted = await confirmed(served, session_of(await logged_in(served)))
    token = granted.json["refresh_token"]
    answers = await asyncio.gather(
        *(grant(served, grant_type="refresh_token", refresh_token=token) for _ in range(5))
    )
    assert sorted(one.status for one in answers) == [200, 400, 400, 400, 400]


async def test_a_login_that_was_revoked(at: Site) -> None:
    served = at.served
    granted = await confirmed(served, session_of(await logged_in(served)))
    form = {"token": granted.json["refresh_token"]}
    for sent in (form, form, {"token": "nonsense"}):
        assert (await served.ask("POST", "/api/v2/revoke", data=sent, token=None)).status == 200
    at.shift = timedelta(seconds=59)
    assert_is_error(await served.get("/api/v1/me", token=granted.json["access_token"]), 401)


async def test_access_keys(at: Site) -> None:
    served = at.served
    granted = await confirmed(served, session_of(await logged_in(served)))
    token = granted.json["access_token"]
    made = await served.ask("POST", "/api/v1/me/keys", json={"name": "notebook"}, token=token)
    assert made.status == 201
    client_id, secret = made.json["clientId"], made.json["clientSecret"]
    as_key = await served.token_of(client_id, secret)
    me = (await served.get("/api/v1/me", token=as_key)).json
    assert (me["subject"], me["kind"]) == ("ada@example.com", "user")
    listed = (await served.get("/api/v1/me/keys", token=token)).json["accessKeys"]
    assert [one["clientId"] for one in listed] == [client_id]
    assert secret not in json.dumps(listed)
    # A key makes no other key, and ends no other's.
    refused = await served.ask("POST", "/api/v1/me/keys", json={"name": "x"}, token=as_key)
    assert_is_error(refused, 403)
    for bad in ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2027-01-01T00:00:00"):
        body = {"name": "x", "expiresAt": bad}
        answer = await served.ask("POST", "/api/v1/me/keys", json=body, token=token)
        assert_is_error(answer, 400)
    path = f"/api/v1/me/keys/{served.client_id}"
    assert_is_error(await served.ask("DELETE", path, token=token), 404)
    gone = await served.ask("DELETE", f"/api/v1/me/keys/{client_id}", token=token)
    assert gone.status == 204
    at.shift = timedelta(seconds=59)
    assert_is_error(await served.get("/api/v1/me", token=as_key), 401)


async def test_groups_count_until_the_issuer_should_have_spoken_again(at: Site) -> None:
    """Whoever left a group at the issuer does not keep its rules for as long as an access key lives."""
    served = at.served
    rule = {"subject": {"group": "ml-team"}, "role": "viewer", "scope": {"tenant": True}}
    assert (await served.ask("POST", "/api/v1/admin/rules", json=rule)).status == 201
    granted = await confirmed(served, session_of(await logged_in(served)))
    made = await served.ask(
        "POST", "/api/v1/me/keys", json={"name": "old"}, token=granted.json["access_token"]
    )
    client_id, secret = made.json["clientId"], made.json["clientSecret"]

    async def status() -> int:
        token = await served.token_of(client_id, secret)
        return (await served.get("/api/v1/workloads", token=token)).status

    assert await status() == 200
    at.shift = timedelta(days=29)
    assert await status() == 200
    at.shift = timedelta(days=31)
    assert await status() == 403


async def test_an_access_key_ends_by_itself(at: Site) -> None:
    served = at.served
    granted = await confirmed(served, session_of(await logged_in(served)))
    ends = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    made = await served.ask(
        "POST",
        "/api/v1/me/keys",
        json={"name": "short", "expiresAt": ends},
        token=granted.json["access_token"],
    )
    token = await served.token_of(made.json["clientId"], made.json["clientSecret"])
    assert (await served.get("/api/v1/me", token=token)).status == 200
    at.shift = timedelta(minutes=31)
    assert_is_error(await served.get("/api/v1/me", token=token), 401)
    body = {
        "grantType": "client_credentials",
        "clientId": made.json["clientId"],
        "clientSecret": made.json["clientSecret"],
    }
    assert_is_error(await served.ask("POST", "/api/v1/token", json=body, token=None), 401)


# The command line


async def watchbill(env: dict[str, str], *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "watchbill", *words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ran(env: dict[str, str], *words: str, code: int = 0) -> tuple[str, str]:
    process = await watchbill(env, *words)
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode(), err.decode()


async def test_login_on_the_command_line(at: Site, tmp_path: Path) -> None:
    served, file = at.served, tmp_path / "home" / "login.json"
    cookie = session_of(await logged_in(served))
    change = RuleChange(added=(("user", "ada@example.com", administrator_rule(1)),), removed=())
    await rule_change(served.db, 1, change, changed_by="test", now=datetime.now(UTC))
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHBILL", "RUNAI"))
    } | {"WATCHBILL_LOGIN_FILE": str(file)}
    process = await watchbill(env, "login", "--url", served.url)
    assert process.stderr is not None
    text = ""
    while "confirm the code" not in text:
        line = (await process.stderr.readline()).decode()
        assert line, text
        text += line
    code = re.search(r"([A-Z]{4}-[A-Z]{4})\.", text)
    assert code is not None
    form = {"user_code": code[1], "decision": "approve"}
    done = await served.ask("POST", "/api/v1/session/device", data=form, token=None, headers=cookie)
    assert done.status == 200
    await process.communicate()
    assert process.returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "SUBJECT" in (await ran(env, "admin", "rule", "list"))[0]
    # Several programs whose token has ended renew it one after the other, not over each other.
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"access_token_ends": 0}))
    await asyncio.gather(*(ran(env, "count") for _ in range(3)))
    assert json.loads(file.read_text())["refresh_token"] != stored["refresh_token"]
    made = json.loads((await ran(env, "key", "create", "notebook"))[0])
    assert made["clientId"] in (await ran(env, "key", "list"))[0]
    file.chmod(0o644)
    _, error = await ran(env, "count", code=2)
    assert "Others may read" in error
    file.chmod(0o600)
    await ran(env, "logout")
    assert not file.exists()
    await ran(env, "count", "--url", served.url, code=2)
