"""Owners that no watch brings: fetched by name, believed by UID, looked at again now and then."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.owner_tree import OwnerStatus
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
GRACE_SECONDS = 1.5
"""A watched owner may be on its way: its own watch is not ordered against that of its children."""
REFUSED_AGAIN_SECONDS = 2.0
GIVE_UP_SECONDS = 30.0
"""An API server that cannot say whether an owner exists is taken for one that will not."""
RETRY_SECONDS = 60.0
ABANDONED_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 120.0
_AT_ONCE = 8


@dataclass(slots=True)
class _Search:
    owner: OwnerReference
    namespace: str
    since: float
    due: float
    refusals: int = 0


Find = Callable[[GroupKind], Awaitable[ServedResource | None]]
"""Where the API server serves a kind, None where it does not."""


class OwnerLookup:
    """Finds missing owners one by one, and keeps an eye on those that it found."""

    def __init__(self, client: KubeClient, cache: Cache, find: Find) -> None:
        self._client = client
        self._cache = cache
        self._find = find
        self._searches: dict[str, _Search] = {}
        self._again: dict[str, float] = {}
        """When to look again for an owner that was judged, or at one that was found."""
        self._gone_since: dict[str, float] = {}

    @property
    def is_idle(self) -> bool:
        """Whether everyone's owner is known, or known not to be knowable."""
        ownership = self._cache.ownership
        return ownership.missing.keys() <= ownership.verdicts.keys()

    def look_again(self, key: GroupKind) -> None:
        """The kind was listed: owners of it that were found by name and not listed may be gone."""
        now = asyncio.get_running_loop().time()
        for uid in self._again:
            entry = self._cache.ownership.entries.get(uid)
            if entry is not None and entry.is_looked_up and entry.key == key:
                self._again[uid] = now

    async def run(self) -> None:
        """Look for what is missing, for ever."""
        while True:
            await self.step()
            await asyncio.sleep(TICK_SECONDS)

    async def step(self) -> None:
        """One round: everything that is due, a few at a time."""
        now = asyncio.get_running_loop().time()
        self._collect(now)
        due = [uid for uid, search in self._searches.items() if search.due <= now][:_AT_ONCE]
        await asyncio.gather(*(self._search(uid) for uid in due))
        again = [uid for uid, at in self._again.items() if at <= now][:_AT_ONCE]
        await asyncio.gather(*(self._look_again(uid) for uid in again))

    def _collect(self, now: float) -> None:
        missing = self._cache.ownership.missing
        for uid in self._searches.keys() - missing.keys():
            del self._searches[uid]
        for uid, (owner, namespace) in missing.items():
            if uid not in self._searches:
                is_watched = GroupKind(owner.group, owner.kind) in self._cache.listed
                due = now + (GRACE_SECONDS if is_watched else 0.0)
                self._searches[uid] = _Search(owner, namespace, since=now, due=due)

    async def _search(self, uid: str) -> None:
        search = self._searches[uid]
        key = GroupKind(search.owner.group, search.owner.kind)
        try:
            resource = await self._find(key)
            if resource is None or not resource.is_namespaced:
                self._judge(uid, OwnerStatus.OUTSIDE if resource else OwnerStatus.UNREADABLE)
                return
            found = await self._fetch(resource, search.owner, search.namespace)
        except ApiFailure as failure:
            self._note_failure(uid, search, failure)
            return
        if found is None:
            self._judge_gone(uid)
            return
        log.info("owner looked up", kind=search.owner.kind, group=search.owner.group, uid=uid)
        self._take(uid, resource, found)

    async def _fetch(
        self, resource: ServedResource, owner: OwnerReference, namespace: str
    ) -> dict[str, Any] | None:
        """The object's metadata; None where the name is free or another object's."""
        try:
            obj = await self._client.get_object(
                resource, namespace=namespace, name=owner.name, is_metadata=True
            )
        except ApiFailure as failure:
            if failure.trouble is ErrorKind.ABSENT:
                return None
            raise
        meta = msgspec.convert(obj.get("metadata", {}), ObjectMeta, strict=False)
        return obj if meta.uid == owner.uid else None

    def _take(self, uid: str, resource: ServedResource, obj: dict[str, Any]) -> None:
        known = self._cache.ownership.entries.get(uid)
        if known is None or known.is_looked_up:
            self._cache.put_owner(resource, obj, is_looked_up=True)
        self._gone_since.pop(uid, None)
        self._again[uid] = asyncio.get_running_loop().time() + LOOK_AGAIN_SECONDS

    def _note_failure(self, uid: str, search: _Search, failure: ApiFailure) -> None:
        now = asyncio.get_running_loop().time()
        if failure.trouble is ErrorKind.FORBIDDEN:
            search.refusals += 1
        if search.refusals >= 2 or now - search.since > GIVE_UP_SECONDS:
            log.warning("owner cannot be read", kind=search.owner.kind, error=failure.message)
            self._judge(uid, OwnerStatus.UNREADABLE)
            return
        search.due = now + (failure.retry_after_seconds or REFUSED_AGAIN_SECONDS)

    def _judge_gone(self, uid: str) -> None:
        """Gone; if those below it are still here much later, nobody collects them."""
        now = asyncio.get_running_loop().time()
        since = self._gone_since.setdefault(uid, now)
        is_abandoned = now - since >= ABANDONED_SECONDS
        self._judge(uid, OwnerStatus.ABANDONED if is_abandoned else OwnerStatus.GONE)

    def _judge(self, uid: str, verdict: OwnerStatus) -> None:
        self._cache.ownership.judge(uid, verdict, datetime.now(UTC))
        self._again[uid] = asyncio.get_running_loop().time() + RETRY_SECONDS

    async def _look_again(self, uid: str) -> None:
        """A found owner: is it still there? A judged one: search anew while someone names it."""
        del self._again[uid]
        ownership = self._cache.ownership
        entry = ownership.entries.get(uid)
        if entry is None:
            is_final = ownership.verdicts.get(uid) is OwnerStatus.ABANDONED
            if is_final or not ownership.search_again(uid):
                self._gone_since.pop(uid, None)
            return
        if not entry.is_looked_up:
            return
        self._again[uid] = asyncio.get_running_loop().time() + LOOK_AGAIN_SECONDS
        owner = OwnerReference(entry.key.group, "", entry.key.kind, entry.name, uid, True)
        try:
            resource = await self._find(entry.key)
            if resource is None:
                return
            found = await self._fetch(resource, owner, entry.namespace)
        except ApiFailure as failure:
            log.warning("owner not looked at again", uid=uid, error=failure.message)
            return
        if found is None:
            del self._again[uid]
            self._cache.remove(uid, datetime.now(UTC))
        else:
            self._take(uid, resource, found)
