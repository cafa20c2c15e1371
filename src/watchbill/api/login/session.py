"""The page's session: log in for a cookie that scripts cannot read, and log out.

`log_in` checks a client id and its secret, within the limits on how often it may be tried; tokens use it too.
"""

from contextlib import suppress

from watchbill.access.logins import LoginRefused, principal_of
from watchbill.api.http.call import Call
from watchbill.api.http.guard import SESSION_COOKIE, is_same_origin, read_cookie, set_cookie
from watchbill.api.http.reply import Answer, Reply, encode
from watchbill.api.resources.me import me
from watchbill.errors import Forbidden, Unauthenticated
from watchbill.identity import SERVICE_ACCOUNT, USER, Account
from watchbill.requests import SessionCreation

MAX_COUNTED_ID_CHARACTERS = 200


async def create_session(call: Call) -> Answer:
    if not is_same_origin(call.headers):
        raise Forbidden("Cross-site login is not allowed.")
    sent = await call.json_body(SessionCreation)
    account = await log_in(call, sent.client_id, sent.client_secret)
    caller = await call.services.callers.resolve(principal_of(account))
    cookie = await call.services.sessions.begin(principal_of(account))
    lifetime = call.services.sessions.lifetime_seconds
    return Reply(
        body=encode(me(caller)),
        headers=[set_cookie(call.scope, SESSION_COOKIE, cookie, max_age_seconds=lifetime)],
    )


async def delete_session(call: Call) -> Answer:
    cookie = read_cookie(call.scope, call.headers, SESSION_COOKIE)
    if cookie is not None:
        with suppress(Unauthenticated):  # it was over already, which is what was asked for
            async with call.services.credential_limiter.lookup(call.client_address, cookie):
                await call.services.sessions.end(cookie)
    return Reply(
        status=204, headers=[set_cookie(call.scope, SESSION_COOKIE, "", max_age_seconds=0)]
    )


async def log_in(call: Call, client_id: str, secret: str) -> Account:
    """Raises SignInRefused, TooMany. The audit log names accounts that there are, in their own tenant's log:
    anything else may be a secret in the wrong field."""
    limits, address = call.services.login_limiter, call.client_address
    counted_id = client_id[:MAX_COUNTED_ID_CHARACTERS]
    call.note()
    limits.check(counted_id, address)
    try:
        async with call.services.credential_limiter.lookup(address, client_id + secret):
            account = await call.services.accounts.log_in(client_id, secret)
    except LoginRefused as error:
        limits.record(counted_id, address, is_failed=True)
        if error.account is not None:
            _note(call, error.account)
        raise
    limits.record(counted_id, address, is_failed=False)
    _note(call, account)
    return account


def _note(call: Call, account: Account) -> None:
    call.note(
        tenant_id=account.tenant_id,
        kind=SERVICE_ACCOUNT if account.user_id is None else USER,
        subject=account.client_id,
    )


HANDLERS = (create_session, delete_session)
