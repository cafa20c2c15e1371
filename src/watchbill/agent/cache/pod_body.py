"""A pod's JSON, decoded as far as anybody reads it.

Most of a pod's text is not read: who manages which field, the containers' environments, mounts and probes, its
volumes. Pods are the most numerous objects, so what is not read is not made into objects either. What has
another shape than a pod's is decoded as a whole, and read by the same rules.
"""

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
