"""Cluster objects that workloads share: queues, priority classes, topologies, namespaces, nodes. No I/O.

Of a node only labels (with what it registered of its GPUs), an address, resources, conditions and taints are
kept. A queue's status changes often and affects no record, so only changes of the rest of a shared object
cause workloads to be derived again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec

from watchbill.agent.cache.held_devices import NO_HOLDERS, Holders
from watchbill.agent.cache.stored_objects import DECODED_BYTES, NamespaceBudget, decoded_size, prune
from watchbill.agent.cache.targets import canonical_address
from watchbill.agent.cache.watched_kinds import WatchRole
from watchbill.agent.kubernetes.bounded_json import BoundedDecoder, decode_object
from watchbill.agent.kubernetes.client import ServedResource
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.cluster_node import NodeDevice
from watchbill.kinds.objects.device_slices import (
    NO_DEVICES,
    UNREAD_DEVICES,
    NodeDevices,
    PoolKey,
    SharedDevices,
    SlicePools,
    device_labels,
    read_slice,
    read_taint_rule,
)
from watchbill.kinds.objects.json_access import mapping
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.kinds.objects.virtual_gpus import registered_labels

_MAX_ADDRESSES = 16
"""Of one node: a kubelet names a few, and no pod but those in its host's network is believed to have one."""
Changed = Callable[[str | None, str | None], None]
"""Called with the namespace or the node that a change is confined to."""
GatewayChanged = Callable[[str, str], None]
"""Called with a gateway's namespace and name: only routes through it depend on it."""
GrantsChanged = Callable[[str], None]
"""Called with the namespace of a ReferenceGrant: it decides which routes of others lead there."""


_Key = TypeVar("_Key")


class _Address(msgspec.Struct, frozen=True):
    type: str = ""
    address: str = ""


class _Condition(msgspec.Struct, frozen=True, rename="camel"):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: Any = None


class _Taint(msgspec.Struct, frozen=True):
    key: str = ""
    effect: str = ""
    value: str = ""


class _NodeStatus(msgspec.Struct, frozen=True):
    capacity: dict[str, Any] | None = None
    allocatable: dict[str, Any] | None = None
    addresses: list[_Address] | None = None
    conditions: list[_Condition] | None = None


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool | None = None
    taints: list[_Taint] | None = None


class _NodeMeta(msgspec.Struct, frozen=True, rename="camel"):
    labels: dict[str, str] = {}
    annotations: Any = None
    creation_timestamp: Any = None


class _Node(msgspec.Struct, frozen=True):
    metadata: _NodeMeta = _NodeMeta()
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """What a node offers, and whether new pods can have it."""

    capacity: Mapping[str, Any]
    allocatable: Mapping[str, Any]
    is_cordoned: bool = False
    is_ready: bool = True
    devices: NodeDevices = NO_DEVICES
    """What drivers offer on it, beside what its kubelet counts."""


@dataclass(frozen=True, slots=True, eq=False)
class NodeDetails:
    """What is known of a node beside its labels and what it offers; a new one each time that it was read."""

    uid: str
    created_at: Any
    conditions: tuple[_Condition, ...]
    taints: tuple[_Taint, ...]
    addresses: frozenset[str] = frozenset()

    @property
    def is_ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions)

    @property
    def is_virtual(self) -> bool:
        """No kubelet of its own stands behind it."""
        return any(each.key.startswith("virtual-kubelet.io/") for each in self.taints)


_NODE = BoundedDecoder(_Node)


