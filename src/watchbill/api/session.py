"""The page's session: sign in for a cookie that script cannot read, and sign out."""

from contextlib import suppress
from typing import Annotated

import msgspec

from watchbill.access.accounts import holder_of
from watchbill.api.call import Call
from watchbill.api.cookies import SESSION_COOKIE, read_cookie, set_cookie
from watchbill.api.guard import is_same_origin
from watchbill.api.me import me
from watchbill.api.reply import Answer, Reply, encode
from watchbill.api.sign_in import sign_in
from watchbill.errors import Forbidden, Unauthenticated

Credential = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class SessionCreation(msgspec.Struct, frozen=True, rename="camel"):
    client_id: Credential
    client_secret: Credential


async def create_session(call: Call) -> Answer:
    if not is_same_origin(call.headers):
        raise Forbidden("Another site's page may not sign anybody in.")
    sent = await call.json_body(SessionCreation)
    account = await sign_in(call, sent.client_id, sent.client_secret)
    caller = await call.services.callers.resolve(holder_of(account))
    cookie = await call.services.sessions.begin(holder_of(account))
    lifetime = call.services.sessions.lifetime_seconds
    return Reply(
        body=encode(me(caller)),
        headers=[set_cookie(call.scope, SESSION_COOKIE, cookie, max_age_seconds=lifetime)],
    )


async def delete_session(call: Call) -> Answer:
    cookie = read_cookie(call.scope, call.headers, SESSION_COOKIE)
    if cookie is not None:
        with suppress(Unauthenticated):  # it was over already, which is what was asked for
            await call.services.sessions.end(cookie)
    return Reply(
        status=204, headers=[set_cookie(call.scope, SESSION_COOKIE, "", max_age_seconds=0)]
    )


HANDLERS = (create_session, delete_session)
