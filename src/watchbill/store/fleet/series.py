"""One cluster's figures over time: of its node pools, which are recorded here every five minutes beside the
fleet's, and of its projects and departments, from what is recorded of the fleet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

from watchbill.query import NodeQuery, Scope
from watchbill.responses.nodes import NodeResponse
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.fleet.fleet import AT_INSTANTS, KEPT, PHASES, instants
from watchbill.store.fleet.nodes import HOLDS, node_list
from watchbill.store.metrics.node_usage import NodeUsage, node_usage_list
from watchbill.store.postgres.database import Connection, Database
from watchbill.workload import GPU_MILLIONTHS

MAX_POOLS = 100
"""Recorded of one cluster: those with the most nodes."""
Pool = tuple[UUID, str]
"""The cluster and the pool's name."""


@dataclass(slots=True)
class PoolFigures:
    """Sums over nodes. None = a part of it is not known.

    `gpu`: GPUs that new pods can have; `gpu` and `allocated_gpu` in millionths. `measured_gpu`: GPUs whose
    utilization was measured, `gpu_percent` the sum of theirs. What is used counts with the whole that it is a
    part of: of nodes that were not measured neither does.
    """

    gpu_nodes: int = 0
    gpu: int | None = 0
    allocated_gpu: int | None = 0
    workloads: int = 0
    measured_gpu: float = 0.0
    gpu_percent: float = 0.0
    gpu_memory: float = 0.0
    used_gpu_memory: float = 0.0
    cpu: float = 0.0
    used_cpu: float = 0.0
    cpu_memory: float = 0.0
    used_cpu_memory: float = 0.0

    def add(self, other: "PoolFigures") -> None:
        for field in fields(self):
            own, more = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, None if own is None or more is None else own + more)


@dataclass(frozen=True, slots=True)
class PoolMoment:
    at: datetime
    node_pool: str
    figures: PoolFigures


def node_figures(node: NodeResponse, usage: NodeUsage) -> PoolFigures:
    """What one node adds to the sums of its pool."""
    gpus = node.capacity.gpus
    figures = PoolFigures(
        gpu_nodes=int(bool(node.gpu_info)),
        gpu=_millionths(node.allocatable.gpus) if node.is_schedulable else 0,
        allocated_gpu=_millionths(node.allocated.gpus),
    )
    if gpus and usage.gpu_utilization is not None:
        figures.measured_gpu, figures.gpu_percent = gpus, gpus * usage.gpu_utilization
    if gpus and node.gpu_memory_bytes and usage.gpu_memory_bytes is not None:
        figures.gpu_memory = gpus * node.gpu_memory_bytes
        figures.used_gpu_memory = usage.gpu_memory_bytes
    if node.capacity.cpu_cores and usage.cpu_cores is not None:
        figures.cpu, figures.used_cpu = node.capacity.cpu_cores, usage.cpu_cores
    if node.capacity.cpu_memory_bytes and usage.cpu_memory_bytes is not None:
        figures.cpu_memory = float(node.capacity.cpu_memory_bytes)
        figures.used_cpu_memory = usage.cpu_memory_bytes
    return figures


def _millionths(gpus: float | None) -> int | None:
    return None if gpus is None else round(gpus * GPU_MILLIONTHS)


_COLUMNS = tuple(field.name for field in fields(PoolFigures))
_INSERT = (
    f"INSERT INTO fleet_node_pool (tenant_id, at, cluster_id, node_pool, {', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f'${number}' for number in range(1, 5 + len(_COLUMNS)))}) "
    "ON CONFLICT DO NOTHING"
)
_WORKLOADS = (
    "SELECT n.cluster_id, n.node_pool, count(DISTINCT w.id) AS workloads FROM workload_pod p "
    "JOIN workload w ON w.tenant_id = p.tenant_id AND w.id = p.workload_id "
    "JOIN cluster_node n ON n.tenant_id = p.tenant_id AND n.name = p.node_name "
    f"AND n.cluster_id = w.cluster_id WHERE p.tenant_id = $1 AND w.deleted_at IS NULL AND {HOLDS} "
    "GROUP BY 1, 2"
)


async def pools_record(db: Database, tenant_id: int, at: datetime) -> None:
    """Keep the figures of one instant, and forget those that are too old."""
    scope = Scope(tenant_id, is_whole_tenant=True)
    nodes = (await node_list(db, scope, NodeQuery(is_brief=True), at)).nodes
    usage = await node_usage_list(db, tenant_id, [node.id for node in nodes], at)
    async with db.transaction(tenant_id) as connection:
        pools = await _pools(connection, tenant_id, nodes, usage)
        await connection.executemany(
            _INSERT,
            [
                (tenant_id, at, cluster_id, name, *astuple(figures))
                for (cluster_id, name), figures in pools.items()
            ],
        )
        await connection.execute(
            "DELETE FROM fleet_node_pool WHERE tenant_id = $1 "
            "AND at < least($2, clock_timestamp()) - $3::interval",
            tenant_id,
            at,
            KEPT,
        )


async def _pools(
    connection: Connection,
    tenant_id: int,
    nodes: Iterable[NodeResponse],
    usage: Mapping[UUID, NodeUsage],
) -> dict[Pool, PoolFigures]:
    counted = await connection.fetch(_WORKLOADS, tenant_id)
    workloads = {(row["cluster_id"], row["node_pool"]): row["workloads"] for row in counted}
    members: dict[Pool, list[NodeResponse]] = {}
    for node in nodes:
        members.setdefault((node.cluster_uuid, node.node_pool), []).append(node)
    taken: dict[UUID, int] = {}
    pools: dict[Pool, PoolFigures] = {}
    for pool, own in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        taken[pool[0]] = taken.get(pool[0], 0) + 1
        if taken[pool[0]] <= MAX_POOLS:
            pools[pool] = PoolFigures(workloads=workloads.get(pool, 0))
            for node in own:
                pools[pool].add(node_figures(node, usage.get(node.id, NodeUsage())))
    return pools


async def pool_series(
    db: Database,
    tenant_id: int,
    cluster_id: UUID,
    *,
    node_pool: str | None,
    start: datetime,
    end: datetime,
    now: datetime,
) -> tuple[timedelta, Sequence[PoolMoment]]:
    """The step, and what was recorded in [start, end] in the order of time. `node_pool` None = of all pools."""
    step_seconds, wanted = instants(max(start, now - KEPT), min(end, now))
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            f"SELECT at, node_pool, {', '.join(_COLUMNS)} FROM fleet_node_pool "
            "WHERE tenant_id = $1 AND at = ANY($2::timestamptz[]) AND cluster_id = $3 "
            "AND ($4::text IS NULL OR node_pool = $4) ORDER BY at, node_pool",
            tenant_id,
            wanted,
            cluster_id,
            node_pool,
        )
    return timedelta(seconds=step_seconds), [
        PoolMoment(
            row["at"], row["node_pool"], PoolFigures(**{name: row[name] for name in _COLUMNS})
        )
        for row in rows
    ]


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
