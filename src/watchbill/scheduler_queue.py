"""The domain: queues of schedulers (KAI, Kueue, Volcano) as projects and departments. No I/O, no clock."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from watchbill.workload import Wire

UNLIMITED = -1.0
"""As KAI writes it: a quota or a limit without a bound."""
MAX_QUEUES = 10_000
"""Of one cluster, projects and departments together."""
MAX_QUOTAS = 100
"""Node pools of one queue."""
MAX_QUEUE_BYTES = 128 * 1024
"""Of one queue, as it travels."""
MAX_ADMISSION_PLACES = 1_000
"""Of one queue: the first of those that wait."""
MAX_WAITING = 1_000_000

Name = Annotated[str, msgspec.Meta(max_length=507)]
Amount = Annotated[float, msgspec.Meta(ge=UNLIMITED, le=1e15)]
OrganisationUnit = Literal["project", "department"]


class ResourceQuota(Wire, frozen=True):
    """`UNLIMITED` = no bound, None = the queue does not say."""

    quota: Amount | None = None
    limit: Amount | None = None
    over_quota_weight: Annotated[float, msgspec.Meta(ge=0, le=1e15)] | None = None


class NodePoolQuota(Wire, frozen=True):
    """What a queue may have of one node pool. `node_pool` None = of the cluster, whatever the pool.

    `gpu` in GPUs, `cpu` in millicores, `memory` in MB (a million bytes)."""

    gpu: ResourceQuota = ResourceQuota()
    cpu: ResourceQuota = ResourceQuota()
    memory: ResourceQuota = ResourceQuota()
    node_pool: Name | None = None


class AdmissionPlace(Wire, frozen=True, array_like=True):
    """One workload that waits, and how many its scheduler tries before it, other queues' among them."""

    id: UUID
    ahead: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAITING)]


class AdmissionOrder(Wire, frozen=True):
    """As the scheduler itself tells it. `waiting`: how many wait together with those of this queue."""

    waiting: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAITING)]
    places: Annotated[tuple[AdmissionPlace, ...], msgspec.Meta(max_length=MAX_ADMISSION_PLACES)]


class SchedulerQueue(Wire, frozen=True):
    """One queue. What workloads are submitted to is a project, what has projects below it a department.

    `department_key`: of the department right above, "" = there is none. `namespace`: where it lives, if in one.
    """

    unit: OrganisationUnit
    key: Name
    name: Name
    scheduler: Literal["KAI", "Kueue", "Volcano"]
    department_key: Name = ""
    namespace: Name = ""
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)] | None = None
    not_ready_message: Annotated[str, msgspec.Meta(max_length=1_024)] | None = None
    """Why it admits nothing; None where it is ready."""
    quotas: Annotated[tuple[NodePoolQuota, ...], msgspec.Meta(max_length=MAX_QUOTAS)] = ()
    admission_order: AdmissionOrder | None = None
    """None where the scheduler does not tell it, or nothing waits."""


def total_quota(queue: SchedulerQueue, resource: Literal["gpu", "cpu", "memory"]) -> float | None:
    """The sum over the node pools; None where the queue states none, or one without a bound."""
    quotas = [getattr(entry, resource).quota for entry in queue.quotas]
    if not quotas or any(quota is None or quota < 0 for quota in quotas):
        return None
    return float(sum(quotas))
