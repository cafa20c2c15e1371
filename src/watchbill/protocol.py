"""What an agent and the server say to each other (docs/sync.md tells why).

Every message goes by POST under `/agent/v1/`, authenticated by the cluster's own credential: tenant and
cluster are never in a body. Only the holder of the newest stream id may write.

    hello              HelloRequest      → HelloReply
    batch              Batch             → BatchReply
    inventory          InventoryBegin    → InventoryBegun
    inventory/entries  InventoryEntries  → InventoryMissing
    inventory/commit   InventoryCommit   → InventoryCommitted
    heartbeat          Heartbeat         → HeartbeatReply

A batch is applied in one transaction with its sequence number; a duplicate gets the same 200 again, a gap a
409 (`Conflict`) whose `details` is the number expected, another stream a 410 (`Superseded`).
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import xor
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from watchbill.cluster_node import MAX_NODES, ClusterNode
from watchbill.scheduler_queue import MAX_QUEUES, SchedulerQueue
from watchbill.workload import MAX_GPUS as MAX_GPUS
from watchbill.workload import (
    Element,
    PendingSchedulingMessage,
    Transition,
    Usage,
    Wire,
    Workload,
    WorkloadEvent,
    WorkloadStep,
    workload_step,
)
from watchbill.workload_pod import MAX_PODS, WorkloadPod

PROTOCOL_VERSION = 1
HEARTBEAT_SECONDS = 15
DEGRADED_AFTER_SECONDS = 60
DISCONNECTED_AFTER_SECONDS = 300
BATCH_ITEMS = 200
"""Workloads in a batch. One that was deleted and made anew takes two items."""
BATCH_READINGS = 20_000
INVENTORY_ENTRIES = 5_000
BATCH_EVENTS = 500
STATE_MESSAGE_CHARACTERS = 10_000
MAX_BYTES = 2**50
"""Of one workload's or device's memory."""
MAX_POOL_BYTES = 2**60
"""Of the memory of all devices of a node pool."""
MAX_MILLICORES = 10**12
"""Of the CPU of one workload."""
MAX_COUNT = 1_000_000
MAX_MODEL_CHARACTERS = 63
"""Of the name of a GPU's model: as long as the value of a label."""
MAX_READING = 1e18
"""Bytes, requests or seconds counted up; sums of millions of them stay finite."""
MAX_NODE_POOLS = 5_000
MAX_UNOBSERVED = 100
"""Times that one heartbeat tells of."""
MAX_SECONDS_AGO = 366 * 86_400.0


Instant = Annotated[datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Name = Annotated[str, msgspec.Meta(max_length=253)]
"""A name in Kubernetes, or a version."""
Namespaces = Annotated[tuple[Name, ...], msgspec.Meta(max_length=50_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
StreamId = Annotated[str, msgspec.Meta(max_length=64)]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""As `record_hash` makes it."""


class Witness(Wire, frozen=True):
    """The listing that proves a workload's absence: its own kind where that is listed, else Pod."""

    group: str
    kind: str
    namespace: str


class HostResources(Wire, frozen=True):
    """CPU and memory of one workload: what it asks for, and what its scheduled pods hold."""

    requested_cpu_millicores: Annotated[int, msgspec.Meta(ge=0, le=MAX_MILLICORES)]
    requested_memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_POOL_BYTES)]
    allocated_cpu_millicores: Annotated[int, msgspec.Meta(ge=0, le=MAX_MILLICORES)]
    allocated_memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_POOL_BYTES)]


class Record(Wire, frozen=True):
    """Everything derived from the cluster's objects about one workload. Equal objects, equal record."""

    workload: Workload
    witness: Witness
    usage: Usage
    pending_scheduling_messages: tuple[PendingSchedulingMessage, ...]
    elements: tuple[Element, ...]
    elements_total: int
    project_key: str
    """The queue's object name (or the namespace where no queue system exists)."""
    department_key: str
    """The parent queue's object name, or ""."""
    gpu_millionths_by_node_pool: dict[str, int]
    """The allocated GPUs by node pool; the values sum to `usage.gpu_millionths`. Empty where that is None."""
    gpu_millionths_by_model: dict[str, int] = msgspec.field(default_factory=dict)
    """The same by model; "" where the node names none. Empty where the agent does not tell."""
    pods_digest: Annotated[str, msgspec.Meta(max_length=32)] = ""
    """Of its pods (`workload_pod.pods_digest`): a change of a pod is a change of the record."""
    host_resources: HostResources | None = None
    """None where an agent of an earlier version reported it."""

    def step(self, at: datetime) -> WorkloadStep:
        """What the workload's usage is accounted from, from `at` on."""
        gpus = (self.gpu_millionths_by_node_pool, self.gpu_millionths_by_model)
        keys = (self.project_key or self.workload.namespace, self.department_key)
        return workload_step(self.workload, self.usage, at, keys, *gpus)


