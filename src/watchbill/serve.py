"""The composition root of the server: settings → database → services → application, and back down again."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
import uvicorn

from watchbill.access.audit import Audit
from watchbill.api.app import build_app
from watchbill.api.http.call import Services, services_of
from watchbill.api.http.listen import Certificate, listening_on, open_listener, open_unix_listener
from watchbill.api.limits import agents_share
from watchbill.background import loop_factory
from watchbill.errors import Invalid
from watchbill.identity import FIRST_TENANT_ID, administrator_rule
from watchbill.maintenance import (
    start_maintenance,
    start_message_checks,
    start_reloading,
    start_standby_checks,
)
from watchbill.settings.server import ServerSettings
from watchbill.store.identity.accounts import account_create, account_create_first
from watchbill.store.ingest.process import IngestProcess, IngestSettings
from watchbill.store.postgres.database import Database, check_pooler
from watchbill.store.postgres.embedded import EmbeddedPostgres
from watchbill.store.postgres.errors import naming_database
from watchbill.store.postgres.migrate import migrate
from watchbill.store.postgres.standby import Standby
from watchbill.store.usage.rounds import usage_rebuild
from watchbill.store.workloads.deletion import tenant_list
from watchbill.store.workloads.tally import tally_rebuild
from watchbill.tracing.tracing import NO_TRACING, Tracing, tracing_of

THREAD_TURN_SECONDS = 0.0005
"""How long requests wait for a thread that works, each time that they have to go on; Python's own is ten times
as long."""
_LIVE = {
    True: "by WATCHBILL_DATABASE_DIRECT_URL",
    False: "looked for every few seconds; WATCHBILL_DATABASE_DIRECT_URL would bring them at once",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FirstLogin:
    """A service account's credentials, readable only now."""

    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class Started:
    """Where the server answers, and the login that this start made (the first start, or when asked).

    `database_url`: of the database that it uses, for whoever runs in the same hands.
    """

    url: str
    login: FirstLogin | None
    database_url: str


async def serve(
    settings: ServerSettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[Started], None],
    administrator: str | None = None,
    ingest_command: Sequence[str] = (),
    tracing: Tracing = NO_TRACING,
) -> None:
    """Run until `stop` is set. `administrator`: make an account of that name at this start too.
    `ingest_command`: what applies agents' messages, in a process of its own; empty = this one does.

    Raises Unavailable when the port or the database cannot be had.
    """
    certificate = certificate_of(settings)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(settings))
        url = _url(settings, listener, is_tls=certificate is not None)
        database_url = await stack.enter_async_context(_database_url(settings))
        async with naming_database(settings.database_url):
            db = await _migrated(database_url, settings, tracing)
        stack.push_async_callback(db.close)
        await _rebuild(db, settings)
        login = await _login(db, administrator)
        standby = await _standby(stack, db, settings, tracing)
        ingest = await _ingest(stack, database_url, settings, ingest_command)
        services = services_of(db, settings, standby=standby, ingest=ingest, tracing=tracing)
        await (
            services.keyring.signing()
        )  # a key that cannot be opened stops the start, not every request
        stack.push_async_callback(services.metrics.close)
        stack.push_async_callback(_write_last, services.audit)
        stack.push_async_callback(services.background.close)
        start_maintenance(services)
        if ingest is not None:
            start_message_checks(services, ingest)
        if standby is not None:
            start_standby_checks(services, standby)
        server = _server(services, certificate)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            if server.started:
                ready(Started(url, login, database_url))
            await _first_of(serving, stop)
            services.background.is_draining = True
            await asyncio.wait({serving}, timeout=settings.drain_seconds)
        finally:
            services.streams.close()
            server.should_exit = True
            await serving


def _server(services: Services, certificate: Certificate | None) -> "_Server":
    settings = services.settings
    app = build_app(services, certificate)
    server = _Server(listening_on(app, host=settings.host, port=settings.port))
    if certificate is not None:
        server.config.load()
        server.config.ssl = certificate.context
        start_reloading(services, certificate)
    return server


@contextlib.contextmanager
def _listener(settings: ServerSettings) -> Iterator[socket.socket]:
    """Raises Unavailable."""
    if settings.socket is None:
        with open_listener(settings.host, settings.port) as listener:
            yield listener
        return
    try:
        with open_unix_listener(settings.socket) as listener:
            yield listener
    finally:
        settings.socket.unlink(missing_ok=True)


def _url(settings: ServerSettings, listener: socket.socket, *, is_tls: bool) -> str:
    if settings.socket is not None:
        return f"unix:{settings.socket}"
    return address_of(settings.host, listener.getsockname()[1], is_tls=is_tls)


