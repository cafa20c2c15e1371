"""Access rules as people write them, in a request or in a file, and what a file would change. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from watchbill.access.roles import ALIASES, Roles
from watchbill.errors import Invalid
from watchbill.identity import GROUP, SERVICE_ACCOUNT, USER, Grant, NewGrant, Rule
from watchbill.requests import DeclaredAccess, RuleCreation, RuleScope, RuleSubject
from watchbill.store.workloads.organisation import UnknownName

_QUEUE = re.compile(r"(?!\d+\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
"""What a queue or namespace may be named; digits alone are a number."""
ScopeNames = Mapping[str, Sequence[tuple[str, str, str]]]
"""By kind: name, id, name of the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    new_accounts: tuple[str, ...]
    added: tuple[NewGrant, ...]
    removed: tuple[Grant, ...]
    kept: int
    left_alone: int
    """Rules that somebody made by hand."""


def difference(
    declared: DeclaredAccess,
    *,
    grants: Sequence[Grant],
    accounts: Mapping[str, Sequence[str]],
    wanted: Sequence[NewGrant],
) -> Difference:
    """`accounts`: client ids by name. A subject that is a new account is written as its name."""
    managed = {_key(grant): grant for grant in grants if grant.managed_by == declared.name}
    wanted_keys = dict.fromkeys(wanted)
    return Difference(
        new_accounts=tuple(
            account.name for account in declared.service_accounts if not accounts.get(account.name)
        ),
        added=tuple(key for key in wanted_keys if key not in managed),
        removed=tuple(grant for key, grant in managed.items() if key not in wanted_keys),
        kept=sum(key in managed for key in wanted_keys),
        left_alone=sum(
            _key(grant) not in wanted_keys for grant in grants if grant.managed_by != declared.name
        ),
    )


def _key(grant: Grant) -> NewGrant:
    return grant.subject_kind, grant.subject, grant.rule


def grant_of(
    rule: RuleCreation,
    *,
    tenant_id: int,
    roles: Roles,
    scopes: ScopeNames,
    accounts: Mapping[str, Sequence[str]],
) -> NewGrant:
    """Raises Invalid for a role or a scope that does not exist, and for a name that means several."""
    if roles.named(rule.role) is None:
        raise Invalid(
            f"There is no role '{rule.role}'.", details=f"Roles: {', '.join(roles.by_name)}."
        )
    kind, subject = _subject(rule.subject, accounts)
    scope_kind, scope_id = _scope(rule.scope, tenant_id, scopes)
    role = ALIASES.get(rule.role, rule.role)
    return kind, subject, Rule(role=role, scope_kind=scope_kind, scope_id=scope_id)


def _subject(subject: RuleSubject, accounts: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    named = [
        (kind, value)
        for kind, value in (
            (USER, subject.user),
            (GROUP, subject.group),
            (SERVICE_ACCOUNT, subject.service_account),
        )
        if value is not None
    ]
    if len(named) != 1:
        raise Invalid("A rule's subject is one of user, group, serviceAccount.")
    kind, value = named[0]
    if not value.isprintable():
        raise Invalid("A subject's name contains invisible characters.")
    if kind != SERVICE_ACCOUNT or any(value in ids for ids in accounts.values()):
        return kind, value
    ids = accounts.get(value)
    if ids is None:
        raise Invalid(f"There is no service account '{value}'.")
    if len(ids) > 1:
        raise Invalid(f"Several service accounts are named '{value}'; use a client id.")
    return kind, ids[0] if ids else value


def _scope(scope: RuleScope, tenant_id: int, names: ScopeNames) -> tuple[str, str]:
    if scope.tenant:
        if scope.cluster or scope.department or scope.project:
            raise Invalid("A scope is the tenant, or something in it.")
        return "tenant", str(tenant_id)
    for kind, value in (
        ("project", scope.project),
        ("department", scope.department),
        ("cluster", scope.cluster),
    ):
        if value is not None:
            cluster = scope.cluster if kind != "cluster" else None
            return kind, _named(names.get(kind, ()), kind, value, cluster)
    raise Invalid("A scope names the tenant, a cluster, a department or a project.")


def _named(
    known: Sequence[tuple[str, str, str]], kind: str, value: str, cluster: str | None
) -> str:
    names = {
        identity: where
        for name, identity, where in known
        if value in (name, identity) and cluster in (None, where)
    }
    if not names:
        raise Invalid(
            f"There is no {kind} '{value}'.",
            details="Before a workload of it was seen, a project or department is named with its cluster.",
        )
    if len(names) > 1:
        raise Invalid(
            f"'{value}' names more than one {kind}; name the cluster too, or use the id.",
            details=f"Clusters: {', '.join(sorted(names.values()))}.",
        )
    return next(iter(names))


def unknown_names(rules: Iterable[RuleCreation], scopes: ScopeNames) -> set[UnknownName]:
    """The projects and departments that rules name together with a cluster, and that are not known yet."""
    clusters = {name: identity for name, identity, _ in scopes.get("cluster", ())}
    unknown: set[UnknownName] = set()
    for scope in (rule.scope for rule in rules):
        kind, key = (
            ("project", scope.project) if scope.project else ("department", scope.department)
        )
        if key is None or scope.cluster not in clusters or not _QUEUE.fullmatch(key):
            continue
        if not any(key == name and scope.cluster == at for name, _, at in scopes.get(kind, ())):
            unknown.add(UnknownName(kind, clusters[scope.cluster], key))
    return unknown


def with_unknown_names(scopes: ScopeNames, added: Iterable[UnknownName]) -> ScopeNames:
    """The scopes as they would be; a number is not given before it is needed."""
    names = {identity: name for name, identity, _ in scopes.get("cluster", ())}
    extended = {kind: list(known) for kind, known in scopes.items()}
    for name_ in added:
        extended.setdefault(name_.kind, []).append(
            (name_.key, f"new:{name_.key}", names[name_.cluster_id])
        )
    return extended
