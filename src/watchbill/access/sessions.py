"""The page's sessions: an opaque random cookie, of which only a hash is kept."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from cachetools import TTLCache

from watchbill.errors import Unauthenticated
from watchbill.identity import Principal
from watchbill.store.identity.sessions import (
    StoredSession,
    session_create,
    session_delete,
    session_get,
)
from watchbill.store.postgres.database import Database

CACHE_SECONDS = 30
CACHED_SESSIONS = 10_000
MAX_COOKIE_CHARACTERS = 100


class Sessions:
    """Begins, finds and ends them. What was found is remembered for half a minute."""

    def __init__(
        self, db: Database, clock: Callable[[], datetime], *, lifetime_seconds: int
    ) -> None:
        self._db = db
        self._clock = clock
        self.lifetime_seconds = lifetime_seconds
        self._sessions: TTLCache[bytes, StoredSession, float] = TTLCache(
            CACHED_SESSIONS, ttl=CACHE_SECONDS, timer=lambda: clock().timestamp()
        )

    async def begin(self, principal: Principal) -> str:
        """The cookie's value, which is nowhere readable again."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        ends_at = now + timedelta(seconds=self.lifetime_seconds)
        session = StoredSession(principal=principal, expires_at=ends_at)
        await session_create(self._db, session, token_hash=_hash(cookie), now=now)
        return cookie

    async def find(self, cookie: str) -> StoredSession:
        """Raises Unauthenticated where there is no such session, or no longer."""
        if len(cookie) > MAX_COOKIE_CHARACTERS:
            raise Unauthenticated("The session is not valid.")
        now, token_hash = self._clock(), _hash(cookie)
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
        session, token_hash = await self.find(cookie), _hash(cookie)
        self._sessions.pop(token_hash, None)
        await session_delete(self._db, session.principal.tenant_id, token_hash)


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
