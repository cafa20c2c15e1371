"""Tokens that nobody issued: each is refused alike, for our own tokens and for an external issuer's."""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from joserfc import jwe
from joserfc.jwk import ECKey

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.identity.issuer import (
    AUDIENCE,
    EC_384_KEY,
    EC_KEY,
    KEY,
    NEXT_KEY,
    OTHER,
    TestIssuer,
    encoded,
    running_issuer,
)
from tests.fixtures.serving import SETTINGS, Answer, Served, serving

CLAIMS = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.shift = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


class Place:
    """A server that trusts one external issuer, both with a clock that tests may move."""

    def __init__(self, served: Served, issuer: TestIssuer, clock: Clock) -> None:
        self.served, self.issuer, self.clock = served, issuer, clock

    async def ask(self, token: str, **headers: str) -> Answer:
        sent = {"Authorization": f"Bearer {token}"} | headers
        return await self.served.get("/api/v1/me", token=None, headers=sent)

    def claims(self, **members: Any) -> CLAIMS:
        return self.issuer.claims(self.clock().timestamp(), **members)

    def token(self, header: dict[str, Any] | None = None, **members: Any) -> str:
        return self.issuer.token(self.issuer.header(**(header or {})), self.claims(**members))


@asynccontextmanager
async def place(
    engine: Engine, folder: Path, issuer: TestIssuer, **members: Any
) -> AsyncIterator[Place]:
    configured = {
        "name": "corp",
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "algorithms": ["RS256", "ES256"],
    } | members
    path = folder / "access-config.yaml"
    path.write_text(yaml.safe_dump({"issuers": [configured]}))
    settings, clock = replace(SETTINGS, access_config=path), Clock()
    async with serving(await fresh_database(engine), settings, clock=clock) as served:
        yield Place(served, issuer, clock)


