"""Access tokens, compact JWTs signed with ES256 by keys that all servers share, and refresh tokens.

Verification trusts nothing that a token says about itself: size and shape come first, then exactly our three
header members, then a key of ours by its id, then the signature, then every claim.

A refresh token is good once. A second use of one, by whomever, ends the login that it came from.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4

import msgspec
from cachetools import LRUCache
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from watchbill.access.tokens.jose import InvalidToken, check_shape, unique_json, unverified_part
from watchbill.access.tokens.keyring import ALGORITHM, KEYS_CACHE_SECONDS, Keyring, VerificationKey
from watchbill.errors import Unauthenticated
from watchbill.identity import ACCOUNT_PRINCIPAL, Principal
from watchbill.store.identity.sessions import (
    refresh_family_create,
    refresh_family_get,
    refresh_family_revoke,
    refresh_family_rotate,
)
from watchbill.store.postgres.database import Database

TYPE = "at+jwt"
ISSUER = "watchbill"
AUDIENCE = "watchbill-api"
LEEWAY_SECONDS = 30
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CACHED_TOKENS = 10_000

_NOT_STANDARD_BASE64 = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in ">?~\x7f"}
)


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """What a token says, once its signature was checked."""

    iss: str
    aud: str
    sub: UUID
    client_id: str
    tenant_id: int
    iat: int
    exp: int
    jti: str
    holder: str = ACCOUNT_PRINCIPAL
    """The kind of principal."""
    family: UUID | None = None

    @cached_property
    def principal(self) -> Principal:
        return Principal(
            tenant_id=self.tenant_id, kind=self.holder, id=self.sub, family=self.family
        )


class Tokens:
    """Issues and verifies. Of a token whose signature was right the claims are remembered, by its hash: only
    time and the state of its key can then still make it wrong, and these are looked at every time."""

    def __init__(
        self, keyring: Keyring, clock: Callable[[], datetime], *, lifetime_seconds: int
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._verified: LRUCache[bytes, tuple[str, Claims]] = LRUCache(CACHED_TOKENS)
        self.lifetime_seconds = lifetime_seconds

    async def issue(self, principal: Principal, *, client_id: str) -> str:
        key = await self._keyring.signing()
        issued_at = int(self._clock().timestamp())
        payload = _plain_base64_json(
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": str(principal.id),
                "client_id": client_id,
                "tenant_id": principal.tenant_id,
                "iat": issued_at,
                "exp": issued_at + self.lifetime_seconds,
                "jti": uuid4().hex,
                "holder": principal.kind,
                **({"family": str(principal.family)} if principal.family is not None else {}),
            }
        )
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": key.kid}
        return with_low_s(jws.serialize_compact(header, payload, key.key, [ALGORITHM]))

    async def verify(self, token: str) -> Claims:
        """Raises Unauthenticated, always with the same words: why is nobody's business."""
        try:
            token_hash = hashlib.sha256(token.encode("ascii")).digest()
            verified = self._verified.get(token_hash)
            if verified is None:
                check_shape(token)
                verified = await self._verify_signature(token)
                self._verified[token_hash] = verified
            kid, claims = verified
            await self._key(kid)
            self._check(claims)
        except (InvalidToken, JoseError, msgspec.ValidationError, ValueError) as error:
            raise Unauthenticated("The token is not valid.") from error
        return claims

    async def _verify_signature(self, token: str) -> tuple[str, Claims]:
        header = _checked_header(token)
        key = await self._key(header["kid"])
        if with_low_s(token) != token:
            raise InvalidToken
        signed = jws.deserialize_compact(token, key.key, [ALGORITHM])
        return key.kid, msgspec.convert(unique_json(signed.payload or b""), Claims, strict=True)

    async def _key(self, kid: str) -> VerificationKey:
        key = await self._keyring.verifying(kid)
        if key is None or self._is_over(key):
            raise InvalidToken
        return key

    def _is_over(self, key: VerificationKey) -> bool:
        """A retired key still opens tokens for as long as one that it signed may live."""
        overlap = timedelta(seconds=self.lifetime_seconds + LEEWAY_SECONDS + KEYS_CACHE_SECONDS)
        return key.retired_at is not None and self._clock() > key.retired_at + overlap

    def _check(self, claims: Claims) -> None:
        now = self._clock().timestamp()
        if (claims.iss, claims.aud) != (ISSUER, AUDIENCE):
            raise InvalidToken
        if now >= claims.exp + LEEWAY_SECONDS or claims.iat > now + LEEWAY_SECONDS:
            raise InvalidToken


