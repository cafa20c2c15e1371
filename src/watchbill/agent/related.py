"""Objects that stand beside workloads: services and routes, pod groups, Kueue's Workloads. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from watchbill.agent.lines import ObjectMeta
from watchbill.agent.ownership import Listener, Ownership
from watchbill.agent.packed import pack, unpack
from watchbill.kinds.objects import Object
from watchbill.kinds.pod import POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION, Pod, owners

_GROUP_ANNOTATIONS = (POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION)


@dataclass(slots=True)
class _Owned:
    """Packed objects by UID, found by name within a namespace and by the owners that they name."""

    packed: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_name: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    by_owner: dict[str, set[str]] = field(default_factory=dict)

    def put(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self.drop(meta.uid)
        self.packed[meta.uid] = pack(obj)
        self.names[meta.uid] = name = (meta.namespace, meta.name)
        self.by_name.setdefault(name, set()).add(meta.uid)
        self.owners[meta.uid] = tuple(owner.uid for owner in owners(obj))
        for owner in self.owners[meta.uid]:
            self.by_owner.setdefault(owner, set()).add(meta.uid)

    def drop(self, uid: str) -> None:
        if self.packed.pop(uid, None) is None:
            return
        name = self.names.pop(uid)
        _discard(self.by_name, name, uid)
        for owner in self.owners.pop(uid):
            _discard(self.by_owner, owner, uid)

    def found(self, uids: Iterable[str]) -> list[Object]:
        return [unpack(self.packed[uid]) for uid in sorted(uids)]


class Related:
    """Keeps them and says which workloads a change of one may concern."""

    def __init__(self, ownership: Ownership, listener: Listener) -> None:
        self._ownership = ownership
        self._listener = listener
        self._routing: dict[str, dict[str, Object]] = {}
        self._routing_namespace: dict[str, str] = {}
        self._pod_groups = _Owned()
        self._queue_workloads = _Owned()

    def routing(self, namespace: str) -> list[Object]:
        return list(self._routing.get(namespace, {}).values())

    def pod_groups(self, chain: Iterable[str], pods: Iterable[Pod]) -> list[Object]:
        """Those that the pods name, and those that anyone of the chain or a pod owns."""
        uids: set[str] = set()
        for uid in chain:
            uids |= self._pod_groups.by_owner.get(uid, set())
        for pod in pods:
            uids |= self._pod_groups.by_owner.get(pod.uid, set())
            for key in _GROUP_ANNOTATIONS:
                name = (pod.namespace, pod.annotations.get(key, ""))
                uids |= self._pod_groups.by_name.get(name, set())
        return self._pod_groups.found(uids)

    def queue_workloads(self, chain: Iterable[str]) -> list[Object]:
        uids: set[str] = set()
        for uid in chain:
            uids |= self._queue_workloads.by_owner.get(uid, set())
        return self._queue_workloads.found(uids)

    def put_routing(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._routing.setdefault(meta.namespace, {})[meta.uid] = obj
        self._routing_namespace[meta.uid] = meta.namespace
        self._touch_namespace(meta.namespace)

    def drop_routing(self, uid: str) -> None:
        namespace = self._routing_namespace.pop(uid, None)
        if namespace is None:
            return
        found = self._routing[namespace]
        del found[uid]
        if not found:
            del self._routing[namespace]
        self._touch_namespace(namespace)

    def put_pod_group(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._touch_group(meta.uid)
        self._pod_groups.put(meta, obj)
        self._touch_group(meta.uid)

    def drop_pod_group(self, uid: str) -> None:
        self._touch_group(uid)
        self._pod_groups.drop(uid)

    def put_queue_workload(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._queue_workloads.put(meta, obj)
        self._touch_owners(self._queue_workloads, meta.uid)

    def drop_queue_workload(self, uid: str) -> None:
        self._touch_owners(self._queue_workloads, uid)
        self._queue_workloads.drop(uid)

    def _touch_namespace(self, namespace: str) -> None:
        for root in self._ownership.in_namespace(namespace):
            self._listener.touched(root)

    def _touch_owners(self, owned: _Owned, uid: str) -> None:
        for owner in owned.owners.get(uid, ()):
            root = self._ownership.root_of(owner)
            if root is not None:
                self._listener.touched(root)

    def _touch_group(self, uid: str) -> None:
        """The owners' workloads; where nobody owns the group, those whose pods name it."""
        if uid not in self._pod_groups.packed:
            return
        self._touch_owners(self._pod_groups, uid)
        if self._pod_groups.owners[uid]:
            return
        namespace, name = self._pod_groups.names[uid]
        for root in self._ownership.in_namespace(namespace):
            pods = self._ownership.pods(root)
            if any(name in map(pod.annotations.get, _GROUP_ANNOTATIONS) for pod in pods):
                self._listener.touched(root)


def _discard(index: dict[Any, set[str]], key: Any, uid: str) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(uid)
        if not found:
            del index[key]
