"""The domain: what a workload is, in the contract's names and shapes. No I/O, no clock.

Structs here are the wire. Snake case becomes camelCase; a member whose default is `None` is left out when it
has no value, a member without a default is always written (as `null` where it may be None), exactly as the
contract requires. Instants are aware UTC datetimes; quantities are Kubernetes quantity strings; GPUs are
decimal numbers here and integer millionths (`gpu_millionths`) wherever they are summed or compared.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

MAX_EVENTS = 200
"""Kept of one workload: the newest."""

Name = Annotated[str, msgspec.Meta(max_length=253)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """Base of everything that travels as JSON."""


class Phase(StrEnum):
    CREATING = "Creating"
    INITIALIZING = "Initializing"
    RESUMING = "Resuming"
    PENDING = "Pending"
    DELETING = "Deleting"
    RUNNING = "Running"
    UPDATING = "Updating"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    COMPLETED = "Completed"
    TERMINATING = "Terminating"
    UNKNOWN = "Unknown"


class WorkloadClass(StrEnum):
    """What a workload is for, as lists tell it apart."""

    AI = "AI"
    GENERAL = "General"
    """Whatever else a cluster runs."""


GPU_MILLIONTHS = 1_000_000
"""In one GPU."""
MAX_GPUS = 1_000_000
"""Of one workload or node pool; so that sums over millions of workloads stay exact."""
MAX_STEPS = 1_000
"""Of one workload that were not reported to the server."""

TERMINAL_PHASES = frozenset({Phase.FAILED, Phase.COMPLETED})
LEAVING_PHASES = frozenset({Phase.DELETING, Phase.TERMINATING})

PhaseReason = Literal["NonPreemptibleOverQuota", "OverLimit"]


class Cores(Wire, frozen=True):
    """Numbers of cores or GPUs, asked for and capped."""

    limit: float | None = None
    request: float | None = None


class Quantity(Wire, frozen=True):
    """Bytes as Kubernetes writes them (`64Mi`), asked for and capped."""

    limit: str | None = None
    request: str | None = None


class ExtendedResource(Wire, frozen=True):
    """Without a quantity: of an unknown number."""

    resource: str
    quantity: str | None = None


class RequestedResources(Wire, frozen=True):
    extended_resources: tuple[ExtendedResource, ...]
    gpu_request_type: Literal["portion", "memory"] | None = None
    gpu: Cores | None = None
    gpu_memory: Quantity | None = None
    cpu: Cores | None = None
    cpu_memory: Quantity | None = None


class AllocatedResources(Wire, frozen=True):
    """What scheduled pods hold now; `gpu` is 0 where there is none, None where it cannot be known."""

    gpu: float | None
    extended_resources: tuple[ExtendedResource, ...]
    gpu_memory: str | None = None
    cpu: float | None = None
    cpu_memory: str | None = None


class RequestedPods(Wire, frozen=True):
    number: int | None = None
    min: int | None = None
    max: int | None = None
    parallelism: int | None = None
    completions: int | None = None


class Condition(Wire, frozen=True):
    type: str
    status: str
    message: str | None = None
    reason: str | None = None
    last_transition_time: datetime | None = None


class ActualPlacement(Wire, frozen=True):
    level: str
    value: str


class Topology(Wire, frozen=True):
    name: str | None = None
    preferred_placement: str | None = None
    required_placement: str | None = None
    actual_placement: ActualPlacement | None = None


class Endpoint(Wire, frozen=True):
    host: str | None = None
    port: int | None = None
    path: str | None = None
    tls_enabled: bool | None = None
    protocol: str | None = None
    url: str | None = None


class ActionsSupport(Wire, frozen=True):
    """Watchbill observes; it offers neither action."""

    delete: bool
    suspend: bool


class PendingReason(Wire, frozen=True):
    """One reason why a workload waits, with its evidence. Listed dominant first, only while Pending."""

    source: Literal["kai", "kueue", "volcano", "scheduler"]
    reason: str
    message: str
    user_message: str
    since: Annotated[datetime, msgspec.Meta(tz=True)]
    node_pool: str | None = None


class PendingSchedulingMessage(Wire, frozen=True):
    """The part of a pending reason that the contract's detail view can carry."""

    node_pool: str
    phase_reason: PhaseReason
    reason: str
    org_type: Literal["PROJECT", "DEPARTMENT"] | None = None
    user_message: str | None = None


