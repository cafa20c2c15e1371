"""Stored objects: decoded as far as anybody reads them, pruned, compressed; and how many bytes of each
namespace's are kept. No I/O.

Most of a pod's text is not read: who manages which field, the containers' environments, mounts and probes, its
volumes. Pods are the most numerous objects, so what is not read is not made into objects either. What has
another shape than a pod's is decoded as a whole, and read by the same rules.

A decoded object takes twenty times the memory. Nobody fills the agent's memory: what is beyond a namespace's
budget is kept without what takes the room, or not at all, and counted. Other namespaces are not concerned.
"""

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from watchbill.agent.kubernetes.bounded_json import Body, BoundedDecoder, cut, decode_object
from watchbill.agent.kubernetes.watch_stream import ObjectMeta


class _Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A part of a pod with those of its members that are read; one that is absent stays absent."""


class _Metadata(_Part):
    name: Any = None
    namespace: Any = None
    uid: Any = None
    labels: Any = None
    annotations: Any = None
    owner_references: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None


class _Container(_Part):
    name: Any = None
    image: Any = None
    resources: Any = None
    restart_policy: Any = None
    ports: Any = None


class _Spec(_Part):
    host_network: Any = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    scheduler_name: Any = None
    node_name: Any = None
    priority: Any = None
    priority_class_name: Any = None
    node_selector: Any = None
    overhead: Any = None
    resources: Any = None
    resource_claims: Any = None
    tolerations: Any = None
    affinity: Any = None
    scheduling_group: Any = None
    scheduling_gates: Any = None


class _ContainerStatus(_Part):
    name: Any = None
    restart_count: Any = None
    state: Any = None
    last_state: Any = None


class _Status(_Part):
    phase: Any = None
    reason: Any = None
    message: Any = None
    pod_ip: Any = msgspec.field(default=None, name="podIP")
    start_time: Any = None
    conditions: Any = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None
    resource_claim_statuses: Any = None
    extended_resource_claim_status: Any = None


class _Pod(_Part):
    metadata: _Metadata | None = None
    spec: _Spec | None = None
    status: _Status | None = None


_POD = BoundedDecoder(_Pod)


def decode_pod(meta: ObjectMeta, body: Body) -> dict[str, Any]:
    """What is read of a pod, as `decode_object` decodes it. Raises msgspec.DecodeError, UnicodeDecodeError."""
    try:
        pod = _POD.decode(body)
        if pod.metadata is not None and pod.metadata.uid == meta.uid:
            pod.metadata.uid = meta.uid  # one text for all that is kept under it
        obj: dict[str, Any] = msgspec.to_builtins(pod)
    except (msgspec.ValidationError, RecursionError):
        return decode_object(body)
    cut(obj)
    return obj


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ENCODER = msgspec.json.Encoder()


def prune(obj: dict[str, Any], *, api_version: str, kind: str) -> dict[str, Any]:
    """Drop what is never used; add the kind, which list items lack and metadata requests replace."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(_LAST_APPLIED, None)
    return obj | {"apiVersion": api_version, "kind": kind}


def compress(obj: dict[str, Any]) -> bytes:
    return zlib.compress(_ENCODER.encode(obj), 1)


def decompress(compressed: bytes) -> dict[str, Any]:
    obj: dict[str, Any] = msgspec.json.decode(zlib.decompress(compressed))
    return obj


COMPRESSED_BYTES = 64 * 1024 * 1024
"""Of one namespace: 10,000 workloads take some 30 MiB."""
DECODED_BYTES = 64 * 1024 * 1024
"""The same of services, routes and what workloads share: 5,000 services take so much."""
_BYTES_PER_VALUE = 100
"""What a value takes beside its text, once decoded."""
_COMPRESSION = 3


@dataclass(slots=True)
class NamespaceBudget:
    """`shed`: UIDs of objects for which there was no room, by namespace."""

    most_bytes: int
    shed: dict[str, set[str]] = field(default_factory=dict)
    _bytes: dict[str, int] = field(default_factory=dict)
    _kept: dict[str, tuple[str, int]] = field(default_factory=dict)

    def admit(self, uid: str, namespace: str, size: int) -> bool:
        """Whether there is room for the object, in place of what was kept of it."""
        self.release(uid)
        used = self._bytes.get(namespace, 0) + size
        if used > self.most_bytes:
            self.shed.setdefault(namespace, set()).add(uid)
            self._kept[uid] = (namespace, 0)
            return False
        self._bytes[namespace] = used
        self._kept[uid] = (namespace, size)
        return True

    def release(self, uid: str) -> None:
        namespace, size = self._kept.pop(uid, ("", 0))
        if size:
            self._bytes[namespace] -= size
            if not self._bytes[namespace]:
                del self._bytes[namespace]
        shed = self.shed.get(namespace)
        if shed is not None:
            shed.discard(uid)
            if not shed:
                del self.shed[namespace]


@dataclass(slots=True)
class ObjectBudgets:
    """Of objects that are kept compressed, and of those that are kept decoded."""

    compressed: NamespaceBudget = field(default_factory=lambda: NamespaceBudget(COMPRESSED_BYTES))
    decoded: NamespaceBudget = field(default_factory=lambda: NamespaceBudget(DECODED_BYTES))

    def has_room_compressed(self, meta: ObjectMeta, body: Body) -> bool:
        size = len(memoryview(body)) // _COMPRESSION
        return self.compressed.admit(meta.uid, meta.namespace, size)

    def has_room_decoded(self, meta: ObjectMeta, body: Body) -> bool:
        return self.decoded.admit(meta.uid, meta.namespace, decoded_size(body))

    def has_room_for_texts(self, meta: ObjectMeta, body: Body) -> bool:
        """A few bounded texts are kept of each, and so many of all."""
        return True

    def release(self, uid: str) -> None:
        self.compressed.release(uid)
        self.decoded.release(uid)

    def shed(self) -> Counter[str]:
        """Objects by namespace."""
        counts: Counter[str] = Counter()
        for budget in (self.compressed, self.decoded):
            counts.update({namespace: len(uids) for namespace, uids in budget.shed.items()})
        return counts


def decoded_size(body: Body) -> int:
    """About how many bytes an object takes once decoded: many small values take much more than their text."""
    text = bytes(body)
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    return len(text) + _BYTES_PER_VALUE * values
