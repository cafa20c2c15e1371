"""Accounts what workloads used, a bounded piece at a time, up to where their cluster's steps are settled.

A cluster's steps are complete up to its last contact; some minutes before it they are settled as well, since by
then the samples have come and it is known which GPUs fell idle. Only that far is accounted, so hardly
anything ever has to be accounted again; what does comes late is marked by a trigger or by its deletion.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from watchbill.accounting import (
    MAX_SAMPLE_SPAN_MS,
    SUMS,
    UsageHistory,
    UsageKey,
    UsageStep,
    UsageSums,
    UtilizationSample,
    account,
)
from watchbill.store.metrics.measured import SEPARATOR
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.workload import Phase

SETTLED_AFTER = timedelta(minutes=10)
PIECE = timedelta(days=1)
"""The longest time of one workload that is accounted at once; what lies behind follows in the next pass."""
BATCH = 500
MAX_DAY_SUM = 9 * 10**18
"""Of one workload's day: more than 100,000 GPUs have, and what a column holds; an agent may claim more."""
_LOCK = 0x777573  # any number that only this uses
_UTILIZATION = f"GPU_UTILIZATION{SEPARATOR}%"
_SAMPLE_SPAN = timedelta(milliseconds=MAX_SAMPLE_SPAN_MS)

_DUE = """
SELECT w.id, w.deleted_at, s.until, s.rewind_at FROM workload w
LEFT JOIN usage_state s ON s.tenant_id = w.tenant_id AND s.workload_id = w.id
WHERE w.tenant_id = $1 AND w.cluster_id = $2 AND w.id > $4 AND (
    w.deleted_at IS NULL AND (s.until IS NULL OR s.until < $3)
    OR w.deleted_at IS NOT NULL AND (s.until IS NULL OR s.until <> least(w.deleted_at, $3))
    AND w.updated_at >= $5
    OR s.rewind_at IS NOT NULL)
ORDER BY w.id LIMIT $6
"""
_STEPS = """
SELECT u.* FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
CROSS JOIN LATERAL (SELECT * FROM usage_step u WHERE u.tenant_id = $1 AND u.workload_id = n.id
    AND u.at < n.stop AND u.at >= coalesce((SELECT max(at) FROM usage_step
    WHERE tenant_id = $1 AND workload_id = n.id AND at <= n.start), n.start)) AS u
ORDER BY u.workload_id, u.at
"""
_PHASES = """
SELECT n.id AS workload_id, t.at, t.phase
FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
CROSS JOIN LATERAL (SELECT at, phase, number FROM phase_transition t WHERE t.tenant_id = $1
    AND t.workload_id = n.id AND t.at < n.stop AND t.number >= coalesce((SELECT max(number)
    FROM phase_transition WHERE tenant_id = $1 AND workload_id = n.id AND at <= n.start), 0)) AS t
ORDER BY n.id, t.number
"""
_SAMPLES = """
SELECT n.id AS workload_id, m.at, (SELECT avg(v.value) FROM unnest(l.series, m."values") AS v(series, value)
    WHERE v.series LIKE $5) AS utilization
FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
JOIN measured_sample m ON m.tenant_id = $1 AND m.workload_id = n.id
    AND m.at > n.start - $6::interval AND m.at <= n.stop + $6::interval
JOIN measured_layout l ON l.tenant_id = m.tenant_id AND l.id = m.layout
WHERE EXISTS (SELECT 1 FROM unnest(l.series) AS s WHERE s LIKE $5) ORDER BY n.id, m.at
"""
_KEEP_DIMENSIONS = """
INSERT INTO usage_workload AS u (tenant_id, workload_id, cluster_id, name, namespace, type, category,
    submitted_by, priority_class_name, node_pool)
SELECT tenant_id, id, cluster_id, name, namespace, type, category, submitted_by, priority_class_name,
    array_to_string(coalesce(gpu_node_pools, current_node_pools, requested_node_pools), ', ')
FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])
ON CONFLICT (tenant_id, workload_id) DO UPDATE SET cluster_id = excluded.cluster_id, name = excluded.name,
    namespace = excluded.namespace, type = excluded.type, category = excluded.category,
    submitted_by = excluded.submitted_by, priority_class_name = excluded.priority_class_name,
    node_pool = coalesce(excluded.node_pool, u.node_pool)
WHERE (u.name, u.type, u.category, u.submitted_by, u.priority_class_name, u.node_pool) IS DISTINCT FROM
    (excluded.name, excluded.type, excluded.category, excluded.submitted_by, excluded.priority_class_name,
    coalesce(excluded.node_pool, u.node_pool))
"""
_ADD = (
    "INSERT INTO usage_day AS d "
    f"(tenant_id, cluster_id, workload_id, day, project_id, department_id, {', '.join(SUMS)}) "
    "SELECT $1, $2, n.* FROM unnest($3::uuid[], $4::date[], $5::int[], $6::int[], "
    + ", ".join(f"${number}::bigint[]" for number in range(7, 7 + len(SUMS)))
    + ") AS n ON CONFLICT (tenant_id, workload_id, day, project_id, department_id) DO UPDATE SET "
    + ", ".join(
        f"{name} = least(d.{name}::numeric + excluded.{name}, {MAX_DAY_SUM})::bigint"
        for name in SUMS
    )
)
_ADVANCE = (
    "INSERT INTO usage_state AS s (tenant_id, workload_id, until) "
    "SELECT $1, n.* FROM unnest($2::uuid[], $3::timestamptz[]) AS n "
    "ON CONFLICT (tenant_id, workload_id) DO UPDATE SET until = excluded.until, rewind_at = NULL"
)


