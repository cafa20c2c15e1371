"""A person's login on this machine: a file that only the owner reads, renewed by refresh tokens.

A refresh token is good once, so programs that start together take turns: whoever renews holds the file's lock,
and whoever waited finds the renewed login.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from watchbill.client.reader import RENEW_BEFORE_SECONDS, Client
from watchbill.client.transport import Transport, decoded
from watchbill.errors import Invalid, OAuthError, Unauthenticated, Unavailable
from watchbill.files import write_private
from watchbill.responses.access import DeviceAuthorization, TokenGrant

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
PENDING, SLOW_DOWN = "authorization_pending", "slow_down"
"""RFC 8628's codes while nobody has confirmed."""
SLOWER_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    url: str
    access_token: str
    access_token_ends: float
    """By the clock of the machine, as time.time()."""
    refresh_token: str


def read_login(path: Path) -> StoredLogin | None:
    """None where nobody is logged in. Raises Invalid for a file that others may read or that is none of
    ours."""
    try:
        if path.stat().st_mode & 0o077:
            raise Invalid(
                f"Other users can read the login file {path}.", details=f"run `chmod 600 {path}`"
            )
        members = json.loads(path.read_text(encoding="utf-8"))
        return StoredLogin(**members)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(
            f"The login file {path} is invalid.", details="run `watchbill login` again"
        ) from error


def write_login(path: Path, login: StoredLogin) -> None:
    """Raises WatchbillError where that cannot be done."""
    members = {name: getattr(login, name) for name in StoredLogin.__slots__}
    write_private(path, json.dumps(members).encode())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class LoginClient(Client):
    """A client that acts as the person who is logged in on this machine."""

    def __init__(self, path: Path, login: StoredLogin, *, ca_file: Path | None = None) -> None:
        super().__init__(login.url, "", "", ca_file=ca_file)
        self._path = path

    async def _log_in(self) -> None:
        with await asyncio.to_thread(_entered, self._path) as _:
            login = read_login(self._path)
            if login is None:
                raise Unauthenticated("You are not logged in.", details="run `watchbill login`")
            refused = login.access_token == self._token
            if refused or time.time() >= login.access_token_ends - RENEW_BEFORE_SECONDS:
                login = await self._renewed(login)
                write_login(self._path, login)
        self._token = login.access_token
        self._token_ends = (
            time.monotonic() + login.access_token_ends - time.time() - RENEW_BEFORE_SECONDS
        )

    async def _renewed(self, login: StoredLogin) -> StoredLogin:
        form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token}
        try:
            grant = await _grant(self._transport, form)
        except Invalid as error:
            raise Unauthenticated(
                "The login has expired.", details="run `watchbill login` again"
            ) from error
        return _stored(login.url, grant)


def _entered(path: Path) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(_locked(path))
    return stack


async def begin_device_login(transport: Transport) -> DeviceAuthorization:
    body = urlencode({"client_id": "watchbill-cli"}).encode()
    path = "/api/v2/device_authorization"
    return decoded(await transport.send("POST", path, headers=FORM, body=body), DeviceAuthorization)


async def finish_device_login(
    transport: Transport, device_login: DeviceAuthorization
) -> StoredLogin:
    """Waits until somebody confirms. Raises what refuses it."""
    interval, ends = float(device_login.interval), time.monotonic() + device_login.expires_in
    while time.monotonic() < ends:
        await asyncio.sleep(interval)
        try:
            form = {"grant_type": DEVICE, "device_code": device_login.device_code}
            return _stored(transport.url, await _grant(transport, form))
        except OAuthError as error:
            if error.code not in (PENDING, SLOW_DOWN):
                raise
            interval += SLOWER_SECONDS if error.code == SLOW_DOWN else 0
    raise Unauthenticated("Nobody confirmed the login in time.")


async def end_login(transport: Transport, login: StoredLogin) -> None:
    body = urlencode({"token": login.refresh_token}).encode()
    await transport.send("POST", "/api/v2/revoke", headers=FORM, body=body)


async def _grant(transport: Transport, form: dict[str, str]) -> TokenGrant:
    body = urlencode(form).encode()
    return decoded(
        await transport.send("POST", "/api/v2/token", headers=FORM, body=body), TokenGrant
    )


def _stored(url: str, grant: TokenGrant) -> StoredLogin:
    if grant.refresh_token is None:
        raise Unavailable("The server gave no refresh token.")
    return StoredLogin(
        url=url,
        access_token=grant.access_token,
        access_token_ends=time.time() + grant.expires_in,
        refresh_token=grant.refresh_token,
    )
