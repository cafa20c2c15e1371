"""Objects related to workloads: routing, autoscalers, pod groups, queue entries, claims, events. No I/O.

Whatever one of them names by UID counts only in its own namespace: UIDs can be copied, namespaces cannot.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from watchbill.agent.cache.held_devices import GivenDevices, Holders
from watchbill.agent.cache.owner_tree import OwnerKey, OwnerListener, OwnerTree
from watchbill.agent.cache.routing_index import Concerned, RoutingIndex
from watchbill.agent.cache.stored_objects import compress, decompress
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.kinds.derivation.claim_parts import MAX_USERS, reserved_pods
from watchbill.kinds.derivation.route_backends import backend_namespaces, gateways_of, selects
from watchbill.kinds.derivation.routing import ReferenceGrants, is_admitted
from watchbill.kinds.objects.json_access import at, metadata, text
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION, Pod, owners
from watchbill.kinds.pending.events import EVENT_REASONS

KEPT_EVENTS = 5_000
"""Of all namespaces; where there are more, those of the namespace that has most of them go first."""
_EVENT_MEMBERS = {"reason": 128, "message": 2_048, "lastTimestamp": 64, "eventTime": 64}
"""What is kept of an event, and how many characters of each: its author chooses the rest."""
_ABOUT_MEMBERS = {"uid": 128, "kind": 128, "namespace": 64, "name": 256, "fieldPath": 256}
"""The same of the object that it is about."""
_GROUP_ANNOTATIONS = (POD_GROUP_ANNOTATION, VOLCANO_GROUP_ANNOTATION)


@dataclass(slots=True)
class _Owned:
    """Compressed objects by UID, looked up by namespace and name or by an owner in their namespace."""

    compressed: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    owners: dict[str, tuple[OwnerKey, ...]] = field(default_factory=dict)
    by_name: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    by_owner: dict[OwnerKey, set[str]] = field(default_factory=dict)

    def put(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self.drop(meta.uid)
        self.compressed[meta.uid] = compress(obj)
        self.names[meta.uid] = name = (meta.namespace, meta.name)
        self.by_name.setdefault(name, set()).add(meta.uid)
        self.owners[meta.uid] = tuple(OwnerKey(meta.namespace, owner.uid) for owner in owners(obj))
        for owner in self.owners[meta.uid]:
            self.by_owner.setdefault(owner, set()).add(meta.uid)

    def drop(self, uid: str) -> None:
        if self.compressed.pop(uid, None) is None:
            return
        name = self.names.pop(uid)
        _discard(self.by_name, name, uid)
        for owner in self.owners.pop(uid):
            _discard(self.by_owner, owner, uid)

    def get_all(self, uids: Iterable[str]) -> list[Object]:
        return [decompress(self.compressed[uid]) for uid in sorted(uids)]


@dataclass(slots=True)
class _Autoscalers:
    """Autoscalers by UID, looked up by namespace and the name of their target."""

    targets: dict[str, tuple[str, str]] = field(default_factory=dict)
    by_target: dict[tuple[str, str], dict[str, Object]] = field(default_factory=dict)

    def put(self, uid: str, namespace: str, obj: Object) -> bool:
        """Whether it is another one than before."""
        target = (namespace, text(at(obj, "spec", "scaleTargetRef", "name")))
        before = self.targets.get(uid)
        if before == target and self.by_target[target][uid] == obj:
            return False
        self.drop(uid)
        self.targets[uid] = target
        self.by_target.setdefault(target, {})[uid] = obj
        return True

    def drop(self, uid: str) -> str | None:
        """Its namespace."""
        target = self.targets.pop(uid, None)
        if target is None:
            return None
        del self.by_target[target][uid]
        if not self.by_target[target]:
            del self.by_target[target]
        return target[0]


class _NewestEvents:
    """The newest event about each object, by its namespace."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, OrderedDict[OwnerKey, tuple[str, Object]]] = {}
        """Each namespace's events by what they are about, with their own UIDs; the oldest first."""
        self._about: dict[str, OwnerKey] = {}

    def __len__(self) -> int:
        return len(self._about)

    def get_all(self, about: Iterable[OwnerKey]) -> list[Object]:
        events = [
            self._by_namespace[key.namespace].get(key)
            for key in about
            if key.namespace in self._by_namespace
        ]
        return [event[1] for event in events if event is not None]

    def put(self, about: OwnerKey, uid: str, event: Object) -> Object:
        """The event that it replaces, empty where there is none."""
        if self._about.get(uid, about) != about:
            self.drop(uid)
        events = self._by_namespace.setdefault(about.namespace, OrderedDict())
        replaced_uid, replaced = events.get(about, ("", {}))
        self._about.pop(replaced_uid, None)
        events[about] = (uid, event)
        events.move_to_end(about)
        self._about[uid] = about
        if len(self._about) > KEPT_EVENTS:
            fullest = max(self._by_namespace.values(), key=len)
            self.drop(next(iter(fullest.values()))[0])
        return replaced

    def drop(self, uid: str) -> None:
        about = self._about.pop(uid, None)
        if about is None:
            return
        events = self._by_namespace[about.namespace]
        del events[about]
        if not events:
            del self._by_namespace[about.namespace]


