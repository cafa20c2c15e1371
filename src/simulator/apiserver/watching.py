"""Watches: from which revision, which events, until when. Bytes go out through a `ObjectSink`; no HTTP here."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from simulator.apiserver import errors
from simulator.apiserver.encoding import (
    PLAIN,
    bookmark_bytes,
    initial_end_bytes,
    object_bytes,
    partial_bytes,
)
from simulator.apiserver.faults import AnswerVariation, Faults
from simulator.apiserver.listing import Options, Selector
from simulator.apiserver.store import (
    Ending,
    ObjectChange,
    ResourceTable,
    Store,
    StoredObject,
    WatchQueue,
)
from simulator.resources import ResourceType

_LAST_BOOKMARK_SECONDS = 1.5
"""A last bookmark comes this long before the end."""
_FUTURE_SECONDS = 3.0


class ByteSink(Protocol):
    async def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """Which changes of which kind, in which form."""

    table: ResourceTable
    version: str
    namespace: str | None
    options: Options
    selector: Selector
    is_partial: bool
    streams_lists: bool = True
    """Old servers know no sendInitialEvents."""

    @property
    def resource(self) -> ResourceType:
        return self.table.resource

    @property
    def api_version(self) -> str:
        return self.resource.api_version_of(self.version)

    @property
    def wants_initial_end(self) -> bool:
        return bool(self.options.sends_initial_events) and self.streams_lists


def check_watch(request: WatchRequest) -> int | None:
    """The revision to start from. Raises ApiError for what cannot be watched."""
    options = request.options
    if options.match and (options.sends_initial_events is None or not request.streams_lists):
        message = (
            "Forbidden: resourceVersionMatch is forbidden for watch "
            "unless sendInitialEvents is provided"
        )
        raise errors.invalid_options(message)
    if request.wants_initial_end and options.match != "NotOlderThan":
        message = (
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
        raise errors.invalid_options(message)
    try:
        return options.revision
    except ValueError as error:
        raise errors.api_error(500, f"resourceVersion: {error}") from error


class Watch:
    """One open watch: what is due first, then changes as they come, until time or a fault ends it."""

    def __init__(
        self,
        store: Store,
        request: WatchRequest,
        *,
        faults: Faults,
        variation: AnswerVariation,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._request = request
        self._faults = faults
        self._variation = variation
        self._monotonic = monotonic
        self._layout = variation.layout() if variation.is_on else PLAIN

    async def run(self, sink: ByteSink, revision: int | None) -> Ending:
        """Serve until the end; says how the bytes have to end."""
        request = self._request
        subscription = WatchQueue()
        first = self._initial(revision)
        request.table.subscriptions.add(subscription)
        request.table.watches += 1
        try:
            if first is None:
                await self._refuse(sink, revision or 0)
                return Ending.CLEAN
            await self._send(sink, first)
            return await self._follow(sink, subscription, after=revision or 0)
        finally:
            request.table.subscriptions.discard(subscription)

    def _initial(self, revision: int | None) -> list[bytes] | None:
        """Lines due at once; None where the start is too old or, for a streamed list, not yet there."""
        request, table = self._request, self._request.table
        starts_over = not revision or request.wants_initial_end
        if request.wants_initial_end and (revision or 0) > self._store.revision:
            return None
        if starts_over and request.options.sends_initial_events is not False:
            prefix = f"{request.namespace}/" if request.namespace else ""
            objects = table.view().between(prefix, "")
            lines = [self._line("ADDED", s) for s in objects if request.selector.matches(s)]
            if request.wants_initial_end and request.options.has_bookmarks:
                lines.append(
                    initial_end_bytes(
                        request.resource,
                        request.api_version,
                        self._store.revision,
                        is_partial=request.is_partial,
                    )
                )
            return lines
        if not revision:
            return []
        if revision < table.floor:
            return None
        changes = [change for change in table.changes if change.revision > revision]
        return self._lines(changes)

    async def _refuse(self, sink: ByteSink, revision: int) -> None:
        request = self._request
        if revision > self._store.revision:
            await asyncio.sleep(min(_FUTURE_SECONDS, request.options.timeout_seconds or 3))
            status = errors.future_revision(revision, self._store.revision)
        else:
            is_cached = request.resource.is_cached
            status = errors.expired_watch(revision, request.table.floor, is_cached=is_cached)
        await sink.write(_error_line(status))

    async def _follow(self, sink: ByteSink, subscription: WatchQueue, *, after: int) -> Ending:
        begin = self._monotonic()
        options = self._request.options
        end = begin + (options.timeout_seconds or self._variation.watch_seconds())
        bookmarks = self._bookmark_times(begin, end)
        while True:
            now = self._monotonic()
            if subscription.ending is not None:
                return await self._end(sink, subscription.ending)
            if now >= end:
                return Ending.CLEAN
            if self._faults.stalls_watches:
                await asyncio.sleep(0.05)
            elif subscription.changes:
                changes = [c for c in subscription.changes if c.revision > after]
                subscription.changes.clear()
                if not self._is_deaf():
                    await self._send(sink, self._lines(changes))
            elif bookmarks and now >= bookmarks[0]:
                # Only when nothing is due before it: it says that all before its revision was sent.
                bookmarks.pop(0)
                await self._bookmark(sink)
            else:
                await _wait(subscription, min([end, *bookmarks[:1]]) - now)

    async def _end(self, sink: ByteSink, ending: Ending) -> Ending:
        if ending is Ending.EXPIRED:
            is_cached = self._request.resource.is_cached
            revision = self._store.revision
            status = errors.expired_watch(revision, revision, is_cached=is_cached)
            await sink.write(_error_line(status))
            return Ending.CLEAN
        return ending

    def _is_deaf(self) -> bool:
        return self._faults.loses_events is not None and self._faults.loses_events(
            self._request.resource
        )

    def _bookmark_times(self, begin: float, end: float) -> list[float]:
        if not self._request.options.has_bookmarks or not self._request.resource.is_cached:
            return []
        times = []
        moment = begin + self._variation.bookmark_seconds()
        while moment < end - _LAST_BOOKMARK_SECONDS:
            times.append(moment)
            moment += self._variation.bookmark_seconds()
        return [*times, end - _LAST_BOOKMARK_SECONDS]

    async def _bookmark(self, sink: ByteSink) -> None:
        request = self._request
        line = bookmark_bytes(
            request.resource,
            request.api_version,
            self._store.revision,
            is_partial=request.is_partial,
        )
        await self._send(sink, [line])

    async def _send(self, sink: ByteSink, lines: list[bytes]) -> None:
        for piece in self._variation.stream(lines) if lines else ():
            size = self._faults.torn_bytes or len(piece)
            for start in range(0, len(piece), size):
                await sink.write(piece[start : start + size])

    def _lines(self, changes: list[ObjectChange]) -> list[bytes]:
        lines = []
        for change in changes:
            seen = self._seen(change)
            if seen is not None:
                lines.append(self._line(*seen))
        return lines

    def _seen(self, change: ObjectChange) -> tuple[str, StoredObject] | None:
        """The change as this watch's selection sees it; leaving the selection is DELETED."""
        namespace = self._request.namespace
        if namespace and not change.new.path.startswith(f"{namespace}/"):
            return None
        selector = self._request.selector
        if not selector:
            return change.type, change.new
        was = change.old is not None and selector.matches(change.old)
        is_now = change.type != "DELETED" and selector.matches(change.new)
        if is_now:
            return ("MODIFIED" if was else "ADDED"), change.new
        if was and change.old is not None:
            return "DELETED", _as_last_seen(change.old, change.revision)
        return None

    def _line(self, event: str, stored: StoredObject) -> bytes:
        request = self._request
        body = (
            partial_bytes(stored)
            if request.is_partial
            else object_bytes(
                stored,
                self._layout,
                kind=request.resource.kind,
                api_version=request.api_version,
            )
        )
        return b'{"type":"%b","object":%b}\n' % (event.encode(), body)


def _as_last_seen(old: StoredObject, revision: int) -> StoredObject:
    """Its last matching state under the new revision."""
    return StoredObject(
        path=old.path,
        uid=old.uid,
        head=old.head,
        spec=old.spec,
        rest=old.rest,
        revision=revision,
        generation=old.generation,
    )


def _error_line(status: bytes) -> bytes:
    return b'{"type":"ERROR","object":%b}\n' % status


async def _wait(subscription: WatchQueue, seconds: float) -> None:
    try:
        await asyncio.wait_for(subscription.signal.wait(), max(0.0, seconds))
    except TimeoutError:
        return
    subscription.signal.clear()
