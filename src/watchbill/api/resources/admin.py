"""Administration: accounts, users, keys, tenants. Every change is an event in the audit log, which is read
here too.
"""

from datetime import datetime
from uuid import UUID

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, json_reply
from watchbill.api.resources.rules import first_rule
from watchbill.errors import Forbidden, Invalid, NotFound
from watchbill.identity import FIRST_TENANT_ID, Account, Rule
from watchbill.requests import AccountCreation, KeyRotation, TenantCreation
from watchbill.responses.access import (
    AccountEntry,
    AccountList,
    AuditEntry,
    AuditEvents,
    Credential,
    RotatedKey,
    UserEntry,
    UserList,
)
from watchbill.store.identity.accounts import (
    account_create,
    account_list,
    account_rotate,
    is_client_id,
    user_list,
    user_set_disabled,
)
from watchbill.store.identity.administration import (
    service_account_disable,
    tenant_create,
    user_disable,
)
from watchbill.store.identity.audit import AuditEvent, AuditQuery, audit_list


async def list_accounts(call: Call) -> Answer:
    accounts = await account_list(call.db, call.tenant_id)
    keys = await account_list(call.db, call.tenant_id, keys=True)
    return json_reply(
        AccountList(
            accounts=tuple(account_entry(account) for account in accounts),
            access_keys=tuple(account_entry(account) for account in keys),
        )
    )


async def create_account(call: Call) -> Answer:
    creation = await call.json_body(AccountCreation)
    check_future(creation.expires_at, call.now)
    rules = await _first_rules(call, creation)
    client_id, secret = await account_create(
        call.db,
        call.tenant_id,
        creation.name,
        rules,
        now=call.now,
        created_by=call.subject,
        expires_at=creation.expires_at,
    )
    granted = "".join(f" {rule.role} {rule.scope_kind}:{rule.scope_id}" for rule in rules)
    call.note(target=client_id, details=f"name={creation.name}{granted}")
    return json_reply(
        Credential(client_id=client_id, client_secret=secret, name=creation.name), status=201
    )


async def _first_rules(call: Call, creation: AccountCreation) -> tuple[Rule, ...]:
    """Before the account is made: a role or scope that does not exist makes none."""
    if creation.role is None and creation.scope is None:
        return ()
    if creation.role is None or creation.scope is None:
        raise Invalid("The first rule of an account needs role and scope.")
    return (await first_rule(call, creation.name, creation.role, creation.scope),)


async def delete_account(call: Call) -> Answer:
    client_id = client_id_of(call)
    call.note()
    if not await service_account_disable(call.db, call.tenant_id, client_id, now=call.now):
        raise NotFound("There is no such account.")
    return Reply(status=204)


async def rotate_account(call: Call) -> Answer:
    client_id = client_id_of(call)
    call.note()
    secret = await account_rotate(call.db, call.tenant_id, client_id)
    if secret is None:
        raise NotFound("There is no such account.")
    return json_reply(Credential(client_id=client_id, client_secret=secret))


async def list_users(call: Call) -> Answer:
    return json_reply(
        UserList(
            users=tuple(
                UserEntry(
                    id=user.id,
                    name=user.name,
                    issuer=user.issuer,
                    groups=tuple(user.groups),
                    first_seen_at=user.created_at,
                    last_seen_at=user.seen_at,
                    is_disabled=user.disabled_at is not None,
                    email=user.email or None,
                )
                for user in await user_list(call.db, call.tenant_id)
            )
        )
    )


async def disable_user(call: Call) -> Answer:
    call.note()
    if not await user_disable(call.db, call.tenant_id, call.values["userId"], now=call.now):
        raise NotFound("There is no such user.")
    return Reply(status=204)


async def enable_user(call: Call) -> Answer:
    call.note()
    if not await user_set_disabled(call.db, call.tenant_id, call.values["userId"], at=None):
        raise NotFound("There is no such user.")
    return Reply(status=204)


async def rotate_keys(call: Call) -> Answer:
    if call.tenant_id != FIRST_TENANT_ID:
        raise Forbidden("The keys belong to the server, which the first tenant administers.")
    rotation = await call.json_body(KeyRotation)
    key = await call.services.keyring.rotate(at_once=rotation.at_once)
    call.note(details=f"kid={key.kid} at_once={str(rotation.at_once).lower()}")
    return json_reply(RotatedKey(kid=key.kid, active_at=key.active_at))


async def create_tenant(call: Call) -> Answer:
    if call.tenant_id != FIRST_TENANT_ID:
        raise Forbidden("Tenants are made by the first tenant's administrators.")
    creation = await call.json_body(TenantCreation)
    tenant_id, client_id, secret = await tenant_create(call.db, creation.name, now=call.now)
    call.note(target=client_id, details=f"tenant={tenant_id} name={creation.name}")
    return json_reply(
        Credential(id=tenant_id, name=creation.name, client_id=client_id, client_secret=secret),
        status=201,
    )


def client_id_of(call: Call) -> str:
    """The one in the path. Raises NotFound."""
    client_id: str = call.values["clientId"]
    if not is_client_id(client_id):
        raise NotFound("There is no such account.")
    return client_id


def check_future(expires_at: datetime | None, now: datetime) -> None:
    """Raises Invalid."""
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= now):
        raise Invalid("expiresAt must be a future time with a UTC offset.")


def account_entry(account: Account) -> AccountEntry:
    return AccountEntry(
        client_id=account.client_id,
        name=account.name,
        created_at=account.created_at,
        is_disabled=account.is_disabled,
        created_by=account.created_by,
        expires_at=account.expires_at,
        user_id=account.user_id,
    )


async def list_audit(call: Call) -> Answer:
    await call.services.audit.flush()
    values = call.values
    query = AuditQuery(
        since=values["since"],
        until=values["until"],
        subject=values["subject"],
        operation=values["operation"],
        limit=values["limit"],
    )
    events = await audit_list(call.db, call.tenant_id, query)
    return json_reply(
        AuditEvents(events=tuple(_entry(event_id, event) for event_id, event in events))
    )


def _entry(event_id: UUID, event: AuditEvent) -> AuditEntry:
    return AuditEntry(
        id=event_id,
        at=event.at,
        last_at=event.last_at,
        count=event.count,
        subject_kind=event.subject_kind,
        subject=event.subject,
        operation=event.operation,
        target=event.target,
        rules=tuple(event.rules),
        address=event.address,
        outcome=event.outcome,
        request_id=event.request_id,
        details=event.details,
    )


HANDLERS = (
    list_accounts,
    create_account,
    delete_account,
    rotate_account,
    list_users,
    disable_user,
    enable_user,
    rotate_keys,
    create_tenant,
    list_audit,
)
