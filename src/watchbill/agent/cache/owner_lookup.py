"""Owners that no watch brings: fetched by name, accepted by UID, checked again periodically."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, zip_longest
from typing import Any

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.owner_tree import OwnerKey, OwnerStatus
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
GRACE_SECONDS = 1.5
"""A watched owner may be on its way: its watch is not ordered against that of its dependents."""
RETRY_SECONDS = 2.0
GIVE_UP_SECONDS = 30.0
"""An owner that the API server cannot answer for within this time counts as unreadable."""
UNRESOLVED_RECHECK_SECONDS = 60.0
ABANDONED_SECONDS = 30.0
"""Whoever still names an owner after it has been gone for so long is not collected with it."""
GONE_RECHECK_SECONDS = 10.0
RECHECK_SECONDS = 120.0
_CONCURRENT_REQUESTS = 8


@dataclass(slots=True)
class _Search:
    owner: OwnerReference
    since: float
    due: float
    forbidden_attempts: int = 0


FindResource = Callable[[GroupKind], Awaitable[ServedResource | None]]
"""Where the API server serves a kind, None where it does not."""


class OwnerLookup:
    """Fetches missing owners, and checks the fetched ones again."""

    def __init__(self, client: KubeClient, cache: Cache, find_resource: FindResource) -> None:
        self._client = client
        self._cache = cache
        self._find_resource = find_resource
        self._searches: dict[OwnerKey, _Search] = {}
        self._recheck_at: dict[OwnerKey, float] = {}
        """When to look up an unresolved owner again, or to check a fetched one."""
        self._gone_since: dict[OwnerKey, float] = {}
        self._confirmed_at: dict[OwnerKey, datetime] = {}
        """When a fetched owner was last read."""

    @property
    def is_idle(self) -> bool:
        """Whether every missing owner has been fetched or resolved."""
        owner_tree = self._cache.owner_tree
        return owner_tree.missing.keys() <= owner_tree.owner_statuses.keys()

    def recheck_kind(self, key: GroupKind) -> None:
        """The kind was listed: owners of it that were fetched by name and not listed may be gone."""
        now = asyncio.get_running_loop().time()
        for owner in self._recheck_at:
            entry = self._cache.owner_tree.entry_of(owner)
            if entry is not None and entry.is_looked_up and entry.key == key:
                self._recheck_at[owner] = now

    async def run(self) -> None:
        """Look up what is missing, until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(TICK_SECONDS)

    async def step(self) -> None:
        """One round: everything that is due, a few at a time."""
        now = asyncio.get_running_loop().time()
        self._sync_searches(now)
        due = [owner for owner, search in self._searches.items() if search.due <= now]
        await asyncio.gather(*(self._search(owner) for owner in _in_turn(due)))
        rechecks = [owner for owner, at in self._recheck_at.items() if at <= now]
        await asyncio.gather(*(self._recheck(owner) for owner in _in_turn(rechecks)))

    def _sync_searches(self, now: float) -> None:
        missing = self._cache.owner_tree.missing
        for owner in self._searches.keys() - missing.keys():
            del self._searches[owner]
        for owner, reference in missing.items():
            if owner not in self._searches:
                is_watched = GroupKind(reference.group, reference.kind) in self._cache.listed
                due = now + (GRACE_SECONDS if is_watched else 0.0)
                self._searches[owner] = _Search(reference, since=now, due=due)

    async def _search(self, owner: OwnerKey) -> None:
        search = self._searches[owner]
        key = GroupKind(search.owner.group, search.owner.kind)
        try:
            resource = await self._find_resource(key)
            if resource is None:
                self._resolve_unreadable(owner, search.owner)
                return
            if not resource.is_namespaced:
                self._resolve(owner, OwnerStatus.OUTSIDE)
                return
            obj = await self._fetch(resource, search.owner, owner.namespace)
        except ApiFailure as failure:
            self._record_failure(owner, search, failure)
            return
        if obj is None:
            self._resolve_as_gone(owner)
            return
        log.info("owner looked up", kind=search.owner.kind, group=search.owner.group, uid=owner.uid)
        self._store(owner, resource, obj)

    async def _fetch(
        self, resource: ServedResource, owner: OwnerReference, namespace: str
    ) -> dict[str, Any] | None:
        """The object's metadata; None where the name is free or taken by another object."""
        try:
            obj = await self._client.get_object(
                resource, namespace=namespace, name=owner.name, is_metadata=True
            )
        except ApiFailure as failure:
            if failure.kind is ErrorKind.ABSENT:
                return None
            raise
        meta = msgspec.convert(obj.get("metadata", {}), ObjectMeta, strict=False)
        return obj if meta.uid == owner.uid else None

    def _store(self, owner: OwnerKey, resource: ServedResource, obj: dict[str, Any]) -> None:
        entry = self._cache.owner_tree.entry_of(owner)
        if entry is None or entry.is_looked_up:
            self._cache.put_owner(resource, obj, is_looked_up=True)
        self._gone_since.pop(owner, None)
        self._confirmed_at[owner] = observed_now()
        self._recheck_at[owner] = asyncio.get_running_loop().time() + RECHECK_SECONDS

    def _record_failure(self, owner: OwnerKey, search: _Search, failure: ApiFailure) -> None:
        now = asyncio.get_running_loop().time()
        if failure.kind is ErrorKind.FORBIDDEN:
            search.forbidden_attempts += 1
        if search.forbidden_attempts >= 2 or now - search.since > GIVE_UP_SECONDS:
            log.warning("owner cannot be read", kind=search.owner.kind, error=failure.message)
            self._resolve_unreadable(owner, search.owner)
            return
        search.due = now + (failure.retry_after_seconds or RETRY_SECONDS)

    def _resolve_unreadable(self, owner: OwnerKey, reference: OwnerReference) -> None:
        """Of a kind of workloads the pods stay together, though it cannot be read or is not served for now."""
        if self._cache.can_assume(GroupKind(reference.group, reference.kind)):
            self._cache.assume_owner(owner, reference)
            now = asyncio.get_running_loop().time()
            self._recheck_at[owner] = now + UNRESOLVED_RECHECK_SECONDS
        else:
            self._resolve(owner, OwnerStatus.UNREADABLE)

    def _resolve_as_gone(self, owner: OwnerKey) -> None:
        """Gone; if its dependents still exist much later, nothing will collect them."""
        now = asyncio.get_running_loop().time()
        since = self._gone_since.setdefault(owner, now)
        is_abandoned = now - since >= ABANDONED_SECONDS
        self._resolve(owner, OwnerStatus.ABANDONED if is_abandoned else OwnerStatus.GONE)
        self._recheck_at[owner] = now + GONE_RECHECK_SECONDS

    def _resolve(self, owner: OwnerKey, status: OwnerStatus) -> None:
        self._cache.owner_tree.resolve(owner, status, observed_now())
        self._recheck_at[owner] = asyncio.get_running_loop().time() + UNRESOLVED_RECHECK_SECONDS

    async def _recheck(self, owner: OwnerKey) -> None:
        """A fetched owner: does it still exist? An unresolved one: search again while an entry names it."""
        del self._recheck_at[owner]
        owner_tree = self._cache.owner_tree
        entry = owner_tree.entry_of(owner)
        if entry is None:
            is_final = owner_tree.owner_statuses.get(owner) is OwnerStatus.ABANDONED
            if is_final or not owner_tree.search_again(owner):
                self._gone_since.pop(owner, None)
                self._confirmed_at.pop(owner, None)
            return
        if not entry.is_looked_up:
            self._confirmed_at.pop(owner, None)
            return
        self._recheck_at[owner] = asyncio.get_running_loop().time() + RECHECK_SECONDS
        reference = OwnerReference(entry.key.group, "", entry.key.kind, entry.name, entry.uid, True)
        try:
            resource = await self._find_resource(entry.key)
            if resource is None:
                return
            obj = await self._fetch(resource, reference, entry.namespace)
        except ApiFailure as failure:
            log.warning("owner recheck failed", uid=entry.uid, error=failure.message)
            return
        if obj is None:
            del self._recheck_at[owner]
            self._cache.remove(entry.uid, observed_now(), self._confirmed_at.pop(owner, None))
        else:
            self._store(owner, resource, obj)


def _in_turn(owners: list[OwnerKey]) -> list[OwnerKey]:
    """As many as are looked up at once, the namespaces in turn: many in one do not delay the others."""
    by_namespace: dict[str, list[OwnerKey]] = {}
    for owner in owners:
        by_namespace.setdefault(owner.namespace, []).append(owner)
    rounds = zip_longest(*by_namespace.values())
    fair = (owner for each in rounds for owner in each if owner is not None)
    return list(islice(fair, _CONCURRENT_REQUESTS))
