"""The kinds that are watched now, their states, and what their lists prove.

Kinds come and go with their CustomResourceDefinitions. A kind that is not served says nothing about its
objects; one that no definition in a complete list names has none.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from watchbill.agent.cache.cache import Cache, KindSink, ResourceSink, sink_for
from watchbill.agent.cache.watched_kinds import DEVICE_ROLES, KIND, POD, WatchedKind
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.client import UNLIMITED, KubeClient, ListSlots, ServedResource
from watchbill.agent.kubernetes.discovery import Discovery, discover
from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.agent.kubernetes.pauses import PauseDetector
from watchbill.agent.kubernetes.reflector import Reflector
from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.kinds.objects.objects import GroupKind
from watchbill.protocol import Covered, KindState

log = structlog.get_logger(__name__)

LISTS_AT_ONCE = 100
"""More than there are kinds, and each is watched afterwards anyway: where an API server takes seconds for each
answer, lists that wait for it one after the other take minutes."""
PAGES_AT_ONCE = 3
"""A page of pods has several megabytes: few that are read at once keep memory small."""
RETRIES_AT_ONCE = 4
REDISCOVER_SECONDS = 1.0
UNKNOWN_GROUPS_SECONDS = 30.0
OTHER_KINDS_SECONDS = 20.0


@dataclass(slots=True)
class _Watch:
    kind: WatchedKind
    sink: ResourceSink
    reflector: Reflector
    task: asyncio.Task[None] | None = None
    lists: int = 0


class WatchManager:
    """Runs a reflector for each watched kind that is served. `on_list` is called after every complete list."""

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        kinds: tuple[WatchedKind, ...],
        *,
        resync_seconds: float,
        on_list: Callable[[WatchedKind], None],
    ) -> None:
        self.discovery = Discovery()
        self.failure: str | None = "The API server has not answered yet."
        self._client = client
        self._cache = cache
        self._kinds = kinds
        self._groups = {kind.key.group for kind in kinds}
        self._resync_seconds = resync_seconds
        self._on_list = on_list
        self._watches: dict[GroupKind, _Watch] = {}
        self._absent_since: dict[GroupKind, datetime] = {}
        self._list_slots = {
            is_workload_kind: ListSlots(
                asyncio.Semaphore(LISTS_AT_ONCE), asyncio.Semaphore(PAGES_AT_ONCE)
            )
            for is_workload_kind in (True, False)
        }
        self._retry_slots = ListSlots(asyncio.Semaphore(RETRIES_AT_ONCE), UNLIMITED)
        self._pauses = PauseDetector()
        self._rediscover = asyncio.Event()
        self._lock = asyncio.Lock()
        self._discovered = asyncio.Event()

    async def run(self) -> None:
        """Discover, watch, and discover again whenever kinds may have changed, until cancelled."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pauses.run())
            while True:
                try:
                    await self._refresh()
                except ApiFailure as failure:
                    self.failure = failure.message
                    log.warning("discovery failed", error_kind=failure.kind, error=failure.message)
                    await asyncio.sleep(
                        backoff.next_seconds(at_least_seconds=failure.retry_after_seconds)
                    )
                    continue
                backoff.reset()
                self._reconcile(tasks)
                self._discovered.set()
                await self._until_rediscovery()

    async def discovered(self) -> None:
        """Return once the API server has answered."""
        await self._discovered.wait()

    async def ready(self) -> None:
        """Return once every served kind has been listed, or cannot be listed for now.

        Once pods are, the others are waited for a while only: none delays the records of all.
        """
        await self._discovered.wait()
        watches = dict(self._watches)
        pods = watches.pop(POD, None)
        if pods is not None:
            await pods.reflector.ready.wait()
        try:
            async with asyncio.timeout(OTHER_KINDS_SECONDS):
                for watch in watches.values():
                    await watch.reflector.ready.wait()
        except TimeoutError:
            late = [
                str(key) for key, watch in watches.items() if not watch.reflector.ready.is_set()
            ]
            log.warning("kinds not listed in time", kinds=late)

    @property
    def are_others_listed(self) -> bool:
        """Whether every served kind but the pods has been listed, or cannot be listed for now."""
        return self._discovered.is_set() and all(
            watch.reflector.ready.is_set() for key, watch in self._watches.items() if key != POD
        )

    @property
    def reached_namespace(self) -> str:
        """How far the first list of pods has come; see `Reflector.reached_namespace`."""
        watch = self._watches.get(POD)
        return watch.reflector.reached_namespace if watch is not None else ""

    async def resource_for(self, key: GroupKind) -> ServedResource | None:
        """Where the server serves a kind, watched or not; None if it does not. Raises ApiFailure."""
        self._groups.add(key.group)
        if not self.discovery.knows(key.group):
            await self._refresh(for_group=key.group)
        return self.discovery.resources.get(key)

    def states(self) -> tuple[KindState, ...]:
        """One state for every workload kind, and for every other kind that is served."""
        states = []
        for kind in self._kinds:
            watch = self._watches.get(kind.key)
            if watch is not None:
                states.append(watch.reflector.state)
            elif kind.is_workload_kind:
                states.append(self._absent_state(kind.key))
        return tuple(states)

    def coverage(self) -> tuple[Covered, ...]:
        """Kinds whose objects are all known, in all namespaces: listed completely, or proven absent."""
        return tuple(
            Covered(group=kind.key.group, kind=kind.key.kind)
            for kind in self._kinds
            if kind.is_workload_kind
            and (self.is_complete(kind.key) or self.is_proven_absent(kind.key))
        )

    def newest_versions(self) -> dict[str, int]:
        """Of each workload the newest resource version among its objects: what changed last has the highest."""
        newest: dict[str, int] = {}
        entries = self._cache.owner_tree.entries
        for watch in self._watches.values():
            for uid, version in watch.reflector.versions.items():
                entry = entries.get(uid)
                if entry is not None and entry.root is not None and version.isdecimal():
                    newest[entry.root] = max(newest.get(entry.root, 0), int(version[:20]))
        return newest

    def seconds_behind(self, key: GroupKind) -> float | None:
        """Since when the kind's objects may have changed unseen; None where it was never listed."""
        watch = self._watches.get(key)
        return None if watch is None else watch.reflector.seconds_behind

    def unobserved(self, key: GroupKind) -> list[tuple[datetime, datetime]]:
        """See `Reflector.unobserved`; empty where the kind is not served."""
        watch = self._watches.get(key)
        return [] if watch is None else watch.reflector.unobserved

    def unbroken_seconds(self, key: GroupKind) -> float | None:
        """For how long the kind's changes were seen as they happened; None while they are not."""
        watch = self._watches.get(key)
        since = None if watch is None else watch.reflector.unbroken_since
        return None if since is None else asyncio.get_running_loop().time() - since

    @property
    def can_prove(self) -> bool:
        """Whether an inventory would prove anything: at least the pods are complete."""
        return self.is_complete(POD)

    def is_proven_absent(self, key: GroupKind) -> bool:
        """Not served, its group could be discovered, and no definition names it."""
        watch = self._watches.get(KIND)
        if watch is None or not watch.reflector.is_complete or self._rediscover.is_set():
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
                return  # discovered meanwhile
            if for_group is None:
                self._rediscover.clear()
            self.discovery = await discover(self._client, frozenset(self._groups))
            self.failure = None
            self._cache.cluster_scoped |= {
                key
                for key, resource in self.discovery.resources.items()
                if not resource.is_namespaced
            }

    async def _until_rediscovery(self) -> None:
        wait = UNKNOWN_GROUPS_SECONDS if self.discovery.unknown_groups else self._resync_seconds
        try:
            async with asyncio.timeout(jittered(wait)):
                await self._rediscover.wait()
        except TimeoutError:
            return
        await asyncio.sleep(jittered(REDISCOVER_SECONDS))

    def _reconcile(self, tasks: asyncio.TaskGroup) -> None:
        """Start reflectors for kinds that are served, stop those of kinds that are not."""
        for kind in self._kinds:
            resource = self.discovery.resources.get(kind.key)
            watch = self._watches.get(kind.key)
            if resource is None:
                self._absent_since.setdefault(kind.key, observed_now())
                if watch is not None and kind.key.group not in self.discovery.unknown_groups:
                    self._stop(watch)
                continue
            self._absent_since.pop(kind.key, None)
            if kind.field_selector:
                resource = replace(resource, field_selector=kind.field_selector)
            if watch is None:
                watch = self._watches[kind.key] = self._watch(kind, resource)
                self._note_devices(watch)
            watch.reflector.resource = watch.sink.resource = resource
            if watch.task is None:
                watch.task = tasks.create_task(watch.reflector.run())

    def _watch(self, kind: WatchedKind, resource: ServedResource) -> _Watch:
        sink = sink_for(kind, resource, self._cache, self._rediscover.set)
        reflector = Reflector(
            self._client,
            resource,
            sink,
            is_metadata=kind.is_metadata,
            resync_seconds=self._resync_seconds,
            list_slots=self._list_slots[kind.is_workload_kind],
            retry_slots=self._retry_slots,
            pauses=self._pauses,
            on_change=lambda reflector: self._on_reflector_change(kind, reflector),
        )
        return _Watch(kind, sink, reflector)

    def _stop(self, watch: _Watch) -> None:
        if watch.task is not None:
            watch.task.cancel()
            watch.task = None
            log.info(
                "kind is no longer served", group=watch.kind.key.group, kind=watch.kind.key.kind
            )
        watch.reflector.note_absent()
        self._note_devices(watch)
        if self.is_proven_absent(watch.kind.key):
            watch.reflector.delete_all(observed_now())

    def _on_reflector_change(self, kind: WatchedKind, reflector: Reflector) -> None:
        """A reflector's state changed."""
        watch = self._watches[kind.key]
        if reflector.state.state == "absent" and watch.task is not None:
            self._rediscover.set()
        self._note_devices(watch)
        if reflector.lists != watch.lists:
            watch.lists = reflector.lists
            if kind.is_workload_kind:
                self._cache.mark_listed(kind.key)
                self._on_list(kind)

    def _note_devices(self, watch: _Watch) -> None:
        """What was listed once is kept, though it grows old where it cannot be read any more."""
        if watch.kind.role in DEVICE_ROLES:
            reflector = watch.reflector
            is_read = bool(reflector.lists or reflector.polls) or reflector.state.state == "absent"
            self._cache.cluster.note_read(watch.kind.role, is_read=is_read)

    def is_complete(self, key: GroupKind) -> bool:
        """Whether all objects of the kind are known."""
        watch = self._watches.get(key)
        return watch is not None and watch.reflector.is_complete

    def _absent_state(self, key: GroupKind) -> KindState:
        is_unknown = key.group in self.discovery.unknown_groups or self.failure is not None
        return KindState(
            group=key.group,
            kind=key.kind,
            state="failing" if is_unknown else "absent",
            since=self._absent_since.get(key, observed_now()),
            message=self.failure,
        )
