"""One kind of object, kept in sync with the cluster: list, watch, and a periodic resync.

List all pages, store every object, then delete what the complete list does not contain; watch from the list's
resource version; list again when the server says 410, in either shape. Objects are stored while pages
arrive, but nothing is deleted before a list is complete. Periodically the list is read
again, metadata only, even if the watch looks healthy: etcd has lost delete events before.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from datetime import datetime
from math import inf
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import structlog

from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.client import KubeClient, ListPage, ListSlots, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.pauses import PAUSE_SECONDS, Backlog, PauseDetector
from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.agent.kubernetes.watch_check import ListCount, WatchChecks
from watchbill.agent.kubernetes.watch_stream import ObjectMeta, WatchEvent, read_head_or_none
from watchbill.background import TimeSlice
from watchbill.protocol import MAX_UNOBSERVED, KindState

log = structlog.get_logger(__name__)

State = Literal["complete", "listing", "forbidden", "absent", "failing"]

FORBIDDEN_ATTEMPTS = 3
"""Just after its start an API server denies users that it accepts a moment later."""
FAILURES_UNTIL_READY = 3
FORBIDDEN_RETRY_SECONDS = 60.0
FIRST_RETRY_SECONDS = 1.0
POLL_SECONDS = 60.0
"""How often a kind is listed that cannot be watched."""
SHORT_WATCH_SECONDS = 1.0
LONG_WATCH_SECONDS = 60.0
"""As long as the longest back-off: a watch that stood for so long was none that fails."""
BOOKMARK_OVERDUE_SECONDS = 75.0
"""Bookmarks come about once a minute: a watch that was silent for longer may have stood still and tell late."""
MISSED_EVENT_GRACE_SECONDS = 90.0
"""Longer than a bookmark's interval: by then a watch has delivered what a list contained."""
CHECK_SECONDS = 60.0
"""How often a watch is held against the first page of a list."""
CHECK_LATE_SECONDS = 15.0
"""Whoever does not watch for so long what a list shows tells what is old."""
UNSEEN_SECONDS = 60.0
"""Objects that were not watched for so long may have come, changed and gone meanwhile."""


class ObjectSink(Protocol):
    """Stores one kind's objects. `body` is not yet decoded; raises msgspec.DecodeError if it cannot be."""

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None: ...

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        """`not_before`: when the object was last known to exist, where nobody saw it go."""


