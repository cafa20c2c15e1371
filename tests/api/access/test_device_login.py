"""Device logins, refresh tokens, access keys, and how long the groups of a user count."""

import asyncio
import json
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.identity.oidc_site import (
    DEVICE,
    Site,
    begin,
    confirmed,
    grant,
    logged_in,
    ran,
    session_of,
    watchbill,
)
from tests.fixtures.identity.oidc_site import at as at
from tests.fixtures.identity.oidc_site import provider as provider
from watchbill.identity import administrator_rule
from watchbill.store.identity.administration import RuleChange, rule_change

BY_CLICK = {
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-User": "?1",
}
BY_SCRIPT = (
    BY_CLICK | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    BY_CLICK | {"Sec-Fetch-Dest": "iframe"},
    {name: value for name, value in BY_CLICK.items() if name != "Sec-Fetch-User"},
)
"""What a browser sends for another program's page on the same host, which nobody need see."""


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
        *((cookie | headers, 400) for headers in BY_SCRIPT),
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
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400, 400]


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
    assert [login["clientId"] for login in listed] == [client_id]
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
    assert "Other users can read" in error
    file.chmod(0o600)
    await ran(env, "logout")
    assert not file.exists()
    await ran(env, "count", "--url", served.url, code=2)
