"""Objects that stand beside workloads: services, autoscalers, pod groups, Kueue's Workloads, events. No I/O."""

from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from watchbill.agent.lines import ObjectMeta
from watchbill.agent.ownership import Listener, Ownership
from watchbill.agent.packed import pack, unpack
from watchbill.kinds.lookup import at, text
from watchbill.kinds.objects import Object
from watchbill.kinds.pod import POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION, Pod, owners

KEPT_EVENTS = 5_000
_EVENT_MEMBERS = ("apiVersion", "kind", "reason", "message", "lastTimestamp", "involvedObject")
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


@dataclass(slots=True)
class _ByNamespace:
    """Objects by UID within their namespaces."""

    objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)

    def put(self, meta: ObjectMeta, obj: dict[str, Any]) -> bool:
        """Whether it is news."""
        found = self.objects.setdefault(meta.namespace, {})
        before = found.get(meta.uid)
        found[meta.uid] = obj
        self.namespaces[meta.uid] = meta.namespace
        return before != obj

    def drop(self, uid: str) -> str | None:
        """The namespace that it was in."""
        namespace = self.namespaces.pop(uid, None)
        if namespace is not None:
            found = self.objects[namespace]
            del found[uid]
            if not found:
                del self.objects[namespace]
        return namespace

    def of(self, namespace: str) -> list[Object]:
        return list(self.objects.get(namespace, {}).values())


class Related:
    """Keeps them and says which workloads a change of one may concern."""

    def __init__(self, ownership: Ownership, listener: Listener) -> None:
        self._ownership = ownership
        self._listener = listener
        self._routing = _ByNamespace()
        self._autoscalers = _ByNamespace()
        self._pod_groups = _Owned()
        self._queue_workloads = _Owned()
        self._events: OrderedDict[str, tuple[str, Object]] = OrderedDict()
        """The newest event by the UID of the object that it is about, and its own UID."""

    def routing(self, namespace: str) -> list[Object]:
        return self._routing.of(namespace)

    def autoscalers(self, namespace: str, names: Container[str]) -> list[Object]:
        """Those of the namespace whose target has one of the names."""
        found = self._autoscalers.of(namespace)
        return [obj for obj in found if text(at(obj, "spec", "scaleTargetRef", "name")) in names]

    def events(self, chain: Iterable[str]) -> list[Object]:
        """The newest event about each of the chain."""
        return [self._events[uid][1] for uid in chain if uid in self._events]

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
        if self._routing.put(meta, obj):
            self._touch_namespace(meta.namespace)

    def drop_routing(self, uid: str) -> None:
        namespace = self._routing.drop(uid)
        if namespace is not None:
            self._touch_namespace(namespace)

    def put_autoscaler(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        """Its bounds count; its status changes every few seconds and does not."""
        bounds = {name: obj.get(name) for name in ("apiVersion", "kind", "spec")}
        if self._autoscalers.put(meta, bounds):
            self._touch_namespace(meta.namespace)

    def drop_autoscaler(self, uid: str) -> None:
        namespace = self._autoscalers.drop(uid)
        if namespace is not None:
            self._touch_namespace(namespace)

    def put_event(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        about = text(at(obj, "involvedObject", "uid"))
        kept = {name: obj.get(name) for name in _EVENT_MEMBERS}
        self._events[about] = (meta.uid, kept)
        self._events.move_to_end(about)
        if len(self._events) > KEPT_EVENTS:
            self._events.popitem(last=False)
        root = self._ownership.root_of(about)
        if root is not None:
            self._listener.touched(root)

    def drop_event(self, uid: str) -> None:
        """Events expire; what they told is over then, or is told by another one."""
        for about, (event, _) in tuple(self._events.items()):
            if event == uid:
                del self._events[about]

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
