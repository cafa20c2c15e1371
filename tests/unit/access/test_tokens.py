"""Tokens: only what we signed, as we sign it, while it lasts."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from watchbill.access.tokens import keyring as keyring_module
from watchbill.access.tokens.keyring import KEYS_CACHE_SECONDS, KEYS_REFETCH_SECONDS, Keyring
from watchbill.access.tokens.tokens import (
    AUDIENCE,
    ISSUER,
    LEEWAY_SECONDS,
    TYPE,
    Claims,
    Tokens,
    with_low_s,
)
from watchbill.errors import Unauthenticated
from watchbill.identity import ACCOUNT_PRINCIPAL as HELD_BY_ACCOUNT
from watchbill.identity import Principal
from watchbill.store.identity.signing import SigningKey

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KID = "k1"
KEY = ECKey.generate_key("P-256", {"kid": KID})
OTHER_KEY = ECKey.generate_key("P-256", {"kid": KID})
ACCOUNT = uuid4()
HEADER = {"alg": "ES256", "typ": TYPE, "kid": KID}
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": str(ACCOUNT),
    "client_id": "wbc-1",
    "tenant_id": 1,
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 3600,
    "jti": "1",
}


class Keys:
    """A keyring in memory that notes which ids it was asked for."""

    def __init__(self, retired_at: datetime | None = None) -> None:
        self.key = SimpleNamespace(kid=KID, key=KEY, active_at=NOW, retired_at=retired_at)
        self.asked: list[str] = []

    async def signing(self) -> Any:
        return self.key

    async def verifying(self, kid: str) -> Any:
        self.asked.append(kid)
        return self.key if kid == KID else None


class Clock:
    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def tokens(*, clock: Callable[[], datetime] | None = None, keys: Any = None) -> Tokens:
    return Tokens(keys or Keys(), clock or Clock(), lifetime_seconds=3600)  # type: ignore[arg-type]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: dict[str, Any] | bytes, payload: dict[str, Any] | bytes, key: Any = KEY) -> str:
    """A token whose signature is right, whatever the rest of it says."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signing_input = f"{encoded(head)}.{encoded(body)}"
    algorithm = jws.JWSRegistry.algorithms["ES256"]
    return with_low_s(f"{signing_input}.{encoded(algorithm.sign(signing_input.encode(), key))}")


def hmac_signed(secret: bytes) -> str:
    head, body = json.dumps(HEADER | {"alg": "HS256"}), json.dumps(CLAIMS)
    signing_input = f"{encoded(head.encode())}.{encoded(body.encode())}"
    return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), 'sha256'))}"


async def issue(**members: Any) -> str:
    principal = Principal(tenant_id=1, kind=HELD_BY_ACCOUNT, id=ACCOUNT)
    return await tokens().issue(principal, **({"client_id": "wbc-1"} | members))


async def test_what_we_issue_we_accept() -> None:
    claims = await tokens().verify(await issue())
    assert (claims.sub, claims.client_id, claims.tenant_id) == (ACCOUNT, "wbc-1", 1)
    assert claims.exp - claims.iat == 3600
    assert (await tokens().verify(signed(HEADER, CLAIMS))).sub == ACCOUNT


@settings(max_examples=200)
@given(client_id=st.text(max_size=40))
async def test_the_payload_is_plain_base64_of_ascii_json(client_id: str) -> None:
    """Some clients decode it with the standard alphabet and two characters of padding."""
    payload = (await issue(client_id=client_id)).split(".")[1]
    assert not set(payload) & set("-_")
    decoded = base64.b64decode(payload + "==")
    assert decoded.isascii()
    assert json.loads(decoded)["client_id"] == client_id


def without(name: str) -> dict[str, Any]:
    return {member: value for member, value in CLAIMS.items() if member != name}


