"""An issuer for the tests: its own keys, any token, and the faults that real ones have."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

AUDIENCE = "watchbill"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TestIssuer:
    """Answers discovery and keys; `keys` and `fault` may change while it runs."""

    __test__ = False

    url: str = ""
    keys: list[Any] = field(default_factory=list)
    fault: str | None = None
    fetched: int = 0
    others: list[str] = field(default_factory=list)
    """Whatever else somebody asked for."""

    @property
    def key(self) -> Any:
        return self.keys[0]

    def claims(self, now: float, **members: Any) -> dict[str, Any]:
        made = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "u-1",
            "email": "ada@example.com",
            "email_verified": True,
            "iat": int(now),
            "exp": int(now) + 600,
        } | members
        return {name: value for name, value in made.items() if value is not ...}

    def header(self, **members: Any) -> dict[str, Any]:
        made = {"alg": "RS256", "typ": "at+jwt", "kid": self.key.kid} | members
        return {name: value for name, value in made.items() if value is not ...}

    def token(self, header: Any, claims: Any, *, key: Any = None, algorithm: str = "RS256") -> str:
        """Signed rightly, whatever the rest of it says."""
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        text = f"{encoded(head)}.{encoded(body)}"
        signing = jws.JWSRegistry.algorithms[algorithm]
        return f"{text}.{encoded(signing.sign(text.encode(), key or self.key))}"

    async def discovery(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def jwks(self, _: web.Request) -> web.StreamResponse:
        self.fetched += 1
        if self.fault == "500":
            return web.Response(status=500)
        if self.fault == "garbage":
            return web.Response(body=b"\x00<html>")
        if self.fault == "huge":
            return web.Response(body=b'{"keys":[' + b" " * 1_000_000 + b"]}")
        if self.fault == "redirect":
            raise web.HTTPFound(f"{self.url}/elsewhere")
        if self.fault == "slow":
            await asyncio.sleep(30)
        shown = [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]
        if self.fault == "twins":
            shown = [*shown, {**OTHER.as_dict(private=False), "kid": self.key.kid}]
        if self.fault == "symmetric":
            shown = [{"kty": "oct", "kid": self.key.kid, "k": "c2VjcmV0"}]
        return web.json_response({"keys": shown})

    async def anything(self, request: web.Request) -> web.StreamResponse:
        self.others.append(request.path)
        return web.json_response({"keys": [OTHER.as_dict(private=False)]})


KEY = RSAKey.generate_key(2048, {"kid": "rsa-1"})
NEXT_KEY = RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC_KEY = ECKey.generate_key("P-256", {"kid": "ec-1"})
EC_384_KEY = ECKey.generate_key("P-384", {"kid": "ec-384"})
OTHER = RSAKey.generate_key(2048, {"kid": "other"})


@asynccontextmanager
async def running_issuer() -> AsyncIterator[TestIssuer]:
    issuer = TestIssuer(keys=[KEY, EC_KEY, EC_384_KEY])
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.discovery)
    app.router.add_get("/keys", issuer.jwks)
    app.router.add_route("*", "/{path:.*}", issuer.anything)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        await runner.cleanup()
