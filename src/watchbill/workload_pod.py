"""The domain: what a pod of a workload is, in the second contract's names and shapes. No I/O, no clock.

Pods travel beside their workload's record, only those that changed; the record holds a digest of all of them,
so that whatever compares records compares their pods too.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from watchbill.workload import AllocatedResources, RequestedResources, Wire

MAX_PODS = 2_000
"""Of one workload, live ones; and as many that are gone."""
MAX_CONTAINERS = 50
MAX_TOLERATIONS = 50
MAX_POD_POOLS = 20
MAX_TERMS = 10
MAX_EXPRESSIONS = 20
MAX_AFFINITY_VALUES = 50
"""Of a pod's node affinity: terms, requirements in a term, values in a requirement."""

Name = Annotated[str, msgspec.Meta(max_length=253)]
Text = Annotated[str, msgspec.Meta(max_length=1_024)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
ExitCode = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Restarts = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
ContainerState = Literal["waiting", "running", "terminated"]
SelectorOperator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]


class PodContainer(Wire, frozen=True):
    """A container. `reason`: why it waits or how it ended; `last_…`: how it ended before it was restarted.

    `state` None = the kubelet has not reported it yet.
    """

    name: Name
    image: Text
    started_at: Instant | None = None
    is_init: bool = False
    state: ContainerState | None = None
    reason: Name | None = None
    exit_code: ExitCode | None = None
    finished_at: Instant | None = None
    restarts: Restarts = 0
    last_reason: Name | None = None
    last_exit_code: ExitCode | None = None
    last_finished_at: Instant | None = None


class Toleration(Wire, frozen=True):
    key: Name | None = None
    operator: Name | None = None
    value: Name | None = None
    effect: Name | None = None
    toleration_seconds: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | None = None


class AffinityRequirement(Wire, frozen=True):
    """One requirement on a label, or on a field, of a node."""

    key: Name
    operator: SelectorOperator
    values: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_AFFINITY_VALUES)] = ()


Expressions = Annotated[tuple[AffinityRequirement, ...], msgspec.Meta(max_length=MAX_EXPRESSIONS)]


class AffinityTerm(Wire, frozen=True):
    """All of its requirements must hold."""

    match_expressions: Expressions = ()
    match_fields: Expressions = ()


class NodeSelector(Wire, frozen=True):
    """One of the terms must hold."""

    node_selector_terms: Annotated[tuple[AffinityTerm, ...], msgspec.Meta(max_length=MAX_TERMS)]


class PreferredTerm(Wire, frozen=True):
    weight: Annotated[int, msgspec.Meta(ge=0, le=100)]
    preference: AffinityTerm


class PreferredTerms(Wire, frozen=True):
    node_selector_terms: Annotated[tuple[PreferredTerm, ...], msgspec.Meta(max_length=MAX_TERMS)]


class NodeAffinity(Wire, frozen=True):
    """Which nodes the pod may run on, and which it should."""

    required: NodeSelector | None = None
    preferred: PreferredTerms | None = None


class WorkloadPod(Wire, frozen=True):
    """A pod. `reason` and `message`: why it is not ready, or how it failed; None where nothing is wrong.

    `k8s_phase_updated_at`: as the pod's own times tell it; None where they do not.
    """

    id: UUID
    name: Name
    namespace: Name
    priority_class_name: Name
    created_at: Instant
    k8s_phase: Name
    containers: Annotated[tuple[PodContainer, ...], msgspec.Meta(max_length=MAX_CONTAINERS)]
    restarts: Restarts
    is_ready: bool
    k8s_phase_updated_at: Instant | None = None
    node_name: Name | None = None
    current_node_pool: Name | None = None
    requested_node_pools: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_POD_POOLS)] = ()
    completed_at: Instant | None = None
    requested_resources: RequestedResources | None = None
    allocated_resources: AllocatedResources | None = None
    tolerations: Annotated[tuple[Toleration, ...], msgspec.Meta(max_length=MAX_TOLERATIONS)] = ()
    ip: Annotated[str, msgspec.Meta(max_length=45)] | None = None
    node_affinity: NodeAffinity | None = None
    is_terminating: bool = False
    reason: Name | None = None
    message: Text | None = None


_ENCODER = msgspec.json.Encoder(order="deterministic")


def pod_hash(pod: WorkloadPod) -> bytes:
    """Eight bytes that differ where the pods do."""
    return hashlib.sha256(_ENCODER.encode(pod)).digest()[:8]


def pods_digest(hashes: Iterable[tuple[UUID, bytes]]) -> str:
    """One text for all pods of a workload, whatever their order; "" for none."""
    ordered = sorted((pod_id.bytes, hashed) for pod_id, hashed in hashes)
    if not ordered:
        return ""
    return hashlib.sha256(b"".join(pod_id + hashed for pod_id, hashed in ordered)).hexdigest()[:32]