NOW_SECONDS = int(NOW.timestamp())
FORGERIES: dict[str, Callable[[], str]] = {
    **{
        f"alg {alg}": lambda alg=alg: signed(HEADER | {"alg": alg}, CLAIMS)
        for alg in (
            "none",
            "None",
            "nOnE",
            "",
            "HS256",
            "RS256",
            "ES384",
            "ES512",
            "EdDSA",
            "PS256",
        )
    },
    "alg absent": lambda: signed({"typ": TYPE, "kid": KID}, CLAIMS),
    "alg null": lambda: signed(HEADER | {"alg": None}, CLAIMS),
    "unsigned": lambda: signed(HEADER, CLAIMS).rpartition(".")[0] + ".",
    "alg none unsigned": lambda: (
        f"{encoded(json.dumps(HEADER | {'alg': 'none'}).encode())}."
        f"{encoded(json.dumps(CLAIMS).encode())}."
    ),
    "HS256 with our public key": lambda: hmac_signed(KEY.as_pem(private=False)),
    "HS256 with our public JWK": lambda: hmac_signed(
        json.dumps(KEY.as_dict(private=False)).encode()
    ),
    "HS256 with nothing": lambda: hmac_signed(b""),
    "RS256 with a key of its own": lambda: jws.serialize_compact(
        HEADER | {"alg": "RS256"}, json.dumps(CLAIMS), RSAKey.generate_key(2048), ["RS256"]
    ),
    "another key under our id": lambda: signed(HEADER, CLAIMS, OTHER_KEY),
    "signature of another token": lambda: (
        signed(HEADER, CLAIMS).rpartition(".")[0]
        + "."
        + signed(HEADER, CLAIMS | {"jti": "2"}).rpartition(".")[2]
    ),
    "truncated": lambda: signed(HEADER, CLAIMS)[:-1],
    "padded": lambda: signed(HEADER, CLAIMS) + "==",
    "space before": lambda: " " + signed(HEADER, CLAIMS),
    "newline after": lambda: signed(HEADER, CLAIMS) + "\n",
    "two parts": lambda: ".".join(signed(HEADER, CLAIMS).split(".")[:2]),
    "four parts": lambda: signed(HEADER, CLAIMS) + ".x",
    "five parts": lambda: signed(HEADER, CLAIMS) + ".x.y",
    "empty": lambda: "",
    "dots": lambda: "..",
    "JSON serialisation": lambda: json.dumps({"payload": "e30", "signatures": []}),
    "alg twice": lambda: signed(b'{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}', CLAIMS),
    "sub twice": lambda: signed(HEADER, json.dumps(CLAIMS).replace("{", '{"sub":"x",', 1).encode()),
    "payload is a list": lambda: signed(HEADER, b"[]"),
    "payload is text": lambda: signed(HEADER, b'"x"'),
    "payload is no JSON": lambda: signed(HEADER, b"{"),
    "payload nests": lambda: signed(HEADER, b"[" * 3000),
    "nested token": lambda: signed(HEADER | {"cty": "JWT"}, signed(HEADER, CLAIMS).encode()),
    "header is a list": lambda: signed(b"[]", CLAIMS),
    "header is no UTF-8": lambda: signed(b"\xff\xfe", CLAIMS),
    "wrong typ": lambda: signed(HEADER | {"typ": "JWT"}, CLAIMS),
    "ID token": lambda: signed(HEADER | {"typ": "id+jwt"}, CLAIMS),
    "typ absent": lambda: signed({"alg": "ES256", "kid": KID}, CLAIMS),
    "kid absent": lambda: signed({"alg": "ES256", "typ": TYPE}, CLAIMS),
    **{
        f"kid {str(kid)[:12]}": lambda kid=kid: signed(HEADER | {"kid": kid}, CLAIMS)
        for kid in ("unknown", "../k1", "' OR 1=1 --", "\0", 1, None, ["k1"], {}, "k" * 300, "")
    },
    **{
        f"header member {name}": lambda name=name, value=value: signed(
            HEADER | {name: value}, CLAIMS
        )
        for name, value in {
            "jwk": KEY.as_dict(private=False),
            "jku": "http://127.0.0.1:1/keys",
            "x5u": "http://127.0.0.1:1/cert",
            "x5c": ["AA=="],
            "crit": ["b64"],
            "b64": False,
            "zip": "DEF",
            "cty": "JWT",
            "enc": "A128GCM",
        }.items()
    },
    **{
        f"{name} absent": lambda name=name: signed(HEADER, without(name))
        for name in ("iss", "aud", "sub", "client_id", "tenant_id", "iat", "exp", "jti")
    },
    **{
        f"exp {value}": lambda value=value: signed(
            HEADER,
            json.dumps(CLAIMS).replace(f'"exp": {CLAIMS["exp"]}', f'"exp": {value}').encode(),
        )
        for value in (
            f'"{NOW_SECONDS + 60}"',
            f"{NOW_SECONDS + 60}.5",
            "-1",
            "1e400",
            "NaN",
            "Infinity",
            "null",
            "true",
            "[]",
        )
    },
    "expired beyond leeway": lambda: signed(HEADER, CLAIMS | {"exp": NOW_SECONDS - LEEWAY_SECONDS}),
    "issued in the future": lambda: signed(
        HEADER, CLAIMS | {"iat": NOW_SECONDS + LEEWAY_SECONDS + 1}
    ),
    "nbf": lambda: signed(HEADER, CLAIMS | {"nbf": NOW_SECONDS + 60}),
    "wrong iss": lambda: signed(HEADER, CLAIMS | {"iss": "watchbill.example.com"}),
    "iss with more": lambda: signed(HEADER, CLAIMS | {"iss": ISSUER + "x"}),
    "wrong aud": lambda: signed(HEADER, CLAIMS | {"aud": "watchbill"}),
    "aud list": lambda: signed(HEADER, CLAIMS | {"aud": ["other"]}),
    "sub is no account": lambda: signed(HEADER, CLAIMS | {"sub": "admin"}),
    "tenant as text": lambda: signed(HEADER, CLAIMS | {"tenant_id": "1"}),
    "an agent's credential": lambda: f"wba.{UUID(int=1)}.{'s' * 43}",
    "too long": lambda: signed(HEADER, CLAIMS | {"client_id": "x" * 8192}),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_forgeries_are_refused_in_one_voice(name: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await tokens().verify(FORGERIES[name]())
    assert refused.value.message == "The token is not valid."
    assert refused.value.details is None


async def test_a_token_too_long_or_misshapen_never_reaches_the_keys() -> None:
    keys = Keys()
    for token in ("x." * 5000 + "x", "a.b", "{}", signed(HEADER | {"jku": "x"}, CLAIMS)):
        with pytest.raises(Unauthenticated):
            await tokens(keys=keys).verify(token)
    assert keys.asked == []


async def test_leeway_is_half_a_minute() -> None:
    clock = Clock()
    checking, token = tokens(clock=clock), await issue()
    clock.now = NOW + timedelta(seconds=3600 + LEEWAY_SECONDS - 1)
    assert (await checking.verify(token)).sub == ACCOUNT
    clock.now = NOW + timedelta(seconds=3600 + LEEWAY_SECONDS)
    with pytest.raises(Unauthenticated):
        await checking.verify(token)
    assert LEEWAY_SECONDS <= 60


async def test_what_is_remembered_still_ends_and_still_needs_its_key() -> None:
    clock, keys = Clock(), Keys()
    checking, token = tokens(clock=clock, keys=keys), await issue()
    for _ in range(2):
        assert (await checking.verify(token)).sub == ACCOUNT
    keys.key.retired_at = NOW - timedelta(days=1)
    with pytest.raises(Unauthenticated):
        await checking.verify(token)
    keys.key.retired_at = None
    clock.now = NOW + timedelta(days=1)
    with pytest.raises(Unauthenticated):
        await checking.verify(token)


async def test_what_was_refused_is_not_remembered() -> None:
    keys = Keys()
    checking, token = tokens(keys=keys), await issue()
    keys.key.key = OTHER_KEY
    with pytest.raises(Unauthenticated):
        await checking.verify(token)
    keys.key.key = KEY
    assert (await checking.verify(token)).sub == ACCOUNT


async def test_a_storm_of_unknown_keys_asks_the_database_seldom() -> None:
    reads, clock = 0, Clock()
    kept = SigningKey(
        kid=KID,
        private_jwk=json.dumps(KEY.as_dict(private=True)),
        created_at=NOW,
        active_at=NOW,
        retired_at=None,
    )

    async def read(_: object) -> list[SigningKey]:
        nonlocal reads
        reads += 1
        return [kept]

    with patch.object(keyring_module, "signing_key_list", read):
        checking = tokens(clock=clock, keys=Keyring(None, clock))  # type: ignore[arg-type]
        for number in range(500):
            with pytest.raises(Unauthenticated):
                await checking.verify(signed(HEADER | {"kid": f"unknown{number}"}, CLAIMS))
        assert reads == 1
        clock.now += timedelta(seconds=KEYS_REFETCH_SECONDS)
        for number in range(500):
            with pytest.raises(Unauthenticated):
                await checking.verify(signed(HEADER | {"kid": f"unknown{number}"}, CLAIMS))
        assert reads == 2
        assert (await checking.verify(await issue())).sub == ACCOUNT


async def test_a_retired_key_opens_what_it_signed_and_then_nothing() -> None:
    token = signed(HEADER, CLAIMS | {"exp": NOW_SECONDS + 10**6})
    recently = Keys(retired_at=NOW - timedelta(seconds=3600 + KEYS_CACHE_SECONDS))
    assert (await tokens(keys=recently).verify(token)).sub == ACCOUNT
    long_ago = Keys(
        retired_at=NOW - timedelta(seconds=3600 + LEEWAY_SECONDS + KEYS_CACHE_SECONDS + 1)
    )
    with pytest.raises(Unauthenticated):
        await tokens(keys=long_ago).verify(token)


@settings(max_examples=300)
@given(st.text(max_size=200))
async def test_any_text_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await tokens().verify(token)


@settings(max_examples=200)
@given(position=st.integers(0, 10_000), character=st.sampled_from("AZaz09-_."))
async def test_any_changed_character_is_refused(position: int, character: str) -> None:
    token = signed(HEADER, CLAIMS)
    index = position % len(token)
    changed = token[:index] + character + token[index + 1 :]
    if changed != token:
        with pytest.raises(Unauthenticated):
            await tokens().verify(changed)


def test_claims_hold_nothing_else() -> None:
    assert Claims.__struct_fields__ == (*CLAIMS, "holder", "family")


async def test_nobody_can_make_a_second_token_of_one() -> None:
    """Of (r, s) and (r, n - s) both are valid ECDSA signatures, and spare bits of base64 may hold anything."""
    verifier = tokens()
    token = await issue()
    await verifier.verify(token)
    head, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = int.from_bytes(raw[32:])
    mirrored = f"{head}.{encoded(raw[:32] + (P256_ORDER - s).to_bytes(32))}"
    respelt = token[:-1] + ALPHABET[ALPHABET.index(token[-1]) + 1]
    assert base64.urlsafe_b64decode(respelt.rpartition(".")[2] + "==") == raw
    for other in (mirrored, respelt):
        with pytest.raises(Unauthenticated):
            await verifier.verify(other)
