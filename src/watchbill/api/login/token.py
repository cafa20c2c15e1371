"""Login with a client id and its secret: the page's session, and tokens for programs.

A session is a cookie that scripts cannot read. Tokens come from the JSON operation that existing clients use,
and from those of OAuth 2. `log_in` checks id and secret for both, within the limits on failed logins.
"""

import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_plus

from watchbill.access.logins import LoginRefused, PendingDeviceLogin, principal_of
from watchbill.api.http.call import Call
from watchbill.api.http.guard import SESSION_COOKIE, is_same_origin, read_cookie, set_cookie
from watchbill.api.http.reply import Answer, Reply, encode, json_reply
from watchbill.api.resources.me import me
from watchbill.errors import Forbidden, Invalid, OAuthError, Unauthenticated
from watchbill.identity import SERVICE_ACCOUNT, USER, USER_PRINCIPAL, Account, Principal
from watchbill.requests import SessionCreation
from watchbill.responses.access import BEARER, TokenGrant, TokenPair

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


CREDENTIAL_GRANTS = ("client_credentials", "app_token")
REFRESH = "refresh_token"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = (*CREDENTIAL_GRANTS, REFRESH)
ID_MEMBERS = ("clientid", "appid")
SECRET_MEMBERS = ("clientsecret", "appsecret")
MAX_SENT_CHARACTERS = 200

DEVICE_MESSAGES = {
    PendingDeviceLogin.PENDING: "The login has not been confirmed yet.",
    PendingDeviceLogin.SLOW_DOWN: "Poll less often.",
    PendingDeviceLogin.DENIED: "The login was denied.",
    PendingDeviceLogin.EXPIRED: "The login was not confirmed in time, or has ended.",
}


async def create_token(call: Call) -> Answer:
    members = {name.lower(): value for name, value in (await call.json_members()).items()}
    grant_type = _text(members, ("granttype",))
    if grant_type not in GRANT_TYPES:
        message = f"grantType must be one of: {', '.join(GRANT_TYPES)}."
        raise OAuthError("unsupported_grant_type", message)
    lifetime = call.services.tokens.lifetime_seconds
    if grant_type == REFRESH:
        token, refresh = await _refreshed(call, _text(members, ("refreshtoken",)))
        return json_reply(TokenPair(access_token=token, refresh_token=refresh, expires_in=lifetime))
    token = await _token(call, _text(members, ID_MEMBERS), _text(members, SECRET_MEMBERS))
    return json_reply(TokenPair(access_token=token, expires_in=lifetime))


async def create_token_v2(call: Call) -> Answer:
    fields = await call.form()
    if fields.get("grant_type") is None:
        raise Invalid("grant_type is required.")
    grant = GRANTS.get(fields["grant_type"])
    if grant is None:
        raise OAuthError(
            "unsupported_grant_type", f"grant_type must be one of: {', '.join(GRANTS)}."
        )
    token, refresh = await grant(call, fields)
    return json_reply(
        TokenGrant(
            access_token=token,
            token_type=BEARER,
            expires_in=call.services.tokens.lifetime_seconds,
            refresh_token=refresh or None,
        )
    )


async def revoke_token(call: Call) -> Answer:
    """RFC 7009: whoever holds no such token gets the same answer."""
    fields = await call.form()
    if "token" not in fields:
        raise Invalid("token is required.")
    token = fields["token"][:MAX_SENT_CHARACTERS]
    async with call.services.credential_limiter.paced_lookup(call.client_address, "revocation"):
        await call.services.refresh_tokens.revoke(token)
    call.note()
    return json_reply({})


async def _by_credentials(call: Call, fields: Mapping[str, str]) -> tuple[str, str | None]:
    client_id, secret = _client(call, fields)
    return await _token(call, client_id, secret), None


async def _by_refresh_token(call: Call, fields: Mapping[str, str]) -> tuple[str, str | None]:
    try:
        return await _refreshed(call, fields.get(REFRESH, ""))
    except Unauthenticated as error:
        raise OAuthError("invalid_grant", error.message) from error


async def _by_device_code(call: Call, fields: Mapping[str, str]) -> tuple[str, str | None]:
    code = fields.get("device_code", "")[:MAX_SENT_CHARACTERS]
    result: Principal | PendingDeviceLogin = PendingDeviceLogin.SLOW_DOWN
    if call.services.device_logins.may_poll(code):
        async with call.services.credential_limiter.paced_lookup(
            call.client_address, "device poll"
        ):
            result = await call.services.device_logins.poll(code)
    if isinstance(result, PendingDeviceLogin):
        raise OAuthError(result.value, DEVICE_MESSAGES[result])
    refresh, member = await call.services.refresh_tokens.begin(result)
    return await _issued(call, member), refresh


GRANTS = {
    "client_credentials": _by_credentials,
    REFRESH: _by_refresh_token,
    DEVICE: _by_device_code,
}


async def _refreshed(call: Call, sent: str) -> tuple[str, str]:
    call.note()
    async with call.services.credential_limiter.lookup(call.client_address, sent):
        refresh, principal = await call.services.refresh_tokens.rotate(sent)
    return await _issued(call, principal), refresh


async def _issued(call: Call, principal: Principal) -> str:
    """A token for a principal that may still come in. Raises Unauthenticated."""
    caller = await call.services.callers.resolve(principal)
    kind = USER if principal.kind == USER_PRINCIPAL else SERVICE_ACCOUNT
    call.note(tenant_id=principal.tenant_id, kind=kind, subject=caller.subject)
    return await call.services.tokens.issue(principal, client_id=caller.subject)


async def _token(call: Call, client_id: str, secret: str) -> str:
    account = await log_in(call, client_id, secret)
    return await call.services.tokens.issue(principal_of(account), client_id=account.client_id)


def _text(members: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of the members that is there. Raises Invalid."""
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value:
            return value
    raise Invalid(f"One of these members is required, as text: {', '.join(names)}.")


def _client(call: Call, fields: Mapping[str, str]) -> tuple[str, str]:
    """Id and secret, from HTTP Basic or from the form. Raises Invalid, Unauthenticated."""
    sent = call.headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, credential = sent.partition(" ")
    if scheme.lower() == "basic":
        return _basic(credential)
    if "client_id" not in fields or "client_secret" not in fields:
        raise Invalid("client_id and client_secret are required.")
    return fields["client_id"], fields["client_secret"]


def _basic(credential: str) -> tuple[str, str]:
    """RFC 6749 has both parts form-encoded before they are joined."""
    try:
        text = base64.b64decode(credential, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthenticated("The Basic credential is malformed.") from error
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


HANDLERS = (create_session, delete_session, create_token, create_token_v2, revoke_token)
