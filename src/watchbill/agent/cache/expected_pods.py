"""Which workloads have all of their pods while the first list of pods still arrives.

The pods' metadata alone, listed beside the pods, is there much sooner: it names every pod and its owner. A
workload is complete once every pod that names one of its objects is stored. Lists are ordered by namespace, so
what the pods' list has passed is complete in any case.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.kubernetes.bounded_json import BoundedDecoder
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.background import TimeSlice
from watchbill.kinds.objects.pod import owners

log = structlog.get_logger(__name__)


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    uid: str = ""
    namespace: str = ""
    owner_references: list[dict[str, Any]] | None = None


class _PodMeta(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


_POD_META = BoundedDecoder(_PodMeta)


class ExpectedPods:
    """The pods that each owner has, by the metadata list; nothing is expected before that list is complete."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._pods: dict[OwnerKey, set[str]] | None = None

    async def list(self, client: KubeClient, resource: ServedResource) -> None:
        """Read the metadata of all pods. A failure is logged: then the list of pods itself is waited for."""
        pods: dict[OwnerKey, set[str]] = {}
        work = TimeSlice()
        try:
            async for page in client.list_pages(resource, is_metadata=True):
                for body in page.items or ():
                    self._add(pods, _POD_META.decode(body).metadata)
                    await work.rest()
        except (ApiFailure, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("metadata of pods cannot be listed", error=str(error))
            return
        self._pods = pods

    def completeness(self, reached_namespace: str) -> Callable[[str], bool]:
        """Whether a workload is complete, as of now. `reached_namespace`: see `Reflector`."""
        tree, reached = self._cache.owner_tree, f"{reached_namespace}/"
        expected = self._pods or {}
        waiting = {entry.namespace for entry in tree.waiting_for_owner()}
        unknown = {owner.namespace for owner in expected if tree.entry_of(owner) is None}

        def is_complete(root: str) -> bool:
            group = tree.groups.get(root)
            if group is None or group.root.namespace in waiting or self._cache.is_grouped(root):
                return False
            namespace = group.root.namespace
            if f"{namespace}/" < reached:
                return True
            if self._pods is None or namespace in unknown:
                return False
            return all(self._has_all(OwnerKey(namespace, uid)) for uid in (root, *group.members))

        return is_complete

    def _has_all(self, owner: OwnerKey) -> bool:
        assert self._pods is not None
        missing = self._pods.get(owner)
        if missing is None:
            return True
        while missing:
            pod = missing.pop()
            if pod not in self._cache.owner_tree.entries:
                missing.add(pod)
                return False
        return True

    def _add(self, pods: dict[OwnerKey, set[str]], meta: _Meta) -> None:
        if not meta.owner_references or not self._cache.includes(meta.namespace):
            return
        references = {"metadata": {"ownerReferences": meta.owner_references}}
        parent = self._cache.parent_of(owners(references))
        if parent is not None:
            pods.setdefault(OwnerKey(meta.namespace, parent.uid), set()).add(meta.uid)
