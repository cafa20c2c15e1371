"""Where each watched kind's objects go, by its role. A new role is a row of `sink_for`'s tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from watchbill.agent.cache import Cache
from watchbill.agent.cluster import SHARED_ROLES, NodeSink, SharedSink
from watchbill.agent.kube import Resource
from watchbill.agent.lines import ObjectMeta
from watchbill.agent.packed import prune
from watchbill.agent.roles import Role, Wanted

Body = bytes | msgspec.Raw


class ResourceSink(Protocol):
    """A sink that knows how its kind is served; that may change while it runs."""

    resource: Resource

    def put(self, meta: ObjectMeta, body: Body) -> None: ...

    def remove(self, uid: str, at: datetime) -> None: ...


@dataclass(slots=True)
class PodSink:
    cache: Cache
    resource: Resource

    def put(self, meta: ObjectMeta, body: Body) -> None:
        obj = msgspec.json.decode(body, type=dict[str, Any])
        self.cache.targets.put(obj)
        if self.cache.takes(meta.namespace):
            self.cache.put_pod(meta, obj)

    def remove(self, uid: str, at: datetime) -> None:
        self.cache.targets.remove(uid)
        self.cache.remove(uid, at)


@dataclass(slots=True)
class OwnerSink:
    cache: Cache
    resource: Resource

    def put(self, meta: ObjectMeta, body: Body) -> None:
        if self.cache.takes(meta.namespace):
            self.cache.put_owner(self.resource, msgspec.json.decode(body, type=dict[str, Any]))

    def remove(self, uid: str, at: datetime) -> None:
        self.cache.remove(uid, at)


@dataclass(slots=True)
class RelatedSink:
    """Objects that stand beside workloads; `keep` and `drop` are those of one role."""

    cache: Cache
    resource: Resource
    keep: Callable[[ObjectMeta, dict[str, Any]], None]
    drop: Callable[[str], None]

    def put(self, meta: ObjectMeta, body: Body) -> None:
        if self.cache.takes(meta.namespace):
            obj = msgspec.json.decode(body, type=dict[str, Any])
            resource = self.resource
            self.keep(meta, prune(obj, api_version=resource.api_version, kind=resource.kind))

    def remove(self, uid: str, at: datetime) -> None:
        self.drop(uid)


@dataclass(slots=True)
class KindSink:
    """Names of CustomResourceDefinitions (`plural.group`); `changed` is called for each coming and going."""

    resource: Resource
    changed: Callable[[], None]
    names: dict[str, str] = field(default_factory=dict)

    def put(self, meta: ObjectMeta, body: Body) -> None:
        self.names[meta.uid] = meta.name
        self.changed()

    def remove(self, uid: str, at: datetime) -> None:
        self.names.pop(uid, None)
        self.changed()


def sink_for(
    wanted: Wanted, resource: Resource, cache: Cache, kind_changed: Callable[[], None]
) -> ResourceSink:
    """The sink of one kind."""
    related = cache.related
    related_roles = {
        Role.ROUTING: (related.put_routing, related.drop_routing),
        Role.AUTOSCALER: (related.put_autoscaler, related.drop_autoscaler),
        Role.EVENT: (related.put_event, related.drop_event),
        Role.POD_GROUP: (related.put_pod_group, related.drop_pod_group),
        Role.CLAIM: (related.put_claim, related.drop_claim),
        Role.QUEUE_WORKLOAD: (related.put_queue_workload, related.drop_queue_workload),
    }
    if wanted.role in related_roles:
        return RelatedSink(cache, resource, *related_roles[wanted.role])
    if wanted.role in SHARED_ROLES:
        return SharedSink(cache.cluster, resource, wanted.role)
    if wanted.role is Role.KIND:
        return KindSink(resource, kind_changed)
    if wanted.role is Role.NODE:
        return NodeSink(cache.cluster, resource)
    return PodSink(cache, resource) if wanted.role is Role.POD else OwnerSink(cache, resource)