@dataclass(slots=True)
class ClusterView:
    """Live maps; `objects` is the view of them that derivation receives."""

    changed: Changed
    gateway_changed: GatewayChanged
    grants_changed: GrantsChanged
    budget: NamespaceBudget = field(default_factory=lambda: NamespaceBudget(DECODED_BYTES))
    """Of what namespaces bring."""
    queues: dict[str, Object] = field(default_factory=dict)
    shards: dict[str, Object] = field(default_factory=dict)
    local_queues: dict[tuple[str, str], Object] = field(default_factory=dict)
    cluster_queues: dict[str, Object] = field(default_factory=dict)
    volcano_queues: dict[str, Object] = field(default_factory=dict)
    gateways: dict[tuple[str, str], Object] = field(default_factory=dict)
    istio_gateways: dict[tuple[str, str], Object] = field(default_factory=dict)
    reference_grants: dict[str, dict[str, Object]] = field(default_factory=dict)
    claim_templates: dict[tuple[str, str], Object] = field(default_factory=dict)
    device_classes: dict[str, Object] = field(default_factory=dict)
    priority_classes: dict[str, Object] = field(default_factory=dict)
    topologies: dict[str, Object] = field(default_factory=dict)
    node_labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    node_addresses: dict[str, str] = field(default_factory=dict)
    node_offers: dict[str, NodeOffer] = field(default_factory=dict)
    node_details: dict[str, NodeDetails] = field(default_factory=dict)
    node_devices: Mapping[str, tuple[NodeDevice, ...]] = field(default_factory=dict)
    """By name of the node, as exporters last reported them."""
    own_labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Of each node, without what its devices add."""
    offered_devices: dict[str, NodeDevices] = field(default_factory=dict)
    """By name of the node, whether or not it is there yet."""
    holders: Holders = NO_HOLDERS
    device_profiles: dict[PoolKey, Mapping[str, str]] = field(default_factory=dict)
    slice_pools: SlicePools = field(default_factory=SlicePools)
    _shared_devices: SharedDevices | None = ()
    """None after a change, until somebody asks: a driver can change its slices as often as it likes."""
    unread: set[WatchRole] = field(default_factory=set)
    """Kinds that are served and were never listed: what they would say is not known."""
    namespaces: dict[str, Object] = field(default_factory=dict)

    @property
    def shared_devices(self) -> SharedDevices:
        """Devices that belong to no single node; the same object until they change."""
        if self._shared_devices is None:
            self._shared_devices = self.slice_pools.shared_devices()
        return self._shared_devices

    @property
    def objects(self) -> ClusterObjects:
        return ClusterObjects(
            queues=self.queues,
            shards=self.shards,
            local_queues=self.local_queues,
            cluster_queues=self.cluster_queues,
            volcano_queues=self.volcano_queues,
            gateways=self.gateways,
            istio_gateways=self.istio_gateways,
            reference_grants=self.reference_grants,
            claim_templates=self.claim_templates,
            device_classes=self.device_classes,
            are_device_classes_read=WatchRole.DEVICE_CLASS not in self.unread,
            priority_classes=self.priority_classes,
            topologies=self.topologies,
            node_labels=self.node_labels,
            node_addresses=self.node_addresses,
            namespaces=self.namespaces,
            device_profiles=self.device_profiles,
        )

    def put_labels(self, node: str, labels: Mapping[str, str]) -> bool:
        """Whether they differ from before, with what the node's devices say of themselves."""
        before = self.node_labels.get(node)
        self.own_labels[node] = labels
        self.node_labels[node] = device_labels(labels, self._devices_of(node))
        return before != self.node_labels[node]

    def put_devices(self, node: str, devices: NodeDevices) -> None:
        self.offered_devices[node] = devices
        if devices == NO_DEVICES:
            del self.offered_devices[node]
        if node in self.node_offers:
            offer = self.node_offers[node]
            self.node_offers[node] = replace(offer, devices=self._devices_of(node))
            self.put_labels(node, self.own_labels[node])

    def sum_up_devices(self, nodes: set[str], *, are_renamed: bool = False) -> None:
        """Of these nodes; "" stands for devices that belong to none. Only what changed is derived again.

        `are_renamed`: their devices' names stand for something else than before."""
        if "" in nodes:
            self._shared_devices = None
        for node in nodes - {""}:
            devices = self.slice_pools.node_devices(node)
            is_changed = devices != self._devices_of(node)
            if is_changed:
                self.put_devices(node, devices)
            if is_changed or are_renamed:
                self.changed(None, node)

    def note_read(self, role: WatchRole, *, is_read: bool) -> None:
        """The kind was listed, or is not served; or it is, and was not listed yet."""
        if is_read is (role not in self.unread):
            return
        self.unread ^= {role}
        if role is WatchRole.DEVICE_CLASS:
            self.changed(None, None)
        if role is WatchRole.DEVICE_TAINT_RULE:
            self.slice_pools.are_rules_read = is_read
        if role in (WatchRole.DEVICE_TAINT_RULE, WatchRole.DEVICE_SLICE):
            self._shared_devices = None
            for node in self.node_offers.keys() | self.offered_devices.keys():
                self.put_devices(node, self.slice_pools.node_devices(node))

    def put_offer(self, node: str, offer: NodeOffer) -> None:
        self.node_offers[node] = replace(offer, devices=self._devices_of(node))

    def _devices_of(self, node: str) -> NodeDevices:
        is_unread = WatchRole.DEVICE_SLICE in self.unread
        return self.offered_devices.get(node, UNREAD_DEVICES if is_unread else NO_DEVICES)