@pytest_asyncio.fixture(scope="module")
async def trusting(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    async with (
        running_issuer() as issuer,
        place(embedded_engine, tmp_path_factory.mktemp("config"), issuer) as site,
    ):
        assert (await site.ask(site.token())).status == 200
        yield site


Forgery = Callable[[Place], str]


def _hmac(place: Place, secret: bytes) -> str:
    head = encoded(json.dumps(place.issuer.header(alg="HS256")).encode())
    body = encoded(json.dumps(place.claims()).encode())
    return f"{head}.{body}.{encoded(hmac.digest(secret, f'{head}.{body}'.encode(), 'sha256'))}"


def _resigned(place: Place, change: Callable[[list[str]], list[str]]) -> str:
    return ".".join(change(place.token().split(".")))


def _none(spelling: str) -> Forgery:
    def make(place: Place) -> str:
        head = encoded(json.dumps(place.issuer.header(alg=spelling)).encode())
        return f"{head}.{encoded(json.dumps(place.claims()).encode())}."

    return make


def _doubled(place: Place, part: int, member: str) -> str:
    head, body = json.dumps(place.issuer.header()), json.dumps(place.claims())
    texts = [head, body]
    texts[part] = texts[part][:-1] + f', "{member}": "RS256"' + "}"
    return place.issuer.token(texts[0].encode(), texts[1].encode())


def _raw(place: Place, name: str, value: str) -> str:
    """A claim written as no JSON library would write it."""
    body = json.dumps(place.claims(**{name: ...}))[:-1] + f', "{name}": {value}' + "}"
    return place.issuer.token(place.issuer.header(), body.encode())


EXTERNAL: dict[str, Forgery] = {
    **{f"alg {spelling}": _none(spelling) for spelling in ("none", "None", "nOnE", "")},
    "no alg": lambda p: p.token({"alg": ...}),
    "HS256 with the public key as PEM": lambda p: _hmac(p, KEY.as_pem(private=False)),
    "HS256 with the public key as DER": lambda p: _hmac(p, KEY.as_der(private=False)),
    "HS256 with the public key as JWK": lambda p: _hmac(
        p, json.dumps(KEY.as_dict(private=False)).encode()
    ),
    "HS256 with nothing": lambda p: _hmac(p, b""),
    "RSA key with another algorithm": lambda p: p.issuer.token(
        p.issuer.header(alg="PS256"), p.claims(), algorithm="PS256"
    ),
    "an algorithm that is not configured": lambda p: p.issuer.token(
        p.issuer.header(alg="ES384", kid=EC_384_KEY.kid),
        p.claims(), key=EC_384_KEY, algorithm="ES384",
    ),
    "ES256 said of an RSA key": lambda p: p.issuer.token(
        p.issuer.header(alg="ES256"), p.claims(), key=EC_KEY, algorithm="ES256"
    ),
    "RS256 said of an EC key": lambda p: p.token({"kid": EC_KEY.kid}),
    "ES256 said of a P-384 key": lambda p: p.issuer.token(
        p.issuer.header(alg="ES256", kid=EC_384_KEY.kid),
        p.claims(), key=EC_KEY, algorithm="ES256",
    ),
    "stripped signature": lambda p: _resigned(p, lambda t: [t[0], t[1], ""]),
    "no third part": lambda p: _resigned(p, lambda t: t[:2]),
    "signature of another token": lambda p: ".".join(
        [*p.token().split(".")[:2], p.token(sub="u-2").split(".")[2]]
    ),
    "another key": lambda p: p.issuer.token(p.issuer.header(), p.claims(), key=OTHER),
    "truncated": lambda p: p.token()[:-10],
    "padding": lambda p: p.token() + "==",
    "padding in the middle": lambda p: _resigned(p, lambda t: [t[0] + "=", t[1], t[2]]),
    "inner space": lambda p: p.token().replace(".", ". ", 1),
    "leading space": lambda p: " " + p.token(),
    "four parts": lambda p: p.token() + ".x",
    "five parts": lambda p: p.token() + ".x.y",
    "JWE": lambda p: jwe.encrypt_compact(
        {"alg": "ECDH-ES", "enc": "A128GCM"}, b"{}", ECKey.generate_key("P-256")
    ),
    "JSON serialisation": lambda p: json.dumps(
        dict(zip(("protected", "payload", "signature"), p.token().split("."), strict=True))
    ),
    "JSON without signatures": lambda p: json.dumps(
        {"payload": p.token().split(".")[1], "signatures": []}
    ),
    "a token in a token": lambda p: p.issuer.token(
        p.issuer.header(cty="JWT"), p.token().encode()
    ),
    "alg twice": lambda p: _doubled(p, 0, "alg"),
    "sub twice": lambda p: _doubled(p, 1, "sub"),
    "payload is a list": lambda p: p.issuer.token(p.issuer.header(), b"[]"),
    "payload is text": lambda p: p.issuer.token(p.issuer.header(), b'"x"'),
    "payload is no JSON": lambda p: p.issuer.token(p.issuer.header(), b"{"),
    "header is a list": lambda p: p.issuer.token(b"[]", p.claims()),
    "no exp": lambda p: p.token(exp=...),
    "exp as text": lambda p: p.token(exp="9999999999"),
    "exp true": lambda p: p.token(exp=True),
    "exp null": lambda p: p.token(exp=None),
    "exp negative": lambda p: p.token(exp=-1),
    "exp 1e400": lambda p: _raw(p, "exp", "1e400"),
    "exp NaN": lambda p: _raw(p, "exp", "NaN"),
    "exp Infinity": lambda p: _raw(p, "exp", "Infinity"),
    "exp past the leeway": lambda p: p.token(exp=int(time.time()) - 31),
    "nbf to come": lambda p: p.token(nbf=int(time.time()) + 120),
    "iat to come": lambda p: p.token(iat=int(time.time()) + 120),
    "no iat": lambda p: p.token(iat=...),
    "wrong iss": lambda p: p.token(iss="https://evil.example.com"),
    "iss with a slash more": lambda p: p.token(iss=p.issuer.url + "/"),
    "beginning of iss": lambda p: p.token(iss=p.issuer.url[:-1]),
    "iss as a list": lambda p: p.token(iss=[p.issuer.url]),
    "no iss": lambda p: p.token(iss=...),
    "no aud": lambda p: p.token(aud=...),
    "another aud": lambda p: p.token(aud="somebody-else"),
    "aud list without us": lambda p: p.token(aud=["a", "b"]),
    "aud with a number": lambda p: p.token(aud=[AUDIENCE, 5]),
    "no sub": lambda p: p.token(sub=...),
    "sub a number": lambda p: p.token(sub=5),
    "sub with NUL": lambda p: p.token(sub="a\0"),
    "unknown kid": lambda p: p.token({"kid": "nobody"}),
    "no kid": lambda p: p.token({"kid": ...}),
    "kid with a path": lambda p: p.token({"kid": "../../keys/rsa-1"}),
    "kid with SQL": lambda p: p.token({"kid": "' OR 1=1 --"}),
    "kid with NUL": lambda p: p.token({"kid": "rsa-1\0"}),
    "kid of 10 kB": lambda p: p.token({"kid": "k" * 10_000}),
    "kid a number": lambda p: p.token({"kid": 1}),
    "embedded key": lambda p: p.issuer.token(
        p.issuer.header(jwk=OTHER.as_dict(private=False)), p.claims(), key=OTHER
    ),
    "embedded key's address": lambda p: p.issuer.token(
        p.issuer.header(jku=p.issuer.url + "/canary"), p.claims(), key=OTHER
    ),
    "x5u": lambda p: p.token({"x5u": p.issuer.url + "/canary"}),
    "x5c": lambda p: p.token({"x5c": ["MIIB"]}),
    "crit": lambda p: p.token({"crit": ["x"], "x": 1}),
    "b64 false": lambda p: p.token({"b64": False, "crit": ["b64"]}),
    "zip": lambda p: p.token({"zip": "DEF"}),
    "cty": lambda p: p.token({"cty": "JWT"}),
    "ID token by its type": lambda p: p.token({"typ": "JWT"}, nonce="n"),
    "no type": lambda p: p.token({"typ": ...}),
    "logout token": lambda p: p.token({"typ": "logout+jwt"}),
    "a refresh token's type": lambda p: p.token(typ="Refresh"),
    "address not verified": lambda p: p.token(email_verified=False),
    "no user": lambda p: p.token(email=...),
    "too long": lambda p: p.token(more="x" * 9000),
    "half a megabyte": lambda p: "a" * 500_000,
    "nothing": lambda p: "x",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in EXTERNAL if n != "half a megabyte"])
