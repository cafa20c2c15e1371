"""Signing in with a client id and its secret, for tokens and for the page alike."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from watchbill.errors import TooMany, Unauthenticated
from watchbill.store.access import ACCOUNT, Account, Holder, account_by_client_id
from watchbill.store.credential import Stored, is_account_secret, store_account_secret
from watchbill.store.database import Database

MAX_CREDENTIAL_CHARACTERS = 200
_AT_ONCE = 2
_WAITING = 64


class Accounts:
    """Checks secrets. Hashing is dear on purpose, so only a few are checked at once, off the event loop."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._nobody = store_account_secret("no secret hashes like this account's")

    async def sign_in(self, client_id: str, secret: str) -> Account:
        """Raises Unauthenticated in the same words and time whether id or secret is wrong."""
        if max(len(client_id), len(secret)) > MAX_CREDENTIAL_CHARACTERS:
            raise Unauthenticated("The client id or the secret is wrong.")
        account = await account_by_client_id(self._db, client_id)
        stored = self._nobody if account is None else account.secret
        is_right = await self._is_right(secret, stored)
        if account is None or not is_right or account.is_disabled or self._is_over(account):
            raise Unauthenticated("The client id or the secret is wrong.")
        return account

    def _is_over(self, account: Account) -> bool:
        return account.expires_at is not None and account.expires_at <= self._clock()

    async def _is_right(self, secret: str, stored: Stored) -> bool:
        if self._waiting >= _WAITING:
            raise TooMany("Too many are signing in at once.", retry_after_seconds=2)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(is_account_secret, secret, stored)
        finally:
            self._waiting -= 1


def holder_of(account: Account) -> Holder:
    return Holder(tenant_id=account.tenant_id, kind=ACCOUNT, id=account.id)
