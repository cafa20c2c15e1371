"""Who is asking and what they may read: from access rules to a `Caller`. Default is nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from watchbill.access.bounded import BoundedCache
from watchbill.errors import Unauthenticated
from watchbill.query import Scope
from watchbill.store.access import ADMINISTRATOR, SERVICE_ACCOUNT, Rule, Subject, subject_by_account
from watchbill.store.database import Database

Id = TypeVar("Id")

VIEWER = "viewer"
READING_ROLES = frozenset({ADMINISTRATOR, VIEWER})
KEPT_SECONDS = 30
KEPT_CALLERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A subject that was authenticated, and the union of everything granted to it."""

    subject: str
    name: str
    kind: str
    tenant_id: int
    account_id: UUID
    scope: Scope
    is_administrator: bool


class Callers:
    """Turns accounts into callers and remembers them for half a minute, so that a change of rules or a
    disabled account takes effect within one."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._known: BoundedCache[tuple[int, UUID], tuple[Caller, datetime]] = BoundedCache(
            KEPT_CALLERS
        )

    async def resolve(self, tenant_id: int, account_id: UUID) -> Caller:
        """Raises Unauthenticated where the account is gone or disabled."""
        now, key = self._clock(), (tenant_id, account_id)
        known = self._known.get(key)
        if known is not None and now < known[1]:
            return known[0]
        subject = await subject_by_account(self._db, tenant_id, account_id)
        if subject is None:
            self._known.pop(key)
            raise Unauthenticated("This account may not come in.")
        caller = caller_of(subject)
        self._known.put(key, (caller, now + timedelta(seconds=KEPT_SECONDS)))
        return caller


def caller_of(subject: Subject) -> Caller:
    return Caller(
        subject=subject.client_id,
        name=subject.name,
        kind=SERVICE_ACCOUNT,
        tenant_id=subject.tenant_id,
        account_id=subject.account_id,
        scope=scope_of(subject.tenant_id, subject.rules),
        is_administrator=any(
            rule.role == ADMINISTRATOR and _is_whole_tenant(rule, subject.tenant_id)
            for rule in subject.rules
        ),
    )


def scope_of(tenant_id: int, rules: tuple[Rule, ...]) -> Scope:
    """The union of what the rules allow to read; a rule that names an unknown role or a malformed scope
    grants nothing."""
    reading = [rule for rule in rules if rule.role in READING_ROLES]
    return Scope(
        tenant_id=tenant_id,
        is_whole_tenant=any(_is_whole_tenant(rule, tenant_id) for rule in reading),
        cluster_ids=frozenset(_ids(reading, "cluster", UUID)),
        department_ids=frozenset(_ids(reading, "department", int)),
        project_ids=frozenset(_ids(reading, "project", int)),
    )


def _is_whole_tenant(rule: Rule, tenant_id: int) -> bool:
    return rule.scope_kind == "tenant" and rule.scope_id == str(tenant_id)


def _ids(rules: list[Rule], scope_kind: str, read: Callable[[str], Id]) -> list[Id]:
    found = []
    for rule in rules:
        if rule.scope_kind == scope_kind:
            try:
                found.append(read(rule.scope_id))
            except ValueError:
                continue
    return found