def with_low_s(token: str) -> str:
    """The token with the smaller of the two values that make an ECDSA signature (r, s) and (r, n - s) valid: so
    nobody can make a second token of one. Anything else than 64 bytes of signature stays as it is."""
    signed, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature.encode())
    s = int.from_bytes(raw[32:])
    if len(raw) != 64 or s <= P256_ORDER // 2 or s >= P256_ORDER:
        return token
    low = raw[:32] + (P256_ORDER - s).to_bytes(32)
    return f"{signed}.{urlsafe_b64encode(low).decode()}"


def _checked_header(token: str) -> dict[str, str]:
    """The header. It must hold exactly our three members, so `crit`, `jwk` or `jku` never count."""
    header = unverified_part(token, 0)
    if header.keys() != {"alg", "typ", "kid"}:
        raise InvalidToken
    if header["alg"] != ALGORITHM or header["typ"] != TYPE or not isinstance(header["kid"], str):
        raise InvalidToken
    return header


def _plain_base64_json(claims: dict[str, Any]) -> bytes:
    """JSON whose base64url is plain base64 too: some clients, runapy among them, decode it as such.

    In ASCII only these four characters can lead to the two letters in which the alphabets differ; JSON lets
    them be written as escapes, since they occur inside strings alone.
    """
    text = json.dumps(claims, ensure_ascii=True, separators=(",", ":"))
    return text.translate(_NOT_STANDARD_BASE64).encode("ascii")


PREFIX = "wbr_"
_FORM = re.compile(r"wbr_[A-Za-z0-9_-]{43}", re.ASCII)


class RefreshTokens:
    """A family is one login: all refresh tokens that came from it, one after the other."""

    def __init__(
        self, db: Database, clock: Callable[[], datetime], *, lifetime_seconds: int
    ) -> None:
        self._db = db
        self._clock = clock
        self._lifetime = timedelta(seconds=lifetime_seconds)

    async def begin(self, principal: Principal) -> tuple[str, Principal]:
        """The first token of a new family, and the principal as its tokens name it."""
        token, now = _new(), self._clock()
        member = replace(principal, family=uuid4())
        await refresh_family_create(
            self._db, member, token_hash=_hash(token), expires_at=now + self._lifetime, now=now
        )
        return token, member

    async def rotate(self, token: str) -> tuple[str, Principal]:
        """The next token. Raises Unauthenticated, in the same words whatever is wrong."""
        refused = Unauthenticated("The refresh token is not valid.")
        if not _FORM.fullmatch(token):
            raise refused
        owner = await refresh_family_get(self._db, _hash(token))
        if owner is None:
            raise refused
        fresh = _new()
        principal = await refresh_family_rotate(
            self._db, owner[0], old_hash=_hash(token), new_hash=_hash(fresh), now=self._clock()
        )
        if principal is None:
            raise refused
        return fresh, principal

    async def revoke(self, token: str) -> None:
        """End the login that the token came from. Whoever holds no such token gets the same answer."""
        owner = await refresh_family_get(self._db, _hash(token)) if _FORM.fullmatch(token) else None
        if owner is not None:
            await refresh_family_revoke(self._db, *owner, now=self._clock())


def _new() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
