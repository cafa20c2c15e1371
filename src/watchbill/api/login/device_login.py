"""The browser's side of a device login: a plain page that asks, and the answer. No script is involved."""

from html import escape

from watchbill.access.caller import Caller
from watchbill.access.logins import DEVICE_LOGIN_LIFETIME, DEVICE_POLL_SECONDS
from watchbill.api.http.base_path import base_path_of
from watchbill.api.http.call import Call
from watchbill.api.http.guard import (
    SESSION_COOKIE,
    is_navigation_by_user,
    is_same_origin,
    read_cookie,
)
from watchbill.api.http.reply import HTML, Answer, Reply, json_reply
from watchbill.errors import Invalid, NotFound, TooMany, Unauthenticated
from watchbill.responses.access import DeviceAuthorization

_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'",
)


async def create_device_login(call: Call) -> Answer:
    if "client_id" not in await call.form():
        raise Invalid("client_id is required.")
    call.services.device_login_limiter.take(call.client_address)
    async with call.services.credential_limiter.paced_lookup(call.client_address, "device login"):
        started = await call.services.device_logins.begin(call.client_address)
    base = call.services.settings.public_url or _request_url(call)
    page = f"{base.rstrip('/')}/device"
    return json_reply(
        DeviceAuthorization(
            device_code=started.device_code,
            user_code=started.user_code,
            verification_uri=page,
            verification_uri_complete=f"{page}?user_code={started.user_code}",
            expires_in=int(DEVICE_LOGIN_LIFETIME.total_seconds()),
            interval=DEVICE_POLL_SECONDS,
        )
    )


async def get_device_page(call: Call) -> Answer:
    """Who is logged in sees what would be confirmed; who is not, where to log in first."""
    sent = _query(call, "user_code")
    caller = await _logged_in(call)
    if caller is None:
        return _page(_log_in(call, sent))
    if not sent:
        return _page(_ask_code(call))
    limits, counted = call.services.login_limiter, f"device {caller.principal.id}"
    limits.check(counted, call.client_address)
    pending = await call.services.device_logins.find(sent)
    if pending is None:
        limits.record(counted, call.client_address, is_failed=True)
        return _page("<p>This code is unknown or has expired.</p>" + _ask_code(call))
    return _page(
        _CONFIRM.format(
            base_path=base_path_of(call.scope),
            name=escape(caller.subject),
            address=escape(pending.address),
            code=escape(pending.user_code),
        )
    )


async def decide_device_login(call: Call) -> Answer:
    """Only from our own page: the cookie is strict, and the guard looked at the request's origin.

    Below a base path other programs' pages are of that origin, too: none of them confirms unseen.
    """
    assert call.caller is not None, "the route lets nobody in without a login"
    if b"authorization" in call.headers or not is_same_origin(call.headers):
        raise Invalid("A device login is confirmed in the browser.")
    if not is_navigation_by_user(call.headers):
        raise Invalid("A device login is confirmed by a click on the page that asks for it.")
    form = await call.form()
    is_approved = form.get("decision") == "approve"
    limits, counted = call.services.login_limiter, f"device {call.caller.principal.id}"
    limits.check(counted, call.client_address)
    principal = call.caller.principal if is_approved else None
    call.note(details="approved" if is_approved else "denied")
    if not await call.services.device_logins.decide(form.get("user_code", ""), principal):
        limits.record(counted, call.client_address, is_failed=True)
        raise NotFound("This code is unknown or has expired.")
    done = "The CLI is logged in." if is_approved else "The login was denied."
    return _page(f"<p>{done} You may close this page.</p>")


async def _logged_in(call: Call) -> Caller | None:
    cookie = read_cookie(call.scope, call.headers, SESSION_COOKIE)
    if cookie is None:
        return None
    try:
        async with call.services.credential_limiter.lookup(call.client_address, cookie):
            session = await call.services.sessions.find(cookie)
        return await call.services.callers.resolve(session.principal)
    except (Unauthenticated, TooMany):
        return None


def _query(call: Call, name: str) -> str:
    for pair in call.scope["query_string"].decode("latin-1").split("&"):
        key, _, value = pair.partition("=")
        if key == name and len(value) <= 20 and value.replace("-", "").isalnum():
            return str(value)
    return ""


def _request_url(call: Call) -> str:
    host = call.headers.get(b"host", b"").decode("latin-1")
    return f"{call.scope['scheme']}://{host}"


def _log_in(call: Call, code: str) -> str:
    base_path = base_path_of(call.scope)
    then = f"/device?user_code={code}" if code else "/device"
    links = "".join(
        f'<p><a href="{base_path}/api/v1/session/oidc/{escape(provider.issuer.name)}/start'
        f'?next={escape(then)}">'
        f"Log in with {escape(provider.issuer.shown)}</a></p>"
        for provider in call.services.providers
        if provider.issuer.client_id is not None
    )
    return (
        "<p>A CLI asks to act as you. Log in first, then open this address again.</p>"
        f'{links}<p><a href="{base_path}/login">Log in with a client id</a></p>'
    )


def _ask_code(call: Call) -> str:
    return _ASK_CODE.format(base_path=base_path_of(call.scope))


def _page(content: str) -> Reply:
    return Reply(
        body=_FRAME.format(content).encode(),
        media_type=HTML,
        headers=[_POLICY, (b"x-frame-options", b"DENY")],
    )


_FRAME = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Watchbill: authorize this CLI</title>'
    '<body style="font:16px system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem">'
    "<h1>Authorize this CLI</h1>{}</body></html>\n"
)
_ASK_CODE = (
    '<form method="get" action="{base_path}/device"><label>The code that the CLI shows '
    '<input name="user_code" autocomplete="off" required></label> <button>Continue</button></form>'
)
_CONFIRM = (
    "<p>You are logged in as <b>{name}</b>. A CLI at <b>{address}</b> asks to act as you. "
    "Approve only if you started it just now and it shows this code:</p><p><b>{code}</b></p>"
    '<form method="post" action="{base_path}/api/v1/session/device">'
    '<input type="hidden" name="user_code" value="{code}">'
    '<button name="decision" value="approve">Approve</button> '
    '<button name="decision" value="deny">Deny</button></form>'
)

HANDLERS = (create_device_login, decide_device_login)
PAGES = (get_device_page,)
