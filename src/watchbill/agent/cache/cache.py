"""The agent's view of the cluster, pruned, and the gathering of one workload's objects from it.

Objects come in through sinks, one per watched kind; everything is indexed by UID. Excluded namespaces and the
pods by which KAI reserves devices never come in. A new role of a watched kind is a row of `sink_for`'s tables.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import msgspec

from watchbill.agent.cache.cluster import (
    SHARED_ROLES,
    ClusterView,
    DeviceSliceSink,
    DeviceTaintSink,
    GrantSink,
    NodeSink,
    SharedSink,
)
from watchbill.agent.cache.event_log import EventLog
from watchbill.agent.cache.facts_ahead import UnreadOwner
from watchbill.agent.cache.nodes import PodsByNode
from watchbill.agent.cache.owner_tree import OwnerKey, OwnerListener, OwnerTree, TreeEntry
from watchbill.agent.cache.plain_pods import PlainPods
from watchbill.agent.cache.related import Related
from watchbill.agent.cache.stored_objects import (
    ObjectBudgets,
    compress,
    decode_pod,
    decompress,
    prune,
)
from watchbill.agent.cache.targets import ScrapeTargets
from watchbill.agent.cache.watched_kinds import POD, REPLICA_SET, WatchedKind, WatchRole
from watchbill.agent.kubernetes.bounded_json import Body, decode_object
from watchbill.agent.kubernetes.client import ServedResource
from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.kinds.objects.objects import GroupKind, IdleGpus, Object, WorkloadObjects
from watchbill.kinds.objects.pod import OwnerReference, Pod, is_reservation, owners, read_pod
from watchbill.kinds.objects.settings import RESERVATION_NAMESPACES
from watchbill.protocol import PodGroupRoot

_LINK_MEMBERS = (
    "uid",
    "name",
    "namespace",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "ownerReferences",
)


_SHOWN_NAMESPACES = 3
GROUPED_WITHIN = timedelta(minutes=10)
"""How long after its creation a pod may join a group as if it had never been a workload of its own."""
_IDENTITY = ("uid", "name", "namespace", "creationTimestamp", "deletionTimestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    excluded_namespaces: frozenset[str]
    pod_annotations: frozenset[str]
    root_kinds: frozenset[GroupKind]
    owner_kinds: frozenset[GroupKind] = frozenset()
    """Kinds that are watched because they own pods; one that cannot be read for now still owns its pods."""
    exporter_namespaces: frozenset[str] = frozenset()
    reservation_namespaces: frozenset[str] = RESERVATION_NAMESPACES


class Cache:
    """All sinks and what they fill. `listener` is called for every workload that may have changed."""

    def __init__(self, settings: CacheSettings, listener: OwnerListener) -> None:
        self.owner_tree = OwnerTree(settings.root_kinds, listener)
        self.budgets = ObjectBudgets()
        self.cluster = ClusterView(
            self._cluster_changed, self._gateway_changed, self._grants_changed, self.budgets.decoded
        )
        self.related = Related(self.owner_tree, listener, self.cluster.reference_grants)
        self.cluster.holders = self.related.holders()
        self.targets = ScrapeTargets(settings.exporter_namespaces, settings.reservation_namespaces)
        self.events: EventLog | None = None
        """What Kubernetes says of workloads; None where nobody asks for it."""
        self.unread_owners: deque[UnreadOwner] | None = None
        """What a process of its own is to read, while there is one."""
        self.idle: dict[str, IdleGpus] = {}
        """By workload, as measured by exporters."""
        self.cluster_scoped: set[GroupKind] = {GroupKind("", "Node")}
        self.listed: set[GroupKind] = set()
        """Kinds listed completely at least once, whose list proves that an object is absent."""
        self._settings = settings
        self._listener = listener
        self._bare: dict[str, bytes] = {}
        self._plain_pods = PlainPods()
        self._nodes = PodsByNode()

    def includes(self, namespace: str) -> bool:
        return namespace not in self._settings.excluded_namespaces

    def parent_of(self, references: tuple[OwnerReference, ...]) -> OwnerReference | None:
        """The owner to follow: the controller, else the first; None if that owner is cluster-scoped."""
        parent = next(
            (owner for owner in references if owner.is_controller),
            references[0] if references else None,
        )
        if parent is None or GroupKind(parent.group, parent.kind) in self.cluster_scoped:
            return None
        return parent

    def put_pod(self, meta: ObjectMeta, obj: dict[str, Any], body: Body) -> None:
        """`obj`: what is read of any pod; of one that nothing owns the whole `body` is kept."""
        pod = read_pod(obj, extra_annotations=self._settings.pod_annotations)
        parent = self.parent_of(pod.owners)
        if is_reservation(obj, self._settings.reservation_namespaces):
            self.remove(meta.uid, observed_now())
            return
        if parent is None:
            self._put_bare(meta, prune(decode_object(body), api_version="v1", kind="Pod"))
        else:
            self._drop_bare(meta.uid)
            stored = self.owner_tree.entries.get(meta.uid)
            if stored is not None and stored.payload == pod:
                return
        self._nodes.put(meta.uid, pod.node)
        self.related.put_pod(pod)
        moved = self._plain_pods.put(pod, may_lead=pod.uid not in self.owner_tree.entries)
        parent = parent or self._plain_pods.parent(pod.uid)
        if parent is not None and pod.uid in self._bare and _is_young(pod):
            self.owner_tree.disown(pod.uid)
        self._place_pod(pod, parent)
        self._place_below(moved)

    def restore_pod_groups(self, known: Iterable[PodGroupRoot]) -> None:
        self._plain_pods.remember(known)
        if POD in self.listed:
            self._place_groups()

    def _place_groups(self) -> None:
        """Each group stands below its first pod. One that is gone is there until the others are placed."""
        moved, gone = self._plain_pods.arrange(self.owner_tree.entries)
        for pod in gone:
            self._place_pod(pod, None)
        self._place_below(moved)
        for pod in gone:
            self.owner_tree.remove(pod.uid, observed_now())

    def _place_below(self, uids: Iterable[str]) -> None:
        for uid in uids:
            member = self.owner_tree.entries[uid].payload
            assert isinstance(member, Pod)
            self.owner_tree.disown(uid)
            self._place_pod(member, self._plain_pods.parent(uid))

    def _place_pod(self, pod: Pod, parent: OwnerReference | None) -> None:
        entry = TreeEntry(pod.uid, POD, pod.namespace, pod.name, parent, pod)
        self.owner_tree.put(entry, observed_now())

    def _put_bare(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        """Without room the pod is a root that is read from what is kept of any pod."""
        compressed = compress(obj)
        if self.budgets.compressed.admit(meta.uid, meta.namespace, len(compressed)):
            self._bare[meta.uid] = compressed
        else:
            self._bare.pop(meta.uid, None)

    def _drop_bare(self, uid: str) -> None:
        if self._bare.pop(uid, None) is not None:
            self.budgets.compressed.release(uid)

    def put_owner(
        self, resource: ServedResource, obj: dict[str, Any], *, is_looked_up: bool = False
    ) -> None:
        """An object that may own pods. Of a ReplicaSet that is owned itself only its metadata counts."""
        key = GroupKind(resource.group, resource.kind)
        obj = prune(obj, api_version=resource.api_version, kind=resource.kind)
        parent = self.parent_of(owners(obj))
        if key == REPLICA_SET and parent is not None:
            obj = _link(obj)
        meta = msgspec.convert(obj.get("metadata", {}), ObjectMeta, strict=False)
        payload = compress(obj)
        if not self.budgets.compressed.admit(meta.uid, meta.namespace, len(payload)):
            payload = compress(_bounded_link(obj))
        elif self.unread_owners is not None:
            self.unread_owners.append((key, meta.uid, payload))
        entry = TreeEntry(meta.uid, key, meta.namespace, meta.name, parent, payload)
        entry.is_looked_up = is_looked_up
        self.owner_tree.put(entry, observed_now())

    def can_assume(self, key: GroupKind) -> bool:
        return key in self._settings.owner_kinds

    def assume_owner(self, key: OwnerKey, owner: OwnerReference) -> None:
        """An owner that cannot be read for now: it is what its dependents say, and nothing more."""
        obj = {
            "apiVersion": f"{owner.group}/{owner.version}" if owner.group else owner.version,
            "kind": owner.kind,
            "metadata": {"uid": owner.uid, "name": owner.name, "namespace": key.namespace},
        }
        entry = TreeEntry(
            owner.uid,
            GroupKind(owner.group, owner.kind),
            key.namespace,
            owner.name,
            None,
            compress(obj),
            is_looked_up=True,
            is_assumed=True,
        )
        self.owner_tree.assume(entry, observed_now())

    def put_event(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self.related.put_event(meta, obj)
        if self.events is not None:
            self.events.put(meta.uid, meta.namespace, obj)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        entry = self.owner_tree.entries.get(uid)
        if self.events is not None and entry is not None and entry.root is not None:
            self.events.object_gone(OwnerKey(entry.namespace, uid), entry.root)
        self.owner_tree.remove(uid, at, not_before)
        if uid not in self.owner_tree.entries:
            self._bare.pop(uid, None)
            self.budgets.compressed.release(uid)
            self._plain_pods.remove(uid)
            self._nodes.remove(uid)
            self.related.drop_pod(uid)

    def shed_objects(self) -> str | None:
        """A sentence about namespaces with more than is kept of one; None without any."""
        counts = self.budgets.shed()
        if not counts:
            return None
        shown = ", ".join(sorted(counts)[:_SHOWN_NAMESPACES])
        return (
            f"{counts.total()} objects in {len(counts)} namespaces are larger than what is kept of one "
            f"and are read in part or not at all: {shown}"
        )

    def mark_listed(self, key: GroupKind) -> None:
        """The kind was listed completely: from now on its list proves absence."""
        if key in self.listed:
            return
        self.listed.add(key)
        if key == POD:
            self._place_groups()
        for root, group in tuple(self.owner_tree.groups.items()):
            if group.root.key == key:
                self._listener.on_change(root)

    def is_alive(self, root: str) -> bool:
        return self.owner_tree.is_alive(root)

    def namespace_of(self, root: str) -> str:
        """ "" for what is no workload any more."""
        group = self.owner_tree.groups.get(root)
        return group.root.namespace if group is not None else ""

    def pod_count(self, root: str) -> int:
        group = self.owner_tree.groups.get(root)
        return 0 if group is None else group.pods

    def is_grouped(self, root: str) -> bool:
        """Whether it is a plain pod of a group: which pod stands for all is known once all pods are listed."""
        return self._plain_pods.is_grouped(root)

    def gather(self, root: str) -> WorkloadObjects:
        """All that belongs to a living workload, decoded."""
        group = self.owner_tree.groups[root]
        pods = self.owner_tree.pods(root)
        intermediates = list(self.owner_tree.intermediates(root))
        namespace = group.root.namespace
        first = self._plain_pods.oldest([pod.uid for pod in pods]) if group.is_root_gone else None
        chain = [
            OwnerKey(namespace, uid) for uid in (root, *(entry.uid for entry in intermediates))
        ]
        chain_and_pods = [*chain, *(OwnerKey(namespace, pod.uid) for pod in pods)]
        return WorkloadObjects(
            root=self._root(group.root) if first is None else self._stand_in(group.root, first),
            is_chain_truncated=group.is_truncated,
            is_root_listed=group.root.key in self.listed and not group.root.is_looked_up,
            pods=pods,
            children=[_object(entry) for entry in intermediates],
            services=self.related.routing(root, chain, pods),
            pod_groups=self.related.pod_groups(chain, pods),
            queue_workloads=self.related.queue_workloads(chain_and_pods),
            scheduling_events=self.related.events(chain_and_pods),
            claims=self.related.claims(pods),
            claim_lookup=self.related.claim_lookup(root, namespace),
            autoscalers=self.related.autoscalers(
                namespace, {group.root.name, *(entry.name for entry in intermediates)}
            ),
            idle=self.idle.get(root),
            is_root_gone=group.is_root_gone and first is None,
            cluster=self.cluster.objects,
        )

    def _root(self, entry: TreeEntry) -> Object:
        return self._pod_root(entry.payload) if isinstance(entry.payload, Pod) else _object(entry)

    def _stand_in(self, root: TreeEntry, uid: str) -> Object:
        """The first pod of a group is gone: the oldest that is left, as the workload of the first."""
        entry = self.owner_tree.entries[uid]
        obj = self._root(entry)
        meta = {**obj["metadata"], "uid": root.uid, "name": root.name}
        if isinstance(root.payload, Pod) and root.payload.created_at is not None:
            meta["creationTimestamp"] = _rfc3339(root.payload.created_at)
        return {**obj, "metadata": meta}

    def _pod_root(self, pod: Pod) -> dict[str, Any]:
        compressed = self._bare.get(pod.uid)
        if compressed is not None:
            return decompress(compressed)
        metadata: dict[str, Any] = {
            "uid": pod.uid,
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": dict(pod.labels),
            "annotations": dict(pod.annotations),
        }
        if pod.created_at is not None:
            metadata["creationTimestamp"] = _rfc3339(pod.created_at)
        if pod.deleted_at is not None:
            metadata["deletionTimestamp"] = _rfc3339(pod.deleted_at)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}

    def _gateway_changed(self, namespace: str, name: str) -> None:
        self.related.notify_gateway(namespace, name)

    def _grants_changed(self, namespace: str) -> None:
        self.related.apply_grants(namespace)

    def _cluster_changed(self, namespace: str | None, node: str | None) -> None:
        """A shared object changed: for one namespace, one node, or for all."""
        roots: Iterable[str | None]
        if node is not None:
            pods = (self.owner_tree.entries.get(uid) for uid in self._nodes.pods(node))
            roots = {pod.root for pod in pods if pod is not None}
        elif namespace is not None:
            roots = self.owner_tree.in_namespace(namespace)
        else:
            roots = list(self.owner_tree.groups)
        for root in roots:
            if root is not None:
                self._listener.on_change(root)


def _is_young(pod: Pod) -> bool:
    return pod.created_at is None or observed_now() - pod.created_at < GROUPED_WITHIN


def _link(obj: dict[str, Any]) -> dict[str, Any]:
    """The metadata that an owner chain needs. ReplicaSets are many: a Deployment keeps ten old ones."""
    metadata = obj.get("metadata", {})
    kept = {name: metadata[name] for name in _LINK_MEMBERS if name in metadata}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept}


def _bounded_link(obj: dict[str, Any]) -> dict[str, Any]:
    """What identifies an object, whatever else its author wrote."""
    metadata = obj.get("metadata", {})
    kept = {name: metadata[name] for name in _IDENTITY if isinstance(metadata.get(name), str)}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept}


def _object(entry: TreeEntry) -> dict[str, Any]:
    assert isinstance(entry.payload, bytes)  # pods are never between a root and its pods as objects
    return decompress(entry.payload)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class ResourceSink(Protocol):
    """A sink that knows how its kind is served; that may change while it runs."""

    resource: ServedResource

    def put(self, meta: ObjectMeta, body: Body) -> None: ...

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None: ...


@dataclass(slots=True)
class PodSink:
    cache: Cache
    resource: ServedResource

    def put(self, meta: ObjectMeta, body: Body) -> None:
        obj = decode_pod(meta, body)
        self.cache.targets.put(obj)
        if self.cache.includes(meta.namespace):
            self.cache.put_pod(meta, obj, body)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self.cache.targets.remove(uid)
        self.cache.remove(uid, at, not_before)


@dataclass(slots=True)
class OwnerSink:
    cache: Cache
    resource: ServedResource

    def put(self, meta: ObjectMeta, body: Body) -> None:
        if self.cache.includes(meta.namespace):
            self.cache.put_owner(self.resource, decode_object(body))

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self.cache.remove(uid, at, not_before)


@dataclass(slots=True)
class RelatedSink:
    """Objects related to workloads; `store` and `drop` are the functions of one role."""

    cache: Cache
    resource: ServedResource
    store: Callable[[ObjectMeta, dict[str, Any]], None]
    drop: Callable[[str], None]
    has_room: Callable[[ObjectMeta, Body], bool]

    def put(self, meta: ObjectMeta, body: Body) -> None:
        if self.cache.includes(meta.namespace):
            if not self.has_room(meta, body):
                self.drop(meta.uid)
                return
            obj = decode_object(body)
            resource = self.resource
            self.store(meta, prune(obj, api_version=resource.api_version, kind=resource.kind))

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self.cache.budgets.release(uid)
        self.drop(uid)


@dataclass(slots=True)
class KindSink:
    """Names of CustomResourceDefinitions (`plural.group`); calls `changed` on every addition and removal."""

    resource: ServedResource
    changed: Callable[[], None]
    names: dict[str, str] = field(default_factory=dict)

    def put(self, meta: ObjectMeta, body: Body) -> None:
        self.names[meta.uid] = meta.name
        self.changed()

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self.names.pop(uid, None)
        self.changed()


_ROOM = {
    WatchRole.ROUTING: ObjectBudgets.has_room_decoded,
    WatchRole.AUTOSCALER: ObjectBudgets.has_room_decoded,
    WatchRole.EVENT: ObjectBudgets.has_room_for_texts,
}
"""How the objects of a role are kept; the others compressed."""


def sink_for(
    kind: WatchedKind, resource: ServedResource, cache: Cache, kind_changed: Callable[[], None]
) -> ResourceSink:
    """The sink for one kind."""
    related = cache.related
    related_roles = {
        WatchRole.ROUTING: (related.put_routing, related.drop_routing),
        WatchRole.AUTOSCALER: (related.put_autoscaler, related.drop_autoscaler),
        WatchRole.EVENT: (cache.put_event, related.drop_event),
        WatchRole.POD_GROUP: (related.put_pod_group, related.drop_pod_group),
        WatchRole.CLAIM: (related.put_claim, related.drop_claim),
        WatchRole.QUEUE_WORKLOAD: (related.put_queue_workload, related.drop_queue_workload),
    }
    if kind.role in related_roles:
        has_room = _ROOM.get(kind.role, ObjectBudgets.has_room_compressed)
        return RelatedSink(
            cache, resource, *related_roles[kind.role], partial(has_room, cache.budgets)
        )
    if kind.role in SHARED_ROLES:
        return SharedSink(cache.cluster, resource, kind.role)
    if kind.role is WatchRole.KIND:
        return KindSink(resource, kind_changed)
    if kind.role is WatchRole.REFERENCE_GRANT:
        return GrantSink(cache.cluster, resource)
    if kind.role is WatchRole.DEVICE_SLICE:
        return DeviceSliceSink(cache.cluster, resource)
    if kind.role is WatchRole.DEVICE_TAINT_RULE:
        return DeviceTaintSink(cache.cluster, resource)
    if kind.role is WatchRole.NODE:
        return NodeSink(cache.cluster, resource)
    return PodSink(cache, resource) if kind.role is WatchRole.POD else OwnerSink(cache, resource)