class Reflector:
    """Keeps a sink in sync with one resource while `run` runs."""

    def __init__(
        self,
        client: KubeClient,
        resource: ServedResource,
        sink: ObjectSink,
        *,
        is_metadata: bool,
        resync_seconds: float,
        list_slots: ListSlots,
        retry_slots: ListSlots,
        pauses: PauseDetector,
        on_change: Callable[["Reflector"], None],
    ) -> None:
        self.resource = resource
        self.ready = asyncio.Event()
        """Set after the first complete list, or once it is clear that there will be none for now."""
        self.lists = 0
        """Complete lists, without those of polling."""
        self.polls = 0
        self.counts: Counter[str] = Counter()
        self.unobserved: list[tuple[datetime, datetime]] = []
        """Times of which only the end was listed, so that objects may have come and gone in them; whoever tells
        them removes them; beyond `MAX_UNOBSERVED` the shortest go. Those between the lists of polling are not
        among them: the state says so."""
        self._client = client
        self._sink = sink
        self._is_metadata = is_metadata
        self._resync_seconds = resync_seconds
        self._list_slots = list_slots
        self._retry_slots = retry_slots
        """For lists that failed before: one that hangs must not delay those of other kinds."""
        self._has_list_failed = False
        self._pauses = pauses
        self._backlog = Backlog(pauses, lambda: client.newest_version(resource))
        self._read_at = 0.0
        """By the event loop's clock, when a watch was last read."""
        self._watch_refusals = 0
        self._watch_error: str | None = None
        """Why the kind is polled instead of watched."""
        self._on_change = on_change
        self.versions: dict[str, str] = {}
        self._unreadable: set[str] = set()
        self._checks = WatchChecks(client, self.versions)
        self._resource_version = ""
        self._reached: _Key | None = None
        self._current_at: datetime | None = None
        """When everything was last known to be as it is stored."""
        self._verified_at: datetime | None = None
        """The same by a list alone: the watch may have missed something since."""
        self._behind_since: float | None = None
        self._unbroken_since: float | None = None
        self._list_backoff = Backoff(first_seconds=FIRST_RETRY_SECONDS)
        self._watch_backoff = Backoff(first_seconds=FIRST_RETRY_SECONDS)
        """Of watches that fail until one says something, stands for long or ends in good order: that lists
        succeed meanwhile is no progress."""
        self._forbidden_attempts = 0
        self._state: State = "listing"
        self._since = observed_now()
        self._message: str | None = None

    @property
    def state(self) -> KindState:
        return KindState(
            group=self.resource.group,
            kind=self.resource.kind,
            state=self._state,
            since=self._since,
            message=self._message,
        )

    @property
    def seconds_behind(self) -> float | None:
        """How long objects may have changed unseen: 0 while they are watched, None before the first list."""
        if not self.lists and not self.polls:
            return None
        if self._behind_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._behind_since

    @property
    def unbroken_since(self) -> float | None:
        """Since when, by the event loop's clock, changes are seen as they happen; None while they are not."""
        if self._unbroken_since is None or (self.seconds_behind or 0.0) >= UNSEEN_SECONDS:
            return None
        return max(self._unbroken_since, self._pauses.resumed_at)

    def _catch_up(self) -> None:
        """Objects are watched again, or were listed; after a longer while some changes were not seen."""
        is_broken = self._unbroken_since is None or (self.seconds_behind or 0.0) >= UNSEEN_SECONDS
        if is_broken:
            self._unbroken_since = asyncio.get_running_loop().time()
        self._behind_since = None

    @property
    def reached_namespace(self) -> str:
        """How far a list has come: of namespaces that sort before this one (both with a slash behind them)
        all objects are stored. "" = of none.

        An API server lists in the order of its keys, `namespace/name`; one that does not tells nothing here.
        """
        return self._reached.namespace if self._reached is not None else ""

    @property
    def is_complete(self) -> bool:
        return self._state == "complete"

    async def run(self) -> None:
        """List and watch until cancelled."""
        try:
            await self._run()
        finally:
            self._backlog.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._list()
                await _first_to_end(
                    self._watch(), self._resync_periodically(), self._check_periodically()
                )
                self._current_at, self._unbroken_since = self._verified_at, None
            except _WatchRefused as refused:
                await asyncio.sleep(self._record_watch_refused(refused.failure))
            except ApiFailure as failure:
                await asyncio.sleep(self._record_failure(failure))

    def note_absent(self) -> None:
        """The server does not serve this kind, or no longer."""
        self._set_state("absent", None)
        self.ready.set()

    def delete_all(self, at: datetime) -> None:
        """The kind itself is proven absent, so all of its objects are gone."""
        for uid in list(self.versions):
            self._delete(uid, at, self._current_at)

    async def _list(self) -> None:
        slots = self._retry_slots if self._has_list_failed else self._list_slots
        self._has_list_failed = True
        async with slots.asking, aclosing(self._pages(slots)) as pages:
            began = observed_now()
            listed: set[str] = set()
            unreadable: set[str] = set()
            resource_version = ""
            work, count, self._reached = TimeSlice(), ListCount(), _Key("", "")
            async for page in pages:
                resource_version = resource_version or page.metadata.resource_version
                count.add(page)
                for number, body in enumerate(page.items or ()):
                    meta = read_head_or_none(body)
                    if meta is None or not meta.uid:
                        unreadable.add(f"{resource_version}/{number}")
                        continue
                    listed.add(meta.uid)
                    if self.versions.get(meta.uid) != meta.resource_version:
                        self._store(meta, body)
                    self._reach(_Key(meta.namespace, meta.name))
                    await work.rest()
        self._backlog.end()
        for uid in self.versions.keys() - listed:
            self._delete(uid, observed_now(), self._current_at)
        self._note_unobserved(began)
        self._current_at = self._verified_at = began
        self._unreadable = (self._unreadable & listed) | unreadable
        self._resource_version = resource_version
        self._checks.begin(resource_version, is_count_exact=count.is_exact)
        self._has_list_failed = False
        if self._watch_error is None:
            self.lists += 1
        else:
            self.polls += 1
        self._list_backoff.reset()
        self._forbidden_attempts = 0
        self._catch_up()
        self._set_healthy()
        self.ready.set()
        log.info("listed", **self._log_fields(), objects=len(listed), times=self.lists)

    def _pages(self, slots: ListSlots) -> AsyncGenerator[ListPage, None]:
        return self._client.list_pages(
            self.resource, is_metadata=self._is_metadata, reading=slots.reading
        )

    def _note_unobserved(self, listed_at: datetime) -> None:
        since = self._current_at
        if since is None or self._watch_error is not None or listed_at <= since:
            return
        self.unobserved.append((since, listed_at))
        if len(self.unobserved) > MAX_UNOBSERVED:
            self.unobserved.remove(min(self.unobserved, key=lambda span: span[1] - span[0]))

    def _reach(self, key: "_Key") -> None:
        if self._reached is not None:
            self._reached = key if self._reached.path <= key.path else None

    async def _watch(self) -> None:
        """Watch repeatedly; returns when only a new list can help."""
        while True:
            began, opened_at = asyncio.get_running_loop().time(), inf
            try:
                async with self._client.watch(
                    self.resource, self._resource_version, is_metadata=self._is_metadata
                ) as events:
                    opened_at = asyncio.get_running_loop().time()
                    self._watch_refusals, self._watch_error = 0, None
                    self._catch_up()
                    self._set_healthy()
                    # A watch goes on where the last one, or the list, left off.
                    self._backlog.expect(self._current_at, after_seconds=PAUSE_SECONDS)
                    opened_at = self._read_at = asyncio.get_running_loop().time()
                    async for event in events:
                        self._apply(event)
                        self._watch_backoff.reset()
                    self._current_at = self._backlog.unread_since(opened_at) or observed_now()
            except ApiFailure as failure:
                self._current_at = self._backlog.unread_since(opened_at) or self._current_at
                if opened_at == inf and _is_refusal(failure):
                    raise _WatchRefused(failure) from failure
                if asyncio.get_running_loop().time() - opened_at >= LONG_WATCH_SECONDS:
                    self._watch_backoff.reset()
                if not self._can_resume_watch(failure):
                    raise
                await asyncio.sleep(self._record_failure(failure))
            else:
                if asyncio.get_running_loop().time() - began < SHORT_WATCH_SECONDS:
                    await asyncio.sleep(jittered(SHORT_WATCH_SECONDS))
                else:
                    self._watch_backoff.reset()

    def _can_resume_watch(self, failure: ApiFailure) -> bool:
        is_temporary = failure.kind in (ErrorKind.BUSY, ErrorKind.UNREACHABLE)
        return is_temporary and self._watch_backoff.failures < FAILURES_UNTIL_READY

    def _apply(self, event: WatchEvent) -> None:
        self.counts[event.type if event.is_known else "unknown"] += 1
        was_paused = self._pauses.resumed_at > self._read_at
        silence = PAUSE_SECONDS if was_paused else BOOKMARK_OVERDUE_SECONDS
        self._backlog.expect(self._current_at, after_seconds=silence)
        self._current_at, self._read_at = observed_now(), asyncio.get_running_loop().time()
        meta = event.meta
        if not event.is_known or not (meta.resource_version or meta.uid):
            return
        unseen_since = self._backlog.unseen_since(meta.resource_version)
        self._checks.reach(meta.resource_version, is_bookmark=event.type == "BOOKMARK")
        if event.type != "BOOKMARK" and meta.uid:
            if event.type == "DELETED":
                self._delete(meta.uid, observed_now(), unseen_since)
            else:
                self._store(meta, event.body)
            self._checks.note_event(meta.uid)
        if meta.resource_version:
            self._resource_version = meta.resource_version

    def _store(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        try:
            self._sink.put(meta, body)
        except Exception as error:  # one unexpected object must not stop its kind
            # It exists but cannot be decoded: the kind is incomplete, so absence proves nothing.
            self._unreadable.add(meta.uid)
            self.versions[meta.uid] = ""
            log.error(
                "object cannot be decoded",
                **self._log_fields(),
                uid=meta.uid,
                error=str(error),
                exc_info=not isinstance(error, msgspec.DecodeError),
            )
            self._set_healthy()
            return
        self.versions[meta.uid] = meta.resource_version
        if self._unreadable:
            self._unreadable.discard(meta.uid)
            self._set_healthy()

    def _delete(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        if self.versions.pop(uid, None) is not None:
            self._sink.remove(uid, at, not_before)
        self._unreadable.discard(uid)

    async def _resync_periodically(self) -> None:
        """List again periodically; returns when the watch has missed an event."""
        while True:
            await asyncio.sleep(jittered(self._checks.resync_seconds(self._resync_seconds)))
            began = observed_now()
            try:
                missed = await self._checks.find_missed(
                    self.resource,
                    self._retry_slots.asking,
                    grace_seconds=MISSED_EVENT_GRACE_SECONDS,
                )
            except ApiFailure as failure:
                log.warning("resync list failed", **self._log_fields(), error=failure.message)
                continue
            if missed:
                self.counts["missed"] += len(missed)
                log.warning("watch missed events", **self._log_fields(), objects=len(missed))
                return
            self._verified_at = began

    async def _check_periodically(self) -> None:
        """Hold the watch against the first page of a list; returns when it has missed an event."""
        while True:
            await asyncio.sleep(jittered(CHECK_SECONDS))
            if not self._checks.is_possible:
                continue
            began = asyncio.get_running_loop().time()
            try:
                has_missed = await self._has_missed(began)
            except ApiFailure as failure:
                log.info("watch not checked", **self._log_fields(), error=failure.message)
                continue
            if has_missed:
                self.counts["missed"] += 1
                self._note_behind(began)
                log.warning("watch lags behind a list", **self._log_fields())
                return

    async def _has_missed(self, began: float) -> bool:
        check = await self._checks.ask(self.resource, self._unreadable)
        is_late = not await check.is_settled_within(CHECK_LATE_SECONDS)
        if is_late:
            self._note_behind(began)
            await check.settle(lambda: self._resource_version, MISSED_EVENT_GRACE_SECONDS)
        # What a process that was suspended has not read yet is not missed.
        has_missed = check.has_missed and self._pauses.resumed_at <= began
        if is_late and not has_missed:
            self._catch_up()
            self._set_healthy()
        return has_missed

    def _note_behind(self, since: float) -> None:
        if self._behind_since is None:
            self._behind_since = since
        self._set_state("failing", "its watch does not tell what a list shows")

    def _record_failure(self, failure: ApiFailure) -> float:
        """Record the failure in the state; returns the seconds to wait."""
        if self._behind_since is None:
            self._behind_since = asyncio.get_running_loop().time()
        self.counts[failure.kind.value] += 1
        log.warning(
            "list or watch failed",
            **self._log_fields(),
            error_kind=failure.kind,
            error=failure.message,
        )
        backoff = self._list_backoff if self._has_list_failed else self._watch_backoff
        is_repeated = backoff.failures + 1 >= FAILURES_UNTIL_READY
        if failure.kind is ErrorKind.EXPIRED and not is_repeated:
            self._set_state("listing", None)
            return backoff.next_seconds()
        if failure.kind is ErrorKind.FORBIDDEN:
            return self._record_forbidden(failure)
        state: State = "absent" if failure.kind is ErrorKind.ABSENT else "failing"
        self._set_state(state, failure.message)
        if state == "absent" or is_repeated:
            self.ready.set()
        return backoff.next_seconds(at_least_seconds=failure.retry_after_seconds)

    def _record_forbidden(self, failure: ApiFailure) -> float:
        self._forbidden_attempts += 1
        if self._forbidden_attempts < FORBIDDEN_ATTEMPTS:
            self._set_state("failing", failure.message)
            return jittered(FIRST_RETRY_SECONDS)
        self._set_state("forbidden", failure.message)
        self.ready.set()
        return jittered(FORBIDDEN_RETRY_SECONDS)

    def _record_watch_refused(self, failure: ApiFailure) -> float:
        """The kind can be listed but not watched: poll it. Returns the seconds to wait."""
        self.counts[failure.kind.value] += 1
        self._watch_refusals += 1
        if self._watch_refusals < FORBIDDEN_ATTEMPTS:
            return jittered(FIRST_RETRY_SECONDS)
        if self._watch_error is None:
            log.warning("kind cannot be watched", **self._log_fields(), error=failure.message)
        self._watch_error = failure.message
        self._set_healthy()
        return jittered(POLL_SECONDS)

    def _set_healthy(self) -> None:
        if self._unreadable:
            self._set_state("failing", f"{len(self._unreadable)} objects cannot be decoded")
        elif self._watch_error is not None:
            polled = f"cannot be watched, listed every {POLL_SECONDS:.0f} s"
            self._set_state("complete", f"{polled}: {self._watch_error}")
        else:
            self._set_state("complete", None)

    def _set_state(self, state: State, message: str | None) -> None:
        self._message = message
        if state != self._state:
            self._state, self._since = state, observed_now()
        self._on_change(self)

    def _log_fields(self) -> dict[str, str]:
        return {"group": self.resource.group, "kind": self.resource.kind}


class _Key(NamedTuple):
    """Where an object stands in a list."""

    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"


class _WatchRefused(Exception):
    """A watch of a kind that could be listed was refused."""

    def __init__(self, failure: ApiFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _is_refusal(failure: ApiFailure) -> bool:
    return failure.kind in (ErrorKind.FORBIDDEN, ErrorKind.REFUSED) or failure.status == 405


async def _first_to_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run all until the first one ends; the others are cancelled, its error is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