class PodChanges(Wire, frozen=True):
    """Pods of one workload. `since`: the hash of the record whose pods the server must hold for `changed` and
    `removed` to be the difference; None = `changed` are all there are."""

    changed: Annotated[tuple[WorkloadPod, ...], msgspec.Meta(max_length=MAX_PODS)]
    removed: Annotated[tuple[UUID, ...], msgspec.Meta(max_length=MAX_PODS)] = ()
    since: Hash | None = None


class Upsert(Wire, frozen=True, tag="upsert", tag_field="action"):
    """`transitions`: phases entered since the last acknowledged record, oldest first; `steps`: of records
    between that one and this one. `pods` None = its pods are not reported."""

    record: Record
    record_hash: Hash
    transitions: tuple[Transition, ...]
    observed_at: Instant
    pods: PodChanges | None = None
    steps: tuple[WorkloadStep, ...] = ()


class Delete(Wire, frozen=True, tag="delete", tag_field="action"):
    """`not_before`: when the workload was last known to exist, where nobody saw its deletion as it happened.

    `never_existed`: it only looked like a workload while its owner could not be read, and leaves no trace where
    it was there for some minutes only and held no GPU.

    `is_owner_unreadable`: its last pod is gone, and itself it cannot be read for now. That is its end only
    where the server never knew more of it than its pods.
    """

    id: UUID
    deleted_at: Instant
    transitions: tuple[Transition, ...] = ()
    not_before: Instant | None = None
    never_existed: bool = False
    is_owner_unreadable: bool = False


BatchItem = Upsert | Delete


class HelloRequest(Wire, frozen=True):
    """`previous_stream_id`: the stream that this process held last, "" after its start: who comes back and is
    not the one who wrote last has met another agent with the same credential.

    `cluster_uid`: of the namespace kube-system, "" where the agent cannot read it. The server keeps the
    first one and refuses another (403): a credential alone does not say which cluster is watched."""

    protocol: Sequence
    agent_version: Name
    kubernetes_version: Name = ""
    capabilities: Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)] = ()
    cluster_uid: Annotated[str, msgspec.Meta(max_length=64)] = ""
    previous_stream_id: StreamId = ""
    previous_seq: Sequence = 0
    """The last batch of that stream which was acknowledged: a server that has fewer has lost some."""


class IdleHours(Wire, frozen=True):
    """The idle GPU-hours that agents of a cluster observed of one workload, up to the last contact."""

    id: UUID
    measured_since: Instant
    gpu_hours: float


class PodGroupRoot(Wire, frozen=True):
    """A live workload that is a pod and has others, as stored: the pod itself may be gone."""

    id: UUID
    name: str
    created_at: Instant
    pods: tuple[UUID, ...]


class HelloReply(Wire, frozen=True):
    """`idle`, `pod_groups`: what an agent that has just started cannot know."""

    stream_id: str
    cluster_id: UUID
    cluster_name: str
    heartbeat_seconds: int
    idle: tuple[IdleHours, ...] = ()
    pod_groups: tuple[PodGroupRoot, ...] = ()


class Reading(Wire, frozen=True, array_like=True):
    """One figure of one moment. `label`: the device, or the upper bound of a histogram's bucket.

    CPU_USAGE_CORES and the histograms are counted up (core-seconds, requests) since `Scrape.counted_since`;
    every other type is the figure itself.
    """

    type: str
    value: float
    label: str = ""


class Measured(Wire, frozen=True, array_like=True):
    """What one scrape says of one workload, of one node, or of one pod of `workload_id`.

    A server that does not know pods takes the id for a workload's, of which there is none.
    """

    id: UUID
    readings: tuple[Reading, ...]
    workload_id: UUID | None = None


class Scrape(Wire, frozen=True):
    """One round over the cluster's exporters."""

    at: Instant
    counted_since: Instant
    workloads: tuple[Measured, ...]


