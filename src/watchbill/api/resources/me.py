"""Who the caller is, as the server sees it, and a user's own access keys: for programs that act as the user."""

from datetime import timedelta
from uuid import UUID

from watchbill import __version__
from watchbill.access.caller import Caller
from watchbill.access.roles import Permission
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, json_reply
from watchbill.api.resources.admin import account_entry, check_future
from watchbill.errors import Forbidden, Invalid, NotFound
from watchbill.requests import AccessKeyCreation
from watchbill.responses.access import AccessKeyList, Credential, Me, ReadScope
from watchbill.store.identity.accounts import (
    account_create,
    account_disable,
    account_list,
    is_client_id,
)

MAX_KEYS = 20
DEFAULT_LIFETIME = timedelta(days=90)
MAX_LIFETIME = timedelta(days=366)


async def get_me(call: Call) -> Answer:
    assert call.caller is not None, "the route lets nobody in without a login"
    return json_reply(me(call.caller))


def me(caller: Caller) -> Me:
    scope = caller.scope
    return Me(
        subject=caller.subject,
        name=caller.name,
        kind=caller.kind,
        tenant_id=caller.tenant_id,
        is_administrator=caller.is_administrator,
        permissions=tuple(
            sorted(permission for permission in Permission if caller.may(permission))
        ),
        scope=ReadScope(
            tenant=scope.is_whole_tenant,
            cluster_ids=tuple(sorted(scope.cluster_ids)),
            department_ids=tuple(
                str(department_id) for department_id in sorted(scope.department_ids)
            ),
            project_ids=tuple(str(project_id) for project_id in sorted(scope.project_ids)),
        ),
        version=__version__,
    )


async def list_access_keys(call: Call) -> Answer:
    assert call.caller is not None, "the route lets nobody in without a login"
    user_id = call.caller.user_id
    if user_id is None:
        return json_reply(AccessKeyList(access_keys=()))
    keys = await account_list(call.db, call.tenant_id, user_id=user_id)
    return json_reply(AccessKeyList(access_keys=tuple(account_entry(account) for account in keys)))


async def create_access_key(call: Call) -> Answer:
    creation = await call.json_body(AccessKeyCreation)
    user_id = _user(call)
    check_future(creation.expires_at, call.now)
    expires_at = creation.expires_at or call.now + DEFAULT_LIFETIME
    if expires_at > call.now + MAX_LIFETIME:
        raise Invalid(f"An access key lasts {MAX_LIFETIME.days} days at most.")
    known = await account_list(call.db, call.tenant_id, user_id=user_id)
    if sum(not key.is_disabled for key in known) >= MAX_KEYS:
        raise Invalid(f"A user may have {MAX_KEYS} access keys.")
    client_id, secret = await account_create(
        call.db,
        call.tenant_id,
        creation.name,
        (),
        now=call.now,
        created_by=call.subject,
        expires_at=expires_at,
        user_id=user_id,
    )
    call.note(target=client_id, details=f"name={creation.name}")
    return json_reply(
        Credential(
            client_id=client_id, client_secret=secret, name=creation.name, expires_at=expires_at
        ),
        status=201,
    )


async def delete_access_key(call: Call) -> Answer:
    call.note()
    client_id, user_id = call.values["clientId"], _user(call)
    if not is_client_id(client_id) or not await account_disable(
        call.db, call.tenant_id, client_id, now=call.now, user_id=user_id
    ):
        raise NotFound("There is no such access key.")
    return Reply(status=204)


def _user(call: Call) -> UUID:
    """Raises Forbidden where the caller is no user, or acts by an access key: a key that was stolen must
    not make others."""
    assert call.caller is not None, "the route lets nobody in without a login"
    if call.caller.user_id is None:
        raise Forbidden(
            "Access keys belong to users who are logged in through an identity provider."
        )
    return call.caller.user_id


HANDLERS = (get_me, list_access_keys, create_access_key, delete_access_key)