class Workload(Wire, frozen=True):
    """The contract's Workload as one agent knows it.

    The server adds what only it can know: tenantId, clusterId, projectId, departmentId, updatedAt,
    phaseUpdatedAt, k8sPhaseUpdatedAt, deletedAt and the two running totals (`store/workloads/document.py`).
    """

    id: UUID
    name: str
    type: str
    source: Literal["CLI", "Control-plane", "Other"]
    namespace: str
    project_name: str
    department_name: str
    category: str
    priority: int | None
    priority_class_name: str
    created_at: datetime
    phase: Phase
    k8s_phase: str
    conditions: tuple[Condition, ...]
    running_pods: int
    workload_requested_resources: RequestedResources
    pods_requested_resources: RequestedResources
    allocated_resources: AllocatedResources
    idle_allocated_gpus: float | None
    idle_gpus: int | None
    requested_pods: RequestedPods
    requested_node_pools: tuple[str, ...]
    current_node_pools: tuple[str, ...]
    images: tuple[str, ...]
    urls: tuple[str, ...]
    datasources: tuple[()]
    environments: tuple[()]
    external_connections: tuple[()]
    endpoints: tuple[Endpoint, ...]
    environment_variables: dict[str, str]
    additional_fields: dict[str, Any]
    actions_support: ActionsSupport
    phase_message: str | None = None
    phase_reason: PhaseReason | None = None
    submitted_by: str | None = None
    completed_at: datetime | None = None
    guaranteed_runtime_ends_at: datetime | None = None
    preemptible: bool | None = None
    distributed_framework: str | None = None
    command: str | None = None
    arguments: str | None = None
    ai_application_id: str | None = None
    ai_application_name: str | None = None
    topology: Topology | None = None


class GroupVersionKind(Wire, frozen=True):
    group: str
    version: str
    kind: str


class KubernetesRef(Wire, frozen=True):
    uid: str
    name: str
    gvk: GroupVersionKind


class Element(Wire, frozen=True):
    """One part of a workload's structure; `parent_id` is None on level 1, whose parent is the workload."""

    id: UUID
    name: str
    hierarchy_level: int
    parent_id: UUID | None = None
    created_at: datetime | None = None
    kubernetes_ref: KubernetesRef | None = None


class Transition(Wire, frozen=True):
    """The workload entered `phase` at `at`."""

    phase: Phase
    at: datetime
    message: str | None = None


class Usage(Wire, frozen=True):
    """What Kubernetes objects alone say of a workload at one instant, as numbers; None = not stated."""

    pod_count: int
    running_pod_count: int
    gpu_millionths: int | None
    gpu_memory_request_bytes: int
    cpu_request_cores: float | None = None
    cpu_limit_cores: float | None = None
    cpu_memory_request_bytes: int | None = None
    cpu_memory_limit_bytes: int | None = None


class WorkloadStep(Wire, frozen=True):
    """What usage is accounted from: what a workload asked for, held and was from `at` until its next step.

    GPUs in millionths. `allocated_gpu` None = not known, `idle_gpu` None = nothing measures it. `idle_hours`
    and `idle_mean_since`: as `additionalFields` of a workload. `gpu_by_model` divides `allocated_gpu`.
    """

    at: datetime
    project_key: str
    department_key: str
    type: str
    requested_gpu: int
    allocated_gpu: int | None
    idle_gpu: int | None = None
    idle_hours: float = 0.0
    idle_mean_since: datetime | None = None
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    gpu_by_model: dict[str, int] = msgspec.field(default_factory=dict)
    category: str | None = None
    submitted_by: str | None = None
    priority_class_name: str | None = None
    node_pool: str = ""
    """Those whose GPUs it holds, else those it runs in, else those it asks for; several are joined."""


def workload_step(
    workload: Workload,
    usage: Usage,
    at: datetime,
    keys: tuple[str, str],
    gpu_by_pool: dict[str, int],
    gpu_by_model: dict[str, int],
) -> WorkloadStep:
    """The step of a record; `keys` of its project and department."""
    more, gpu = workload.additional_fields, workload.workload_requested_resources.gpu
    idle = workload.idle_allocated_gpus
    pools = (
        sorted(gpu_by_pool) or workload.current_node_pools or sorted(workload.requested_node_pools)
    )
    return WorkloadStep(
        at=at,
        project_key=keys[0],
        department_key=keys[1],
        type=workload.type,
        requested_gpu=gpu_millionths(
            min(max(0.0, (gpu.request if gpu else None) or 0.0), MAX_GPUS)
        ),
        allocated_gpu=usage.gpu_millionths,
        idle_gpu=None if idle is None else gpu_millionths(idle),
        idle_hours=idle_hours(more.get("idleGpuHours")) or 0.0,
        idle_mean_since=instant(more.get("idleMeanSince")),
        cpu_cores=usage.cpu_request_cores or 0.0,
        memory_bytes=usage.cpu_memory_request_bytes or 0,
        gpu_by_model=gpu_by_model,
        category=workload.category or None,
        submitted_by=workload.submitted_by or None,
        priority_class_name=workload.priority_class_name or None,
        node_pool=", ".join(pools),
    )


def idle_hours(value: object) -> float | None:
    """A finite number of hours, as far as anyone can have idled; `additionalFields` holds whatever is sent."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None


def instant(value: object) -> datetime | None:
    """A time with an offset; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def gpu_millionths(gpus: float) -> int:
    """GPUs as integer millionths, so that sums are exact."""
    return round(gpus * GPU_MILLIONTHS)


class InvolvedObject(Wire, frozen=True):
    """The object that an event is about; `namespace` is "" where it has none."""

    uid: UUID
    kind: Name
    name: Name
    namespace: Name


class WorkloadEvent(Wire, frozen=True):
    """One event; equal ones are counted. `last_at`: when it happened last."""

    id: UUID
    workload_id: UUID
    type: Name
    reason: Name
    message: Annotated[str, msgspec.Meta(max_length=1_024)]
    source: Name
    count: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    first_at: Instant
    last_at: Instant
    involved_object: InvolvedObject