def certificate_of(settings: ServerSettings) -> Certificate | None:
    """Raises Invalid for one that cannot be used."""
    if settings.tls_cert is not None and settings.tls_key is not None:
        return Certificate(settings.tls_cert, settings.tls_key)
    if settings.tls_cert is settings.tls_key:
        return None
    raise Invalid(
        "A certificate needs its key, and a key its certificate.",
        details="Give both --tls-cert and --tls-key (WATCHBILL_TLS_CERT, WATCHBILL_TLS_KEY).",
    )


def address_of(host: str, port: int, *, is_tls: bool) -> str:
    """Where the server answers; an IPv6 address stands in brackets."""
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"


async def _first_of(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Until the task ends or the event is set."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def run_server(
    settings: ServerSettings,
    *,
    ready: Callable[[Started], None],
    ingest_command: Sequence[str] = (),
) -> None:
    """`serve` as a process of its own: ends on SIGINT and SIGTERM, also while it is still starting."""
    has_started = False
    tracing = tracing_of(os.environ, service="watchbill-server")

    def settled(started: Started) -> None:
        nonlocal has_started
        has_started = True
        gc.collect()
        gc.freeze()  # what lives as long as the process is not looked through again, request after request
        ready(started)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        serving = asyncio.create_task(
            serve(
                settings, stop=stop, ready=settled, ingest_command=ingest_command, tracing=tracing
            )
        )
        await _first_of(serving, stop)
        if not has_started:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            return
        await serving

    # Whoever runs it has said how to log; a logger made for each line takes a quarter of the line's time.
    structlog.configure(cache_logger_on_first_use=True)
    sys.setswitchinterval(THREAD_TURN_SECONDS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            runner.run(main())
        finally:
            tracing.close()


class _Server(uvicorn.Server):
    """Signals are its owner's business."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@contextlib.asynccontextmanager
async def _database_url(settings: ServerSettings) -> AsyncIterator[str]:
    """The database that is named, or the embedded one, running as long as this lasts."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    embedded = EmbeddedPostgres(settings.data_dir, system_user=settings.system_user)
    try:
        yield await embedded.start()
    finally:
        await embedded.stop()


async def _migrated(database_url: str, settings: ServerSettings, tracing: Tracing) -> Database:
    route = await check_pooler(database_url, settings.database_direct_url)
    await migrate(settings.database_direct_url or database_url)
    db = await Database.open(
        database_url,
        direct_url=settings.database_direct_url,
        pool_size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        tracing=tracing,
    )
    if route.is_pooled:
        log.info(
            "a connection pooler is in front of the database", live_changes=_LIVE[db.can_listen]
        )
    return db


async def _standby(
    stack: contextlib.AsyncExitStack, db: Database, settings: ServerSettings, tracing: Tracing
) -> Standby | None:
    """What reads go to beside the database. Raises Unavailable where its address cannot be used."""
    if settings.database_read_url is None:
        return None
    read_db = await Database.open_standby(
        settings.database_read_url,
        pool_size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        tracing=tracing,
    )
    standby = Standby(db, read_db, max_staleness_seconds=settings.read_staleness_seconds)
    stack.push_async_callback(standby.close)
    return standby


async def _ingest(
    stack: contextlib.AsyncExitStack,
    database_url: str,
    settings: ServerSettings,
    command: Sequence[str],
) -> IngestProcess | None:
    if not command:
        return None
    process = IngestProcess(
        command,
        IngestSettings(
            database_url=database_url,
            pool_size=agents_share(settings.pool_size),
            statement_timeout_seconds=settings.statement_timeout_seconds,
            most_bytes=settings.cluster_stored_bytes,
        ),
    )
    stack.push_async_callback(process.close)
    await process.start()
    return process


async def _rebuild(db: Database, settings: ServerSettings) -> None:
    """What this start was asked to count anew."""
    for tenant_id in await tenant_list(db):
        if settings.recounts:
            await tally_rebuild(db, tenant_id)
        if settings.rebuilds_usage:
            await usage_rebuild(db, tenant_id)


async def _login(db: Database, administrator: str | None) -> FirstLogin | None:
    now = datetime.now(UTC)
    if administrator is not None:
        rules = (administrator_rule(FIRST_TENANT_ID),)
        return FirstLogin(*await account_create(db, FIRST_TENANT_ID, administrator, rules, now=now))
    first = await account_create_first(db, now=now)
    return FirstLogin(*first) if first else None


async def _write_last(audit: Audit) -> None:
    """No event of an orderly stop is lost while the database answers."""
    try:
        await audit.flush()
    except Exception as error:
        log.error("could not write the last audit events", exc_info=error)
