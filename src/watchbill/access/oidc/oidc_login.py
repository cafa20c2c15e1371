"""Login through an identity provider: authorization code with PKCE, state and nonce, one exact redirect URI.

What the login needs when the browser returns is in a cookie that the browser can neither change nor make up.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import structlog
from joserfc import jws
from joserfc.errors import JoseError

from watchbill.access.oidc.provider import Endpoints, Provider, ProviderRefused, get_json, post_form
from watchbill.access.oidc.verification import (
    external_login,
    has_missing_claims,
    merge_userinfo,
    verify_id_token,
)
from watchbill.access.tokens.jose import InvalidToken, check_shape, unique_json, unverified_part
from watchbill.access.tokens.keyring import ALGORITHM, Keyring
from watchbill.errors import Unauthenticated, Unavailable
from watchbill.identity import ExternalLogin

MAX_LIFETIME = timedelta(minutes=15)
"""No signed state is valid for longer, nor for so long after its key was retired."""


class SignedState:
    """Signed with the tokens' keys, but of a type of its own: a state is no token and no token a state."""

    def __init__(self, keyring: Keyring, clock: Callable[[], datetime], *, purpose: str) -> None:
        self._keyring = keyring
        self._clock = clock
        self._type = f"{purpose}+jwt"

    async def sign(self, content: dict[str, str], *, seconds: int) -> str:
        key = await self._keyring.signing()
        ends = int(self._clock().timestamp()) + seconds
        header = {"alg": ALGORITHM, "typ": self._type, "kid": key.kid}
        payload = json.dumps(content | {"exp": ends}).encode()
        return jws.serialize_compact(header, payload, key.key, [ALGORITHM])

    async def verify(self, text: str) -> dict[str, Any]:
        """Raises InvalidToken."""
        try:
            check_shape(text)
            header = unverified_part(text, 0)
            if (header.get("alg"), header.get("typ")) != (ALGORITHM, self._type):
                raise InvalidToken
            key = await self._keyring.verifying(str(header.get("kid")))
            if key is None or self._is_over(key.retired_at):
                raise InvalidToken
            signed = jws.deserialize_compact(text, key.key, [ALGORITHM])
            content: dict[str, Any] = unique_json(signed.payload or b"")
        except (JoseError, ValueError) as error:
            raise InvalidToken from error
        if self._clock().timestamp() >= content["exp"]:
            raise InvalidToken
        return content

    def _is_over(self, retired_at: datetime | None) -> bool:
        """A key that was retired at once opens nothing; an ordinary one what it sealed before."""
        return retired_at is not None and self._clock() > retired_at + MAX_LIFETIME


LOGIN_SECONDS = 600
LOGIN_FAILED = "The login did not succeed. Start again."
MAX_CODE_CHARACTERS = 4096
MAX_TOKEN_CHARACTERS = 16 * 1024
_LOCAL_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,500}", re.ASCII)
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRedirect:
    """The query with which the identity provider redirected the browser back."""

    code: str | None
    state: str | None
    issuer: str | None
    error: str | None


PendingLogin = Mapping[str, Any]
"""A login in progress: issuer, state, nonce, verifier, and `then`, the path to return to."""


