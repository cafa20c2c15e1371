"""Logins of people against a real OpenID provider: the page's, a program's, and what follows from them."""

import re
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.identity.oidc_site import (
    BROWSER,
    CALLBACK,
    Site,
    authorize,
    logged_in,
    session_of,
    start,
)
from tests.fixtures.identity.oidc_site import at as at
from tests.fixtures.identity.oidc_site import provider as provider
from watchbill.access.oidc.oidc_login import local_path


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
    assert [(event["subject"], event["outcome"]) for event in events] == [("ada@example.com", 200)]


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


# The command line
