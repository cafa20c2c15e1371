"""One request as a handler sees it, and what all handlers share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import parse_qs

import structlog
from cachetools import TTLCache
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from watchbill.access.audit import Audit
from watchbill.access.caller import Caller, CallerCache, TokenVerifier
from watchbill.access.logins import Accounts, DeviceLogins, Sessions
from watchbill.access.oidc.configuration import read_access_configuration
from watchbill.access.oidc.oidc_login import OidcLogin, SignedState
from watchbill.access.oidc.provider import Provider
from watchbill.access.oidc.verification import UserDirectory
from watchbill.access.roles import Roles
from watchbill.access.tokens.keyring import Keyring, read_key_encryption
from watchbill.access.tokens.tokens import RefreshTokens, Tokens
from watchbill.api.changes import ChangeStreams
from watchbill.api.http.audit_event import ANNOTATION, AuditAnnotation, client_address
from watchbill.api.http.shared_answers import SharedAnswers
from watchbill.api.limits import (
    CONCURRENT_EXPORTS,
    CONCURRENT_METRICS_QUERIES,
    CONCURRENT_READS,
    TENANT_SHARE,
    AgentLimiter,
    ConcurrencyLimiter,
    DeviceLoginLimiter,
    LoginLimiter,
    PacedRate,
    RejectingConcurrencyLimiter,
    UnverifiedCredentialLimiter,
)
from watchbill.background import Background, utc_now
from watchbill.errors import Invalid, TooLarge, Unavailable
from watchbill.identity import AgentIdentity
from watchbill.metrics.source import MetricsSource
from watchbill.metrics.workload import workload_metrics
from watchbill.prices import Prices, read_prices
from watchbill.query import Scope as AccessScope
from watchbill.requests import decode_json
from watchbill.settings.retention import Retention, RetentionDays, read_retention
from watchbill.settings.server import ServerSettings
from watchbill.store.ingest.messages import Ingest, MessageHandler
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.standby import Standby, StandbyRead
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.gone_count import GoneCounts
from watchbill.tracing.tracing import NO_TRACING, Tracing

log = structlog.get_logger("watchbill.api")

Body = TypeVar("Body")

FORM_BYTES = 16 * 1024
DOCUMENT_BYTES = 1024 * 1024
AGENT_BODY_BYTES = 4 * 1024 * 1024
READINESS_SECONDS = 1.0
BODY_SECONDS = 30.0
"""A body that trickles in more slowly is given up."""


class DatabaseReadiness:
    """Whether the database answers, asked once a second at most: anybody may ask us, at any rate."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._results: TTLCache[str, Unavailable | None, float] = TTLCache(1, ttl=READINESS_SECONDS)
        self._reason: str | None = None

    def note(self, reason: str | None) -> None:
        """Why the server is not ready, None where it is: logged where it is another than before."""
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            log.info("ready again")
        else:
            log.warning("not ready", reason=reason)

    def forget(self) -> None:
        """Ask again at the next check."""
        self._results.clear()

    async def check(self, db: Database) -> None:
        """Raises Unavailable, with the reason."""
        async with self._lock:
            if "database" not in self._results:
                self._results["database"] = await _readiness_failure(db)
            failure = self._results.get("database")
        if failure is not None:
            raise failure


