"""Who is asking and what they may do where: from access rules to a `Caller`. Default is nothing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from watchbill.access.bounded import BoundedCache
from watchbill.access.roles import SCOPED, Permission, Roles
from watchbill.errors import Unauthenticated
from watchbill.query import Scope
from watchbill.store.access import PERSON, Holder, Subject, subject_of
from watchbill.store.database import Database
from watchbill.store.rules import FIRST_TENANT_ID, Rule

Id = TypeVar("Id")

KEPT_SECONDS = 30
KEPT_CALLERS = 10_000
NAMED_RULES = 10
"""So many of them are named in the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A subject that was authenticated, and the union of everything granted to it."""

    subject: str
    name: str
    kind: str
    holder: Holder
    scopes: Mapping[Permission, Scope]
    """Where each permission holds; one that is not here holds nowhere."""
    rules: Mapping[Permission, tuple[str, ...]]
    """What granted each, as `role@scope`."""

    @property
    def tenant_id(self) -> int:
        return self.holder.tenant_id

    @property
    def person_id(self) -> UUID | None:
        return self.holder.id if self.holder.kind == PERSON else None

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


class Callers:
    """Turns holders into callers and remembers them for half a minute, so that a change of rules, a disabled
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
        self._known: BoundedCache[Holder, tuple[Caller, datetime]] = BoundedCache(KEPT_CALLERS)

    async def resolve(self, holder: Holder) -> Caller:
        """Raises Unauthenticated where the holder is gone or disabled."""
        now = self._clock()
        known = self._known.get(holder)
        if known is not None and now < known[1]:
            return known[0]
        subject = await subject_of(
            self._db, holder, now=now, groups_since=now - self._groups_lifetime
        )
        if subject is None:
            self._known.pop(holder)
            raise Unauthenticated("This account may not come in.")
        caller = caller_of(subject, self._roles)
        self._known.put(holder, (caller, now + timedelta(seconds=KEPT_SECONDS)))
        return caller


def caller_of(subject: Subject, roles: Roles) -> Caller:
    tenant_id = subject.holder.tenant_id
    granting: dict[Permission, list[Rule]] = {}
    for rule in subject.rules:
        for permission in roles.permissions(rule.role):
            granting.setdefault(permission, []).append(rule)
    return Caller(
        subject=subject.subject,
        name=subject.name,
        kind=subject.kind,
        holder=subject.holder,
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
    found = list(rules)
    return Scope(
        tenant_id=tenant_id,
        is_whole_tenant=any(
            rule.scope_kind == "tenant" and rule.scope_id == str(tenant_id) for rule in found
        ),
        cluster_ids=frozenset(_ids(found, "cluster", UUID)),
        department_ids=frozenset(_ids(found, "department", _number)),
        project_ids=frozenset(_ids(found, "project", _number)),
    )


def _ids(rules: list[Rule], scope_kind: str, read: Callable[[str], Id]) -> list[Id]:
    found = []
    for rule in rules:
        if rule.scope_kind == scope_kind:
            try:
                found.append(read(rule.scope_id))
            except ValueError:
                continue
    return found


def _number(text: str) -> int:
    """A number as the server gives them; one that the database could not hold is none."""
    number = int(text)
    if not 0 < number < 2**31:
        raise ValueError(text)
    return number