class _Names(Generic[_Key]):
    """The name of each UID, and the newest UID of each name: a name may be used again at once."""

    def __init__(self) -> None:
        self._names: dict[str, _Key] = {}
        self._newest: dict[_Key, str] = {}

    def put(self, uid: str, name: _Key) -> None:
        self._names[uid] = name
        self._newest[name] = uid

    def remove(self, uid: str) -> _Key | None:
        """The name, if no newer object has it."""
        name = self._names.pop(uid, None)
        if name is None or self._newest[name] != uid:
            return None
        del self._newest[name]
        return name


class NodeSink:
    """Stores nodes: labels, an address and what they offer."""

    def __init__(self, view: ClusterView, resource: ServedResource) -> None:
        self._view = view
        self.resource = resource
        self._names: _Names[str] = _Names()

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        node = _NODE.decode(body)
        self._names.put(meta.uid, meta.name)
        self._view.put_offer(meta.name, _offer(node))
        self._view.node_details[meta.name] = NodeDetails(
            meta.uid,
            node.metadata.creation_timestamp,
            tuple(node.status.conditions or ()),
            tuple(node.spec.taints or ()),
            _addresses(node.status.addresses or ()),
        )
        address = _address(node.status.addresses or ())
        before = self._view.node_addresses.get(meta.name, "")
        self._view.node_addresses[meta.name] = address
        labels = registered_labels(node.metadata.labels, mapping(node.metadata.annotations))
        if self._view.put_labels(meta.name, labels) or before != address:
            self._view.changed(None, meta.name)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        name = self._names.remove(uid)
        if name is not None:
            del self._view.node_labels[name]
            del self._view.own_labels[name]
            del self._view.node_offers[name]
            del self._view.node_details[name]
            del self._view.node_addresses[name]
            self._view.changed(None, name)


def _offer(node: _Node) -> NodeOffer:
    status = node.status
    allocatable = status.allocatable or {}
    ready = [entry.status for entry in status.conditions or () if entry.type == "Ready"]
    return NodeOffer(
        # A kubelet that has only begun states one of them.
        capacity=allocatable if status.capacity is None else status.capacity,
        allocatable=allocatable,
        is_cordoned=node.spec.unschedulable is True,
        is_ready=all(state == "True" for state in ready),
    )


def _addresses(addresses: Iterable[_Address]) -> frozenset[str]:
    """In the spelling that is compared, and no more than a node has: pods elsewhere could be named, too."""
    return frozenset(canonical_address(each.address) for each in islice(addresses, _MAX_ADDRESSES))


def _address(addresses: Iterable[_Address]) -> str:
    """The node's address for callers: an external one if there is one, else an internal one."""
    known = {item.type: item.address for item in addresses}
    kinds = ("ExternalIP", "ExternalDNS", "InternalIP", "InternalDNS")
    return next((known[kind] for kind in kinds if known.get(kind)), "")


class DeviceSliceSink:
    """Stores what ResourceSlices say of devices, and sums it up for the nodes that a change concerns."""

    def __init__(self, view: ClusterView, resource: ServedResource) -> None:
        self._view = view
        self.resource = resource
        self._keys: dict[str, PoolKey] = {}

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        parts = read_slice(decode_object(body))
        before = self._keys.pop(meta.uid, None)
        if parts:
            self._keys[meta.uid] = parts[0].key
        self._sum_up(self._view.slice_pools.put(meta.uid, parts), before, self._keys.get(meta.uid))

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self._sum_up(self._view.slice_pools.remove(uid), self._keys.pop(uid, None))

    def _sum_up(self, nodes: set[str], *keys: PoolKey | None) -> None:
        renamed = [key for key in keys if key is not None and self._are_renamed(key)]
        self._view.sum_up_devices(nodes, are_renamed=bool(renamed))

    def _are_renamed(self, key: PoolKey) -> bool:
        profiles, known = self._view.slice_pools.unnamed_profiles(key), self._view.device_profiles
        before = known.pop(key, {})
        if profiles:
            known[key] = profiles
        return before != profiles


class DeviceTaintSink:
    """Stores the DeviceTaintRules that keep new pods from devices."""

    def __init__(self, view: ClusterView, resource: ServedResource) -> None:
        self._view = view
        self.resource = resource

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        rule = read_taint_rule(decode_object(body))
        self._view.sum_up_devices(self._view.slice_pools.put_rule(meta.uid, rule))

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self._view.sum_up_devices(self._view.slice_pools.put_rule(uid, None))