async def test_an_external_issuers_forgery_is_refused(trusting: Place, name: str) -> None:
    answer = await trusting.ask(EXTERNAL[name](trusting))
    if name in ("kid of 10 kB", "too long") and answer.status == 431:
        return  # beyond the limit for header fields, before anybody looks
    assert_is_error(answer, 401)
    assert answer.json["message"] in ("The token is not valid.", "A bearer token is required.")
    assert "canary" not in str(trusting.issuer.others)


async def test_forgeries_lead_nowhere(trusting: Place) -> None:
    """No address in a token was ever asked, and every refusal was counted."""
    for name in ("embedded key's address", "x5u", "unknown kid"):
        await trusting.ask(EXTERNAL[name](trusting))
    assert trusting.issuer.others == []
    events = (await trusting.served.get("/api/v1/admin/audit?operation=get_me&limit=1000")).json
    refused = [event for event in events["events"] if event["outcome"] == 401]
    assert sum(event["count"] for event in refused) >= 3
    assert len(refused) < 10, "refusals of one address are counted together"


async def test_what_the_issuer_may_send(trusting: Place) -> None:
    for token in (
        trusting.token(),
        trusting.token(aud=["other", AUDIENCE]),
        trusting.token({"typ": "application/at+jwt"}),
        trusting.token(exp=int(time.time()) - 5),
        trusting.issuer.token(
            trusting.issuer.header(alg="ES256", kid=EC_KEY.kid),
            trusting.claims(),
            key=EC_KEY,
            algorithm="ES256",
        ),
    ):
        answer = await trusting.ask(token)
        assert answer.status == 200, answer.body
        assert (answer.json["subject"], answer.json["kind"]) == ("ada@example.com", "user")
        assert answer.json["permissions"] == []


