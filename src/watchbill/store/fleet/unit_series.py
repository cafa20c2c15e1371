"""The fleet's figures of one cluster by project or department, as they were recorded every five minutes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.fleet.fleet import AT_INSTANTS, KEPT, PHASES, instants
from watchbill.store.postgres.database import Database

MAX_UNITS = 100
"""Of one cluster: those that held the most GPUs over the time that is asked for."""
_CHOSEN = (
    f"FROM {AT_INSTANTS} WHERE w.tenant_id = $1 AND c.at = ANY($2::timestamptz[]) "
    "AND w.cluster_id = $3 AND w.{unit}_id > 0"
)
_HELD = (
    f"SELECT c.at, w.{{unit}}_id AS id, sum(w.allocated_gpu)::bigint AS allocated_gpu, "
    f"sum({' + '.join(f'w.{column}' for column in PHASES)})::bigint AS workloads {_CHOSEN} "
    f"AND w.{{unit}}_id IN (SELECT w.{{unit}}_id {_CHOSEN} GROUP BY 1 "
    f"ORDER BY sum(w.allocated_gpu) DESC, 1 LIMIT {MAX_UNITS}) GROUP BY 1, 2"
)
_READ = (
    "SELECT h.at, h.id, h.allocated_gpu, h.workloads, (SELECT q.gpu_quota FROM queue_quota q "
    "WHERE q.tenant_id = $1 AND q.unit = '{unit}' AND q.id = h.id AND q.at <= h.at "
    f"ORDER BY q.at DESC LIMIT 1) AS gpu_quota FROM ({_HELD}) AS h ORDER BY h.at, h.id"
)


@dataclass(frozen=True, slots=True)
class UnitMoment:
    """GPUs in millionths; `gpu_quota` None = no queue states one."""

    at: datetime
    unit_id: int
    allocated_gpu: int
    workloads: int
    gpu_quota: int | None


async def unit_moments(
    db: Database,
    tenant_id: int,
    cluster_id: UUID,
    unit: OrganisationUnit,
    *,
    start: datetime,
    end: datetime,
    now: datetime,
) -> tuple[timedelta, Sequence[UnitMoment]]:
    """The step, and what was recorded in [start, end] in the order of time."""
    step_seconds, wanted = instants(max(start, now - KEPT), min(end, now))
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(_READ.format(unit=unit), tenant_id, wanted, cluster_id)
    return timedelta(seconds=step_seconds), [
        UnitMoment(
            *(row["at"], row["id"], row["allocated_gpu"], row["workloads"], row["gpu_quota"])
        )
        for row in rows
    ]
