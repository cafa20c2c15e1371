"""The domain: what a node of a cluster is, in the second contract's names and shapes. No I/O, no clock."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid5

import msgspec

from watchbill.workload import Wire

MAX_NODES = 5_000
"""Of one cluster."""
MAX_NODE_BYTES = 32 * 1024
"""Of one node, as it travels."""
MAX_CONDITIONS = 30
MAX_TAINTS = 30
MAX_NODE_DEVICES = 128
MAX_DEVICE_WORKLOADS = 50
CONDITION_CHARACTERS = 512
MAX_NODE_GPUS = 10_000

Name = Annotated[str, msgspec.Meta(max_length=253)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Gpus = Annotated[float, msgspec.Meta(ge=0, le=MAX_NODE_GPUS)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
NodeStatus = Literal["Ready", "NotReady", "Unknown"]
GpuSharing = Literal["mig", "time-slicing", "mps"]


class NodeCondition(Wire, frozen=True):
    """`status`: True, False or Unknown, as Kubernetes states it."""

    type: Name
    reason: Name
    status: Name
    message: Annotated[str, msgspec.Meta(max_length=CONDITION_CHARACTERS)] | None = None
    last_transition_time: Instant | None = None


class NodeTaint(Wire, frozen=True):
    key: Name
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    value: Name | None = None


class GpuInfo(Wire, frozen=True):
    """`gpu_count`: physical GPUs; `gpu_type` "" where the node's labels name no model."""

    gpu_type: Annotated[str, msgspec.Meta(max_length=63)]
    gpu_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_NODE_GPUS)]


class NodeResources(Wire, frozen=True):
    """Amounts of a node; None = not known. `gpus`: physical ones, however they are cut or shared."""

    gpus: Gpus | None = None
    cpu_cores: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    cpu_memory_bytes: Bytes | None = None


class DeviceWorkload(Wire, frozen=True):
    """A workload that holds a device or a share of it. Its names are the server's: agents tell the id alone."""

    id: UUID
    name: str | None = None
    project_name: str | None = None


class NodeDevice(Wire, frozen=True):
    """A GPU, or one slice of it, as its exporter tells it.

    `id`: the GPU's UUID, of a MIG instance with `/` and its number. `index`: the number by `nvidia-smi`.
    `is_idle` None = nobody holds it, or it is not known.
    """

    id: Name
    index: Name | None = None
    profile: Name | None = None
    is_idle: bool | None = None
    workloads: Annotated[
        tuple[DeviceWorkload, ...], msgspec.Meta(max_length=MAX_DEVICE_WORKLOADS)
    ] = ()


class ClusterNode(Wire, frozen=True):
    """A node. `gpu_info` None = it has no GPUs, or nothing tells how many.

    `gpu_memory_bytes`: of one GPU. `gpu_sharing`: how GPUs are divided between pods; None = they are not.
    `node_pool_label`: the label whose value is the pool; nodes without it are in the default pool.
    `devices`: those that an exporter reported in the last round; none where none is read.
    """

    id: UUID
    name: Name
    status: NodeStatus
    node_pool: Name
    created_at: Instant
    node_pool_label: Name
    is_in_default_pool: bool
    is_cordoned: bool
    capacity: NodeResources
    allocatable: NodeResources
    conditions: Annotated[tuple[NodeCondition, ...], msgspec.Meta(max_length=MAX_CONDITIONS)] = ()
    taints: Annotated[tuple[NodeTaint, ...], msgspec.Meta(max_length=MAX_TAINTS)] = ()
    gpu_info: GpuInfo | None = None
    gpu_memory_bytes: Bytes | None = None
    gpu_sharing: GpuSharing | None = None
    nv_link_domain_uid: Name | None = None
    nv_link_clique_id: Name | None = None
    devices: Annotated[tuple[NodeDevice, ...], msgspec.Meta(max_length=MAX_NODE_DEVICES)] = ()

    @property
    def is_schedulable(self) -> bool:
        """Whether new pods can be placed on it."""
        return self.status == "Ready" and not self.is_cordoned


_ENCODER = msgspec.json.Encoder(order="deterministic")


def node_bytes(node: ClusterNode) -> bytes:
    """The node's one encoding: equal nodes give equal bytes."""
    return _ENCODER.encode(node)


def node_hash(encoded: bytes) -> bytes:
    """Eight bytes that differ where the encodings do."""
    return hashlib.sha256(encoded).digest()[:8]


def nodes_digest(hashes: Mapping[str, bytes]) -> str:
    """One text for all nodes of a cluster by their names, whatever their order; "" for none."""
    if not hashes:
        return ""
    joined = b"".join(name.encode() + b"\0" + hashed for name, hashed in sorted(hashes.items()))
    return hashlib.sha256(joined).hexdigest()[:32]


def node_pool_id(cluster_id: UUID, name: str) -> str:
    """A UUID that follows from cluster and name: a node pool is no object with one of its own."""
    return str(uuid5(cluster_id, f"node-pool/{name}"))