async def _readiness_failure(db: Database) -> Unavailable | None:
    try:
        await db.check_ready()
    except Unavailable as error:
        return error
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that handlers use; `services_of` makes it once."""

    db: Database
    standby: Standby | None
    settings: ServerSettings
    clock: Callable[[], datetime]
    shared_answers: SharedAnswers = field(default_factory=SharedAnswers)
    documents: DocumentCache
    gone_counts: GoneCounts = field(default_factory=GoneCounts)
    metrics: MetricsSource
    prices: Prices | None
    retention: Retention
    roles: Roles
    accounts: Accounts
    callers: CallerCache
    sessions: Sessions
    keyring: Keyring
    tokens: Tokens
    refresh_tokens: RefreshTokens
    providers: tuple[Provider, ...]
    users: UserDirectory
    token_verifier: TokenVerifier
    oidc_login: OidcLogin
    device_logins: DeviceLogins
    audit: Audit
    login_limiter: LoginLimiter = field(default_factory=LoginLimiter)
    anonymous_rate: PacedRate
    """By address, of what nobody stands behind."""
    credential_limiter: UnverifiedCredentialLimiter
    device_login_limiter: DeviceLoginLimiter
    agent_limiter: AgentLimiter
    ingest: MessageHandler
    export_limiter: RejectingConcurrencyLimiter
    read_limiter: ConcurrencyLimiter
    metrics_limiter: ConcurrencyLimiter
    streams: ChangeStreams
    background: Background
    readiness: DatabaseReadiness
    tracing: Tracing


def services_of(
    db: Database,
    settings: ServerSettings,
    *,
    standby: Standby | None = None,
    ingest: MessageHandler | None = None,
    clock: Callable[[], datetime] = utc_now,
    tracing: Tracing = NO_TRACING,
) -> Services:
    """The services over one database. `ingest` None = agents' messages are applied in this process.

    Raises Invalid where the access configuration is not understood."""
    access = read_access_configuration(settings.access_config)
    keyring = Keyring(db, clock, encryption=read_key_encryption(settings.key_file))
    tokens = Tokens(keyring, clock, lifetime_seconds=settings.token_lifetime_seconds)
    providers = tuple(Provider(issuer, clock) for issuer in access.issuers)
    users = UserDirectory(db, clock)
    return Services(
        db=db,
        standby=standby,
        settings=settings,
        clock=clock,
        documents=DocumentCache(settings.document_cache_bytes),
        metrics=workload_metrics(db, settings.prometheus),
        prices=read_prices(settings.prices_file),
        retention=_retention(settings),
        roles=access.roles,
        accounts=Accounts(db, clock),
        callers=_callers(db, access.roles, clock, settings),
        sessions=Sessions(db, clock, lifetime_seconds=settings.session_lifetime_seconds),
        keyring=keyring,
        tokens=tokens,
        refresh_tokens=RefreshTokens(db, clock, lifetime_seconds=settings.refresh_lifetime_seconds),
        providers=providers,
        users=users,
        token_verifier=TokenVerifier(tokens, providers, users, clock),
        oidc_login=OidcLogin(SignedState(keyring, clock, purpose="login"), clock),
        device_logins=DeviceLogins(db, clock),
        audit=Audit(db),
        anonymous_rate=_anonymous_rate(settings),
        credential_limiter=_credential_limiter(settings),
        device_login_limiter=DeviceLoginLimiter(),
        agent_limiter=AgentLimiter(settings.pool_size),
        ingest=ingest or Ingest(db, most_bytes=settings.cluster_stored_bytes),
        read_limiter=ConcurrencyLimiter(CONCURRENT_READS, "reads"),
        metrics_limiter=ConcurrencyLimiter(CONCURRENT_METRICS_QUERIES, "metrics queries"),
        export_limiter=RejectingConcurrencyLimiter(CONCURRENT_EXPORTS, "exports"),
        streams=ChangeStreams(db, clock, standby),
        background=_background(clock, providers),
        readiness=DatabaseReadiness(),
        tracing=tracing,
    )


def _retention(settings: ServerSettings) -> Retention:
    default = RetentionDays(
        deleted=settings.deleted_retention_days,
        metrics=settings.metrics_retention_days,
        audit=settings.audit_retention_days,
        usage=settings.usage_retention_days,
    )
    return read_retention(settings.retention_file, default)


def _callers(
    db: Database, roles: Roles, clock: Callable[[], datetime], settings: ServerSettings
) -> CallerCache:
    seconds = settings.groups_lifetime_seconds
    return CallerCache(db, roles, clock, groups_lifetime_seconds=seconds)


def _anonymous_rate(settings: ServerSettings) -> PacedRate:
    return PacedRate(
        TENANT_SHARE * settings.requests_per_second, TENANT_SHARE * settings.requests_burst
    )


def _credential_limiter(settings: ServerSettings) -> UnverifiedCredentialLimiter:
    return UnverifiedCredentialLimiter(settings.requests_per_second, settings.requests_burst)


def _background(clock: Callable[[], datetime], providers: Iterable[Provider]) -> Background:
    background = Background(clock)
    for provider in providers:
        background.include(provider.renewal)
    return background


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was authenticated, let through and parsed. `now` is the one instant it happens at."""

    services: Services
    scope: Scope
    receive: Receive
    now: datetime
    values: Mapping[str, Any]
    """Parameters by the names of the contract."""
    headers: Mapping[bytes, bytes]
    media_type: str
    """The one that `Accept` chose."""
    caller: Caller | None
    agent: AgentIdentity | None
    access_again: Callable[[], Awaitable[AccessScope]]
    """What the caller may read by now, for answers that last. Raises what a new request with the same
    credentials would meet."""
    standby: StandbyRead | None = None
    """Where this request reads; None = from the primary."""

    @property
    def db(self) -> Database:
        return self.services.db if self.standby is None else self.standby.db

    @property
    def access(self) -> AccessScope:
        """What the caller may read."""
        assert self.caller is not None, "the route lets nobody in without a login"
        return self.caller.scope

    @property
    def tenant_id(self) -> int:
        return self.access.tenant_id

    @property
    def subject(self) -> str:
        assert self.caller is not None, "the route lets nobody in without a login"
        return self.caller.subject

    def note(self, **noted: Any) -> None:
        """What the audit log should say of this request beyond what every request says."""
        self.scope[ANNOTATION] = AuditAnnotation(**noted)

    @property
    def client_address(self) -> str:
        return client_address(self.scope)

    async def json_members(self) -> dict[str, Any]:
        """A small JSON object. Raises Invalid."""
        self._expect("application/json")
        return decode_json(await self._body(FORM_BYTES), dict[str, Any])

    async def json_body(self, kind: type[Body]) -> Body:
        """A small JSON object of a known shape. Raises Invalid, naming the member."""
        self._expect("application/json")
        return decode_json(await self._body(FORM_BYTES), kind)

    async def large_json_body(self, kind: type[Body]) -> Body:
        """As `json_body`, for what an administrator sends as a whole."""
        self._expect("application/json")
        return decode_json(await self._body(DOCUMENT_BYTES), kind)

    async def form(self) -> dict[str, str]:
        """Form fields; one sent twice is Invalid, one sent empty is as good as absent."""
        self._expect("application/x-www-form-urlencoded")
        try:
            text = (await self._body(FORM_BYTES)).decode("utf-8")
            fields = parse_qs(text, strict_parsing=bool(text), errors="strict", max_num_fields=50)
        except ValueError as error:
            raise Invalid("The body is not a well-formed form.") from error
        for name, values in fields.items():
            if len(values) > 1:
                raise Invalid(f"A form field was sent {len(values)} times.", details=name[:60])
        return {name: values[0] for name, values in fields.items()}

    async def agent_body(self) -> bytes:
        """A message of an agent as it was sent. Raises TooLarge."""
        self._expect("application/json")
        return await self._body(AGENT_BODY_BYTES)

    def body_bytes(self) -> int | None:
        """How long the body is, by what the caller says; None where it does not."""
        length = self.headers.get(b"content-length", b"")
        return int(length) if length.isdigit() else None

    def is_gzip(self) -> bool:
        """Whether the body of an agent's message is compressed, in the one way there is."""
        encoding = self.headers.get(b"content-encoding", b"identity").lower()
        if encoding not in (b"gzip", b"identity"):
            raise HTTPException(415, "The Content-Encoding must be gzip or identity.")
        return encoding == b"gzip"

    def _expect(self, media_type: str) -> None:
        sent = self.headers.get(b"content-type", media_type.encode()).decode("latin-1")
        if sent.partition(";")[0].strip().lower() != media_type:
            raise HTTPException(415, f"The body must be {media_type}.")

    async def _body(self, most: int) -> bytes:
        """The whole body. Raises TooLarge as soon as it is."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise Invalid("The body ended too early.")
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise TooLarge(f"The body is larger than {most} bytes.")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise HTTPException(408, "The body was sent too slowly.") from error
