"""Tokens of external issuers: verified by the issuer's own keys, and what they say mapped to our words.

The issuer is chosen by an exact match and from the configuration alone; of a token's header only the key id and
an algorithm of the literal list count, and any member that could lead elsewhere refuses the token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cachetools import TTLCache
from joserfc import jws
from joserfc.errors import JoseError

from watchbill.access.oidc.configuration import Issuer
from watchbill.access.oidc.provider import Provider
from watchbill.access.tokens.jose import InvalidToken, check_shape, unique_json, unverified_part
from watchbill.identity import USER_PRINCIPAL, ExternalLogin, Principal
from watchbill.store.identity.accounts import user_upsert
from watchbill.store.postgres.database import Database

LEEWAY_SECONDS = 30
HEADER_MEMBERS = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
ACCESS_TYPES = frozenset({"at+jwt", "application/at+jwt"})
UNTYPED = frozenset({"jwt"})
ID_TOKEN_CLAIMS = ("nonce", "at_hash", "c_hash", "s_hash")
OTHER_TOKEN_TYPES = frozenset({"ID", "Refresh", "Offline", "Logout"})
MAX_GROUPS = 500
MAX_NAME_CHARACTERS = 200
MAX_SECONDS = 2**40


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """Claims whose signature was right, and by which key."""

    kid: str
    claims: Mapping[str, Any]
    not_before: float
    expires_at: float


async def verify_access_token(provider: Provider, token: str, now: datetime) -> VerifiedIdentity:
    """Raises Refused; Unavailable where the identity provider never answered."""
    issuer = provider.issuer
    if issuer.audience is None:
        raise InvalidToken
    header, verified = await _verify(provider, token)
    claims = verified.claims
    kind = str(header.get("typ", "JWT")).lower()
    is_typed = kind in ACCESS_TYPES
    if not is_typed and not (issuer.takes_untyped_tokens and kind in UNTYPED):
        raise InvalidToken
    if not is_typed and any(name in claims for name in ID_TOKEN_CLAIMS):
        raise InvalidToken
    if claims.get("typ") in OTHER_TOKEN_TYPES:
        raise InvalidToken
    _check(issuer, claims, audience=issuer.audience)
    check_time(verified, now)
    return verified


async def verify_id_token(
    provider: Provider, token: str, *, nonce: str, now: datetime
) -> Mapping[str, Any]:
    """Of a login that we began. Raises InvalidToken, Unavailable."""
    issuer = provider.issuer
    assert issuer.client_id is not None, "only an issuer with a client has logins"
    header, verified = await _verify(provider, token, needs_kid=False)
    claims = verified.claims
    if str(header.get("typ", "JWT")).lower() not in UNTYPED or claims.get("nonce") != nonce:
        raise InvalidToken
    _check(issuer, claims, audience=issuer.client_id)
    audiences = claims["aud"]
    if isinstance(audiences, list) and len(audiences) > 1 and "azp" not in claims:
        raise InvalidToken
    if claims.get("azp", issuer.client_id) != issuer.client_id:
        raise InvalidToken
    check_time(verified, now)
    return claims


async def _verify(
    provider: Provider, token: str, *, needs_kid: bool = True
) -> tuple[dict[str, Any], VerifiedIdentity]:
    """An ID token need not name its key where the issuer has one alone (OpenID Connect Core, 10.1)."""
    try:
        check_shape(token)
        header = unverified_part(token, 0)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not needs_kid and "kid" not in header:
            kid = await provider.only_kid()
        if not header.keys() <= HEADER_MEMBERS or not isinstance(kid, str) or len(kid) > 200:
            raise InvalidToken
        if not isinstance(algorithm, str) or algorithm not in provider.issuer.algorithms:
            raise InvalidToken
        known = await provider.key(kid)
        if known is None or not known.fits(algorithm):
            raise InvalidToken
        signed = jws.deserialize_compact(token, known.key, [algorithm])
        claims = unique_json(signed.payload or b"")
        if not isinstance(claims, dict):
            raise InvalidToken
        issued_at = _seconds(claims, "iat")
        verified = VerifiedIdentity(
            kid=kid,
            claims=claims,
            not_before=max(issued_at, _seconds(claims, "nbf", issued_at)),
            expires_at=_seconds(claims, "exp"),
        )
    except (JoseError, ValueError, KeyError) as error:
        raise InvalidToken from error
    return header, verified


def check_time(verified: VerifiedIdentity, now: datetime) -> None:
    """Raises InvalidToken."""
    at = now.timestamp()
    if at >= verified.expires_at + LEEWAY_SECONDS or at < verified.not_before - LEEWAY_SECONDS:
        raise InvalidToken


def _check(issuer: Issuer, claims: Mapping[str, Any], *, audience: str) -> None:
    sent = claims.get("aud")
    audiences = [sent] if isinstance(sent, str) else sent
    if claims.get("iss") != issuer.issuer or not isinstance(audiences, list):
        raise InvalidToken
    if not all(isinstance(name, str) for name in audiences) or audience not in audiences:
        raise InvalidToken
    if not _is_name(claims.get("sub")):
        raise InvalidToken


def _seconds(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken
    if not 0 < value < MAX_SECONDS:
        raise InvalidToken
    return float(value)


def external_login(issuer: Issuer, claims: Mapping[str, Any]) -> ExternalLogin:
    """Who this is in our words. Raises InvalidToken where the claims do not say."""
    names = issuer.claims
    user, email = _claim(claims, names.user), _claim(claims, names.email)
    is_verified = claims.get("email_verified") is True or not issuer.requires_verified_email
    if not _is_name(user) or (names.user == names.email and not is_verified):
        raise InvalidToken
    return ExternalLogin(
        tenant_id=_tenant(issuer, claims),
        issuer=issuer.issuer,
        external_id=claims["sub"],
        name=f"{issuer.user_prefix}{user}",
        email=email if _is_name(email) and is_verified else None,
        groups=tuple(f"{issuer.group_prefix}{group}" for group in _groups(claims, names.groups)),
        stated_at=datetime.fromtimestamp(claims["iat"], UTC),
    )


def has_missing_claims(issuer: Issuer, claims: Mapping[str, Any]) -> bool:
    """Whether a claim that the configuration names is absent."""
    names = issuer.claims
    wanted = (names.user, names.email, names.groups, names.tenant)
    return any(name is not None and _claim(claims, name) is None for name in wanted)


def merge_userinfo(claims: Mapping[str, Any], more: Any) -> Mapping[str, Any]:
    """An ID token's claims and what the userinfo endpoint says beyond them. Raises Refused where that speaks of
    somebody else (OpenID Connect Core, 5.3.2)."""
    if not isinstance(more, dict) or more.get("sub") != claims["sub"]:
        raise InvalidToken
    is_same_address = claims.get("email", more.get("email")) == more.get("email")
    userinfo_claims = {
        name: value for name, value in more.items() if is_same_address or name != "email_verified"
    }
    return userinfo_claims | dict(claims)


def _tenant(issuer: Issuer, claims: Mapping[str, Any]) -> int:
    if issuer.claims.tenant is None:
        return issuer.tenant
    value = _claim(claims, issuer.claims.tenant)
    if not isinstance(value, str) or value not in issuer.tenants:
        raise InvalidToken
    return issuer.tenants[value]


def _groups(claims: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts, or one text. Of anything else, and of more than we would keep, nobody is a member:
    half of somebody's groups would be a guess."""
    claim = _claim(claims, name)
    listed = [claim] if isinstance(claim, str) else claim
    if not isinstance(listed, list) or len(listed) > MAX_GROUPS:
        return []
    return sorted({group for group in listed if _is_name(group)})


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path of names joined with dots."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_CHARACTERS
        and value.isprintable()
        and value == value.strip()
    )


CACHE_SECONDS = 30
CACHED_USERS = 10_000


class UserDirectory:
    """People as issuers tell of them; who was just seen is remembered for half a minute."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._ids: TTLCache[ExternalLogin, UUID, float] = TTLCache(
            CACHED_USERS, ttl=CACHE_SECONDS, timer=lambda: clock().timestamp()
        )

    async def principal(self, login: ExternalLogin) -> Principal:
        """Somebody new is remembered too, and may do nothing."""
        user_id = self._ids.get(login)
        if user_id is None:
            user_id = await user_upsert(self._db, login, now=self._clock())
            self._ids[login] = user_id
        return Principal(tenant_id=login.tenant_id, kind=USER_PRINCIPAL, id=user_id)
