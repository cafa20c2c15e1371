"""Authentication and authorization: from a request's credentials to a caller or an agent, within its rate.

Decides on the matched operation alone, never on the text of the URL. Cookies are never readable by script, and
bound to this host and to HTTPS wherever there is HTTPS.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from cachetools import TTLCache
from starlette.types import Scope

from watchbill.access.caller import Caller
from watchbill.access.logins import identify_agent
from watchbill.access.roles import Permission
from watchbill.api.http.audit_event import ADMITTED, Admitted, client_address
from watchbill.api.http.base_path import base_path_of
from watchbill.api.http.call import Services
from watchbill.api.http.contract import LoginRequirement, Operation
from watchbill.api.http.gate import PROBES
from watchbill.api.limits import (
    AGENT_REQUESTS_BURST,
    AGENT_REQUESTS_PER_SECOND,
    TENANT_SHARE,
    PacedRate,
    address_unit,
)
from watchbill.errors import Forbidden, TooMany, Unauthenticated
from watchbill.identity import AgentIdentity

SESSION_COOKIE = "watchbill_session"
MAX_KNOWN_AGENTS = 10_000
AGENT_CACHE_SECONDS = 10.0


def cookie_name(scope: Scope, name: str) -> str:
    """Over HTTPS the prefix binds the cookie to HTTPS, and to this host where it has all of it to itself."""
    if scope["scheme"] != "https":
        return name
    return f"__Secure-{name}" if base_path_of(scope) else f"__Host-{name}"


def read_cookie(scope: Scope, headers: Mapping[bytes, bytes], name: str) -> str | None:
    wanted = cookie_name(scope, name)
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == wanted:
            return value
    return None


def set_cookie(
    scope: Scope, name: str, value: str, *, max_age_seconds: int, same_site: str = "Strict"
) -> tuple[bytes, bytes]:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    text = (
        f"{cookie_name(scope, name)}={value}; Max-Age={max_age_seconds}; "
        f"Path={base_path_of(scope) or '/'}; "
        f"HttpOnly; SameSite={same_site}{secure}"
    )
    return b"set-cookie", text.encode()


SAME_SITE = frozenset({b"same-origin", b"none"})
"""`none` = typed or opened by the user; no page had a hand in it."""
_NAVIGATION_BY_USER = {
    b"sec-fetch-mode": b"navigate",
    b"sec-fetch-dest": b"document",
    b"sec-fetch-user": b"?1",
}
"""What browsers send where a click led the whole tab to a page."""

Headers = Mapping[bytes, bytes]


class Guard:
    """Who calls, and how often they may: tokens, sessions, agents' credentials; rates, delays of refusals."""

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        self._callers = PacedRate(settings.requests_per_second, settings.requests_burst)
        self._tenants = PacedRate(
            TENANT_SHARE * settings.requests_per_second, TENANT_SHARE * settings.requests_burst
        )
        self._probes = PacedRate(
            TENANT_SHARE * settings.requests_per_second,
            TENANT_SHARE * settings.requests_burst,
            longest=1,  # a kubelet waits four seconds, and kills the server after some of them
        )
        self._agents = PacedRate(AGENT_REQUESTS_PER_SECOND, AGENT_REQUESTS_BURST)
        self._known_agents: TTLCache[bytes, AgentIdentity, float] = TTLCache(
            MAX_KNOWN_AGENTS, ttl=AGENT_CACHE_SECONDS
        )

    async def admit(self, scope: Scope, headers: Headers, operation: Operation) -> Admitted:
        """Raises Unauthenticated, Forbidden, TooMany."""
        if operation.login is LoginRequirement.NONE:
            await self._take_anonymous(scope)
            return Admitted()
        if operation.login is LoginRequirement.AGENT:
            credential = _bearer(scope, headers)
            agent = await self._agent(scope, credential)
            await self._agents.take(agent)
            return Admitted(agent=agent)
        caller = await self._caller(scope, headers, operation)
        admitted = Admitted(caller=caller)
        scope[ADMITTED] = (admitted, operation)  # also of what is refused from here on
        await self._callers.take(caller.principal.id)
        await self._tenants.take(caller.tenant_id)
        check_permission(caller, operation.permission)
        return admitted

    async def _take_anonymous(self, scope: Scope) -> None:
        """Raises TooMany, but not for health probes: these are answered late. Where addresses are translated a
        flood has the kubelet's own, which kills a server whose probes are refused."""
        unit = address_unit(client_address(scope))
        if scope["path"] not in PROBES:
            await self._services.anonymous_rate.take(unit)
            return
        with suppress(TooMany):
            await self._probes.take(unit)

    async def _agent(self, scope: Scope, credential: str) -> AgentIdentity:
        """Whoever is known needs no query before its rate is looked at; a cluster that was removed is refused
        by what it asks for."""
        key = hashlib.sha256(credential.encode()).digest()
        agent = self._known_agents.get(key)
        if agent is None:
            async with self._services.credential_limiter.lookup(
                client_address(scope), credential, is_final=True
            ):
                agent = await identify_agent(self._services.db, credential)
            self._known_agents[key] = agent
        return agent

    async def _caller(self, scope: Scope, headers: Headers, operation: Operation) -> Caller:
        services = self._services
        if b"authorization" in headers or not operation.takes_session:
            try:
                principal = await services.token_verifier.principal(_bearer(scope, headers))
                return await services.callers.resolve(principal)
            except Unauthenticated:
                await services.credential_limiter.count(client_address(scope))
                raise
        cookie = read_cookie(scope, headers, SESSION_COOKIE)
        if cookie is None or not is_same_origin(headers):
            raise Unauthenticated("A bearer token is required.")
        async with services.credential_limiter.lookup(client_address(scope), cookie, is_final=True):
            session = await services.sessions.find(cookie)
        return await services.callers.resolve(session.principal)


def check_permission(caller: Caller, permission: Permission | None) -> None:
    """Raises Forbidden."""
    if permission is None or caller.may(permission):
        return
    if permission is Permission.WORKLOADS_READ:
        raise Forbidden("You have no permission to read workloads.")
    raise Forbidden(f"Requires permission {permission}.")


def is_same_origin(headers: Headers) -> bool:
    """Browsers tell where a request comes from; one that tells nothing is not cross-site,
    for which every browser that keeps SameSite cookies back also sends an origin."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in SAME_SITE
    origin = headers.get(b"origin")
    scheme, _, host = (origin or b"").partition(b"://")
    return origin is None or (scheme in (b"http", b"https") and host == headers.get(b"host"))


def is_navigation_by_user(headers: Headers) -> bool:
    """Whether somebody clicked to come here, and sees what comes of it; no script can pretend that.

    Browsers that tell nothing of it, as over plain HTTP, are believed.
    """
    sent_headers = {name: headers[name] for name in _NAVIGATION_BY_USER if name in headers}
    return not sent_headers or sent_headers == _NAVIGATION_BY_USER


def _bearer(scope: Scope, headers: Headers) -> str:
    """The one credential of the one Authorization header. Raises Unauthenticated."""
    sent = sum(1 for name, _ in scope["headers"] if name == b"authorization")
    scheme, _, credential = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if sent != 1 or scheme.lower() != "bearer" or not credential:
        raise Unauthenticated("A bearer token is required.")
    return credential
