"""The fleet's series of a time in which nobody recorded it, from what is known of each workload then.

Phases and steps are kept for ever with their times, so the figures of an instant can be counted later as well;
an instant that was recorded stays as it is.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from watchbill.store.fleet.fleet import (
    COUNTS,
    PHASES,
    RECORD_LOCK,
    STEP_SECONDS,
    WAIT_BOUNDS,
    WRITE_TIMEOUT_SECONDS,
    fleet_capacities,
)
from watchbill.store.postgres.database import Connection, Database, allow_seconds

_KEY: Final = "number, cluster_id, project_id, department_id"
_NUMBER: Final = f"ceil(extract(epoch FROM {{at}}) / {STEP_SECONDS})::bigint"
"""The first instant of the series at or after a time; instants are counted since 1970."""


def _instants(start: str, stop: str) -> str:
    """The instants from `start` on and before `stop`, none outside the time asked for."""
    first, last = _NUMBER.format(at=start), _NUMBER.format(at=stop)
    return f"generate_series(greatest({first}, $2), least({last} - 1, $3)) AS number"


_HELD: Final = (
    "sum(allocated_gpu) AS allocated_gpu, sum(idle_gpu) AS idle_gpu, "
    "sum(allocated_gpu) FILTER (WHERE idle_gpu IS NOT NULL) AS measured_gpu"
)
_COUNTED: Final = ", ".join(
    f"count(*) FILTER (WHERE phase = '{phase}') AS {column}" for column, phase in PHASES.items()
)
_FILL: Final = f"""
WITH entered AS (
    SELECT w.cluster_id, w.project_id, coalesce(w.department_id, 0) AS department_id, t.phase, t.at AS start,
        lead(t.at) OVER history AS next, w.deleted_at
    FROM phase_transition t JOIN workload w ON w.tenant_id = t.tenant_id AND w.id = t.workload_id
    WHERE t.tenant_id = $1 WINDOW history AS (PARTITION BY t.workload_id ORDER BY t.number)),
steps AS (
    SELECT w.cluster_id, w.project_id, coalesce(w.department_id, 0) AS department_id, u.allocated_gpu,
        u.idle_gpu, u.at AS start,
        coalesce(lead(u.at) OVER (PARTITION BY u.workload_id ORDER BY u.at), w.deleted_at, $4) AS stop
    FROM usage_step u JOIN workload w ON w.tenant_id = u.tenant_id AND w.id = u.workload_id
    WHERE u.tenant_id = $1),
phases AS (
    SELECT *, number * {STEP_SECONDS} - extract(epoch FROM start) AS waited FROM entered
    CROSS JOIN LATERAL {_instants("start", "coalesce(next, deleted_at, $4)")}),
counted AS (
    SELECT {_KEY}, {_COUNTED} FROM phases GROUP BY {_KEY}),
held AS (
    SELECT {_KEY}, {_HELD} FROM steps
    CROSS JOIN LATERAL {_instants("start", "stop")} GROUP BY {_KEY}),
failed AS (
    SELECT {_KEY}, count(*) AS failed_in_day FROM entered
    CROSS JOIN LATERAL {_instants("start", "least(coalesce(next, $4), start + interval '1 day')")}
    WHERE phase = 'Failed' GROUP BY {_KEY}),
waits AS (
    SELECT {_KEY}, width_bucket(waited::float8, $5::float8[]) AS bucket, count(*)::int AS count FROM phases
    WHERE phase = 'Pending' GROUP BY {_KEY}, bucket),
waiting AS (
    SELECT {_KEY}, array_agg(bucket ORDER BY bucket) AS wait_buckets,
        array_agg(count ORDER BY bucket) AS wait_counts
    FROM waits GROUP BY {_KEY}),
filled AS (
    SELECT *, to_timestamp(number * {STEP_SECONDS}) AS at FROM counted FULL JOIN held USING ({_KEY})
    FULL JOIN failed USING ({_KEY}) LEFT JOIN waiting USING ({_KEY}))
INSERT INTO fleet_project (tenant_id, at, cluster_id, project_id, department_id, {", ".join(COUNTS)},
    failed_in_day, wait_buckets, wait_counts)
SELECT $1, n.at, n.cluster_id, n.project_id, n.department_id,
    {", ".join(f"coalesce(n.{column}, 0)" for column in COUNTS)}, coalesce(n.failed_in_day, 0),
    n.wait_buckets, n.wait_counts
FROM filled n WHERE NOT EXISTS (SELECT FROM fleet_cluster f
    WHERE f.tenant_id = $1 AND f.cluster_id = n.cluster_id AND f.at = n.at)
ON CONFLICT DO NOTHING
"""
_FILL_CLUSTERS: Final = f"""
INSERT INTO fleet_cluster (tenant_id, at, cluster_id, gpu)
SELECT $1, to_timestamp(number * {STEP_SECONDS}), c.id, c.gpu
FROM generate_series($2::bigint, $3::bigint) AS number, unnest($4::uuid[], $5::bigint[]) AS c(id, gpu)
ON CONFLICT DO NOTHING
"""


async def fleet_backfill(db: Database, tenant_id: int, *, start: datetime, end: datetime) -> None:
    """Fill the instants in [start, end) that were not recorded; of each cluster with the GPUs it has now."""
    first, last = (-(-int(at.timestamp()) // STEP_SECONDS) for at in (start, end))
    async with db.transaction(tenant_id) as connection:
        await allow_seconds(connection, WRITE_TIMEOUT_SECONDS)
        # Who records an instant meanwhile would write the same rows in another order.
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", RECORD_LOCK, tenant_id)
        await connection.execute(_FILL, tenant_id, first, last - 1, end, list(WAIT_BOUNDS))
        await _fill_clusters(connection, tenant_id, first, last - 1)


async def _fill_clusters(connection: Connection, tenant_id: int, first: int, last: int) -> None:
    clusters: list[tuple[UUID, int | None]] = await fleet_capacities(connection, tenant_id)
    await connection.execute(
        _FILL_CLUSTERS,
        tenant_id,
        first,
        last,
        [cluster_id for cluster_id, _ in clusters],
        [gpu for _, gpu in clusters],
    )
