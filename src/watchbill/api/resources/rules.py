"""Access rules and roles: one by one, and as a declared state."""

from collections.abc import Mapping, Sequence

import msgspec

from watchbill.access.declared import (
    Difference,
    ScopeNames,
    difference,
    grant_of,
    unknown_names,
    with_unknown_names,
)
from watchbill.access.roles import PREDEFINED
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, json_reply
from watchbill.errors import NotFound
from watchbill.identity import Grant, NewGrant, Rule
from watchbill.requests import (
    AccessApplication,
    DeclaredAccess,
    RuleCreation,
    RuleScope,
    RuleSubject,
)
from watchbill.responses.access import (
    AccessDifference,
    Credential,
    RoleEntry,
    RoleList,
    RuleEntry,
    RuleList,
)
from watchbill.store.identity.accounts import account_create, account_list
from watchbill.store.identity.administration import RuleChange, rule_change, scope_list
from watchbill.store.identity.rules import rule_list
from watchbill.store.workloads.organisation import organisation_declare


async def list_rules(call: Call) -> Answer:
    grants = await rule_list(call.db, call.tenant_id)
    return json_reply(RuleList(rules=tuple(_rule_entry(grant) for grant in grants)))


async def create_rule(call: Call) -> Answer:
    rule = await call.json_body(RuleCreation)
    accounts = await _accounts(call)
    scopes = await _scopes(call, (rule,), accounts)
    (grant,) = _resolved_grants(call, (rule,), scopes, accounts)
    call.note(details=_audit_details(grant))
    change = RuleChange(added=(grant,), removed=())
    (rule_id,) = await rule_change(
        call.db, call.tenant_id, change, changed_by=call.subject, now=call.now
    )
    return json_reply(msgspec.structs.replace(_grant_entry(grant), id=rule_id), status=201)


async def first_rule(call: Call, name: str, role: str, scope: RuleScope) -> Rule:
    """What an account of that name, which is yet to be made, may do. Raises Invalid."""
    rule = RuleCreation(subject=RuleSubject(service_account=name), role=role, scope=scope)
    accounts: dict[str, list[str]] = {name: []}
    scopes = await _scopes(call, (rule,), accounts)
    ((_, _, resolved),) = _resolved_grants(call, (rule,), scopes, accounts)
    return resolved


async def delete_rule(call: Call) -> Answer:
    rule_id = call.values["ruleId"]
    matches = [rule for rule in await rule_list(call.db, call.tenant_id) if rule.id == rule_id]
    if not matches:
        raise NotFound("There is no such rule.")
    call.note(
        details=_audit_details((matches[0].subject_kind, matches[0].subject, matches[0].rule))
    )
    change = RuleChange(added=(), removed=matches)
    await rule_change(call.db, call.tenant_id, change, changed_by=call.subject, now=call.now)
    return Reply(status=204)


async def list_roles(call: Call) -> Answer:
    predefined = {role.name for role in PREDEFINED}
    return json_reply(
        RoleList(
            roles=tuple(
                RoleEntry(
                    name=role.name,
                    title=role.title,
                    permissions=tuple(sorted(role.permissions)),
                    description=role.description,
                    is_predefined=role.name in predefined,
                )
                for role in call.services.roles.by_name.values()
            )
        )
    )


async def apply_access(call: Call) -> Answer:
    application = await call.large_json_body(AccessApplication)
    declared = application.document
    accounts = await _accounts(call)
    for account in declared.service_accounts:
        accounts.setdefault(account.name, [])
    scopes = await _scopes(call, declared.rules, accounts, dry_run=application.dry_run)
    wanted = await _difference(call, declared, scopes, accounts)
    if application.dry_run:
        return json_reply(_changes(wanted, dry_run=True))
    call.note(
        details=f"document={declared.name} accounts+{len(wanted.new_accounts)} "
        f"rules+{len(wanted.added)}-{len(wanted.removed)}"
    )
    credentials = []
    for name in wanted.new_accounts:
        client_id, secret = await account_create(
            call.db, call.tenant_id, name, (), now=call.now, created_by=call.subject
        )
        accounts[name] = [client_id]
        credentials.append(Credential(name=name, client_id=client_id, client_secret=secret))
    final = await _difference(call, declared, scopes, accounts)
    change = RuleChange(added=final.added, removed=final.removed, managed_by=declared.name)
    await rule_change(call.db, call.tenant_id, change, changed_by=call.subject, now=call.now)
    return json_reply(_changes(wanted, credentials))


def _changes(
    wanted: Difference, credentials: Sequence[Credential] = (), *, dry_run: bool = False
) -> AccessDifference:
    return AccessDifference(
        dry_run=dry_run,
        new_service_accounts=tuple(wanted.new_accounts),
        added=tuple(_grant_entry(grant) for grant in wanted.added),
        removed=tuple(_rule_entry(grant) for grant in wanted.removed),
        unchanged=wanted.kept,
        left_alone=wanted.left_alone,
        credentials=tuple(credentials),
    )


async def _scopes(
    call: Call,
    rules: Sequence[RuleCreation],
    accounts: Mapping[str, Sequence[str]],
    *,
    dry_run: bool = False,
) -> ScopeNames:
    """What the rules may name. A project or department that nothing was seen of yet gets its number now, so
    that access can be settled before the first workload."""
    scopes = await scope_list(call.db, call.tenant_id)
    new = unknown_names(rules, scopes)
    if not new:
        return scopes
    if dry_run:
        return with_unknown_names(scopes, new)
    _resolved_grants(
        call, rules, with_unknown_names(scopes, new), accounts
    )  # whatever else is wrong comes first
    await organisation_declare(call.db, call.tenant_id, new)
    return await scope_list(call.db, call.tenant_id)


async def _difference(
    call: Call, declared: DeclaredAccess, scopes: ScopeNames, accounts: Mapping[str, Sequence[str]]
) -> Difference:
    return difference(
        declared,
        grants=await rule_list(call.db, call.tenant_id),
        accounts=accounts,
        wanted=_resolved_grants(call, declared.rules, scopes, accounts),
    )


def _resolved_grants(
    call: Call,
    rules: Sequence[RuleCreation],
    scopes: ScopeNames,
    accounts: Mapping[str, Sequence[str]],
) -> list[NewGrant]:
    return [
        grant_of(
            rule,
            tenant_id=call.tenant_id,
            roles=call.services.roles,
            scopes=scopes,
            accounts=accounts,
        )
        for rule in rules
    ]


async def _accounts(call: Call) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for account in await account_list(call.db, call.tenant_id):
        if not account.is_disabled:
            names.setdefault(account.name, []).append(account.client_id)
    return names


def _rule_entry(grant: Grant) -> RuleEntry:
    return msgspec.structs.replace(
        _grant_entry((grant.subject_kind, grant.subject, grant.rule)),
        id=grant.id,
        created_at=grant.created_at,
        created_by=grant.created_by,
        managed_by=grant.managed_by,
    )


def _grant_entry(grant: NewGrant) -> RuleEntry:
    kind, subject, rule = grant
    return RuleEntry(
        subject_kind=kind,
        subject=subject,
        role=rule.role,
        scope_kind=rule.scope_kind,
        scope_id=rule.scope_id,
    )


def _audit_details(grant: NewGrant) -> str:
    members = msgspec.to_builtins(_grant_entry(grant))
    return " ".join(f"{name}={value}" for name, value in members.items())


HANDLERS = (list_rules, create_rule, delete_rule, list_roles, apply_access)
