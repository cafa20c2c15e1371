"""Device logins (RFC 8628): a CLI shows a code, a logged-in user confirms it in the browser."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cachetools import TTLCache

from watchbill.errors import TooMany
from watchbill.identity import Principal
from watchbill.store.identity.device_logins import (
    DeviceLogin,
    device_login_create,
    device_login_decide,
    device_login_get,
    device_login_poll,
)
from watchbill.store.postgres.database import Database

LIFETIME = timedelta(minutes=10)
INTERVAL_SECONDS = 3
MIN_INTERVAL = timedelta(seconds=INTERVAL_SECONDS - 1)
MAX_PACED_CODES = 10_000
CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
CODE_LENGTH = 8


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
            MAX_PACED_CODES, ttl=MIN_INTERVAL.total_seconds(), timer=lambda: clock().timestamp()
        )

    async def begin(self, address: str) -> StartedDeviceLogin:
        """Raises TooMany."""
        now = self._clock()
        code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
        device_code = secrets.token_urlsafe(32)
        is_made = await device_login_create(
            self._db,
            device_hash=_hash(device_code),
            user_code=code,
            address=address,
            expires_at=now + LIFETIME,
            now=now,
        )
        if not is_made:
            raise TooMany("Too many logins are open.", retry_after_seconds=60)
        return StartedDeviceLogin(device_code, f"{code[:4]}-{code[4:]}")

    async def find(self, user_code: str) -> DeviceLogin | None:
        code = _normal(user_code)
        return await device_login_get(self._db, code, now=self._clock()) if code else None

    async def decide(self, user_code: str, principal: Principal | None) -> bool:
        """Approve for the principal, or deny where it is None. False where no such login is open."""
        code = _normal(user_code)
        return bool(code) and await device_login_decide(
            self._db, code, principal, now=self._clock()
        )

    def may_poll(self, device_code: str) -> bool:
        """False within the interval of the last poll, whatever that found; the database is not asked."""
        device_hash = _hash(device_code)
        if device_hash in self._polled:
            return False
        self._polled[device_hash] = True
        return True

    async def poll(self, device_code: str) -> Principal | PendingDeviceLogin:
        now = self._clock()
        login = await device_login_poll(self._db, _hash(device_code), now=now)
        if login is None or login.expires_at <= now:
            return PendingDeviceLogin.EXPIRED
        if login.approved is not None:
            return login.approved
        if login.denied_at is not None:
            return PendingDeviceLogin.DENIED
        if login.polled_at is not None and now - login.polled_at < MIN_INTERVAL:
            return PendingDeviceLogin.SLOW_DOWN
        return PendingDeviceLogin.PENDING


def _normal(user_code: str) -> str:
    """As it is kept, or nothing where it cannot be one."""
    code = user_code.upper().replace("-", "").replace(" ", "")
    return code if len(code) == CODE_LENGTH and set(code) <= set(CODE_LETTERS) else ""


def _hash(device_code: str) -> bytes:
    return hashlib.sha256(device_code.encode()).digest()