Scrapes = Annotated[tuple[Scrape, ...], msgspec.Meta(max_length=BATCH_READINGS)]
Events = Annotated[tuple[WorkloadEvent, ...], msgspec.Meta(max_length=BATCH_EVENTS)]


class Batch(Wire, frozen=True):
    """`scrapes`: measured samples since the last batch; `events`: what Kubernetes reported about workloads
    that the server has. A server that does not know these members ignores them."""

    stream_id: StreamId
    seq: Sequence
    items: Annotated[tuple[BatchItem, ...], msgspec.Meta(max_length=2 * BATCH_ITEMS)]
    scrapes: Scrapes = ()
    events: Events = ()


class RefusedItem(Wire, frozen=True):
    """One item that was not taken, and why; the rest of its batch was.

    `is_out_of_room`: it may be taken later, when the reply to a heartbeat asks for such workloads."""

    id: UUID
    reason: str
    is_out_of_room: bool = False


class BatchReply(Wire, frozen=True):
    seq: int
    refused: tuple[RefusedItem, ...]


class Covered(Wire, frozen=True):
    """A kind whose objects the agent listed completely; `namespaces` None = all of them.

    `all_but`: where set, all namespaces but these, whether they still exist or not. A server that does not know
    this member takes `namespaces`, which holds those of them that exist."""

    group: Name
    kind: Name
    namespaces: Namespaces | None = None
    all_but: Namespaces | None = None


class InventoryBegin(Wire, frozen=True):
    stream_id: StreamId
    coverage: Annotated[tuple[Covered, ...], msgspec.Meta(max_length=2_000)]


class InventoryBegun(Wire, frozen=True):
    inventory_id: UUID


class InventoryEntry(Wire, frozen=True, array_like=True):
    """`namespace`: where set, an owner that cannot be read may be this workload, if it is in that namespace."""

    id: UUID
    record_hash: Annotated[str, msgspec.Meta(max_length=64)]
    namespace: Name | None = None


class InventoryEntries(Wire, frozen=True):
    stream_id: StreamId
    inventory_id: UUID
    entries: Annotated[tuple[InventoryEntry, ...], msgspec.Meta(max_length=INVENTORY_ENTRIES)]


class InventoryMissing(Wire, frozen=True):
    """The ids among the entries whose records the server does not have, or has in another state."""

    missing: tuple[UUID, ...]


class InventoryCommit(Wire, frozen=True):
    stream_id: StreamId
    inventory_id: UUID
    count: Sequence


class InventoryCommitted(Wire, frozen=True):
    """`held`: some that it covers were too many at once; they wait until a second inventory agrees."""

    deleted: int
    held: bool


class KindState(Wire, frozen=True):
    """How well one kind can be observed.

    `idle_after_seconds`: of GPU exporters, how long a device must do nothing until it counts as idle.
    """

    group: Name
    kind: Name
    state: Literal["complete", "listing", "forbidden", "absent", "failing"]
    since: Annotated[datetime, msgspec.Meta(tz=True)]
    message: Annotated[str, msgspec.Meta(max_length=STATE_MESSAGE_CHARACTERS)] | None = None
    idle_after_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None


GpuCount = Annotated[float, msgspec.Meta(ge=0, le=MAX_GPUS)]


class UnusableGpus(Wire, frozen=True):
    """Physical GPUs that no new pod can have, each counted once; None = not known.

    `cordoned`: on nodes that are cordoned; `unreachable`: on nodes that are not Ready; `lost`: that a usable
    node no longer offers (allocatable below capacity).
    """

    cordoned: GpuCount | None
    unreachable: GpuCount | None
    lost: GpuCount | None


class AcceleratorCount(Wire, frozen=True):
    """Accelerators that are no NVIDIA GPUs, by type, as `AMD GPU` or `TPU`: units that usable nodes offer."""

    type: Name
    usable: Annotated[int, msgspec.Meta(ge=0, le=MAX_GPUS)]
    unusable: Annotated[int, msgspec.Meta(ge=0, le=MAX_GPUS)]


class NodePoolCapacity(Wire, frozen=True):
    """`gpus`: usable physical GPUs; None where a node's labels do not tell what a unit of its GPUs is."""

    node_pool: Name
    nodes: Count
    gpus: GpuCount | None
    unusable_gpus: UnusableGpus | None = None
    accelerators: Annotated[tuple[AcceleratorCount, ...], msgspec.Meta(max_length=100)] = ()
    gpu_memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_POOL_BYTES)] | None = None