class SharedSink:
    """Stores one kind of shared object in its map by name; namespaced kinds by namespace and name."""

    def __init__(self, view: ClusterView, resource: ServedResource, role: WatchRole) -> None:
        self._view = view
        self.resource = resource
        self._role = role
        self._map: dict[Any, Object] = getattr(view, SHARED_ROLES[role])
        self._keys: _Names[Any] = _Names()

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        if meta.namespace and not self._view.budget.admit(
            meta.uid, meta.namespace, decoded_size(body)
        ):
            self._drop(meta.uid)
            return
        obj = decode_object(body)
        obj = prune(obj, api_version=self.resource.api_version, kind=self.resource.kind)
        key = (meta.namespace, meta.name) if self._role in _NAMESPACED else meta.name
        before = self._map.get(key)
        self._keys.put(meta.uid, key)
        self._map[key] = obj
        relevant = _gateway_addresses if self._role is WatchRole.GATEWAY else _without_status
        if before is None or relevant(before) != relevant(obj):
            self._notify(meta.namespace, meta.name)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self._view.budget.release(uid)
        self._drop(uid)

    def _drop(self, uid: str) -> None:
        key = self._keys.remove(uid)
        if key is not None:
            del self._map[key]
            namespace, name = key if isinstance(key, tuple) else ("", key)
            self._notify(namespace, name)

    def _notify(self, namespace: str, name: str) -> None:
        if self._role in _GATEWAYS:
            self._view.gateway_changed(namespace, name)
        elif self._role is WatchRole.NAMESPACE:
            self._view.changed(name, None)
        else:
            self._view.changed(namespace or None, None)


class GrantSink:
    """Stores ReferenceGrants by namespace, so that those of others cost nothing."""

    def __init__(self, view: ClusterView, resource: ServedResource) -> None:
        self._view = view
        self.resource = resource
        self._keys: _Names[tuple[str, str]] = _Names()

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        if not self._view.budget.admit(meta.uid, meta.namespace, decoded_size(body)):
            self._drop(meta.uid)
            return
        obj = decode_object(body)
        obj = prune(obj, api_version=self.resource.api_version, kind=self.resource.kind)
        grants = self._view.reference_grants.setdefault(meta.namespace, {})
        before = grants.get(meta.name)
        self._keys.put(meta.uid, (meta.namespace, meta.name))
        grants[meta.name] = obj
        if before is None or before.get("spec") != obj.get("spec"):
            self._view.grants_changed(meta.namespace)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self._view.budget.release(uid)
        self._drop(uid)

    def _drop(self, uid: str) -> None:
        key = self._keys.remove(uid)
        if key is not None:
            namespace, name = key
            grants = self._view.reference_grants[namespace]
            del grants[name]
            if not grants:
                del self._view.reference_grants[namespace]
            self._view.grants_changed(namespace)


SHARED_ROLES = {
    WatchRole.QUEUE: "queues",
    WatchRole.SHARD: "shards",
    WatchRole.LOCAL_QUEUE: "local_queues",
    WatchRole.CLUSTER_QUEUE: "cluster_queues",
    WatchRole.VOLCANO_QUEUE: "volcano_queues",
    WatchRole.GATEWAY: "gateways",
    WatchRole.ISTIO_GATEWAY: "istio_gateways",
    WatchRole.CLAIM_TEMPLATE: "claim_templates",
    WatchRole.DEVICE_CLASS: "device_classes",
    WatchRole.PRIORITY_CLASS: "priority_classes",
    WatchRole.TOPOLOGY: "topologies",
    WatchRole.NAMESPACE: "namespaces",
}
_GATEWAYS = frozenset({WatchRole.GATEWAY, WatchRole.ISTIO_GATEWAY})
_NAMESPACED = _GATEWAYS | {
    WatchRole.LOCAL_QUEUE,
    WatchRole.CLAIM_TEMPLATE,
}


def _without_status(obj: Object) -> dict[str, Any]:
    """The part of a shared object that can change a record: neither its status nor its version."""
    metadata = {
        name: value
        for name, value in (obj.get("metadata") or {}).items()
        if name not in ("resourceVersion", "generation")
    }
    return {name: value for name, value in obj.items() if name != "status"} | {"metadata": metadata}


def _gateway_addresses(obj: Object) -> tuple[Any, Any]:
    """The part of a Gateway that determines its routes' URLs; its counters change with every route."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return spec.get("listeners"), status.get("addresses")
