"""Logins: by a client id and its secret, a browser's session, and a device's code (RFC 8628).

A CLI shows the code, and a logged-in user confirms it in the browser.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cachetools import TTLCache

from watchbill.errors import TooMany, Unauthenticated
from watchbill.identity import ACCOUNT_PRINCIPAL, Account, AgentIdentity, Principal
from watchbill.store.identity.accounts import (
    account_get,
    cluster_credential_get,
    is_secret,
    read_agent_credential,
    store_secret,
)
from watchbill.store.identity.sessions import (
    DeviceLogin,
    StoredSession,
    device_login_create,
    device_login_decide,
    device_login_get,
    device_login_poll,
    session_create,
    session_delete,
    session_get,
)
from watchbill.store.postgres.database import Database

MAX_CREDENTIAL_CHARACTERS = 200


class LoginRefused(Unauthenticated):
    """`account`: the one whose id was named, for the audit log of its tenant; never for the caller."""

    def __init__(self, account: Account | None) -> None:
        super().__init__("The client id or the secret is wrong.")
        self.account = account


class Accounts:
    """Checks secrets."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._nobody = store_secret("no secret hashes like this account's")

    async def log_in(self, client_id: str, secret: str) -> Account:
        """Raises LoginRefused in the same words and time whether id or secret is wrong."""
        if max(len(client_id), len(secret)) > MAX_CREDENTIAL_CHARACTERS:
            raise LoginRefused(None)
        account = await account_get(self._db, client_id)
        is_right = is_secret(secret, self._nobody if account is None else account.secret)
        if account is None or not is_right or account.is_disabled or self._is_over(account):
            raise LoginRefused(account)
        return account

    def _is_over(self, account: Account) -> bool:
        return account.expires_at is not None and account.expires_at <= self._clock()


def principal_of(account: Account) -> Principal:
    return Principal(tenant_id=account.tenant_id, kind=ACCOUNT_PRINCIPAL, id=account.id)


async def identify_agent(db: Database, credential: str) -> AgentIdentity:
    """Raises Unauthenticated in the same words whatever is wrong."""
    cluster_id, secret = read_agent_credential(credential)
    stored = await cluster_credential_get(db, cluster_id)
    if stored is None or not is_secret(secret, stored[1]):
        raise Unauthenticated("The agent credential is not valid.")
    return AgentIdentity(tenant_id=stored[0], cluster_id=cluster_id)


SESSION_CACHE_SECONDS = 30
MAX_CACHED_SESSIONS = 10_000
MAX_SESSION_COOKIE_CHARACTERS = 100


class Sessions:
    """Begins, finds and ends them. A session that was read is cached for half a minute."""

    def __init__(
        self, db: Database, clock: Callable[[], datetime], *, lifetime_seconds: int
    ) -> None:
        self._db = db
        self._clock = clock
        self.lifetime_seconds = lifetime_seconds
        self._sessions: TTLCache[bytes, StoredSession, float] = TTLCache(
            MAX_CACHED_SESSIONS, ttl=SESSION_CACHE_SECONDS, timer=lambda: clock().timestamp()
        )

    async def begin(self, principal: Principal) -> str:
        """The cookie's value, which is nowhere readable again."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        ends_at = now + timedelta(seconds=self.lifetime_seconds)
        session = StoredSession(principal=principal, expires_at=ends_at)
        await session_create(self._db, session, token_hash=_cookie_hash(cookie), now=now)
        return cookie

    async def find(self, cookie: str) -> StoredSession:
        """Raises Unauthenticated where there is no such session, or no longer."""
        if len(cookie) > MAX_SESSION_COOKIE_CHARACTERS:
            raise Unauthenticated("The session is not valid.")
        now, token_hash = self._clock(), _cookie_hash(cookie)
        session = self._sessions.get(token_hash)
        if session is not None and now < session.expires_at:
            return session
        session = await session_get(self._db, token_hash, now=now)
        if session is None:
            raise Unauthenticated("The session has ended.")
        self._sessions[token_hash] = session
        return session

    async def end(self, cookie: str) -> None:
        """Other servers may honour it for half a minute more."""
        session, token_hash = await self.find(cookie), _cookie_hash(cookie)
        self._sessions.pop(token_hash, None)
        await session_delete(self._db, session.principal.tenant_id, token_hash)


def _cookie_hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


DEVICE_LOGIN_LIFETIME = timedelta(minutes=10)
DEVICE_POLL_SECONDS = 3
MIN_DEVICE_POLL_INTERVAL = timedelta(seconds=DEVICE_POLL_SECONDS - 1)
MAX_POLLED_DEVICE_CODES = 10_000
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
USER_CODE_LENGTH = 8


class PendingDeviceLogin(StrEnum):
    """Why there is no token yet, or never will be; RFC 8628's words."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"


@dataclass(frozen=True, slots=True)
class StartedDeviceLogin:
    device_code: str
    user_code: str


class DeviceLogins:
    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._polled: TTLCache[bytes, bool, float] = TTLCache(
            MAX_POLLED_DEVICE_CODES,
            ttl=MIN_DEVICE_POLL_INTERVAL.total_seconds(),
            timer=lambda: clock().timestamp(),
        )

    async def begin(self, address: str) -> StartedDeviceLogin:
        """Raises TooMany."""
        now = self._clock()
        code = "".join(secrets.choice(USER_CODE_LETTERS) for _ in range(USER_CODE_LENGTH))
        device_code = secrets.token_urlsafe(32)
        is_made = await device_login_create(
            self._db,
            device_hash=_device_code_hash(device_code),
            user_code=code,
            address=address,
            expires_at=now + DEVICE_LOGIN_LIFETIME,
            now=now,
        )
        if not is_made:
            raise TooMany("Too many logins are open.", retry_after_seconds=60)
        return StartedDeviceLogin(device_code, f"{code[:4]}-{code[4:]}")

    async def find(self, user_code: str) -> DeviceLogin | None:
        code = _normalized_user_code(user_code)
        return await device_login_get(self._db, code, now=self._clock()) if code else None

    async def decide(self, user_code: str, principal: Principal | None) -> bool:
        """Approve for the principal, or deny where it is None. False where no such login is open."""
        code = _normalized_user_code(user_code)
        return bool(code) and await device_login_decide(
            self._db, code, principal, now=self._clock()
        )

    def may_poll(self, device_code: str) -> bool:
        """False within the interval of the last poll, whatever its result; the database is not asked."""
        device_hash = _device_code_hash(device_code)
        if device_hash in self._polled:
            return False
        self._polled[device_hash] = True
        return True

    async def poll(self, device_code: str) -> Principal | PendingDeviceLogin:
        now = self._clock()
        login = await device_login_poll(self._db, _device_code_hash(device_code), now=now)
        if login is None or login.expires_at <= now:
            return PendingDeviceLogin.EXPIRED
        if login.approved is not None:
            return login.approved
        if login.denied_at is not None:
            return PendingDeviceLogin.DENIED
        if login.polled_at is not None and now - login.polled_at < MIN_DEVICE_POLL_INTERVAL:
            return PendingDeviceLogin.SLOW_DOWN
        return PendingDeviceLogin.PENDING


def _normalized_user_code(user_code: str) -> str:
    """As it is kept, or nothing where it cannot be one."""
    code = user_code.upper().replace("-", "").replace(" ", "")
    return code if len(code) == USER_CODE_LENGTH and set(code) <= set(USER_CODE_LETTERS) else ""


def _device_code_hash(device_code: str) -> bytes:
    return hashlib.sha256(device_code.encode()).digest()
