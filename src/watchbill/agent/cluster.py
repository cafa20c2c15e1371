"""What all workloads share: queues, priority classes, topologies, namespaces, nodes. No I/O.

Of a node only its labels and what it offers are kept. A queue's status changes all the time and concerns no
record, so only the rest of a shared object makes workloads look again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from watchbill.agent.kube import Resource
from watchbill.agent.lines import ObjectMeta
from watchbill.agent.packed import prune
from watchbill.agent.roles import Role
from watchbill.kinds.objects import ClusterObjects, Object

Changed = Callable[[str | None, str | None], None]
"""Called with the namespace or the node that a change is confined to."""


class _NodeStatus(msgspec.Struct, frozen=True):
    allocatable: dict[str, Any] = {}


class _NodeMeta(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}


class _Node(msgspec.Struct, frozen=True):
    metadata: _NodeMeta = _NodeMeta()
    status: _NodeStatus = _NodeStatus()


_NODE = msgspec.json.Decoder(_Node)


@dataclass(slots=True)
class ClusterView:
    """Live maps; `objects` is the view of them that derivation is given."""

    changed: Changed
    queues: dict[str, Object] = field(default_factory=dict)
    local_queues: dict[tuple[str, str], Object] = field(default_factory=dict)
    cluster_queues: dict[str, Object] = field(default_factory=dict)
    priority_classes: dict[str, Object] = field(default_factory=dict)
    topologies: dict[str, Object] = field(default_factory=dict)
    node_labels: dict[str, dict[str, str]] = field(default_factory=dict)
    allocatable: dict[str, dict[str, Any]] = field(default_factory=dict)
    namespaces: dict[str, Object] = field(default_factory=dict)

    @property
    def objects(self) -> ClusterObjects:
        return ClusterObjects(
            queues=self.queues,
            local_queues=self.local_queues,
            cluster_queues=self.cluster_queues,
            priority_classes=self.priority_classes,
            topologies=self.topologies,
            node_labels=self.node_labels,
            namespaces=self.namespaces,
        )


class NodeSink:
    """Nodes: labels and what they offer."""

    def __init__(self, view: ClusterView, resource: Resource) -> None:
        self._view = view
        self.resource = resource
        self._names: dict[str, str] = {}

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        node = _NODE.decode(body)
        self._names[meta.uid] = meta.name
        self._view.allocatable[meta.name] = node.status.allocatable
        before = self._view.node_labels.get(meta.name)
        self._view.node_labels[meta.name] = node.metadata.labels
        if before != node.metadata.labels:
            self._view.changed(None, meta.name)

    def remove(self, uid: str, at: datetime) -> None:
        name = self._names.pop(uid, None)
        if name is not None and name not in self._names.values():
            del self._view.node_labels[name]
            del self._view.allocatable[name]
            self._view.changed(None, name)


class SharedSink:
    """One kind of shared object, in its map by name; LocalQueues by namespace and name."""

    def __init__(self, view: ClusterView, resource: Resource, role: Role) -> None:
        self._view = view
        self.resource = resource
        self._role = role
        self._map: dict[Any, Object] = getattr(view, SHARED_ROLES[role])
        self._keys: dict[str, Any] = {}

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        obj = msgspec.json.decode(body, type=dict[str, Any])
        obj = prune(obj, api_version=self.resource.api_version, kind=self.resource.kind)
        key = (meta.namespace, meta.name) if self._role is Role.LOCAL_QUEUE else meta.name
        before = self._map.get(key)
        self._keys[meta.uid] = key
        self._map[key] = obj
        if before is None or _lasting(before) != _lasting(obj):
            self._view.changed(self._confined_to(meta.namespace, meta.name), None)

    def remove(self, uid: str, at: datetime) -> None:
        key = self._keys.pop(uid, None)
        if key is not None and key not in self._keys.values():
            del self._map[key]
            namespace, name = key if isinstance(key, tuple) else ("", key)
            self._view.changed(self._confined_to(namespace, name), None)

    def _confined_to(self, namespace: str, name: str) -> str | None:
        if self._role is Role.NAMESPACE:
            return name
        return namespace or None


SHARED_ROLES = {
    Role.QUEUE: "queues",
    Role.LOCAL_QUEUE: "local_queues",
    Role.CLUSTER_QUEUE: "cluster_queues",
    Role.PRIORITY_CLASS: "priority_classes",
    Role.TOPOLOGY: "topologies",
    Role.NAMESPACE: "namespaces",
}


def _lasting(found: Object) -> dict[str, Any]:
    """What of a shared object can change a record: neither its status nor its version."""
    metadata = {
        name: value
        for name, value in (found.get("metadata") or {}).items()
        if name not in ("resourceVersion", "generation")
    }
    return {name: value for name, value in found.items() if name != "status"} | {
        "metadata": metadata
    }