async def test_our_own_tokens_are_held_to_the_same(trusting: Place) -> None:
    served = trusting.served
    token = await served.token()
    head, body, signature = token.split(".")
    payload = json.loads(base64.b64decode(body + "=="))
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    other = trusting.issuer

    def signed(h: Any, c: Any) -> str:
        return other.token(h, c, key=EC_KEY, algorithm="ES256")

    forged = {
        "external key, our issuer": signed(header, payload),
        "our kid, their issuer": signed(header, payload | {"iss": other.url}),
        "their kid, our issuer": signed(header | {"kid": EC_KEY.kid}, payload),
        "another tenant": ".".join(
            [head, encoded(json.dumps(payload | {"tenant_id": 2}).encode()), signature]
        ),
        "none": f"{encoded(json.dumps(header | {'alg': 'none'}).encode())}.{body}.",
        "a refresh token": "wbr_" + "a" * 43,
        "twice": f"Bearer {token}",
        "with a comma": f"{token}, {token}",
    }
    for name, text in forged.items():
        assert (await trusting.ask(text)).status == 401, name
    seal = await served.services.oidc_login._signed_state.sign({"x": "y"}, seconds=60)
    assert (await trusting.ask(seal)).status == 401
    assert (await trusting.ask(token)).status == 200


# The issuer's faults


@pytest.mark.parametrize("fault", ["500", "garbage", "huge", "redirect", "symmetric"])
async def test_an_unknown_issuer(embedded_engine: Engine, tmp_path: Path, fault: str) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        issuer.fault = fault
        answer = await site.ask(site.token())
        assert answer.status in (401, 503)
        assert (await site.ask(await site.served.token())).status == 200
        assert issuer.others == [], "no redirect was followed"
        issuer.fault = None
        site.clock.shift = timedelta(seconds=31)
        assert (await site.ask(site.token())).status == 200


async def test_two_keys_of_one_id_are_nobodys(embedded_engine: Engine, tmp_path: Path) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        issuer.fault = "twins"
        assert_is_error(await site.ask(site.token()), 401)


async def test_unknown_keys_cause_one_fetch_in_half_a_minute(
    embedded_engine: Engine, tmp_path: Path
) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        assert (await site.ask(site.token())).status == 200
        before = issuer.fetched
        for number in range(30):
            await site.ask(site.token({"kid": f"invented-{number}"}))
        assert issuer.fetched == before
        site.clock.shift = timedelta(seconds=31)
        for number in range(30):
            await site.ask(site.token({"kid": f"invented-{number}"}))
        assert issuer.fetched == before + 1


async def test_known_keys_serve_while_the_issuer_is_away(
    embedded_engine: Engine, tmp_path: Path
) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        assert (await site.ask(site.token())).status == 200
        issuer.fault = "500"
        for minutes in (11, 30, 60):
            site.clock.shift = timedelta(minutes=minutes)
            assert (await site.ask(site.token())).status == 200
        issuer.fault = None


async def test_a_rotated_key(embedded_engine: Engine, tmp_path: Path) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        old = site.token(exp=int(time.time()) + 7200)
        assert (await site.ask(old)).status == 200
        issuer.keys = [NEXT_KEY]
        site.clock.shift = timedelta(seconds=31)
        assert (await site.ask(site.token())).status == 200
        assert_is_error(await site.ask(old), 401)


