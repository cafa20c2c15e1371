"""Tokens for programs: the JSON operation that existing clients use, and the one of OAuth 2."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from watchbill.api.call import Call
from watchbill.api.problems import UnsupportedGrant
from watchbill.api.reply import Answer, json_reply
from watchbill.api.sign_in import sign_in
from watchbill.errors import Invalid, Unauthenticated

GRANT_TYPES = ("client_credentials", "app_token")
ID_MEMBERS = ("clientid", "appid")
SECRET_MEMBERS = ("clientsecret", "appsecret")


async def create_token(call: Call) -> Answer:
    members = {name.lower(): value for name, value in (await call.json_members()).items()}
    grant_type = _text(members, ("granttype",))
    if grant_type not in GRANT_TYPES:
        raise UnsupportedGrant(f"grantType is one of: {', '.join(GRANT_TYPES)}.")
    token = await _token(call, _text(members, ID_MEMBERS), _text(members, SECRET_MEMBERS))
    return json_reply({"accessToken": token, "expiresIn": call.services.tokens.lifetime_seconds})


async def create_token_v2(call: Call) -> Answer:
    fields = await call.form()
    if fields.get("grant_type") is None:
        raise Invalid("grant_type is required.")
    if fields["grant_type"] != "client_credentials":
        raise UnsupportedGrant("grant_type is client_credentials and nothing else.")
    client_id, secret = _client(call, fields)
    return json_reply(
        {
            "access_token": await _token(call, client_id, secret),
            "token_type": "Bearer",
            "expires_in": call.services.tokens.lifetime_seconds,
        }
    )


async def _token(call: Call, client_id: str, secret: str) -> str:
    account = await sign_in(call, client_id, secret)
    return await call.services.tokens.issue(
        account_id=account.id, client_id=account.client_id, tenant_id=account.tenant_id
    )


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


HANDLERS = (create_token, create_token_v2)
