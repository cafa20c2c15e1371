"""Login through an issuer: authorization code with PKCE, state and nonce, one exact address to return to."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import structlog

from watchbill.access.oidc import http_client
from watchbill.access.oidc.external import lacks, login_of, verify_id_token, with_told
from watchbill.access.oidc.provider import Endpoints, Provider
from watchbill.access.tokens.jose import InvalidToken
from watchbill.access.tokens.signed_state import SignedState
from watchbill.errors import Unauthenticated, Unavailable
from watchbill.identity import ExternalLogin

BEGUN_SECONDS = 600
NOT_SUCCEEDED = "The login did not succeed. Begin again."
MAX_CODE_CHARACTERS = 4096
MAX_TOKEN_CHARACTERS = 16 * 1024
_INSIDE = re.compile(r"/(?![/\\])[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,500}", re.ASCII)
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOnResult:
    """What the issuer sent the browser back with."""

    code: str | None
    state: str | None
    issuer: str | None
    error: str | None


Begun = Mapping[str, Any]
"""A login on its way: issuer, state, nonce, verifier, and `then`, the path that the browser wanted."""


class SignOn:
    def __init__(self, sealed: SignedState, clock: Callable[[], datetime]) -> None:
        self._sealed = sealed
        self._clock = clock

    async def begin(self, provider: Provider, *, redirect_uri: str, then: str) -> tuple[str, str]:
        """Where to send the browser, and what it keeps until it returns. Raises Unavailable."""
        endpoints = await provider.endpoints()
        if endpoints.authorization is None or endpoints.token is None:
            raise Unavailable("The issuer offers no logins.")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        kept = {
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
        return url, await self._sealed.seal(kept, seconds=BEGUN_SECONDS)

    async def begun(self, kept: str | None) -> Begun | None:
        """What this browser began, by what it kept; None where that was nothing, or too long ago."""
        try:
            return None if kept is None else await self._sealed.open(kept)
        except InvalidToken:
            return None

    async def finish(
        self, provider: Provider, returned: SignOnResult, *, begun: Begun, redirect_uri: str
    ) -> ExternalLogin:
        """Who signed in. Raises Unauthenticated, Unavailable."""
        try:
            endpoints = await provider.endpoints()
            _check(provider, endpoints, returned, begun)
            assert returned.code is not None, "checked"
            granted = await self._exchange(
                provider, endpoints, returned.code, begun["verifier"], redirect_uri
            )
            claims = await verify_id_token(
                provider, _text(granted, "id_token"), nonce=begun["nonce"], now=self._clock()
            )
            claims = await _completed(provider, endpoints, claims, granted)
            return login_of(provider.issuer, claims)
        except http_client.ProviderRefused as error:
            log.warning("issuer declined", issuer=provider.issuer.name, reason=error.message)
            raise Unauthenticated(NOT_SUCCEEDED) from error
        except InvalidToken as error:
            raise Unauthenticated(NOT_SUCCEEDED) from error

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
        return await http_client.post_form(endpoints.token or "", form, basic=basic)


async def _completed(
    provider: Provider, endpoints: Endpoints, claims: Mapping[str, Any], granted: Any
) -> Mapping[str, Any]:
    """Strict issuers tell of e-mail and groups at their userinfo endpoint alone, not in the ID token."""
    if endpoints.userinfo is None or not lacks(provider.issuer, claims):
        return claims
    bearer = _text(granted, "access_token")
    try:
        told = await http_client.get_json(endpoints.userinfo, bearer=bearer)
    except http_client.ProviderRefused as error:
        log.warning("issuer tells no more", issuer=provider.issuer.name, reason=error.message)
        return claims
    return with_told(claims, told)


def _text(granted: Any, member: str) -> str:
    found = granted.get(member) if isinstance(granted, dict) else None
    if (
        not isinstance(found, str)
        or len(found) > MAX_TOKEN_CHARACTERS
        or not _VISIBLE.fullmatch(found)
    ):
        raise InvalidToken
    return found


def _check(provider: Provider, endpoints: Endpoints, returned: SignOnResult, begun: Begun) -> None:
    """That this is the end of the login that the browser began, with the issuer it began it with."""
    if begun["issuer"] != provider.issuer.name or returned.error is not None:
        raise InvalidToken
    if not hmac.compare_digest((returned.state or "").encode(), begun["state"].encode()):
        raise InvalidToken
    if (returned.issuer is not None or endpoints.tells_issuer) and (
        returned.issuer != provider.issuer.issuer
    ):
        raise InvalidToken
    if not returned.code or len(returned.code) > MAX_CODE_CHARACTERS:
        raise InvalidToken


def inside(path: str | None) -> str:
    """A path of this very site, else its front page: nobody is sent elsewhere after a login."""
    return path if path is not None and _INSIDE.fullmatch(path) else "/"


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