@dataclass(slots=True)
class _References:
    """Which objects refer to which others, so that a change finds its referrers without a search."""

    targets: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    referrers: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def put(self, uid: str, targets: frozenset[tuple[str, str]]) -> None:
        """`targets` are pairs of namespace and name."""
        if self.targets.get(uid) == targets:
            return
        self.drop(uid)
        if targets:
            self.targets[uid] = targets
        for target in targets:
            self.referrers.setdefault(target, set()).add(uid)

    def drop(self, uid: str) -> None:
        for target in self.targets.pop(uid, ()):
            _discard(self.referrers, target, uid)

    def to(self, target: tuple[str, str]) -> tuple[str, ...]:
        return tuple(self.referrers.get(target, ()))


class Related:
    """Keeps these objects and reports which workloads a change may concern."""

    def __init__(
        self, owner_tree: OwnerTree, listener: OwnerListener, grants: ReferenceGrants
    ) -> None:
        self._owner_tree = owner_tree
        self._listener = listener
        self._grants = grants
        self._routing = RoutingIndex()
        self._backends = _References()
        """The namespaces that a route names beside its own, whether or not they permit it."""
        self._gateway_routes = _References()
        self._group_pods = _References()
        self._autoscalers = _Autoscalers()
        self._pod_groups = _Owned()
        self._queue_workloads = _Owned()
        self._claims = _Owned()
        self._reserved: dict[str, tuple[OwnerKey, ...]] = {}
        """The pods that may use each claim."""
        self._claim_pods = _References()
        """The claims that live pods name: one may be made, or read, after the pods that wait for it."""
        self._template_claims = _References()
        """The claims that templates name, by the workload that read them."""
        self._given = GivenDevices()
        self._claim_contents: dict[str, int] = {}
        """A hash of what each claim asks for and was given."""
        self._events = _NewestEvents()

    def routing(
        self, root: str, chain: Collection[OwnerKey], pods: Collection[Pod]
    ) -> list[Object]:
        """Services, inference pools and routes that may concern the workload."""
        self._routing.prune(self._owner_tree.groups, len(self._owner_tree.groups))
        return self._routing.of_workload(root, chain, pods)

    def autoscalers(self, namespace: str, names: Iterable[str]) -> list[Object]:
        """The autoscalers of the namespace whose target has one of the names."""
        by_target = self._autoscalers.by_target
        return [
            obj
            for name in sorted(set(names))
            for obj in by_target.get((namespace, name), {}).values()
        ]

    def events(self, about: Iterable[OwnerKey]) -> list[Object]:
        """The newest event about each of them."""
        return self._events.get_all(about)

    def claims(self, pods: Iterable[Pod]) -> list[Object]:
        """The claims that the pods name, each once."""
        names = {(pod.namespace, name) for pod in pods for name in (*pod.claims, pod.backing.name)}
        uids = [self._claims.by_name.get(name, set()) for name in names]
        return self._claims.get_all(set().union(*uids))

    def claim_users(self, name: tuple[str, str]) -> int | None:
        """How many live pods share the claim of a namespace and name; None = too many to follow."""
        naming = self._claim_pods.referrers.get(name, ())
        for uid in self._claims.by_name.get(name, ()):
            if reserved := self._reserved.get(uid):
                return sum(1 for user in reserved if user.uid in naming)
        return len(naming) if len(naming) <= MAX_USERS else None

    def holders(self) -> Holders:
        """Who holds devices that belong to no single node."""
        return Holders(self._given.claims, self._nodes_of)

    def _nodes_of(self, claim: str) -> frozenset[str]:
        """The nodes of the live pods for which the claim is reserved."""
        entries = ((user, self._owner_tree.entries.get(user.uid)) for user in self._users(claim))
        pods = (each.payload for user, each in entries if each and each.namespace == user.namespace)
        return frozenset(
            pod.node for pod in pods if isinstance(pod, Pod) and pod.node and not pod.is_terminal
        )

    def _users(self, claim: str) -> Iterable[OwnerKey]:
        """Whom it is reserved for, also for resources that a claim was made for; else the pods that name it."""
        name = self._claims.names.get(claim, ("", ""))
        naming = self._claim_pods.referrers.get(name, ())
        return self._reserved.get(claim) or [OwnerKey(name[0], pod) for pod in naming]

    def claims_of_templates(self, root: str, names: set[tuple[str, str]]) -> list[Object]:
        """Claims that a workload's templates name; it is derived anew when one of them comes or changes."""
        before = self._template_claims.targets.get(root, frozenset())
        self._template_claims.put(root, before | names)
        uids = [self._claims.by_name.get(name, set()) for name in names]
        return self._claims.get_all(set().union(*uids))

    def claim_lookup(self, root: str, namespace: str) -> "WorkloadClaims":
        self._template_claims.drop(root)
        return WorkloadClaims(root, namespace, self)

    def pod_groups(self, chain: Iterable[OwnerKey], pods: Iterable[Pod]) -> list[Object]:
        """The groups that the pods name, and those that an object of the chain or a pod owns."""
        uids: set[str] = set()
        for owner in chain:
            uids |= self._pod_groups.by_owner.get(owner, set())
        for pod in pods:
            uids |= self._pod_groups.by_owner.get(OwnerKey(pod.namespace, pod.uid), set())
            for name in _group_names(pod):
                uids |= self._pod_groups.by_name.get((pod.namespace, name), set())
        return self._pod_groups.get_all(uids)

    def queue_workloads(self, chain: Iterable[OwnerKey]) -> list[Object]:
        uids: set[str] = set()
        for owner in chain:
            uids |= self._queue_workloads.by_owner.get(owner, set())
        return self._queue_workloads.get_all(uids)

    def put_pod(self, pod: Pod) -> None:
        """Remember the groups and claims that the pod names."""
        names = frozenset((pod.namespace, name) for name in _group_names(pod))
        self._group_pods.put(pod.uid, names)
        claims = () if pod.is_terminal else pod.claims
        self._put_claiming(pod.uid, frozenset((pod.namespace, name) for name in claims))

    def drop_pod(self, uid: str) -> None:
        self._group_pods.drop(uid)
        self._template_claims.drop(uid)
        self._put_claiming(uid, frozenset())

    def _put_claiming(self, pod: str, names: frozenset[tuple[str, str]]) -> None:
        """Who shares a claim with the pod has another part of it than before."""
        before = self._claim_pods.targets.get(pod, frozenset())
        if before == names:
            return
        self._claim_pods.put(pod, names)
        for name in before ^ names:
            self._notify_sharing(name, pod)

    def _notify_sharing(self, name: tuple[str, str], pod: str) -> None:
        """Of a claim that is reserved only those for whom it is have parts."""
        for uid in self._claims.by_name.get(name, ()):
            if reserved := self._reserved.get(uid):
                if OwnerKey(name[0], pod) in reserved:
                    self._notify_claim(uid)
                return
        if len(self._claim_pods.referrers.get(name, ())) <= MAX_USERS + 1:
            self._notify_naming(name)

    def _notify_naming(self, name: tuple[str, str]) -> None:
        """The workloads whose pods, or whose templates, name the claim."""
        self._notify_pods(self._claim_pods, name)
        self._notify_roots(self._template_claims.to(name))

    def notify_gateway(self, namespace: str, name: str) -> None:
        """A gateway changed: for the workloads to which routes through it lead."""
        for route in self._gateway_routes.to((namespace, name)):
            self._notify_roots(self._concerned(self._routing.concerned(route)))

    def put_routing(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._gateway_routes.put(meta.uid, gateways_of(obj))
        named = backend_namespaces(obj)
        self._backends.put(meta.uid, frozenset((namespace, "") for namespace in named))
        self._place_route(meta.uid, obj, meta.namespace)

    def _place_route(self, uid: str, obj: Object, own: str) -> None:
        """In its own namespace and in those that permit it; for the workloads that it concerned or does now."""
        named = (namespace for namespace, _ in self._backends.targets.get(uid, ()))
        permitted = {name for name in named if is_admitted(obj, name, self._grants)}
        before = self._routing.concerned(uid)
        if self._routing.put(uid, obj, frozenset({own, *permitted})):
            concerned = (before, self._routing.concerned(uid))
            self._notify_roots({root for each in concerned for root in self._concerned(each)})

    def apply_grants(self, namespace: str) -> None:
        """The namespace permits other routes than before, or others of its services to them."""
        for uid in self._backends.to((namespace, "")):
            route = self._routing.get(uid)
            self._place_route(uid, route, text(metadata(route).get("namespace")))
            self._notify_roots(self._concerned(self._routing.concerned(uid)))

    def drop_routing(self, uid: str) -> None:
        self._gateway_routes.drop(uid)
        self._backends.drop(uid)
        concerned = self._routing.concerned(uid)
        self._routing.drop(uid)
        self._notify_roots(self._concerned(concerned))

    def _concerned(self, concerned: Concerned) -> Iterator[str]:
        """The workloads that use it, own it, or have a pod that it selects."""
        tree = self._owner_tree
        yield from concerned.roots
        yield from filter(None, map(tree.root_of, concerned.owners))
        if concerned.selector:
            for root in tree.in_namespace(concerned.namespace):
                if any(selects(concerned.selector, pod.labels) for pod in tree.pods(root)):
                    yield root

    def _notify_roots(self, roots: Iterable[str]) -> None:
        for root in dict.fromkeys(roots):
            if root in self._owner_tree.groups:
                self._listener.on_change(root)

    def put_autoscaler(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        """Its bounds count; its status changes every few seconds and does not."""
        bounds = {name: obj.get(name) for name in ("apiVersion", "kind", "spec")}
        bounds["metadata"] = {"name": meta.name}
        if self._autoscalers.put(meta.uid, meta.namespace, bounds):
            self._notify_namespace(meta.namespace)

    def drop_autoscaler(self, uid: str) -> None:
        namespace = self._autoscalers.drop(uid)
        if namespace is not None:
            self._notify_namespace(namespace)

    def put_event(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        if text(obj.get("reason")) not in EVENT_REASONS:
            return
        involved = _texts(obj.get("involvedObject"), _ABOUT_MEMBERS)
        about = OwnerKey(meta.namespace, involved.get("uid", ""))
        kept = {"message": "", **_texts(obj, _EVENT_MEMBERS), "involvedObject": involved}
        before = self._events.put(about, meta.uid, kept)
        # The same message with a higher count changes nothing.
        if any(before.get(name) != kept[name] for name in ("reason", "message")):
            self._notify_root(about)

    def drop_event(self, uid: str) -> None:
        """Events expire; their message is outdated then, or repeated by a newer one."""
        self._events.drop(uid)

    def put_claim(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        """What changes for nobody derives nobody anew: hundreds may share it, and annotate it."""
        reserved = tuple(OwnerKey(meta.namespace, uid) for uid in sorted(reserved_pods(obj)))
        owned_by = tuple(OwnerKey(meta.namespace, owner.uid) for owner in owners(obj))
        given = at(obj, "status", "allocation")
        content = hash(msgspec.json.encode((meta.name, obj.get("spec"), given, bool(reserved))))
        is_other = self._claim_contents.get(meta.uid) != content
        known = (self._reserved.get(meta.uid), self._claims.owners.get(meta.uid))
        if not is_other and known == (reserved, owned_by):
            return
        self._notify_claim(meta.uid)
        self._claims.put(meta, obj)
        self._reserved[meta.uid] = reserved
        self._notify_claim(meta.uid)
        self._given.put(meta.uid, obj)
        if is_other:
            self._claim_contents[meta.uid] = content
            self._notify_naming((meta.namespace, meta.name))

    def drop_claim(self, uid: str) -> None:
        self._notify_claim(uid)
        if self._claim_contents.pop(uid, None) is not None:
            self._notify_naming(self._claims.names[uid])
        self._claims.drop(uid)
        self._reserved.pop(uid, None)
        self._given.drop(uid)

    def put_pod_group(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._notify_group(meta.uid)
        self._pod_groups.put(meta, obj)
        self._notify_group(meta.uid)

    def drop_pod_group(self, uid: str) -> None:
        self._notify_group(uid)
        self._pod_groups.drop(uid)

    def put_queue_workload(self, meta: ObjectMeta, obj: dict[str, Any]) -> None:
        self._queue_workloads.put(meta, obj)
        self._notify_owners(self._queue_workloads, meta.uid)

    def drop_queue_workload(self, uid: str) -> None:
        self._notify_owners(self._queue_workloads, uid)
        self._queue_workloads.drop(uid)

    def _notify_namespace(self, namespace: str) -> None:
        for root in self._owner_tree.in_namespace(namespace):
            self._listener.on_change(root)

    def _notify_root(self, about: OwnerKey) -> None:
        root = self._owner_tree.root_of(about)
        if root is not None:
            self._listener.on_change(root)

    def _notify_claim(self, uid: str) -> None:
        """The workloads of the pods that the claim is made or reserved for, if any yet."""
        for user in (*self._claims.owners.get(uid, ()), *self._reserved.get(uid, ())):
            self._notify_root(user)

    def _notify_owners(self, owned: _Owned, uid: str) -> None:
        for owner in owned.owners.get(uid, ()):
            self._notify_root(owner)

    def _notify_group(self, uid: str) -> None:
        """The owners' workloads; without owners, the workloads whose pods name the group."""
        if uid not in self._pod_groups.compressed:
            return
        self._notify_owners(self._pod_groups, uid)
        if self._pod_groups.owners[uid]:
            return
        self._notify_pods(self._group_pods, self._pod_groups.names[uid])

    def _notify_pods(self, references: _References, target: tuple[str, str]) -> None:
        """The workloads whose pods name it."""
        pods = references.to(target)
        for root in {self._owner_tree.root_of(OwnerKey(target[0], pod)) for pod in pods}:
            if root is not None:
                self._listener.on_change(root)


class WorkloadClaims(NamedTuple):
    """What derivation asks of claims beside those that a workload's pods use."""

    root: str
    namespace: str
    related: Related

    def named(self, names: Collection[str]) -> Mapping[str, Object]:
        keys = {(self.namespace, name) for name in names}
        claims = self.related.claims_of_templates(self.root, keys)
        return {text(metadata(claim).get("name")): claim for claim in claims}

    def users(self, name: str) -> int | None:
        return self.related.claim_users((self.namespace, name))


def _group_names(pod: Pod) -> set[str]:
    """The pod groups that the pod names, of whichever scheduler."""
    annotated = {pod.annotations.get(key, "") for key in _GROUP_ANNOTATIONS}
    return {pod.scheduling_group, *annotated} - {""}


def _texts(obj: Any, lengths: dict[str, int]) -> dict[str, Any]:
    """The members of these names that are texts, each cut to its length."""
    values = {name: text(at(obj, name))[:length] for name, length in lengths.items()}
    return {name: value for name, value in values.items() if value}


def _discard(index: dict[Any, set[str]], key: Any, uid: str) -> None:
    uids = index.get(key)
    if uids is not None:
        uids.discard(uid)
        if not uids:
            del index[key]
