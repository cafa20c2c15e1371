"""Tokens for programs: the JSON operation that existing clients use, and those of OAuth 2."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from watchbill.access.logins import PendingDeviceLogin, principal_of
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.api.login.session import log_in
from watchbill.errors import Invalid, OAuthError, Unauthenticated
from watchbill.identity import SERVICE_ACCOUNT, USER, USER_PRINCIPAL, Principal
from watchbill.responses.access import BEARER, TokenGrant, TokenPair

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
    async with call.services.credential_limiter.paced_lookup(call.client_address):
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
        async with call.services.credential_limiter.paced_lookup(call.client_address):
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


HANDLERS = (create_token, create_token_v2, revoke_token)
