"""Which kinds are watched right now, how well, and what that proves.

Kinds come and go with their CustomResourceDefinitions. That a kind is not served says nothing about its
objects; that a complete list of the definitions does not name it says that there are none.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from watchbill.agent.cache.cache import Cache, KindSink, ResourceSink, sink_for
from watchbill.agent.cache.watched_kinds import KIND, POD, WatchedKind
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.discovery import Discovery, discover
from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.agent.kubernetes.reflector import Reflector
from watchbill.kinds.objects.objects import GroupKind
from watchbill.protocol import Covered, KindState

log = structlog.get_logger(__name__)

LISTS_AT_ONCE = 2
"""A page of pods is some megabytes: few at a time keep the start small."""
REDISCOVER_SECONDS = 1.0
UNKNOWN_GROUPS_SECONDS = 30.0


@dataclass(slots=True)
class _Watch:
    wanted: WatchedKind
    sink: ResourceSink
    reflector: Reflector
    task: asyncio.Task[None] | None = None
    lists: int = 0


class WatchManager:
    """Runs a reflector per wanted kind that is served. `on_list` hears of every complete list."""

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        wanted: tuple[WatchedKind, ...],
        *,
        resync_seconds: float,
        on_list: Callable[[WatchedKind], None],
    ) -> None:
        self.discovery = Discovery()
        self.failure: str | None = "The API server has not answered yet."
        self._client = client
        self._cache = cache
        self._wanted = wanted
        self._groups = {found.key.group for found in wanted}
        self._resync_seconds = resync_seconds
        self._on_list = on_list
        self._watches: dict[GroupKind, _Watch] = {}
        self._missing_since: dict[GroupKind, datetime] = {}
        self._slots = asyncio.Semaphore(LISTS_AT_ONCE)
        self._stale = asyncio.Event()
        self._lock = asyncio.Lock()
        self._discovered = asyncio.Event()

    async def run(self) -> None:
        """Discover, watch, and discover again whenever kinds may have changed; for ever."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self._refresh()
                except ApiFailure as failure:
                    self.failure = failure.message
                    log.warning("discovery failed", trouble=failure.trouble, error=failure.message)
                    await asyncio.sleep(
                        backoff.next_seconds(at_least_seconds=failure.retry_after_seconds)
                    )
                    continue
                backoff.reset()
                self._adjust(tasks)
                self._discovered.set()
                await self._until_stale()

    async def discovered(self) -> None:
        """Return once the API server has answered."""
        await self._discovered.wait()

    async def settled(self) -> None:
        """Return once every served kind has been listed, or has turned out not to be listable for now."""
        await self._discovered.wait()
        for watch in tuple(self._watches.values()):
            await watch.reflector.settled.wait()

    async def find(self, key: GroupKind) -> ServedResource | None:
        """Where the server serves a kind, wanted or not. Raises ApiFailure."""
        self._groups.add(key.group)
        if not self.discovery.knows(key.group):
            await self._refresh(for_group=key.group)
        return self.discovery.resources.get(key)

    def states(self) -> tuple[KindState, ...]:
        """One for every kind of workloads, and for what else is served."""
        found = []
        for wanted in self._wanted:
            watch = self._watches.get(wanted.key)
            if watch is not None:
                found.append(watch.reflector.state)
            elif wanted.is_workload_kind:
                found.append(self._state_of_missing(wanted.key))
        return tuple(found)

    def coverage(self, *, without: frozenset[GroupKind] = frozenset()) -> tuple[Covered, ...]:
        """Kinds all of whose objects are known, in all namespaces: listed completely, or proven not to be."""
        return tuple(
            Covered(group=wanted.key.group, kind=wanted.key.kind)
            for wanted in self._wanted
            if wanted.is_workload_kind
            and wanted.key not in without
            and (self._is_complete(wanted.key) or self.is_proven_absent(wanted.key))
        )

    @property
    def can_prove(self) -> bool:
        """Whether an inventory would say anything: pods at least are known."""
        return self._is_complete(POD)

    def is_proven_absent(self, key: GroupKind) -> bool:
        """Not served, in no group that could not be asked, and named by none of all definitions."""
        watch = self._watches.get(KIND)
        if watch is None or not watch.reflector.is_complete or self._stale.is_set():
            return False
        if key in self.discovery.resources or key.group in self.discovery.unknown_groups:
            return False
        assert isinstance(watch.sink, KindSink)
        stem = key.kind.lower()[:-1]
        return not any(
            name.startswith(stem) and name.partition(".")[2] == key.group
            for name in watch.sink.names.values()
        )

    async def _refresh(self, *, for_group: str | None = None) -> None:
        async with self._lock:
            if for_group is not None and self.discovery.knows(for_group):
                return  # someone else asked meanwhile
            if for_group is None:
                self._stale.clear()
            self.discovery = await discover(self._client, frozenset(self._groups))
            self.failure = None
            self._cache.cluster_scoped |= {
                key for key, found in self.discovery.resources.items() if not found.is_namespaced
            }

    async def _until_stale(self) -> None:
        wait = UNKNOWN_GROUPS_SECONDS if self.discovery.unknown_groups else self._resync_seconds
        try:
            async with asyncio.timeout(jittered(wait)):
                await self._stale.wait()
        except TimeoutError:
            return
        await asyncio.sleep(jittered(REDISCOVER_SECONDS))

    def _adjust(self, tasks: asyncio.TaskGroup) -> None:
        """Start what is served and not watched, stop what is watched and not served."""
        for wanted in self._wanted:
            resource = self.discovery.resources.get(wanted.key)
            watch = self._watches.get(wanted.key)
            if resource is None:
                self._missing_since.setdefault(wanted.key, datetime.now(UTC))
                if watch is not None and wanted.key.group not in self.discovery.unknown_groups:
                    self._stop(watch)
                continue
            self._missing_since.pop(wanted.key, None)
            if wanted.field_selector:
                resource = replace(resource, field_selector=wanted.field_selector)
            if watch is None:
                watch = self._watches[wanted.key] = self._watch(wanted, resource)
            watch.reflector.resource = watch.sink.resource = resource
            if watch.task is None:
                watch.task = tasks.create_task(watch.reflector.run())

    def _watch(self, wanted: WatchedKind, resource: ServedResource) -> _Watch:
        sink = sink_for(wanted, resource, self._cache, self._stale.set)
        reflector = Reflector(
            self._client,
            resource,
            sink,
            is_metadata=wanted.is_metadata,
            resync_seconds=self._resync_seconds,
            list_slots=self._slots,
            on_change=lambda found: self._note(wanted, found),
        )
        return _Watch(wanted, sink, reflector)

    def _stop(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
            watch.task = None
            log.info(
                "kind no longer served", group=watch.wanted.key.group, kind=watch.wanted.key.kind
            )
        watch.reflector.note_absent()
        if self.is_proven_absent(watch.wanted.key):
            watch.reflector.forget(datetime.now(UTC))

    def _note(self, wanted: WatchedKind, reflector: Reflector) -> None:
        """A reflector's state changed."""
        watch = self._watches[wanted.key]
        if reflector.state.state == "absent" and watch.task is not None:
            self._stale.set()
        if reflector.lists != watch.lists:
            watch.lists = reflector.lists
            if wanted.is_workload_kind:
                self._cache.mark_listed(wanted.key)
                self._on_list(wanted)

    def _is_complete(self, key: GroupKind) -> bool:
        watch = self._watches.get(key)
        return watch is not None and watch.reflector.is_complete

    def _state_of_missing(self, key: GroupKind) -> KindState:
        is_unknown = key.group in self.discovery.unknown_groups or self.failure is not None
        return KindState(
            group=key.group,
            kind=key.kind,
            state="failing" if is_unknown else "absent",
            since=self._missing_since.get(key, datetime.now(UTC)),
            message=self.failure,
        )
