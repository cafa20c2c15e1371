"""From a bearer token to its holder, whether we issued it or an external issuer did."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.access.bounded import BoundedCache
from watchbill.access.external import Verified, check_time, login_of, verify_access_token
from watchbill.access.jose import Refused, check_shape, members
from watchbill.access.provider import Provider
from watchbill.access.tokens import Tokens
from watchbill.errors import Unauthenticated
from watchbill.store.access import PERSON, Holder
from watchbill.store.database import Database
from watchbill.store.people import Login, person_seen

REMEMBERED_TOKENS = 10_000
REMEMBERED_PEOPLE = 10_000
KEPT_SECONDS = 30


class People:
    """People as issuers tell of them; who was just seen is remembered for half a minute."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._known: BoundedCache[Login, tuple[UUID, datetime]] = BoundedCache(REMEMBERED_PEOPLE)

    async def holder(self, login: Login) -> Holder:
        """Somebody new is remembered too, and may do nothing."""
        now = self._clock()
        known = self._known.get(login)
        if known is None or now >= known[1]:
            person_id = await person_seen(self._db, login, now=now)
            known = (person_id, now + timedelta(seconds=KEPT_SECONDS))
            self._known.put(login, known)
        return Holder(tenant_id=login.tenant_id, kind=PERSON, id=known[0])


class Bearers:
    def __init__(
        self,
        tokens: Tokens,
        providers: Iterable[Provider],
        people: People,
        clock: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._providers = {provider.issuer.issuer: provider for provider in providers}
        self._people = people
        self._clock = clock
        self._verified: BoundedCache[bytes, tuple[Verified, Login]] = BoundedCache(
            REMEMBERED_TOKENS
        )

    async def holder(self, token: str) -> Holder:
        """Raises Unauthenticated, always with the same words; Unavailable where an issuer was never heard."""
        provider = self._provider(token) if self._providers else None
        if provider is None:
            return (await self._tokens.verify(token)).whose()
        try:
            return await self._people.holder(await self._login(provider, token))
        except Refused as error:
            raise Unauthenticated("The token is not valid.") from error

    def _provider(self, token: str) -> Provider | None:
        """By what the token says of itself: it only chooses whose keys the signature must fit."""
        try:
            check_shape(token)
            issuer = members(token, 1).get("iss")
        except (Refused, ValueError):
            return None
        return self._providers.get(issuer) if isinstance(issuer, str) else None

    async def _login(self, provider: Provider, token: str) -> Login:
        token_hash = hashlib.sha256(token.encode("ascii")).digest()
        known = self._verified.get(token_hash)
        if known is None:
            verified = await verify_access_token(provider, token, self._clock())
            known = (verified, login_of(provider.issuer, verified.claims))
            self._verified.put(token_hash, known)
        elif await provider.key(known[0].kid) is None:
            raise Refused
        check_time(known[0], self._clock())
        return known[1]
