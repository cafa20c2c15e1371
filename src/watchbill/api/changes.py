"""Subscriptions to changes, and which of them each one gets: one listener per server, whatever the clients.

A change costs one look at the rows that changed, and one question per different filter; never a look at all
workloads. What a client has not taken yet is kept merged and bounded: past the bound it is asked to load
everything anew.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import structlog

from watchbill.api.limits import CONCURRENT_STREAMS, MAX_STREAMS, RejectingConcurrencyLimiter
from watchbill.background import log_failure
from watchbill.errors import Unavailable
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.standby import Standby
from watchbill.store.workloads.changes import (
    ChangedWorkload,
    change_list,
    change_listen,
    change_marks,
    is_in_scope,
    matching_ids,
)

GATHER_SECONDS = 0.3
"""Changes that come closer together are sent together."""
CHECK_SECONDS = 15.0
RETRY_SECONDS = 2.0
READY_SECONDS = 8.0
POLL_SECONDS = 5.0
"""Between two looks at what changed, where a pooler keeps notifications away."""
MAX_CHANGES_PER_TENANT = 5_000
"""Changed workloads of one tenant between two rounds, past which everybody asks anew."""
MAX_PENDING = 500
"""Changed workloads that wait for one client, past which it asks anew."""

log = structlog.get_logger(__name__)


class Resync(StrEnum):
    """Why a client must ask anew for what it shows."""

    TOO_MANY = "too-many"
    INTERRUPTED = "interrupted"
    ACCESS = "access"


@dataclass(slots=True)
class ChangeEvent:
    """`changed` match the client's question now; `gone` do not, or no longer. `resync` replaces both."""

    changed: set[UUID] = field(default_factory=set)
    gone: set[UUID] = field(default_factory=set)
    resync: Resync | None = None

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone or self.resync)


