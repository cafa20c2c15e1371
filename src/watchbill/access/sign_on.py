"""Login through an issuer: authorization code with PKCE, state and nonce, one exact address to return to."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from watchbill.access import outgoing
from watchbill.access.external import login_of, verify_id_token
from watchbill.access.jose import Refused
from watchbill.access.provider import Endpoints, Provider
from watchbill.access.sealed import Sealed
from watchbill.errors import Unauthenticated, Unavailable
from watchbill.store.people import Login

BEGUN_SECONDS = 600
MAX_CODE_CHARACTERS = 4096
_INSIDE = re.compile(r"/(?![/\\])[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,500}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What the issuer sent the browser back with."""

    code: str | None
    state: str | None
    issuer: str | None
    error: str | None


class SignOn:
    def __init__(self, sealed: Sealed, clock: Callable[[], datetime]) -> None:
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

    async def finish(
        self, provider: Provider, returned: Returned, *, kept: str, redirect_uri: str
    ) -> tuple[Login, str]:
        """Who signed in, and where they were going. Raises Unauthenticated, Unavailable."""
        try:
            begun = await self._sealed.open(kept)
            endpoints = await provider.endpoints()
            _check(provider, endpoints, returned, begun)
            assert returned.code is not None, "checked"
            id_token = await self._exchange(
                provider, endpoints, returned.code, begun["verifier"], redirect_uri
            )
            claims = await verify_id_token(
                provider, id_token, nonce=begun["nonce"], now=self._clock()
            )
            return login_of(provider.issuer, claims), begun["then"]
        except Refused as error:
            raise Unauthenticated("The login did not succeed. Begin again.") from error

    async def _exchange(
        self, provider: Provider, endpoints: Endpoints, code: str, verifier: str, redirect_uri: str
    ) -> str:
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
        answer = await outgoing.post_form(endpoints.token or "", form, basic=basic)
        id_token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(id_token, str):
            raise Refused
        return id_token


def _check(
    provider: Provider, endpoints: Endpoints, returned: Returned, begun: dict[str, Any]
) -> None:
    """That this is the end of the login that the browser began, with the issuer it began it with."""
    if begun["issuer"] != provider.issuer.name or returned.error is not None:
        raise Refused
    if not hmac.compare_digest((returned.state or "").encode(), begun["state"].encode()):
        raise Refused
    if (returned.issuer is not None or endpoints.tells_issuer) and (
        returned.issuer != provider.issuer.issuer
    ):
        raise Refused
    if not returned.code or len(returned.code) > MAX_CODE_CHARACTERS:
        raise Refused


def inside(path: str | None) -> str:
    """A path of this very site, else its front page: nobody is sent elsewhere after a login."""
    return path if path is not None and _INSIDE.fullmatch(path) else "/"


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
