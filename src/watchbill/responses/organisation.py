"""Projects and departments: their quotas and what is held of them. The schemas are the second contract's.

GPUs are numbers of GPUs, `cpu` millicores, `memory` MB (a million bytes). None = not known or not stated.
`data_as_of`: until when the cluster was observed; what is shown of the unit is as of then.
"""

from typing import Literal
from uuid import UUID

import msgspec

from watchbill.responses.contract import Instant
from watchbill.responses.fleet import ClusterState
from watchbill.workload import Wire


class NodePoolName(Wire, frozen=True):
    id: str
    name: str


class QuotaResponse(Wire, frozen=True):
    """-1 = without a bound."""

    deserved: float | None = None
    limit: float | None = None
    over_quota_weight: float | None = None


class MemoryQuota(QuotaResponse, frozen=True):
    units: Literal["MB"] = msgspec.field(default_factory=lambda: "MB")


class UnitResources(Wire, frozen=True):
    """What a unit may have of one node pool; `node_pool` None = of the cluster, whatever the pool."""

    gpu: QuotaResponse
    node_pool: NodePoolName | None = None
    cpu: QuotaResponse | None = None
    memory: MemoryQuota | None = None
    priority: str | None = None


class TotalResources(Wire, frozen=True):
    gpu_quota: float | None = None
    cpu_quota: float | None = None
    memory_quota: float | None = None


class Quantities(Wire, frozen=True):
    gpu: float | None = None
    cpu: float | None = None
    memory: float | None = None


class QuotaStatus(Wire, frozen=True):
    allocated: Quantities = Quantities()
    allocated_non_preemptible: Quantities = Quantities()
    requested: Quantities = Quantities()


class NodePoolQuotaStatus(Wire, frozen=True):
    node_pool_name: str
    node_pool_id: str
    allocated: Quantities = Quantities()


class AverageUse(Wire, frozen=True):
    average_gpu_allocation: float
    updated_at: Instant


class OvertimeData(Wire, frozen=True):
    range24h_data: AverageUse | None = msgspec.field(name="range24hData", default=None)
    range7d_data: AverageUse | None = msgspec.field(name="range7dData", default=None)
    range30d_data: AverageUse | None = msgspec.field(name="range30dData", default=None)


class UnitName(Wire, frozen=True):
    """`id`: the number of the project or department, written as a UUID."""

    id: UUID
    name: str


class LiveWorkloads(Wire, frozen=True):
    """Live workloads, the GPUs that the pending ones ask for, and the idle part of those that they hold.

    `idle_gpus` None = nothing measures it.
    """

    total: int
    running: int
    pending: int
    pending_gpus: float = 0.0
    idle_gpus: float | None = None


class ProjectStatus(Wire, frozen=True):
    phase: Literal["Ready", "NotReady", "Unknown"]
    quota_status: QuotaStatus
    node_pool_quota_statuses: tuple[NodePoolQuotaStatus, ...] = ()
    namespace: str | None = None
    phase_message: str | None = None


class Effective(Wire, frozen=True):
    """Nothing that Watchbill reads decides how a project's workloads are to be scheduled."""


class ProjectResponse(Wire, frozen=True):
    id: str
    name: str
    cluster_id: UUID
    parent_id: str
    description: str
    enforce_runai_scheduler: bool
    created_at: Instant
    updated_at: Instant
    total_resources: TotalResources
    resources: tuple[UnitResources, ...]
    effective: Effective
    status: ProjectStatus
    workloads: LiveWorkloads
    overtime_data: OvertimeData
    parent: UnitName | None = None
    scheduler: str | None = None
    cluster_state: ClusterState | None = None
    data_as_of: Instant | None = None


class ProjectList(Wire, frozen=True):
    projects: tuple[ProjectResponse, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


class DepartmentStatus(Wire, frozen=True):
    quota_status: QuotaStatus
    node_pool_quota_statuses: tuple[NodePoolQuotaStatus, ...] = ()


class NodePoolSums(Wire, frozen=True):
    """The quotas of a department's projects together."""

    node_pool: NodePoolName
    gpu: QuotaResponse
    cpu: QuotaResponse
    memory: MemoryQuota


class DepartmentResponse(Wire, frozen=True):
    """`status` and `workloads` None: the caller may see only some of its projects."""

    id: str
    name: str
    cluster_id: UUID
    description: str
    created_at: Instant
    updated_at: Instant
    total_resources: TotalResources
    resources: tuple[UnitResources, ...]
    children: tuple[UnitName, ...] = ()
    status: DepartmentStatus | None = None
    workloads: LiveWorkloads | None = None
    overtime_data: OvertimeData | None = None
    projects_aggregated_resources: tuple[NodePoolSums, ...] = ()
    parent: UnitName | None = None
    scheduler: str | None = None
    cluster_state: ClusterState | None = None
    data_as_of: Instant | None = None


class DepartmentList(Wire, frozen=True):
    departments: tuple[DepartmentResponse, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


ROOTS: tuple[type[msgspec.Struct], ...] = (ProjectResponse, DepartmentResponse)
"""Their members beyond the contract, for the page's types."""
