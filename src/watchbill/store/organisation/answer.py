"""Rows of projects and departments as they are answered. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from watchbill.cluster_node import node_pool_id
from watchbill.responses.fleet import cluster_state
from watchbill.responses.organisation import (
    AverageUse,
    DepartmentResponse,
    DepartmentStatus,
    Effective,
    LiveWorkloads,
    MemoryQuota,
    NodePoolName,
    NodePoolQuotaStatus,
    NodePoolSums,
    OvertimeData,
    ProjectResponse,
    ProjectStatus,
    Quantities,
    QuotaResponse,
    QuotaStatus,
    TotalResources,
    UnitName,
    UnitResources,
)
from watchbill.scheduler_queue import UNLIMITED, NodePoolQuota, ResourceQuota, SchedulerQueue
from watchbill.workload import GPU_MILLIONTHS

BYTES_PER_MEGABYTE = 1_000_000
SCALES = {"gpu": GPU_MILLIONTHS, "cpu": 1, "memory": BYTES_PER_MEGABYTE}
_QUEUE = msgspec.json.Decoder(SchedulerQueue)
Row = Mapping[str, Any]


@dataclass(slots=True)
class PoolUse:
    """What is held of one node pool: millionths of GPUs, millicores, bytes."""

    gpu: Decimal = Decimal(0)
    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)
    is_gpu_known: bool = True
    is_host_known: bool = True

    def add(self, gpu: Decimal, cpu: Decimal = Decimal(0), memory: Decimal = Decimal(0)) -> None:
        self.gpu += gpu
        self.cpu += cpu
        self.memory += memory

    def amount(self, resource: Literal["gpu", "cpu", "memory"]) -> Decimal | None:
        is_known = self.is_gpu_known if resource == "gpu" else self.is_host_known
        amount: Decimal = getattr(self, resource)
        return amount if is_known else None


def project_answer(
    row: Row, means: Mapping[str, float], pools: Mapping[str, PoolUse], now: datetime
) -> ProjectResponse:
    queue = _queue(row)
    phase: Literal["Ready", "NotReady", "Unknown"] = "Unknown"
    if queue is not None:
        phase = "Ready" if queue.not_ready_message is None else "NotReady"
    return ProjectResponse(
        id=str(row["id"]),
        name=row["name"],
        cluster_id=row["cluster_id"],
        parent_id="" if row["above"] is None else str(row["above"]),
        parent=_parent(row),
        description="",
        enforce_runai_scheduler=False,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        total_resources=_totals(row),
        resources=_resources(queue, row["cluster_id"]),
        effective=Effective(),
        status=ProjectStatus(
            phase=phase,
            phase_message=queue.not_ready_message if queue else None,
            namespace=(queue.namespace or None) if queue else None,
            quota_status=_status(row),
            node_pool_quota_statuses=_pool_statuses(pools, row["cluster_id"]),
        ),
        workloads=_live(row),
        overtime_data=_overtime(means, _as_of(row, now)),
        scheduler=queue.scheduler if queue else None,
        **_contact(row, now),
    )


def department_answer(
    row: Row,
    means: Mapping[str, float],
    pools: Mapping[str, PoolUse],
    children: Sequence[UnitName],
    now: datetime,
    *,
    with_status: bool,
) -> DepartmentResponse:
    """Only name, parent and children where the caller may not see the whole of it."""
    department = DepartmentResponse(
        id=str(row["id"]),
        name=row["name"],
        cluster_id=row["cluster_id"],
        description="",
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        total_resources=TotalResources(),
        resources=(),
        children=tuple(children),
        parent=_parent(row),
        **_contact(row, now),
    )
    if not row["is_whole"]:
        return department
    queue = _queue(row)
    status = DepartmentStatus(
        quota_status=_status(row), node_pool_quota_statuses=_pool_statuses(pools, row["cluster_id"])
    )
    return msgspec.structs.replace(
        department,
        total_resources=_totals(row),
        resources=_resources(queue, row["cluster_id"]),
        status=status if with_status else None,
        workloads=_live(row) if with_status else None,
        overtime_data=_overtime(means, _as_of(row, now)),
        scheduler=queue.scheduler if queue else None,
    )


def quota_sums(department: DepartmentResponse, queues: Iterable[str]) -> DepartmentResponse:
    """With the quotas of its projects' queues added up, by node pool; those of no pool are left out."""
    pools: dict[str, list[NodePoolQuota]] = {}
    for text in queues:
        for quota in _QUEUE.decode(text).quotas:
            if quota.node_pool is not None:
                pools.setdefault(quota.node_pool, []).append(quota)
    sums = tuple(
        NodePoolSums(
            node_pool=_node_pool(department.cluster_id, pool),
            gpu=QuotaResponse(deserved=_sum(quota.gpu for quota in quotas)),
            cpu=QuotaResponse(deserved=_sum(quota.cpu for quota in quotas)),
            memory=MemoryQuota(deserved=_sum(quota.memory for quota in quotas)),
        )
        for pool, quotas in sorted(pools.items())
    )
    return msgspec.structs.replace(department, projects_aggregated_resources=sums)


