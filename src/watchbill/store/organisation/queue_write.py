"""Writes the queues that an agent reports: projects and departments with what they may have.

All of a cluster's queues come together, so one that is not among them is gone; its project keeps its number.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from watchbill.protocol import MAX_GPUS
from watchbill.scheduler_queue import SchedulerQueue, total_quota
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.organisation import unit_numbers
from watchbill.store.workloads.quotas import MAX_PROJECTS, unit_count
from watchbill.store.workloads.row import stored_text
from watchbill.store.workloads.validation import possible_time
from watchbill.workload import gpu_millionths

_WRITE = (
    "UPDATE {table} t SET queue = n.queue, {above} = n.above, gpu_quota = n.gpu, cpu_quota = n.cpu, "
    "memory_quota = n.memory, created_at = coalesce(n.created_at, t.created_at), "
    # Who waits in which order changes all the time, and is no change of the project.
    "updated_at = CASE WHEN t.queue - 'admissionOrder' IS DISTINCT FROM n.queue - 'admissionOrder' "
    "OR t.{above} IS DISTINCT FROM n.above THEN $3 ELSE t.updated_at END "
    "FROM unnest($4::int[], $5::jsonb[], $6::int[], $7::bigint[], $8::bigint[], $9::bigint[], "
    "$10::timestamptz[]) AS n(id, queue, above, gpu, cpu, memory, created_at) "
    "WHERE t.tenant_id = $1 AND t.cluster_id = $2 AND t.id = n.id "
    "AND (t.queue IS DISTINCT FROM n.queue OR t.{above} IS DISTINCT FROM n.above)"
)
_FORGET = (
    "UPDATE {table} t SET queue = NULL, gpu_quota = NULL, cpu_quota = NULL, memory_quota = NULL, "
    "updated_at = $3 WHERE t.tenant_id = $1 AND t.cluster_id = $2 AND t.queue IS NOT NULL "
    "AND NOT t.id = ANY($4::int[])"
)
_ABOVE = {"project": "department_id", "department": "parent_id"}


async def queue_write(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    queues: Sequence[SchedulerQueue],
    now: datetime,
) -> None:
    """What is beyond `MAX_PROJECTS` of the cluster is left out. The caller holds the cluster's row."""
    named = {stored_text(queue.department_key): "" for queue in queues if queue.department_key}
    by_key = {
        table: {stored_text(queue.key): queue for queue in queues if queue.unit == table}
        for table in ("department", "project")
    }
    departments = {key: key for key in named} | {
        key: stored_text(queue.name) for key, queue in by_key["department"].items()
    }
    projects = {key: stored_text(queue.name) for key, queue in by_key["project"].items()}
    above = await _numbers(connection, "department", tenant_id, cluster_id, departments)
    numbers = await _numbers(connection, "project", tenant_id, cluster_id, projects)
    for table, ids in (("department", above), ("project", numbers)):
        rows = [_row(ids[key], queue, above) for key, queue in by_key[table].items() if key in ids]
        columns: Iterable[list[object]] = map(list, zip(*rows, strict=True)) if rows else [[]] * 7
        await connection.execute(
            _WRITE.format(table=table, above=_ABOVE[table]), tenant_id, cluster_id, now, *columns
        )
        await connection.execute(
            _FORGET.format(table=table), tenant_id, cluster_id, now, [row[0] for row in rows]
        )


async def _numbers(
    connection: Connection, table: str, tenant_id: int, cluster_id: UUID, names: dict[str, str]
) -> dict[str, int]:
    """The numbers by key, of those that there is room for."""
    known = {
        row["key"]
        for row in await connection.fetch(
            f"SELECT key FROM {table} WHERE tenant_id = $1 AND cluster_id = $2",
            tenant_id,
            cluster_id,
        )
    }
    room = max(0, MAX_PROJECTS - await unit_count(connection, table, tenant_id, cluster_id))
    wanted = known | set(sorted(names.keys() - known)[:room])
    taken = {key: name for key, name in names.items() if key in wanted}
    return await unit_numbers(connection, table, tenant_id, cluster_id, taken)


def _row(number: int, queue: SchedulerQueue, above: Mapping[str, int]) -> tuple[object, ...]:
    """In the order of `_WRITE`'s arrays."""
    gpu, cpu, memory = (total_quota(queue, name) for name in ("gpu", "cpu", "memory"))
    department = above.get(stored_text(queue.department_key)) if queue.department_key else None
    return (
        number,
        msgspec.json.encode(queue).replace(b"\\u0000", b"\\ufffd").decode(),
        None if department == number else department,
        None if gpu is None else gpu_millionths(min(gpu, MAX_GPUS)),
        None if cpu is None else round(cpu),
        None if memory is None else round(memory),
        possible_time(queue.created_at),
    )
