"""From a bearer token to its principal, and from the principal's access rules to a `Caller`: the principal of
one request and what it may do where. The default is nothing.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from cachetools import LRUCache, TTLCache

from watchbill.access.oidc.provider import Provider
from watchbill.access.oidc.verification import (
    UserDirectory,
    VerifiedIdentity,
    check_time,
    external_login,
    verify_access_token,
)
from watchbill.access.roles import SCOPED, Permission, Roles
from watchbill.access.tokens.jose import InvalidToken, check_shape, unverified_part
from watchbill.access.tokens.tokens import Tokens
from watchbill.errors import Unauthenticated
from watchbill.identity import (
    FIRST_TENANT_ID,
    USER_PRINCIPAL,
    ExternalLogin,
    Principal,
    Rule,
    Subject,
)
from watchbill.query import Scope
from watchbill.store.identity.accounts import subject_get
from watchbill.store.postgres.database import Database

Id = TypeVar("Id")

CACHE_SECONDS = 30
CACHED_CALLERS = 10_000
NAMED_RULES = 10
"""So many of them are named in the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A subject that was authenticated, and the union of everything granted to it."""

    subject: str
    name: str
    kind: str
    principal: Principal
    scopes: Mapping[Permission, Scope]
    """Where each permission holds; one that is not here holds nowhere."""
    rules: Mapping[Permission, tuple[str, ...]]
    """What granted each, as `role@scope`."""

    @property
    def tenant_id(self) -> int:
        return self.principal.tenant_id

    @property
    def user_id(self) -> UUID | None:
        return self.principal.id if self.principal.kind == USER_PRINCIPAL else None

    @property
    def scope(self) -> Scope:
        """Where the caller may read workloads."""
        return self.scope_for(Permission.WORKLOADS_READ)

    @property
    def is_administrator(self) -> bool:
        return self.may(Permission.ACCESS_WRITE)

    def scope_for(self, permission: Permission) -> Scope:
        return self.scopes.get(permission) or Scope(self.tenant_id)

    def may(self, permission: Permission) -> bool:
        """Whether the permission holds anywhere; one that knows no scopes, in the whole tenant. The server
        itself belongs to the first tenant."""
        scope = self.scope_for(permission)
        if permission in SCOPED:
            return not scope.is_empty
        if permission is Permission.SERVER_READ and self.tenant_id != FIRST_TENANT_ID:
            return False
        return scope.is_whole_tenant


class CallerCache:
    """Turns principals into callers and remembers them for half a minute, so that a change of rules, a disabled
    account and a login that was ended take effect within one."""

    def __init__(
        self,
        db: Database,
        roles: Roles,
        clock: Callable[[], datetime],
        *,
        groups_lifetime_seconds: int,
    ) -> None:
        self._db = db
        self._roles = roles
        self._clock = clock
        self._groups_lifetime = timedelta(seconds=groups_lifetime_seconds)
        self._callers: TTLCache[Principal, Caller, float] = TTLCache(
            CACHED_CALLERS, ttl=CACHE_SECONDS, timer=lambda: clock().timestamp()
        )

    async def resolve(self, principal: Principal) -> Caller:
        """Raises Unauthenticated where the principal is gone or disabled."""
        try:
            return self._callers[principal]  # `get` would look twice
        except KeyError:
            return await self._find(principal)

    async def _find(self, principal: Principal) -> Caller:
        now = self._clock()
        subject = await subject_get(
            self._db, principal, now=now, groups_since=now - self._groups_lifetime
        )
        if subject is None:
            raise Unauthenticated("This account is disabled or does not exist.")
        caller = self._callers[principal] = caller_of(subject, self._roles)
        return caller


def caller_of(subject: Subject, roles: Roles) -> Caller:
    tenant_id = subject.principal.tenant_id
    granting: dict[Permission, list[Rule]] = {}
    for rule in subject.rules:
        for permission in roles.permissions(rule.role):
            granting.setdefault(permission, []).append(rule)
    return Caller(
        subject=subject.subject,
        name=subject.name,
        kind=subject.kind,
        principal=subject.principal,
        scopes={permission: scope_of(tenant_id, rules) for permission, rules in granting.items()},
        rules={
            permission: tuple(
                f"{rule.role}@{rule.scope_kind}:{rule.scope_id}" for rule in rules[:NAMED_RULES]
            )
            for permission, rules in granting.items()
        },
    )


def scope_of(tenant_id: int, rules: Iterable[Rule]) -> Scope:
    """The union of the rules' scopes; one that is malformed, or another tenant's, adds nothing."""
    granted = list(rules)
    return Scope(
        tenant_id=tenant_id,
        is_whole_tenant=any(
            rule.scope_kind == "tenant" and rule.scope_id == str(tenant_id) for rule in granted
        ),
        cluster_ids=frozenset(_ids(granted, "cluster", UUID)),
        department_ids=frozenset(_ids(granted, "department", _number)),
        project_ids=frozenset(_ids(granted, "project", _number)),
    )


def _ids(rules: list[Rule], scope_kind: str, read: Callable[[str], Id]) -> list[Id]:
    ids = []
    for rule in rules:
        if rule.scope_kind == scope_kind:
            try:
                ids.append(read(rule.scope_id))
            except ValueError:
                continue
    return ids


def _number(text: str) -> int:
    """A number as the server gives them; one that the database could not hold is none."""
    number = int(text)
    if not 0 < number < 2**31:
        raise ValueError(text)
    return number


CACHED_TOKENS = 10_000


class TokenVerifier:
    def __init__(
        self,
        tokens: Tokens,
        providers: Iterable[Provider],
        people: UserDirectory,
        clock: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._providers = {provider.issuer.issuer: provider for provider in providers}
        self._people = people
        self._clock = clock
        self._verified: LRUCache[bytes, tuple[VerifiedIdentity, ExternalLogin]] = LRUCache(
            CACHED_TOKENS
        )

    async def principal(self, token: str) -> Principal:
        """Raises Unauthenticated, always with the same words; Unavailable where an issuer was never reached."""
        provider = self._provider(token) if self._providers else None
        if provider is None:
            return (await self._tokens.verify(token)).principal
        try:
            return await self._people.principal(await self._login(provider, token))
        except InvalidToken as error:
            raise Unauthenticated("The token is not valid.") from error

    def _provider(self, token: str) -> Provider | None:
        """By what the token says of itself: it only chooses whose keys the signature must fit."""
        try:
            check_shape(token)
            issuer = unverified_part(token, 1).get("iss")
        except (InvalidToken, ValueError):
            return None
        return self._providers.get(issuer) if isinstance(issuer, str) else None

    async def _login(self, provider: Provider, token: str) -> ExternalLogin:
        token_hash = hashlib.sha256(token.encode("ascii")).digest()
        known = self._verified.get(token_hash)
        if known is None:
            verified = await verify_access_token(provider, token, self._clock())
            known = (verified, external_login(provider.issuer, verified.claims))
            self._verified[token_hash] = known
        elif await provider.key(known[0].kid) is None:
            raise InvalidToken
        check_time(known[0], self._clock())
        return known[1]