class OidcLogin:
    def __init__(self, signed_state: SignedState, clock: Callable[[], datetime]) -> None:
        self._signed_state = signed_state
        self._clock = clock

    async def begin(self, provider: Provider, *, redirect_uri: str, then: str) -> tuple[str, str]:
        """The URL to send the browser to, and the cookie it keeps until it returns. Raises Unavailable."""
        endpoints = await provider.endpoints()
        if endpoints.authorization is None or endpoints.token is None:
            raise Unavailable("The identity provider offers no logins.")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        state_members = {
            "issuer": provider.issuer.name,
            "state": state,
            "nonce": nonce,
            "verifier": verifier,
            "then": then,
        }
        query = {
            "response_type": "code",
            "client_id": provider.issuer.client_id or "",
            "redirect_uri": redirect_uri,
            "scope": " ".join(provider.issuer.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        mark = "&" if "?" in endpoints.authorization else "?"
        url = f"{endpoints.authorization}{mark}{urlencode(query)}"
        return url, await self._signed_state.sign(state_members, seconds=LOGIN_SECONDS)

    async def pending(self, state_cookie: str | None) -> PendingLogin | None:
        """The login that this browser began; None where there is none, or it began too long ago."""
        try:
            return None if state_cookie is None else await self._signed_state.verify(state_cookie)
        except InvalidToken:
            return None

    async def finish(
        self,
        provider: Provider,
        returned: ProviderRedirect,
        *,
        pending: PendingLogin,
        redirect_uri: str,
    ) -> ExternalLogin:
        """Who logged in. Raises Unauthenticated, Unavailable."""
        try:
            endpoints = await provider.endpoints()
            _check(provider, endpoints, returned, pending)
            assert returned.code is not None, "checked"
            token_response = await self._exchange(
                provider, endpoints, returned.code, pending["verifier"], redirect_uri
            )
            claims = await verify_id_token(
                provider,
                _text(token_response, "id_token"),
                nonce=pending["nonce"],
                now=self._clock(),
            )
            claims = await _with_userinfo(provider, endpoints, claims, token_response)
            return external_login(provider.issuer, claims)
        except ProviderRefused as error:
            log.warning(
                "identity provider refused", issuer=provider.issuer.name, reason=error.message
            )
            raise Unauthenticated(LOGIN_FAILED) from error
        except InvalidToken as error:
            raise Unauthenticated(LOGIN_FAILED) from error

    async def _exchange(
        self, provider: Provider, endpoints: Endpoints, code: str, verifier: str, redirect_uri: str
    ) -> Any:
        client_id, secret = provider.issuer.client_id or "", provider.issuer.secret()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": client_id,
            "code_verifier": verifier,
        }
        basic = None
        if secret is not None and (
            not endpoints.token_methods or "client_secret_basic" in endpoints.token_methods
        ):
            basic = (quote(client_id, safe=""), quote(secret, safe=""))
        elif secret is not None:
            form["client_secret"] = secret
        return await post_form(endpoints.token or "", form, basic=basic)


async def _with_userinfo(
    provider: Provider, endpoints: Endpoints, claims: Mapping[str, Any], token_response: Any
) -> Mapping[str, Any]:
    """Strict providers name e-mail and groups at their userinfo endpoint alone, not in the ID token."""
    if endpoints.userinfo is None or not has_missing_claims(provider.issuer, claims):
        return claims
    bearer = _text(token_response, "access_token")
    try:
        userinfo = await get_json(endpoints.userinfo, bearer=bearer)
    except ProviderRefused as error:
        log.warning(
            "identity provider sent no userinfo", issuer=provider.issuer.name, reason=error.message
        )
        return claims
    return merge_userinfo(claims, userinfo)


def _text(token_response: Any, member: str) -> str:
    value = token_response.get(member) if isinstance(token_response, dict) else None
    if (
        not isinstance(value, str)
        or len(value) > MAX_TOKEN_CHARACTERS
        or not _VISIBLE.fullmatch(value)
    ):
        raise InvalidToken
    return value


def _check(
    provider: Provider, endpoints: Endpoints, returned: ProviderRedirect, pending: PendingLogin
) -> None:
    """That this is the end of the login that the browser began, with the issuer it began it with."""
    if pending["issuer"] != provider.issuer.name or returned.error is not None:
        raise InvalidToken
    if not hmac.compare_digest((returned.state or "").encode(), pending["state"].encode()):
        raise InvalidToken
    if (returned.issuer is not None or endpoints.sends_issuer) and (
        returned.issuer != provider.issuer.issuer
    ):
        raise InvalidToken
    if not returned.code or len(returned.code) > MAX_CODE_CHARACTERS:
        raise InvalidToken


def local_path(path: str | None) -> str:
    """A path of this very site, else its front page: nobody is sent elsewhere after a login."""
    return path if path is not None and _LOCAL_PATH.fullmatch(path) else "/"


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
