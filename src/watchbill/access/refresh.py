"""Refresh tokens: each is good once. A second use of one, by whomever, ends the login that it came from."""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

from watchbill.errors import Unauthenticated
from watchbill.store.access import Holder
from watchbill.store.database import Database
from watchbill.store.sessions import family_create, family_revoke, family_rotate, refresh_owner

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

    async def begin(self, holder: Holder) -> tuple[str, Holder]:
        """The first token of a new family, and the holder as its tokens name it."""
        token, now = _new(), self._clock()
        member = replace(holder, family=uuid4())
        await family_create(
            self._db, member, token_hash=_hash(token), expires_at=now + self._lifetime, now=now
        )
        return token, member

    async def rotate(self, token: str) -> tuple[str, Holder]:
        """The next token. Raises Unauthenticated, in the same words whatever is wrong."""
        refused = Unauthenticated("The refresh token is not valid.")
        if not _FORM.fullmatch(token):
            raise refused
        owner = await refresh_owner(self._db, _hash(token))
        if owner is None:
            raise refused
        fresh = _new()
        holder = await family_rotate(
            self._db, owner[0], old_hash=_hash(token), new_hash=_hash(fresh), now=self._clock()
        )
        if holder is None:
            raise refused
        return fresh, holder

    async def revoke(self, token: str) -> None:
        """End the login that the token came from. Whoever holds no such token is told the same."""
        owner = await refresh_owner(self._db, _hash(token)) if _FORM.fullmatch(token) else None
        if owner is not None:
            await family_revoke(self._db, *owner, now=self._clock())


def _new() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
