"""What an issuer says in two places: the ID token's word counts, and the userinfo endpoint completes it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from watchbill.access.oidc import provider as provider_module
from watchbill.access.oidc.configuration import ClaimNames, Issuer
from watchbill.access.oidc.provider import Provider
from watchbill.access.oidc.verification import external_login, has_missing_claims, merge_userinfo
from watchbill.access.tokens.jose import InvalidToken
from watchbill.errors import Unavailable

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ISSUER = Issuer(name="corp", issuer="https://id.example.com", client_id="page")
CLAIMS = {"sub": "u-1", "iss": ISSUER.issuer, "iat": 1_795_000_000}
ADA = {"email": "ada@example.com", "email_verified": True, "groups": ["ml-team"]}


@pytest.mark.parametrize("more", [None, [], "x", {}, {"sub": "u-2"}, {"sub": 1}, {"sub": ["u-1"]}])
def test_words_about_somebody_else_are_refused(more: Any) -> None:
    with pytest.raises(InvalidToken):
        merge_userinfo(CLAIMS, more)


def test_userinfo_completes_the_id_token() -> None:
    login = external_login(ISSUER, merge_userinfo(CLAIMS, {"sub": "u-1"} | ADA))
    assert (login.name, login.email, login.groups) == (ADA["email"], ADA["email"], ("ml-team",))


def test_it_changes_nothing_that_the_id_token_says() -> None:
    userinfo = CLAIMS | {"groups": ["ml-team"]}
    more = {"sub": "u-1", "groups": ["admins"], "iss": "https://evil.example.com", "iat": 1} | {
        "email": "ada@example.com",
        "email_verified": True,
    }
    claims = merge_userinfo(userinfo, more)
    assert (claims["groups"], claims["iss"], claims["iat"]) == (
        ["ml-team"],
        ISSUER.issuer,
        CLAIMS["iat"],
    )


def test_one_address_does_not_verify_another() -> None:
    claims = CLAIMS | {"email": "root@example.com"}
    with pytest.raises(InvalidToken):
        external_login(ISSUER, merge_userinfo(claims, {"sub": "u-1"} | ADA))
    same = CLAIMS | {"email": ADA["email"]}
    assert external_login(ISSUER, merge_userinfo(same, {"sub": "u-1"} | ADA)).name == ADA["email"]
    unverified = CLAIMS | {"email": ADA["email"], "email_verified": False}
    with pytest.raises(InvalidToken):
        external_login(ISSUER, merge_userinfo(unverified, {"sub": "u-1"} | ADA))


def test_what_is_lacking() -> None:
    assert has_missing_claims(ISSUER, CLAIMS)
    assert has_missing_claims(ISSUER, CLAIMS | {"email": "ada@example.com"})
    assert not has_missing_claims(ISSUER, CLAIMS | ADA)
    nested = ClaimNames(user="sub", groups="realm.roles", tenant="org")
    issuer = Issuer(name="corp", issuer=ISSUER.issuer, client_id="page", claims=nested)
    assert has_missing_claims(issuer, CLAIMS | ADA | {"realm": {"roles": []}})
    assert not has_missing_claims(issuer, CLAIMS | ADA | {"realm": {"roles": []}, "org": "acme"})


@pytest.mark.parametrize(
    ("issuer", "address", "is_taken"),
    [
        ("https://id.example.com", "https://keys.example.com/jwks", True),
        ("https://id.example.com", "http://id.example.com/jwks", False),
        ("https://id.example.com", "http://127.0.0.1:9090/api/v1/query", False),
        ("https://id.example.com", "https://localhost:8443/x", False),
        ("https://id.example.com", "https://[::1]/x", False),
        ("https://id.example.com", "file:///etc/passwd", False),
        ("https://id.example.com", "https://user:pw@id.example.com/", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/jwks", True),
    ],
)
async def test_an_issuer_does_not_send_us_to_this_machine(
    monkeypatch: pytest.MonkeyPatch, issuer: str, address: str, is_taken: bool
) -> None:
    """What an issuer says of itself leads to requests: not to what listens beside us."""
    asked: list[str] = []

    async def get_json(url: str) -> Any:
        asked.append(url)
        return {"keys": []} if url == address else {"issuer": issuer, "jwks_uri": address}

    monkeypatch.setattr(provider_module, "get_json", get_json)
    provider = Provider(Issuer(name="corp", issuer=issuer, audience="x"), lambda: NOW)
    if is_taken:
        assert await provider.key("k") is None
    else:
        with pytest.raises(Unavailable):
            await provider.key("k")
    assert (address in asked) is is_taken


async def test_logins_while_the_issuer_is_away_ask_it_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody may begin a login: that is no way to make us ask the issuer as often."""
    now, asked = NOW, 0

    async def get_json(_: str) -> Any:
        nonlocal asked
        asked += 1
        raise Unavailable("away")

    monkeypatch.setattr(provider_module, "get_json", get_json)
    issuer = Issuer(name="corp", issuer="https://id.example.com", client_id="page")
    provider = Provider(issuer, lambda: now)

    async def begin() -> None:
        with pytest.raises(Unavailable):
            await provider.endpoints()

    await asyncio.gather(*(begin() for _ in range(50)))
    assert asked == 1
    now = NOW + timedelta(seconds=30)
    await asyncio.gather(*(begin() for _ in range(50)))
    assert asked == 2