@dataclass(frozen=True, slots=True)
class _Due:
    """A workload and the time that is to be accounted next. `start` None = from its first step on."""

    id: UUID
    start: datetime | None
    end: datetime
    is_rewound: bool


async def usage_account(db: Database, tenant_id: int, now: datetime) -> int:
    """Account all that is settled, cluster by cluster. Returns how many pieces there were.

    Raises ExceptionGroup where clusters failed, once the others are accounted.
    """
    async with db.acquire(tenant_id) as connection:
        clusters = await connection.fetch(
            "SELECT id, last_contact_at FROM cluster "
            "WHERE tenant_id = $1 AND last_contact_at IS NOT NULL",
            tenant_id,
        )
        last = await connection.fetchval(
            "SELECT last_at FROM upkeep WHERE task = $1", f"usage {tenant_id}"
        )
    since = datetime(1970, 1, 1, tzinfo=UTC) if last is None else last - PIECE
    pieces = 0
    failures: list[Exception] = []
    for cluster in clusters:
        horizon = min(cluster["last_contact_at"], now) - SETTLED_AFTER
        try:
            while done := await _pass(db, tenant_id, cluster["id"], horizon, since):
                pieces += done
        except Exception as error:
            error.add_note(f"cluster {cluster['id']}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"the usage of {len(failures)} clusters was not accounted", failures)
    async with db.acquire(tenant_id) as connection:
        await connection.execute(
            "INSERT INTO upkeep VALUES ($1, $2) ON CONFLICT (task) DO UPDATE SET last_at = $2",
            f"usage {tenant_id}",
            now,
        )
    return pieces


async def _pass(
    db: Database, tenant_id: int, cluster_id: UUID, horizon: datetime, since: datetime
) -> int:
    """A piece of every workload of a cluster that is due. Returns how many moved on."""
    after, moved = UUID(int=0), 0
    while True:
        async with db.transaction(tenant_id) as connection:
            if not await connection.fetchval(
                "SELECT pg_try_advisory_xact_lock($1, $2)", _LOCK, tenant_id
            ):
                return 0
            rows = await connection.fetch(_DUE, tenant_id, cluster_id, horizon, after, since, BATCH)
            if rows:
                after = rows[-1]["id"]
                moved += await _account(connection, tenant_id, cluster_id, rows, horizon)
        if len(rows) < BATCH:
            return moved


async def _account(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    rows: Sequence[Row],
    horizon: datetime,
) -> int:
    firsts = {
        row["workload_id"]: row["at"]
        for row in await connection.fetch(
            "SELECT workload_id, min(at) AS at FROM usage_step "
            "WHERE tenant_id = $1 AND workload_id = ANY($2::uuid[]) GROUP BY 1",
            tenant_id,
            [row["id"] for row in rows],
        )
    }
    due = [piece for row in rows if (piece := _due(row, firsts.get(row["id"]), horizon))]
    rewound = [(piece.id, piece.start) for piece in due if piece.is_rewound]
    if rewound:
        await connection.execute(
            "DELETE FROM usage_day d USING unnest($2::uuid[], $3::timestamptz[]) AS n(id, start) "
            "WHERE d.tenant_id = $1 AND d.workload_id = n.id "
            "AND d.day >= (n.start AT TIME ZONE 'UTC')::date",
            tenant_id,
            *map(list, zip(*rewound, strict=True)),
        )
    ready = [piece for piece in due if piece.start is not None and piece.start < piece.end]
    if ready:
        histories = await _histories(connection, tenant_id, cluster_id, ready)
        await _add(
            connection,
            tenant_id,
            cluster_id,
            [
                (id_, key, sums)
                for id_, history in histories.items()
                for key, sums in account(history).items()
            ],
        )
    if due:
        await connection.execute(
            _ADVANCE,
            tenant_id,
            [piece.id for piece in due],
            [piece.end if piece.start is None else max(piece.start, piece.end) for piece in due],
        )
    return len(due)


def _due(row: Row, first: datetime | None, horizon: datetime) -> _Due | None:
    """The next piece; None where there is nothing to account yet."""
    stop = horizon if row["deleted_at"] is None else min(row["deleted_at"], horizon)
    if first is None:
        return None
    until: datetime = row["until"] or first
    rewind = min(filter(None, (row["rewind_at"], stop if until > stop else None)), default=None)
    if rewind is not None and row["until"] is not None:
        start = max(
            first, rewind.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        )
        return _Due(row["id"], start, max(start, min(stop, start + PIECE)), True)
    if until >= stop:
        return None
    return _Due(row["id"], until, min(stop, until + PIECE), False)


async def _histories(
    connection: Connection, tenant_id: int, cluster_id: UUID, due: Sequence[_Due]
) -> dict[UUID, UsageHistory]:
    starts = {piece.id: piece.start or piece.end for piece in due}
    spans = (list(starts), list(starts.values()), [piece.end for piece in due])
    steps: defaultdict[UUID, list[UsageStep]] = defaultdict(list)
    for row in await connection.fetch(_STEPS, tenant_id, *spans):
        steps[row["workload_id"]].append(_step(row))
    phases: defaultdict[UUID, list[tuple[datetime, Phase]]] = defaultdict(list)
    for row in await connection.fetch(_PHASES, tenant_id, *spans):
        phases[row["workload_id"]].append((row["at"], Phase(row["phase"])))
    samples: defaultdict[UUID, list[UtilizationSample]] = defaultdict(list)
    for row in await connection.fetch(_SAMPLES, tenant_id, *spans, _UTILIZATION, _SAMPLE_SPAN):
        samples[row["workload_id"]].append(UtilizationSample(row["at"], row["utilization"] / 100))
    gaps = [
        (row["from_at"], row["to_at"])
        for row in await connection.fetch(
            "SELECT from_at, to_at FROM cluster_gap WHERE tenant_id = $1 AND cluster_id = $2 "
            "AND to_at > $3",
            tenant_id,
            cluster_id,
            min(starts.values()),
        )
    ]
    return {
        piece.id: UsageHistory(
            start=starts[piece.id],
            end=piece.end,
            steps=steps[piece.id],
            phases=phases[piece.id],
            gaps=gaps,
            samples=samples[piece.id],
        )
        for piece in due
    }


def _step(row: Row) -> UsageStep:
    return UsageStep(**{name: row[name] for name in _STEP_FIELDS})


_STEP_FIELDS = UsageStep.__dataclass_fields__


async def _add(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    entries: Sequence[tuple[UUID, UsageKey, UsageSums]],
) -> None:
    rows = [
        (id_, *key, *(_bounded(getattr(sums, name)) for name in SUMS)) for id_, key, sums in entries
    ]
    if rows:
        await connection.execute(
            _KEEP_DIMENSIONS, tenant_id, sorted({id_ for id_, _, _ in entries})
        )
        await connection.execute(_ADD, tenant_id, cluster_id, *map(list, zip(*rows, strict=True)))


def _bounded(amount: int) -> int:
    return max(-MAX_DAY_SUM, min(amount, MAX_DAY_SUM))


async def usage_rebuild(db: Database, tenant_id: int) -> int:
    """Forget the accounts of workloads whose steps are still there; the next rounds make them anew.

    Accounts of workloads that are gone altogether stay. Returns how many workloads are to be accounted.
    """
    async with db.transaction(tenant_id) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCK, tenant_id)
        known = "SELECT DISTINCT workload_id FROM usage_step WHERE tenant_id = $1"
        await connection.execute(
            f"DELETE FROM usage_day WHERE tenant_id = $1 AND workload_id IN ({known})", tenant_id
        )
        await connection.execute(
            "UPDATE upkeep SET last_at = '1970-01-02Z' WHERE task = $1", f"usage {tenant_id}"
        )
        rows = await connection.fetch(
            f"DELETE FROM usage_state WHERE tenant_id = $1 AND workload_id IN ({known}) "
            "RETURNING workload_id",
            tenant_id,
        )
    return len(rows)


async def usage_purge(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Forget days that ended before `now - keep`. Returns how many rows were removed."""
    async with db.transaction(tenant_id) as connection:
        removed = await connection.fetch(
            "DELETE FROM usage_day WHERE tenant_id = $1 AND day < $2 RETURNING 1",
            tenant_id,
            (now - keep).astimezone(UTC).date(),
        )
        await connection.execute(
            "DELETE FROM usage_workload u WHERE tenant_id = $1 AND NOT EXISTS (SELECT 1 "
            "FROM usage_day d WHERE d.tenant_id = $1 AND d.workload_id = u.workload_id) "
            "AND NOT EXISTS (SELECT 1 FROM workload w WHERE w.tenant_id = $1 AND w.id = u.workload_id)",
            tenant_id,
        )
    return len(removed)
