"""Administration: accounts, users, rules, roles, keys, tenants. Every change is an event in the audit log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from watchbill.access.declared import Declared, DeclaredRule, Difference, difference, grant_of
from watchbill.access.roles import PREDEFINED
from watchbill.api.call import Call
from watchbill.api.reply import Answer, Reply, json_reply
from watchbill.errors import Forbidden, Invalid, NotFound
from watchbill.store.access import Account, account_create, account_list, account_rotate
from watchbill.store.administration import (
    Change,
    disable_account,
    disable_person,
    nameable_scopes,
    rules_change,
    tenant_create,
)
from watchbill.store.people import person_list, person_set_disabled
from watchbill.store.rules import FIRST_TENANT_ID, Grant, NewGrant, rule_list

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class AccountCreation(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: Name
    expires_at: datetime | None = None


class Application(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    document: Declared
    dry_run: bool = False


class KeyRotation(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    at_once: bool = False


class TenantCreation(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: Name


async def list_accounts(call: Call) -> Answer:
    found = await account_list(call.db, call.tenant_id)
    keys = await account_list(call.db, call.tenant_id, keys=True)
    return json_reply(
        {
            "accounts": [account_shown(one) for one in found],
            "accessKeys": [account_shown(one) for one in keys],
        }
    )


async def create_account(call: Call) -> Answer:
    creation = await call.json_body(AccountCreation)
    check_future(creation.expires_at, call.now)
    client_id, secret = await account_create(
        call.db,
        call.tenant_id,
        creation.name,
        (),
        now=call.now,
        created_by=call.subject,
        expires_at=creation.expires_at,
    )
    call.note(target=client_id, details=f"name={creation.name}")
    return json_reply(
        {"clientId": client_id, "clientSecret": secret, "name": creation.name}, status=201
    )


async def delete_account(call: Call) -> Answer:
    client_id = call.values["clientId"]
    call.note()
    if not await disable_account(call.db, call.tenant_id, client_id, now=call.now):
        raise NotFound("There is no such account.")
    return Reply(status=204)


async def rotate_account(call: Call) -> Answer:
    client_id = call.values["clientId"]
    call.note()
    secret = await account_rotate(call.db, call.tenant_id, client_id)
    if secret is None:
        raise NotFound("There is no such account.")
    return json_reply({"clientId": client_id, "clientSecret": secret})


async def list_users(call: Call) -> Answer:
    return json_reply(
        {
            "users": [
                {
                    "id": person.id,
                    "name": person.name,
                    "issuer": person.issuer,
                    "groups": person.groups,
                    "firstSeenAt": person.created_at,
                    "lastSeenAt": person.seen_at,
                    "isDisabled": person.disabled_at is not None,
                    **({"email": person.email} if person.email else {}),
                }
                for person in await person_list(call.db, call.tenant_id)
            ]
        }
    )


async def disable_user(call: Call) -> Answer:
    call.note()
    if not await disable_person(call.db, call.tenant_id, call.values["userId"], now=call.now):
        raise NotFound("There is no such user.")
    return Reply(status=204)


async def enable_user(call: Call) -> Answer:
    call.note()
    if not await person_set_disabled(call.db, call.tenant_id, call.values["userId"], at=None):
        raise NotFound("There is no such user.")
    return Reply(status=204)


async def list_rules(call: Call) -> Answer:
    grants = await rule_list(call.db, call.tenant_id)
    return json_reply({"rules": [_rule_shown(grant) for grant in grants]})


async def create_rule(call: Call) -> Answer:
    rule = await call.json_body(DeclaredRule)
    (grant,) = await _wanted(call, (rule,), await _accounts(call))
    call.note(details=_told(grant))
    change = Change(added=(grant,), removed=())
    (rule_id,) = await rules_change(
        call.db, call.tenant_id, change, changed_by=call.subject, now=call.now
    )
    return json_reply({"id": rule_id} | _grant_shown(grant), status=201)


async def delete_rule(call: Call) -> Answer:
    rule_id = call.values["ruleId"]
    found = [one for one in await rule_list(call.db, call.tenant_id) if one.id == rule_id]
    if not found:
        raise NotFound("There is no such rule.")
    call.note(details=_told((found[0].subject_kind, found[0].subject, found[0].rule)))
    change = Change(added=(), removed=found)
    await rules_change(call.db, call.tenant_id, change, changed_by=call.subject, now=call.now)
    return Reply(status=204)


async def list_roles(call: Call) -> Answer:
    predefined = {role.name for role in PREDEFINED}
    return json_reply(
        {
            "roles": [
                {
                    "name": role.name,
                    "title": role.title,
                    "permissions": sorted(role.permissions),
                    "description": role.description,
                    "isPredefined": role.name in predefined,
                }
                for role in call.services.roles.by_name.values()
            ]
        }
    )


async def apply_access(call: Call) -> Answer:
    application = await call.large_json_body(Application)
    declared = application.document
    accounts = await _accounts(call)
    for one in declared.service_accounts:
        accounts.setdefault(one.name, [])
    found = await _difference(call, declared, accounts)
    answer = _difference_shown(found) | {"dryRun": application.dry_run, "credentials": []}
    if application.dry_run:
        return json_reply(answer)
    call.note(
        details=f"document={declared.name} accounts+{len(found.new_accounts)} "
        f"rules+{len(found.added)}-{len(found.removed)}"
    )
    for name in found.new_accounts:
        client_id, secret = await account_create(
            call.db, call.tenant_id, name, (), now=call.now, created_by=call.subject
        )
        accounts[name] = [client_id]
        credential = {"name": name, "clientId": client_id, "clientSecret": secret}
        answer["credentials"].append(credential)
    final = await _difference(call, declared, accounts)
    change = Change(added=final.added, removed=final.removed, managed_by=declared.name)
    await rules_change(call.db, call.tenant_id, change, changed_by=call.subject, now=call.now)
    return json_reply(answer)


async def _difference(
    call: Call, declared: Declared, accounts: Mapping[str, Sequence[str]]
) -> Difference:
    return difference(
        declared,
        grants=await rule_list(call.db, call.tenant_id),
        accounts=accounts,
        wanted=await _wanted(call, declared.rules, accounts),
    )


async def _wanted(
    call: Call, rules: Sequence[DeclaredRule], accounts: Mapping[str, Sequence[str]]
) -> list[NewGrant]:
    scopes = await nameable_scopes(call.db, call.tenant_id)
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


async def rotate_keys(call: Call) -> Answer:
    if call.tenant_id != FIRST_TENANT_ID:
        raise Forbidden("The keys belong to the server, which the first tenant administers.")
    rotation = await call.json_body(KeyRotation)
    key = await call.services.keyring.rotate(at_once=rotation.at_once)
    call.note(details=f"kid={key.kid} at_once={str(rotation.at_once).lower()}")
    return json_reply({"kid": key.kid, "activeAt": key.active_at})


async def create_tenant(call: Call) -> Answer:
    if call.tenant_id != FIRST_TENANT_ID:
        raise Forbidden("Tenants are made by the first tenant's administrators.")
    creation = await call.json_body(TenantCreation)
    tenant_id, client_id, secret = await tenant_create(call.db, creation.name, now=call.now)
    call.note(target=client_id, details=f"tenant={tenant_id} name={creation.name}")
    return json_reply(
        {"id": tenant_id, "name": creation.name, "clientId": client_id, "clientSecret": secret},
        status=201,
    )


def check_future(expires_at: datetime | None, now: datetime) -> None:
    """Raises Invalid."""
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise Invalid("expiresAt must be a time to come, with its offset.")


def account_shown(account: Account) -> dict[str, Any]:
    optional = {
        "createdBy": account.created_by,
        "expiresAt": account.expires_at,
        "userId": account.person_id,
    }
    return {
        "clientId": account.client_id,
        "name": account.name,
        "createdAt": account.created_at,
        "isDisabled": account.is_disabled,
        **{name: value for name, value in optional.items() if value is not None},
    }


async def _accounts(call: Call) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for account in await account_list(call.db, call.tenant_id):
        if not account.is_disabled:
            found.setdefault(account.name, []).append(account.client_id)
    return found


def _rule_shown(grant: Grant) -> dict[str, Any]:
    optional = {
        "createdAt": grant.created_at,
        "createdBy": grant.created_by,
        "managedBy": grant.managed_by,
    }
    shown = {"id": grant.id} | _grant_shown((grant.subject_kind, grant.subject, grant.rule))
    return shown | {name: value for name, value in optional.items() if value is not None}


def _grant_shown(grant: NewGrant) -> dict[str, Any]:
    kind, subject, rule = grant
    return {
        "subjectKind": kind,
        "subject": subject,
        "role": rule.role,
        "scopeKind": rule.scope_kind,
        "scopeId": rule.scope_id,
    }


def _difference_shown(found: Difference) -> dict[str, Any]:
    return {
        "newServiceAccounts": found.new_accounts,
        "added": [_grant_shown(grant) for grant in found.added],
        "removed": [_rule_shown(grant) for grant in found.removed],
        "unchanged": found.kept,
        "leftAlone": found.left_alone,
    }


def _told(grant: NewGrant) -> str:
    shown: Mapping[str, Any] = _grant_shown(grant)
    return " ".join(f"{name}={value}" for name, value in shown.items())


HANDLERS = (
    list_accounts,
    create_account,
    delete_account,
    rotate_account,
    list_users,
    disable_user,
    enable_user,
    list_rules,
    create_rule,
    delete_rule,
    list_roles,
    apply_access,
    rotate_keys,
    create_tenant,
)
