"""Login through an issuer: out to it and back, ending in the page's session."""

from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from watchbill.access.oidc.provider import Provider
from watchbill.access.oidc.sign_on import BEGUN_SECONDS, NOT_SUCCEEDED, SignOnResult, inside
from watchbill.api.http.audit_event import REQUEST_ID
from watchbill.api.http.call import Call
from watchbill.api.http.guard import SESSION_COOKIE, read_cookie, set_cookie
from watchbill.api.http.problems import problem
from watchbill.api.http.reply import HTML, Answer, Reply, json_reply
from watchbill.errors import (
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
    WatchbillError,
)
from watchbill.identity import USER

BEGUN_COOKIE = "watchbill_login"


async def list_issuers(call: Call) -> Answer:
    return json_reply(
        {
            "issuers": [
                {"name": one.issuer.name, "title": one.issuer.shown}
                for one in call.services.providers
                if one.issuer.client_id is not None
            ]
        }
    )


async def start_sign_on(call: Call) -> Answer:
    provider, then = _provider(call), inside(call.values["next"])
    try:
        url, kept = await call.services.sign_on.begin(
            provider, redirect_uri=_redirect_uri(call, provider), then=then
        )
    except Unavailable:
        return _back(call, provider, AWAY, then)
    cookie = set_cookie(
        call.scope, BEGUN_COOKIE, kept, max_age_seconds=BEGUN_SECONDS, same_site="Lax"
    )
    return Reply(status=303, headers=[(b"location", url.encode()), cookie])


async def finish_sign_on(call: Call) -> Answer:
    """The session's cookie is strict, and this request came from elsewhere: so the page that follows is
    opened by a page of ours, not by a redirect."""
    provider, services, values = _provider(call), call.services, call.values
    counted = f"issuer {provider.issuer.name}"
    call.note(tenant_id=_tenant_of(provider), details=counted)
    begun = await services.sign_on.begun(read_cookie(call.scope, call.headers, BEGUN_COOKIE))
    if begun is None:
        return _back(call, provider, EXPIRED, "/")
    then = begun["then"]
    returned = SignOnResult(
        code=values["code"], state=values["state"], issuer=values["iss"], error=values["error"]
    )
    # Failures are counted for the login that was begun: nobody's keep others behind the same proxy out.
    limits = services.sign_ins
    try:
        limits.check(begun["state"], counted)
        login = await services.sign_on.finish(
            provider, returned, begun=begun, redirect_uri=_redirect_uri(call, provider)
        )
        principal = await services.people.principal(login)
        call.note(tenant_id=login.tenant_id, kind=USER, subject=login.name, details=counted)
        await services.callers.resolve(principal)
    except Unavailable:
        return _back(call, provider, AWAY, then)
    except TooMany:
        return _back(call, provider, BUSY, then)
    except Unauthenticated:
        limits.note(begun["state"], counted, is_failed=True)
        return _back(call, provider, DECLINED if returned.error is not None else REFUSED, then)
    session = await services.sessions.begin(principal)
    lifetime = services.sessions.lifetime_seconds
    return Reply(
        body=_ONWARD.format(escape(then, quote=True)).encode(),
        media_type=HTML,
        headers=[
            set_cookie(call.scope, SESSION_COOKIE, session, max_age_seconds=lifetime),
            set_cookie(call.scope, BEGUN_COOKIE, "", max_age_seconds=0, same_site="Lax"),
        ],
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """`word` tells the page why; what the issuer said is not passed on."""

    word: str
    error: WatchbillError


DECLINED = Failure("declined", Unauthenticated("The issuer did not sign you in. Begin again."))
EXPIRED = Failure("expired", Unauthenticated("This login was not begun here, or too long ago."))
REFUSED = Failure("refused", Unauthenticated(NOT_SUCCEEDED))
BUSY = Failure("busy", TooMany("Too many sign-ins.", retry_after_seconds=60))
AWAY = Failure("away", Unavailable("The issuer does not answer.", retry_after_seconds=30))


def _back(call: Call, provider: Provider, failure: Failure, then: str) -> Answer:
    """A browser is brought back to the page's login, which says what happened; a program is told as ever."""
    if not _is_browser(call):
        raise failure.error
    query = {"failed": failure.word, "issuer": provider.issuer.name, "next": then}
    refusal = problem(failure.error, request_id=call.scope[REQUEST_ID])
    return Reply(
        body=_ONWARD.format(escape(f"/login?{urlencode(query)}", quote=True)).encode(),
        status=refusal.status,
        media_type=HTML,
        headers=[
            *refusal.headers,
            set_cookie(call.scope, BEGUN_COOKIE, "", max_age_seconds=0, same_site="Lax"),
        ],
    )


def _is_browser(call: Call) -> bool:
    return b"text/html" in call.headers.get(b"accept", b"")


def _tenant_of(provider: Provider) -> int | None:
    """Whose log a login stands in before it is known whose it is."""
    return provider.issuer.tenant if provider.issuer.claims.tenant is None else None


_ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Watchbill</title>'
    '<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Go on</a></p></html>\n'
)


def _provider(call: Call) -> Provider:
    """Raises NotFound."""
    name = call.values["issuer"]
    for provider in call.services.providers:
        if provider.issuer.name == name and provider.issuer.client_id is not None:
            return provider
    raise NotFound("There is no such issuer.")


def _redirect_uri(call: Call, provider: Provider) -> str:
    """Exactly one, from the configuration. Raises Invalid where that does not say."""
    base = call.services.settings.public_url
    if base is None:
        raise Invalid(
            "Logins through an issuer are not set up.",
            details="Set WATCHBILL_PUBLIC_URL to the address where people reach this server.",
        )
    return f"{base.rstrip('/')}/api/v1/session/oidc/{provider.issuer.name}/callback"


HANDLERS = (list_issuers, start_sign_on, finish_sign_on)