# What claims mean


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (..., []),
        (None, []),
        (["a", "b", "a"], ["a", "b"]),
        ("a", ["a"]),
        ([], []),
        (["a", 5, None, {"b": 1}, "", " c", "d\0"], ["a"]),
        ({"a": True}, []),
        ([f"g{n}" for n in range(600)], []),
    ],
)  # fmt: skip
async def test_groups_of_every_shape(trusting: Place, groups: Any, expected: list[str]) -> None:
    """One text is one group; what is no list, or too much of one, is none; also where the issuer only says
    where the groups could be asked for."""
    sub = f"shape-{groups!r}"[:60].encode().hex()
    token = trusting.token(sub=sub, email=f"{sub[:40]}@example.com", groups=groups,
                           _claim_names={"groups": "src1"})  # fmt: skip
    assert (await trusting.ask(token)).status in (200, 431)
    if len(expected) < 500 and not (isinstance(groups, list) and len(groups) > 500):
        users = (await trusting.served.get("/api/v1/admin/users")).json["users"]
        (result,) = [user for user in users if user["name"] == f"{sub[:40]}@example.com"]
        assert result["groups"] == expected


async def test_rules_reach_users_and_groups(embedded_engine: Engine, tmp_path: Path) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        token = site.token(groups=["ml-team"])
        assert (await site.ask(token)).json["permissions"] == []
        assert_is_error(await site.served.get("/api/v1/workloads", token=token), 403)
        rule = {"subject": {"group": "ml-team"}, "role": "viewer", "scope": {"tenant": True}}
        made = await site.served.ask("POST", "/api/v1/admin/rules", json=rule)
        assert made.status == 201, made.body
        site.clock.shift = timedelta(seconds=31)
        assert (await site.served.get("/api/v1/workloads", token=token)).status == 200
        # Out of the group: the next token says so, and an older one cannot bring it back.
        later = site.token(groups=[])
        await site.ask(later)
        site.clock.shift = timedelta(seconds=62)
        assert_is_error(await site.served.get("/api/v1/workloads", token=token), 403)
        gone = await site.served.ask("DELETE", f"/api/v1/admin/rules/{made.json['id']}")
        assert gone.status == 204


async def test_tenants_come_from_the_table_alone(embedded_engine: Engine, tmp_path: Path) -> None:
    async with (
        running_issuer() as issuer,
        place(
            embedded_engine,
            tmp_path,
            issuer,
            claims={"tenant": "org.id"},
            tenants={"acme": 1, "globex": 2},
            userPrefix="corp:",
        ) as site,
    ):
        made = await site.served.ask("POST", "/api/v1/admin/tenants", json={"name": "globex"})
        assert (made.status, made.json["id"]) == (201, 2)
        for org, tenant in (({"id": "acme"}, 1), ({"id": "globex"}, 2)):
            answer = await site.ask(site.token(org=org))
            assert (answer.json["tenantId"], answer.json["subject"]) == (
                tenant,
                "corp:ada@example.com",
            )
        for org in ({"id": "initech"}, {"id": 1}, {}, ..., "acme"):
            assert_is_error(await site.ask(site.token(org=org)), 401)
        headers = {"X-Tenant": "2", "X-Scope-OrgID": "2"}
        answer = await site.ask(site.token(org={"id": "acme"}), **headers)
        assert answer.json["tenantId"] == 1


async def test_somebody_who_was_shut_out(embedded_engine: Engine, tmp_path: Path) -> None:
    async with running_issuer() as issuer, place(embedded_engine, tmp_path, issuer) as site:
        assert (await site.ask(site.token())).status == 200
        (user,) = (await site.served.get("/api/v1/admin/users")).json["users"]
        path = f"/api/v1/admin/users/{user['id']}"
        assert (await site.served.ask("POST", f"{path}/disable")).status == 204
        site.clock.shift = timedelta(seconds=59)
        assert_is_error(await site.ask(site.token()), 401)
        assert (await site.served.ask("POST", f"{path}/enable")).status == 204
        site.clock.shift = timedelta(seconds=120)
        assert (await site.ask(site.token())).status == 200