NodePools = Annotated[tuple[NodePoolCapacity, ...], msgspec.Meta(max_length=MAX_NODE_POOLS)]
NodeNames = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_NODES)]


class NodeChanges(Wire, frozen=True):
    """Nodes of the cluster. `digest`: of all that the server then holds (`cluster_node.nodes_digest`).

    `since`: the digest that it must hold for this to be the difference; None = begin anew: `names` are all
    nodes that there are, those beyond `changed` follow with the next heartbeats."""

    digest: Annotated[str, msgspec.Meta(max_length=32)]
    since: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    changed: Annotated[tuple[ClusterNode, ...], msgspec.Meta(max_length=MAX_NODES)] = ()
    removed: NodeNames = ()
    names: NodeNames = ()


Queues = Annotated[tuple[SchedulerQueue, ...], msgspec.Meta(max_length=MAX_QUEUES)]


class Unobserved(Wire, frozen=True, array_like=True):
    """A time in which pods may have come and gone unseen, though the agent ran."""

    from_seconds_ago: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS_AGO)]
    to_seconds_ago: Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS_AGO)]


def unobserved_before(now: datetime, since: datetime, until: datetime) -> Unobserved:
    """By one clock, so that it does not matter what another shows."""
    seconds = (min(max((now - at).total_seconds(), 0.0), MAX_SECONDS_AGO) for at in (since, until))
    return Unobserved(from_seconds_ago=next(seconds), to_seconds_ago=next(seconds))


UnobservedTimes = Annotated[tuple[Unobserved, ...], msgspec.Meta(max_length=MAX_UNOBSERVED)]


class Heartbeat(Wire, frozen=True):
    """`observed_seconds_ago`: how long ago everything reported was known to be current; None where nothing was
    read yet. `backlog`: workloads with changes that are not acknowledged.

    `digest`: the hashes of all acknowledged records of live workloads, joined by exclusive or; only while
    nothing waits to be sent and an inventory of this stream was taken.
    `queues`: all that schedulers have; None = not known, or as this stream reported them before.
    `unbroken_seconds`: for so long nothing was missed, and all of it was reported; None otherwise."""

    stream_id: StreamId
    seq: Sequence
    kinds: Annotated[tuple[KindState, ...], msgspec.Meta(max_length=2_000)] = ()
    node_pools: NodePools = ()
    observed_seconds_ago: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = 0.0
    backlog: Count = 0
    sent_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """By the agent's clock, which the server compares with its own."""
    cluster_clock_ahead_seconds: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    """Of the API server's clock, against the agent's; to the second."""
    digest: Hash | None = None
    nodes: NodeChanges | None = None
    queues: Queues | None = None
    unobserved: UnobservedTimes = ()
    """Since the last heartbeat that was answered."""
    unbroken_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None


class HeartbeatReply(Wire, frozen=True):
    """`resync`: an inventory is wanted soon; `wants_nodes`: all nodes, for the server does not hold those that
    `since` says. `room`: for how many workloads that were refused for want of it there is room now."""

    seq: int
    resync: bool
    wants_nodes: bool = False
    room: int = 0


ROOTS = (
    *(HelloRequest, HelloReply),
    *(Batch, BatchReply),
    *(InventoryBegin, InventoryBegun),
    *(InventoryEntries, InventoryMissing),
    *(InventoryCommit, InventoryCommitted),
    *(Heartbeat, HeartbeatReply),
)
"""Every message; what they consist of follows from them."""

_ENCODER = msgspec.json.Encoder(order="deterministic")


def canonical_bytes(record: Record) -> bytes:
    """The record's one encoding: equal records give equal bytes."""
    return _ENCODER.encode(record)


def record_hash(record: Record) -> str:
    return hash_of(canonical_bytes(record))


def hash_of(canonical: bytes) -> str:
    """First 16 bytes of SHA-256 over a record's canonical bytes, in hex."""
    return hashlib.sha256(canonical).digest()[:16].hex()


def digest_of(record_hashes: Iterable[str]) -> str:
    """One number for all of these hashes, whatever their order, in hex."""
    return f"{reduce(xor, (int(record_hash, 16) for record_hash in record_hashes), 0):032x}"
