"""Login through an identity provider: out to it and back, ending in the page's session."""

from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from watchbill.access.oidc.oidc_login import (
    LOGIN_FAILED,
    LOGIN_SECONDS,
    ProviderRedirect,
    local_path,
)
from watchbill.access.oidc.provider import Provider
from watchbill.api.http.audit_event import REQUEST_ID
from watchbill.api.http.base_path import base_path_of
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
from watchbill.responses.access import IssuerEntry, IssuerList

LOGIN_COOKIE = "watchbill_login"


async def list_issuers(call: Call) -> Answer:
    return json_reply(
        IssuerList(
            issuers=tuple(
                IssuerEntry(name=provider.issuer.name, title=provider.issuer.shown)
                for provider in call.services.providers
                if provider.issuer.client_id is not None
            )
        )
    )


async def start_oidc_login(call: Call) -> Answer:
    provider, then = _provider(call), local_path(call.values["next"])
    try:
        url, kept = await call.services.oidc_login.begin(
            provider, redirect_uri=_redirect_uri(call, provider), then=then
        )
    except Unavailable:
        return _back(call, provider, AWAY, then)
    cookie = set_cookie(
        call.scope, LOGIN_COOKIE, kept, max_age_seconds=LOGIN_SECONDS, same_site="Lax"
    )
    return Reply(status=303, headers=[(b"location", url.encode()), cookie])


async def finish_oidc_login(call: Call) -> Answer:
    """The session's cookie is strict, and this request came from elsewhere: so the page that follows is
    opened by a page of ours, not by a redirect."""
    provider, services, values = _provider(call), call.services, call.values
    limit_key = f"issuer {provider.issuer.name}"
    call.note(tenant_id=_audit_tenant(provider), details=limit_key)
    pending = await services.oidc_login.pending(read_cookie(call.scope, call.headers, LOGIN_COOKIE))
    if pending is None:
        return _back(call, provider, EXPIRED, "/")
    then = pending["then"]
    returned = ProviderRedirect(
        code=values["code"], state=values["state"], issuer=values["iss"], error=values["error"]
    )
    # Failures are limit_key for the login that was begun: nobody's keep others behind the same proxy out.
    limits = services.login_limiter
    try:
        limits.check(pending["state"], limit_key)
        login = await services.oidc_login.finish(
            provider, returned, pending=pending, redirect_uri=_redirect_uri(call, provider)
        )
        principal = await services.users.principal(login)
        call.note(tenant_id=login.tenant_id, kind=USER, subject=login.name, details=limit_key)
        await services.callers.resolve(principal)
    except Unavailable:
        return _back(call, provider, AWAY, then)
    except TooMany:
        return _back(call, provider, BUSY, then)
    except Unauthenticated:
        limits.record(pending["state"], limit_key, is_failed=True)
        return _back(call, provider, DECLINED if returned.error is not None else REFUSED, then)
    session = await services.sessions.begin(principal)
    lifetime = services.sessions.lifetime_seconds
    return Reply(
        body=_REDIRECT_PAGE.format(escape(base_path_of(call.scope) + then, quote=True)).encode(),
        media_type=HTML,
        headers=[
            set_cookie(call.scope, SESSION_COOKIE, session, max_age_seconds=lifetime),
            set_cookie(call.scope, LOGIN_COOKIE, "", max_age_seconds=0, same_site="Lax"),
        ],
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """`word` tells the page why; the provider's own error is not passed on."""

    word: str
    error: WatchbillError


DECLINED = Failure(
    "declined", Unauthenticated("The identity provider did not log you in. Start again.")
)
EXPIRED = Failure(
    "expired", Unauthenticated("This login was not started in this browser, or has expired.")
)
REFUSED = Failure("refused", Unauthenticated(LOGIN_FAILED))
BUSY = Failure("busy", TooMany("Too many logins.", retry_after_seconds=60))
AWAY = Failure(
    "away", Unavailable("The identity provider does not answer.", retry_after_seconds=30)
)


def _back(call: Call, provider: Provider, failure: Failure, then: str) -> Answer:
    """A browser is sent back to the page's login, which says what happened; a program gets the error."""
    if not _is_browser(call):
        raise failure.error
    query = {"failed": failure.word, "issuer": provider.issuer.name, "next": then}
    login = f"{base_path_of(call.scope)}/login?{urlencode(query)}"
    refusal = problem(failure.error, request_id=call.scope[REQUEST_ID])
    return Reply(
        body=_REDIRECT_PAGE.format(escape(login, quote=True)).encode(),
        status=refusal.status,
        media_type=HTML,
        headers=[
            *refusal.headers,
            set_cookie(call.scope, LOGIN_COOKIE, "", max_age_seconds=0, same_site="Lax"),
        ],
    )


def _is_browser(call: Call) -> bool:
    return b"text/html" in call.headers.get(b"accept", b"")


def _audit_tenant(provider: Provider) -> int | None:
    """The tenant whose audit log has the login before the user is known."""
    return provider.issuer.tenant if provider.issuer.claims.tenant is None else None


_REDIRECT_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Watchbill</title>'
    '<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Continue</a></p></html>\n'
)


def _provider(call: Call) -> Provider:
    """Raises NotFound."""
    name = call.values["issuer"]
    for provider in call.services.providers:
        if provider.issuer.name == name and provider.issuer.client_id is not None:
            return provider
    raise NotFound("There is no such identity provider.")


def _redirect_uri(call: Call, provider: Provider) -> str:
    """Exactly one, from the configuration. Raises Invalid where that does not say."""
    base = call.services.settings.public_url
    if base is None:
        raise Invalid(
            "Logins through an identity provider are not configured.",
            details="Set WATCHBILL_PUBLIC_URL to the address where people reach this server.",
        )
    return f"{base.rstrip('/')}/api/v1/session/oidc/{provider.issuer.name}/callback"


HANDLERS = (list_issuers, start_oidc_login, finish_oidc_login)