def _sum(quotas: Iterable[ResourceQuota]) -> float:
    """Without a bound where one of them is."""
    amounts = [quota.quota or 0.0 for quota in quotas]
    return UNLIMITED if UNLIMITED in amounts else sum(amounts)


def _node_pool(cluster_id: UUID, name: str) -> NodePoolName:
    return NodePoolName(id=node_pool_id(cluster_id, name), name=name)


def _queue(row: Row) -> SchedulerQueue | None:
    return None if row["queue"] is None else _QUEUE.decode(row["queue"])


def _parent(row: Row) -> UnitName | None:
    if row["above"] is None or row["above_name"] is None:
        return None
    return UnitName(id=UUID(int=row["above"]), name=row["above_name"])


def _totals(row: Row) -> TotalResources:
    gpus = row["gpu_quota"]
    return TotalResources(
        gpu_quota=None if gpus is None else gpus / GPU_MILLIONTHS,
        cpu_quota=_float(row["cpu_quota"]),
        memory_quota=_float(row["memory_quota"]),
    )


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)


def _resources(queue: SchedulerQueue | None, cluster_id: UUID) -> tuple[UnitResources, ...]:
    if queue is None:
        return ()
    return tuple(
        UnitResources(
            node_pool=None if quota.node_pool is None else _node_pool(cluster_id, quota.node_pool),
            gpu=_quota(quota.gpu),
            cpu=_quota(quota.cpu),
            memory=MemoryQuota(
                deserved=quota.memory.quota,
                limit=quota.memory.limit,
                over_quota_weight=quota.memory.over_quota_weight,
            ),
            priority=None if queue.priority is None else str(queue.priority),
        )
        for quota in queue.quotas
    )


def _quota(quota: ResourceQuota) -> QuotaResponse:
    return QuotaResponse(
        deserved=quota.quota, limit=quota.limit, over_quota_weight=quota.over_quota_weight
    )


def _status(row: Row) -> QuotaStatus:
    return QuotaStatus(
        allocated=_quantities(row, "allocated"),
        allocated_non_preemptible=_quantities(row, "fixed"),
        requested=_quantities(row, "requested"),
    )


def _quantities(row: Row, figure: str) -> Quantities:
    """0 of a unit without live workloads."""
    if row["workloads"] is None:
        return Quantities(gpu=0.0, cpu=0.0, memory=0.0)
    amounts = {name: row[f"{figure}_{name}"] for name in SCALES}
    return Quantities(
        **{
            name: None if amount is None else float(amount / SCALES[name])
            for name, amount in amounts.items()
        }
    )


def _pool_statuses(
    pools: Mapping[str, PoolUse], cluster_id: UUID
) -> tuple[NodePoolQuotaStatus, ...]:
    return tuple(
        NodePoolQuotaStatus(
            node_pool_name=name,
            node_pool_id=node_pool_id(cluster_id, name),
            allocated=Quantities(
                gpu=float(use.gpu / GPU_MILLIONTHS) if use.is_gpu_known else None,
                cpu=float(use.cpu) if use.is_host_known else None,
                memory=float(use.memory / BYTES_PER_MEGABYTE) if use.is_host_known else None,
            ),
        )
        for name, use in sorted(pools.items())
    )


def _live(row: Row) -> LiveWorkloads:
    if row["workloads"] is None:
        return LiveWorkloads(total=0, running=0, pending=0, pending_gpus=0.0, idle_gpus=0.0)
    idle = row["idle_gpu"]
    return LiveWorkloads(
        total=int(row["workloads"]),
        running=int(row["running"]),
        pending=int(row["pending"]),
        pending_gpus=float(row["pending_gpu"] / GPU_MILLIONTHS),
        idle_gpus=None if idle is None else float(idle / GPU_MILLIONTHS),
    )


def _contact(row: Row, now: datetime) -> dict[str, Any]:
    """How old the figures of a unit are."""
    last_contact_at = row["last_contact_at"]
    return {
        "cluster_state": cluster_state(last_contact_at, now),
        "data_as_of": last_contact_at,
    }


def _as_of(row: Row, now: datetime) -> datetime:
    last_contact_at: datetime | None = row["last_contact_at"]
    return now if last_contact_at is None else min(last_contact_at, now)


def _overtime(means: Mapping[str, float], as_of: datetime) -> OvertimeData:
    def of(name: str) -> AverageUse | None:
        mean = means.get(name)
        return None if mean is None else AverageUse(average_gpu_allocation=mean, updated_at=as_of)

    return OvertimeData(range24h_data=of("24h"), range7d_data=of("7d"), range30d_data=of("30d"))