class ChangeSubscription:
    """One client: what it asked, and what it has not taken yet."""

    def __init__(self, scope: Scope, query: WorkloadQuery) -> None:
        self.scope = scope
        self.query = query
        self.is_closed = False
        self._pending = ChangeEvent()
        self._woken = asyncio.Event()

    def offer(self, changed: set[UUID], gone: set[UUID]) -> None:
        event = self._pending
        if event.resync is not None or not (changed or gone):
            return
        event.changed = (event.changed - gone) | changed
        event.gone = (event.gone - changed) | gone
        if len(event.changed) + len(event.gone) > MAX_PENDING:
            self.resync(Resync.TOO_MANY)
        self._woken.set()

    def resync(self, why: Resync) -> None:
        self._pending = ChangeEvent(resync=why)
        self._woken.set()

    def close(self) -> None:
        self.is_closed = True
        self._woken.set()

    async def take(self, seconds: float) -> ChangeEvent:
        """What came, or nothing after so long. At once where there is something, or never will be."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return ChangeEvent()
        self._woken.clear()
        event, self._pending = self._pending, ChangeEvent()
        return event


class ChangeStreams:
    """All subscriptions of this server. It listens while there are any."""

    def __init__(
        self, db: Database, clock: Callable[[], datetime], standby: Standby | None = None
    ) -> None:
        """`standby`: what clients read, so nothing is sent that it does not show yet."""
        self._db = db
        self._standby = standby
        self._clock = clock
        self._subscriptions: set[ChangeSubscription] = set()
        self._of_principal = RejectingConcurrencyLimiter(CONCURRENT_STREAMS, "streams")
        self._of_all = RejectingConcurrencyLimiter(MAX_STREAMS, "streams on this server")
        self._changed_ids: dict[int, set[UUID]] = {}
        self._woken = asyncio.Event()
        self._listening: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @contextmanager
    def subscribe(
        self, principal: object, scope: Scope, query: WorkloadQuery
    ) -> Iterator[ChangeSubscription]:
        """Raises TooMany, and Unavailable where the server is stopping."""
        if self._is_closed:
            raise Unavailable("The server is stopping.", retry_after_seconds=2)
        unpaged = replace(query, sort_by="createdAt", is_descending=False, offset=0)
        subscription = ChangeSubscription(scope, unpaged)
        with self._of_principal.hold(principal), self._of_all.hold("all"):
            self._subscriptions.add(subscription)
            self._start()
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)
                if not self._subscriptions:
                    self._stop()

    async def wait_until_listening(self) -> None:
        """From then on no change is missed without a resync. Raises what keeps the server from listening."""
        assert self._listening is not None, "whoever waits has subscribed"
        try:
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.shield(self._listening)
        except TimeoutError as error:
            raise Unavailable(
                "Live changes are not available at the moment.", retry_after_seconds=5
            ) from error
        await self._show()

    def close(self) -> None:
        """Ends every stream, so that the server can stop."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._changed_ids.clear()

    def _start(self) -> None:
        if self._task is None:
            self._listening = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._listen(self._listening))

    async def _listen(self, listening: asyncio.Future[None]) -> None:
        while True:
            try:
                if self._db.can_listen:
                    await self._listen_until_lost(listening)
                else:
                    await self._poll(listening)
            except Exception as error:
                log_failure("lost the notification connection; reconnecting", error)
                if not listening.done():
                    listening.set_exception(error)
                    listening.exception()  # nobody may be waiting for it
            self._listening = listening = asyncio.get_running_loop().create_future()
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen_until_lost(self, listening: asyncio.Future[None]) -> None:
        async with change_listen(self._db, self._collect, lost=self._woken.set) as listener:
            await self._show()
            self._resync(self._subscriptions, Resync.INTERRUPTED)
            listening.set_result(None)
            while not listener.is_lost:
                if await self._wait():
                    await asyncio.sleep(GATHER_SECONDS)
                    await self._deliver()
                else:
                    await listener.check()

    async def _poll(self, listening: asyncio.Future[None]) -> None:
        """Tells everybody of a tenant to ask anew whenever something of it changed, and once at first."""
        marks: dict[int, dict[UUID, datetime | None]] = {}
        listening.set_result(None)
        while True:
            for tenant_id in {subscription.scope.tenant_id for subscription in self._subscriptions}:
                latest = await change_marks(self._db, tenant_id)
                if marks.get(tenant_id) != latest:
                    marks[tenant_id] = latest
                    await self._show()
                    self._resync(self._of_tenant(tenant_id), Resync.INTERRUPTED)
            await asyncio.sleep(POLL_SECONDS)

    async def _show(self) -> None:
        """Returns when every read shows what has happened by now."""
        if self._standby is not None:
            await self._standby.catch_up()

    def _of_tenant(self, tenant_id: int) -> list[ChangeSubscription]:
        return [
            subscription
            for subscription in self._subscriptions
            if subscription.scope.tenant_id == tenant_id
        ]

    async def _wait(self) -> bool:
        """Whether something was notified, within the time after which the connection is looked at."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def _collect(self, tenant_id: int, ids: list[UUID]) -> None:
        pending_ids = self._changed_ids.setdefault(tenant_id, set())
        if len(pending_ids) <= MAX_CHANGES_PER_TENANT:
            pending_ids.update(ids)
        self._woken.set()

    async def _deliver(self) -> None:
        pending, self._changed_ids = self._changed_ids, {}
        await self._show()  # what comes meanwhile is sent in the next round
        for tenant_id, ids in pending.items():
            wanting = self._of_tenant(tenant_id)
            if len(ids) > MAX_CHANGES_PER_TENANT:
                # Not "too many": how much changes outside a client's scope is not its business.
                self._resync(wanting, Resync.INTERRUPTED)
            elif wanting:
                await self._deliver_to_tenant(tenant_id, ids, wanting)

    async def _deliver_to_tenant(
        self, tenant_id: int, ids: set[UUID], wanting: list[ChangeSubscription]
    ) -> None:
        groups: dict[tuple[Scope, WorkloadQuery], list[ChangeSubscription]] = {}
        for subscription in wanting:
            groups.setdefault((subscription.scope, subscription.query), []).append(subscription)
        try:
            rows = await change_list(self._db, tenant_id, ids)
            for (scope, query), subscriptions in groups.items():
                seen = [row for row in rows if is_in_scope(scope, row)]
                changed = await self._matching(scope, query, seen) if seen else set()
                gone = {row.id for row in seen} - changed
                for subscription in subscriptions:
                    subscription.offer(changed, gone)
        except Unavailable as error:
            log.warning("changes could not be looked up", reason=error.message)
            self._resync(wanting, Resync.INTERRUPTED)

    async def _matching(
        self, scope: Scope, query: WorkloadQuery, seen: list[ChangedWorkload]
    ) -> set[UUID]:
        candidates = {row.id for row in seen if row.is_deleted == query.is_deleted}
        if not candidates or not (query.predicates or query.search):
            return candidates
        return await matching_ids(self._db, scope, query, candidates, self._clock())

    @staticmethod
    def _resync(subscriptions: Iterable[ChangeSubscription], why: Resync) -> None:
        for subscription in subscriptions:
            subscription.resync(why)
