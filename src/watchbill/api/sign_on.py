"""Login through an issuer: out to it and back, ending in the page's session."""

from html import escape

from watchbill.access.provider import Provider
from watchbill.access.sign_on import BEGUN_SECONDS, Returned, inside
from watchbill.api.call import Call
from watchbill.api.cookies import SESSION_COOKIE, read_cookie, set_cookie
from watchbill.api.reply import HTML, Answer, Reply, json_reply
from watchbill.errors import Invalid, NotFound, Unauthenticated
from watchbill.store.access import USER

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
    provider = _provider(call)
    url, kept = await call.services.sign_on.begin(
        provider, redirect_uri=_redirect_uri(call, provider), then=inside(call.values["next"])
    )
    cookie = set_cookie(
        call.scope, BEGUN_COOKIE, kept, max_age_seconds=BEGUN_SECONDS, same_site="Lax"
    )
    return Reply(status=303, headers=[(b"location", url.encode()), cookie])


async def finish_sign_on(call: Call) -> Answer:
    """The session's cookie is strict, and this request came from elsewhere: so the page that follows is
    opened by a page of ours, not by a redirect."""
    provider, services = _provider(call), call.services
    limits, counted = services.sign_ins, f"issuer {provider.issuer.name}"
    limits.check(counted, call.client_address)
    kept = read_cookie(call.scope, call.headers, BEGUN_COOKIE)
    values = call.values
    returned = Returned(
        code=values["code"], state=values["state"], issuer=values["iss"], error=values["error"]
    )
    try:
        if kept is None:
            raise Unauthenticated("The login did not succeed. Begin again.")
        login, then = await services.sign_on.finish(
            provider, returned, kept=kept, redirect_uri=_redirect_uri(call, provider)
        )
        holder = await services.people.holder(login)
        call.note(tenant_id=login.tenant_id, kind=USER, subject=login.name, details=counted)
        await services.callers.resolve(holder)
    except Unauthenticated:
        limits.note(counted, call.client_address, is_failed=True)
        call.note(details=counted)
        raise
    session = await services.sessions.begin(holder)
    lifetime = services.sessions.lifetime_seconds
    return Reply(
        body=_ONWARD.format(escape(then, quote=True)).encode(),
        media_type=HTML,
        headers=[
            set_cookie(call.scope, SESSION_COOKIE, session, max_age_seconds=lifetime),
            set_cookie(call.scope, BEGUN_COOKIE, "", max_age_seconds=0, same_site="Lax"),
        ],
    )


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
