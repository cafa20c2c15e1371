"""The fleet's headline figures: now, from the tally, and every five minutes, as recorded.

Both are summed within the caller's scope; the series is kept by project, so a scope is a condition like any
other. Every server tries to record, at every instant; the one that gets the instant's lock writes. A cluster of
many projects is counted less often, and what was counted last stands until it is counted again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec

from watchbill.protocol import NodePoolCapacity
from watchbill.query import Scope
from watchbill.responses.fleet import FleetGpus, FleetMoment, FleetPending
from watchbill.store.organisation.series import COUNTED_AT, quota_record
from watchbill.store.postgres.database import Connection, Database, Row, allow_seconds
from watchbill.store.workloads.select import (
    CLUSTER_JOIN,
    IN_PHASE_SECONDS,
    LIVE,
    TALLY,
    Statement,
    in_scope,
)
from watchbill.workload import GPU_MILLIONTHS, Phase, gpu_millionths

DAY = timedelta(days=1)
PHASES = {f"phase_{phase.value.lower()}": phase.value for phase in Phase}
"""A column and the phase that it counts."""

WAIT_BOUNDS: tuple[float, ...] = tuple(math.sqrt(2.0) ** step for step in range(47))
"""Seconds, from one to some ninety days, each √2 times the one before: a median read from counts between
them is off by a fifth at most."""


COUNTS = {
    "allocated_gpu": "coalesce(sum(w.allocated_gpu), 0)::bigint",
    "measured_gpu": "coalesce(sum(w.measured_gpu), 0)::bigint",
    "idle_gpu": "coalesce(sum(w.idle_gpu), 0)::bigint",
    **{
        column: f"coalesce(sum(w.workloads) FILTER (WHERE w.phase = '{phase}'), 0)::int"
        for column, phase in PHASES.items()
    },
}
"""A column of the series and how it is counted over the tally of live workloads."""
HOST = {
    name: f"CASE WHEN sum(w.unknown_host) = 0 THEN sum(w.{name}) END"
    for name in ("allocated_cpu", "allocated_memory")
}
"""The same of CPU and memory, for the series of one project: NULL where a part is not known."""

SUMS = {column: f"sum(w.{column})::bigint" for column in (*COUNTS, "failed_in_day")}
"""The same over rows of the series."""

PENDING = f"workload w {CLUSTER_JOIN} WHERE {LIVE} AND w.phase = 'Pending'"
MEDIAN_PENDING = (
    f"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY {IN_PHASE_SECONDS}) FROM {PENDING}"
)
FAILED = (
    "((w.deleted_at IS NULL AND w.phase IN ('Failed', 'Deleting', 'Terminating') "
    "AND w.resting_phase = 'Failed' AND w.resting_phase_at >= {0}) "
    "OR (w.deleted_at >= {0} AND w.phase = 'Failed' AND w.phase_updated_at >= {0}))"
)
"""{0}: since when. Each half has an index; who failed lately and is gone was deleted lately too."""


def fleet_figures(
    at: datetime, row: Mapping[str, Any], *, total: float | None, median: float | None
) -> FleetMoment:
    """From one row of sums, under the names of `SUMS`."""
    phases = {phase: int(row[column]) for column, phase in PHASES.items() if row[column]}
    allocated, measured = row["allocated_gpu"], row["measured_gpu"]
    return FleetMoment(
        at=at,
        workloads=sum(phases.values()),
        phases=phases,
        gpus=FleetGpus(
            allocated=allocated / GPU_MILLIONTHS,
            measured=measured / GPU_MILLIONTHS,
            idle=None if allocated and not measured else row["idle_gpu"] / GPU_MILLIONTHS,
            total=total,
        ),
        pending=FleetPending(
            count=phases.get(Phase.PENDING, 0),
            median_wait_seconds=None if median is None else int(median),
        ),
        failed_in_last_day=int(row["failed_in_day"]),
    )


def capacity(node_pools: bytes | None) -> int | None:
    """GPU millionths of a cluster that new pods can have; None where its agent has not reported or does not
    know.

    One that has only begun tells of no node pool at all, as no cluster is.
    """
    try:
        pools = msgspec.json.decode(node_pools or b"[]", type=tuple[NodePoolCapacity, ...])
    except msgspec.ValidationError:  # reported before today's bounds
        return None
    gpus = [pool.gpus for pool in pools]
    if not gpus or None in gpus:
        return None
    return sum(gpu_millionths(count) for count in gpus if count is not None)


def median_of(counts: Mapping[int, int]) -> float | None:
    """The median of what was counted between `WAIT_BOUNDS`; bucket 0 lies below the first of them."""
    half: float = sum(counts.values()) / 2
    bounds: tuple[float, ...] = (0.0, *WAIT_BOUNDS, WAIT_BOUNDS[-1] * 2)
    passed = 0
    for bucket, (low, high) in enumerate(pairwise(bounds)):
        count = counts.get(bucket, 0)
        if count and passed + count >= half:
            return low + (high - low) * (half - passed) / count
        passed += count
    return None


def buckets_by_instant(rows: Iterable[Row]) -> dict[datetime, dict[int, int]]:
    buckets: dict[datetime, dict[int, int]] = {}
    for row in rows:
        buckets.setdefault(row["at"], {})[row["bucket"]] = row["count"]
    return buckets


STEP_SECONDS = 300
KEPT = timedelta(days=30)
MAX_POINTS = 300
ROWS_PER_INSTANT = 1_000
"""Of one cluster: where there are more, it is counted at every second instant, every third one …"""
LONGEST_STEP = timedelta(days=1)
AT_INSTANTS = (
    "fleet_cluster c JOIN fleet_project w ON w.tenant_id = c.tenant_id "
    f"AND w.at = {COUNTED_AT} AND w.cluster_id = c.cluster_id"
)
"""The rows of projects that count at an instant `c.at`."""
WRITE_TIMEOUT_SECONDS = 60
RECORD_LOCK = 0x77666C  # any number that only the fleet's series uses


@dataclass(frozen=True, slots=True)
class FleetSeries:
    """`moments` lie on multiples of the step; one that nobody recorded is absent."""

    step_seconds: int
    moments: list[FleetMoment]


def last_instant(now: datetime) -> datetime:
    """The newest instant of the series that has come."""
    return datetime.fromtimestamp(now.timestamp() // STEP_SECONDS * STEP_SECONDS, UTC)


def instants(start: datetime, end: datetime) -> tuple[int, list[datetime]]:
    """The step and its multiples in [start, end], never more than `MAX_POINTS` nor closer than recorded."""
    wanted = (end - start).total_seconds() / STEP_SECONDS / MAX_POINTS
    step = STEP_SECONDS * max(1, math.ceil(wanted))
    first, last = math.ceil(start.timestamp() / step), math.floor(end.timestamp() / step)
    return step, [datetime.fromtimestamp(number * step, UTC) for number in range(first, last + 1)]


async def fleet_now(db: Database, scope: Scope, now: datetime) -> FleetMoment:
    counted = Statement(now)
    in_scope(counted, scope)
    failed = Statement(now)
    in_scope(failed, scope)
    failed.conditions.append(FAILED.format(failed.bind(now - DAY, "::timestamptz")))
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            f"SELECT {_columns(COUNTS)} FROM {TALLY} w WHERE {counted.where}",
            *counted.parameters,
        )
        failures = await connection.fetchval(
            f"SELECT count(*) FROM workload w WHERE {failed.where}", *failed.parameters
        )
        median = await connection.fetchval(
            f"{MEDIAN_PENDING} AND {counted.where}",
            *counted.parameters,
        )
        clusters = await fleet_capacities(connection, scope.tenant_id)
    seen = [gpu for id_, gpu in clusters if scope.is_whole_tenant or id_ in scope.cluster_ids]
    is_known = _sees_whole_clusters(scope) and None not in seen
    return fleet_figures(
        now,
        {**dict(row or {}), "failed_in_day": failures},
        total=sum(gpu or 0 for gpu in seen) / GPU_MILLIONTHS if is_known else None,
        median=median,
    )


def _sees_whole_clusters(scope: Scope) -> bool:
    """What a cluster could hold is no measure for a part of it."""
    return scope.is_whole_tenant or not (scope.department_ids or scope.project_ids)


async def fleet_capacities(connection: Connection, tenant_id: int) -> list[tuple[UUID, int | None]]:
    """Clusters that ever made contact, with the GPUs they have."""
    rows = await connection.fetch(
        "SELECT id, node_pools FROM cluster WHERE tenant_id = $1 AND removed_at IS NULL "
        "AND last_contact_at IS NOT NULL",
        tenant_id,
    )
    return [(row["id"], capacity(row["node_pools"])) for row in rows]


async def fleet_series(
    db: Database, scope: Scope, *, start: datetime, end: datetime, now: datetime
) -> FleetSeries:
    """What was recorded in [start, end], thinned out to at most `MAX_POINTS` instants."""
    step, wanted = instants(max(start, now - KEPT), min(end, now))
    summed = Statement(now)
    in_scope(summed, scope)
    summed.conditions.append(f"c.at = ANY({summed.bind(wanted, '::timestamptz[]')})")
    async with db.acquire(scope.tenant_id) as connection:
        recorded = await _recorded(connection, scope, wanted)
        rows = await connection.fetch(
            f"SELECT c.at, {_columns(SUMS)} FROM {AT_INSTANTS} WHERE {summed.where} GROUP BY c.at",
            *summed.parameters,
        )
        waits = await connection.fetch(
            f"SELECT c.at, n.bucket, sum(n.count)::bigint AS count FROM {AT_INSTANTS}, "
            f"unnest(w.wait_buckets, w.wait_counts) AS n(bucket, count) WHERE {summed.where} "
            "GROUP BY 1, 2",
            *summed.parameters,
        )
    sums = {row["at"]: dict(row) for row in rows}
    buckets = buckets_by_instant(waits)
    return FleetSeries(
        step,
        [
            fleet_figures(
                at,
                sums.get(at, dict.fromkeys(SUMS, 0)),
                total=total if _sees_whole_clusters(scope) else None,
                median=median_of(buckets.get(at, {})),
            )
            for at, total in sorted(recorded.items())
        ],
    )


async def _recorded(
    connection: Connection, scope: Scope, wanted: Sequence[datetime]
) -> dict[datetime, float | None]:
    """The instants that were recorded, each with the GPUs of the clusters seen as a whole."""
    rows = await connection.fetch(
        "SELECT at, sum(gpu) FILTER (WHERE $3 OR cluster_id = ANY($4::uuid[])) AS gpu, "
        "bool_or(gpu IS NULL) FILTER (WHERE $3 OR cluster_id = ANY($4::uuid[])) AS is_unknown "
        "FROM fleet_cluster WHERE tenant_id = $1 AND at = ANY($2::timestamptz[]) GROUP BY at",
        scope.tenant_id,
        wanted,
        scope.is_whole_tenant,
        list(scope.cluster_ids),
    )
    return {
        row["at"]: None if row["is_unknown"] else float((row["gpu"] or 0) / GPU_MILLIONTHS)
        for row in rows
    }


async def fleet_record(db: Database, tenant_id: int, at: datetime) -> bool:
    """Keep the figures of one instant, and forget those that are too old. False = another server did, or
    there is no cluster to tell of."""
    async with db.transaction(tenant_id) as connection:
        await allow_seconds(connection, WRITE_TIMEOUT_SECONDS)
        is_ours = await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock($1, $2)", RECORD_LOCK, tenant_id
        )
        is_kept = is_ours and await connection.fetchval(
            "SELECT EXISTS (SELECT 1 FROM fleet_cluster WHERE tenant_id = $1 AND at = $2)",
            tenant_id,
            at,
        )
        clusters = await fleet_capacities(connection, tenant_id) if is_ours and not is_kept else []
        if not clusters:
            return False
        counted_at = await _standing_counts(connection, tenant_id, at)
        due = [cluster_id for cluster_id, _ in clusters if cluster_id not in counted_at]
        await connection.execute(_RECORD, at, tenant_id, at - DAY, list(WAIT_BOUNDS), due)
        await connection.execute(
            _RECORD_CLUSTERS,
            tenant_id,
            at,
            [cluster_id for cluster_id, _ in clusters],
            [gpu for _, gpu in clusters],
            [counted_at.get(cluster_id) for cluster_id, _ in clusters],
        )
        await quota_record(connection, tenant_id, at, kept=KEPT)
        for table, kept in (("fleet_cluster", KEPT), ("fleet_project", KEPT + LONGEST_STEP)):
            await connection.execute(
                f"DELETE FROM {table} WHERE tenant_id = $1 "
                "AND at < least($2, clock_timestamp()) - $3::interval",
                tenant_id,
                at,
                kept,
            )
    return True


async def _standing_counts(
    connection: Connection, tenant_id: int, at: datetime
) -> dict[UUID, datetime]:
    """Clusters that need not be counted at this instant, and the instants at which they were."""
    rows = await connection.fetch(
        "SELECT cluster_id, coalesce(counted_at, at) AS counted_at, project_rows FROM fleet_cluster "
        "WHERE tenant_id = $1 AND at = $2 AND project_rows > $3",
        tenant_id,
        at - timedelta(seconds=STEP_SECONDS),
        ROWS_PER_INSTANT,
    )
    return {
        row["cluster_id"]: row["counted_at"]
        for row in rows
        if at - row["counted_at"] < _step_of(row["project_rows"])
    }


def _step_of(project_rows: int) -> timedelta:
    instants_apart = math.ceil(project_rows / ROWS_PER_INSTANT)
    return min(timedelta(seconds=STEP_SECONDS * instants_apart), LONGEST_STEP)


_RECORD_CLUSTERS = (
    "INSERT INTO fleet_cluster (tenant_id, at, cluster_id, gpu, counted_at, project_rows) "
    "SELECT $1, $2, n.id, n.gpu, n.counted_at, (SELECT count(*) FROM fleet_project w "
    "WHERE w.tenant_id = $1 AND w.cluster_id = n.id "
    "AND w.at = CASE WHEN n.counted_at IS NULL THEN $2 ELSE n.counted_at END) "  # as `COUNTED_AT`
    "FROM unnest($3::uuid[], $4::bigint[], $5::timestamptz[]) AS n(id, gpu, counted_at)"
)


def _columns(figures: dict[str, str]) -> str:
    return ", ".join(f"{sql} AS {column}" for column, sql in figures.items())


_KEY = "w.cluster_id, w.project_id, coalesce(w.department_id, 0)"
_RECORD = (
    f"WITH live AS (SELECT {_KEY} AS department_id, {_columns(COUNTS | HOST)} FROM {TALLY} w "
    "WHERE w.tenant_id = $2 AND w.cluster_id = ANY($5::uuid[]) "
    "GROUP BY 1, 2, 3 HAVING sum(w.workloads) > 0), "
    f"failed AS (SELECT {_KEY} AS department_id, count(*)::int AS failed_in_day FROM workload w "
    f"WHERE w.tenant_id = $2 AND w.cluster_id = ANY($5::uuid[]) "
    f"AND {FAILED.format('$3::timestamptz')} GROUP BY 1, 2, 3), "
    f"waits AS (SELECT {_KEY} AS department_id, width_bucket({IN_PHASE_SECONDS}, $4::float8[]) AS bucket, "
    f"count(*)::int AS count FROM {PENDING} AND w.tenant_id = $2 "
    "AND w.cluster_id = ANY($5::uuid[]) GROUP BY 1, 2, 3, 4), "
    "waiting AS (SELECT cluster_id, project_id, department_id, array_agg(bucket ORDER BY bucket) "
    "AS wait_buckets, array_agg(count ORDER BY bucket) AS wait_counts FROM waits GROUP BY 1, 2, 3) "
    f"INSERT INTO fleet_project (tenant_id, at, cluster_id, project_id, department_id, "
    f"{', '.join(COUNTS)}, {', '.join(HOST)}, failed_in_day, wait_buckets, wait_counts) "
    "SELECT $2, $1, cluster_id, project_id, department_id, "
    f"{', '.join(f'coalesce({column}, 0)' for column in COUNTS)}, "
    f"{', '.join(f'CASE WHEN phase_running IS NULL THEN 0 ELSE {column} END' for column in HOST)}, "
    "coalesce(failed_in_day, 0), "
    "wait_buckets, wait_counts FROM live "
    "FULL JOIN failed USING (cluster_id, project_id, department_id) "
    "LEFT JOIN waiting USING (cluster_id, project_id, department_id)"
)
