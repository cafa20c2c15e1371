"""Accounts what workloads used, a bounded piece at a time, up to where their cluster's steps are settled.

A cluster's steps are complete up to its last contact; some minutes before it they are settled as well, since by
then the samples have come and it is known which GPUs fell idle. Only that far is accounted, so hardly
anything ever has to be accounted again; what does comes late is marked by a trigger or by its deletion.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import TypeVar
from uuid import UUID

import msgspec

from watchbill.accounting import (
    MAX_SAMPLE_SPAN_MS,
    SUMS,
    UsageHistory,
    UsageKey,
    UsageStep,
    UsageSums,
    UtilizationSample,
    account_usage,
)
from watchbill.background import TimeSlice
from watchbill.store.metrics.measured import OF_WORKLOAD, SEPARATOR
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.usage.day_limits import within_limits
from watchbill.store.usage.rounds import ACCOUNTING_LOCK, usage_finish, usage_last_round
from watchbill.store.workloads.usage_steps import UsageAttributes, attributes_purge
from watchbill.workload import Phase

SETTLED_AFTER = timedelta(minutes=10)
PIECE = timedelta(days=1)
"""The longest time of one workload that is accounted at once; what lies behind follows in the next pass."""
BATCH_ROWS = 500
STEP_ROWS = 50_000
"""Steps, phases and samples, each, that are read at once: an agent that was taken over tells millions."""
_SHORTEST = timedelta(milliseconds=1)
MAX_DAY_SUM = 9 * 10**18
"""Of one workload's day: more than 100,000 GPUs have, and what a column holds; an agent may claim more."""
FROM_THE_FIRST = UUID(int=0)
"""Below every workload's id."""
NOTHING: Mapping[UUID, "ClusterAccount"] = MappingProxyType({})
_T = TypeVar("_T")
_UTILIZATION = f"GPU_UTILIZATION{SEPARATOR}%"
_SAMPLE_SPAN = timedelta(milliseconds=MAX_SAMPLE_SPAN_MS)

_DUE = """
SELECT w.id, CASE WHEN w.deleted_at IS NOT NULL THEN least(w.deleted_at, w.updated_at) END AS ended_at,
    s.until, s.rewind_at, s.xmin::text AS state_version FROM workload w
LEFT JOIN usage_state s ON s.tenant_id = w.tenant_id AND s.workload_id = w.id
WHERE w.tenant_id = $1 AND w.cluster_id = $2 AND w.id > $4 AND (
    w.deleted_at IS NULL AND (s.until IS NULL OR s.until < $3)
    OR w.deleted_at IS NOT NULL AND (s.until IS NULL OR s.until < least(w.deleted_at, w.updated_at, $3)
        OR s.until > least(w.deleted_at, w.updated_at)) AND w.updated_at >= $5
    OR s.rewind_at IS NOT NULL)
ORDER BY w.id LIMIT $6
"""
"""A workload ended when its deletion was reported at the latest: an agent's clock may be ahead."""
_SETTLED = """
SELECT c.id, least(least(c.last_contact_at, $2::timestamptz) - $3::interval, (SELECT min(g.from_at)
    FROM cluster_gap g WHERE g.tenant_id = $1 AND g.cluster_id = c.id AND g.is_silence
    AND g.to_at > least(c.last_contact_at, $2) - $3::interval)) AS horizon
FROM cluster c WHERE c.tenant_id = $1 AND c.last_contact_at IS NOT NULL
"""
"""A silence is settled some minutes after its end, too: its agent may still tell what it observed meanwhile."""
_LOOK_SINCE = """
SELECT least($2, min(from_at) - $3::interval) FROM cluster_gap
WHERE tenant_id = $1 AND is_silence AND to_at > $2
"""
"""Deletions before it were settled in earlier rounds. Those just before a silence were not until it ended."""
_STEPS = """
SELECT u.* FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
CROSS JOIN LATERAL (SELECT * FROM usage_step u WHERE u.tenant_id = $1 AND u.workload_id = n.id
    AND u.at < n.stop AND u.at >= (SELECT coalesce(max(at), n.start) FROM usage_step
    WHERE tenant_id = $1 AND workload_id = n.id AND at <= n.start)
    ORDER BY u.at LIMIT $5) AS u
ORDER BY u.workload_id, u.at LIMIT $5
"""
"""From the step in force at the start on. Around the inner query a coalesce would be no condition on the index,
because of row security, and each round would read all steps of a life."""
_PHASES = """
SELECT n.id AS workload_id, t.at, t.phase
FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
CROSS JOIN LATERAL (SELECT at, phase, number FROM phase_transition t WHERE t.tenant_id = $1
    AND t.workload_id = n.id AND t.at < n.stop AND t.number >= (SELECT coalesce(max(number), 0)
    FROM phase_transition WHERE tenant_id = $1 AND workload_id = n.id AND at <= n.start)
    ORDER BY t.number LIMIT $5) AS t
ORDER BY n.id, t.number LIMIT $5
"""
_SAMPLES = f"""
SELECT n.id AS workload_id, s.at, (SELECT avg(v.value) FROM unnest(l.series, s."values") AS v(series, value)
    WHERE v.series LIKE $6) AS utilization
FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS n(id, start, stop)
JOIN workload w ON w.tenant_id = $1 AND w.id = n.id
JOIN measured_sample s ON s.tenant_id = $1 AND s.workload_id = n.id
    AND s.at > n.start - $7::interval AND s.at <= n.stop + $7::interval AND {OF_WORKLOAD}
JOIN measured_layout l ON l.tenant_id = s.tenant_id AND l.id = s.layout
WHERE EXISTS (SELECT 1 FROM unnest(l.series) AS name WHERE name LIKE $6) ORDER BY n.id, s.at LIMIT $5
"""
_HISTORY: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("steps", _STEPS, ()),
    ("phases", _PHASES, ()),
    ("samples", _SAMPLES, (_UTILIZATION, _SAMPLE_SPAN)),
)
"""What a history is read by, and the parameters of each query behind the limit."""
_KEEP_WORKLOADS = """
INSERT INTO usage_workload AS u (tenant_id, workload_id, cluster_id, name, namespace)
SELECT tenant_id, id, cluster_id, name, namespace FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])
ON CONFLICT (tenant_id, workload_id) DO UPDATE SET cluster_id = excluded.cluster_id, name = excluded.name
WHERE (u.cluster_id, u.name) IS DISTINCT FROM (excluded.cluster_id, excluded.name)
"""
_KEEP_LAST_ATTRIBUTES = """
INSERT INTO usage_attributes AS a (tenant_id, id, type, category, submitted_by, priority_class_name, node_pool,
    used_on)
SELECT tenant_id, id, type, category, submitted_by, priority_class_name,
    array_to_string(coalesce(gpu_node_pools, current_node_pools, requested_node_pools), ', '), current_date
FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])
ON CONFLICT (tenant_id, id) DO UPDATE SET category = excluded.category, submitted_by = excluded.submitted_by,
    priority_class_name = excluded.priority_class_name, node_pool = coalesce(excluded.node_pool, a.node_pool)
"""
"""Under the workload's own id: for steps of a version that kept none, and for those beyond the limit."""
_ADD = (
    "INSERT INTO usage_day AS d "
    f"(tenant_id, cluster_id, workload_id, {', '.join((*UsageKey._fields, *SUMS))}) "
    "SELECT $1, $2, n.* FROM unnest($3::uuid[], $4::date[], $5::int[], $6::int[], $7::text[], $8::uuid[], "
    + ", ".join(f"${number}::bigint[]" for number in range(9, 9 + len(SUMS)))
    + f") AS n ON CONFLICT (tenant_id, workload_id, {', '.join(UsageKey._fields)}) DO UPDATE SET "
    + ", ".join(
        f"{name} = least(d.{name}::numeric + excluded.{name}, {MAX_DAY_SUM})::bigint"
        for name in SUMS
    )
)
_SUMS_OF_DAYS = {"usage_month": "month", "usage_project_month": "month", "usage_cluster_day": "day"}
"""The tables that hold sums of days, whose rows stay as zeros when their days go."""
_ADVANCE = (
    "INSERT INTO usage_state AS s (tenant_id, workload_id, until) "
    "SELECT $1, n.id, n.until FROM unnest($2::uuid[], $3::timestamptz[]) AS n(id, until) "
    "ON CONFLICT (tenant_id, workload_id) DO UPDATE SET until = excluded.until, rewind_at = CASE "
    "WHEN s.xmin::text = ($4::jsonb) ->> s.workload_id::text THEN NULL ELSE s.rewind_at END"
)
"""What was marked since its state was read stays marked: it came too late for what was read of it."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A workload and the time that is to be accounted next. `start` None = from its first step on."""

    id: UUID
    start: datetime | None
    end: datetime
    is_rewound: bool
    state_version: str | None
    """Of how far it is accounted, as it was read."""


@dataclass(slots=True)
class ClusterAccount:
    """The accounting of one cluster, a bounded step at a time. Where a round has no time left for the rest of
    it the next one goes on, up to the same moment: else who has more than fits into a round is never done."""

    tenant_id: int
    cluster_id: UUID
    began_at: datetime
    """When its first round did."""
    horizon: datetime
    since: datetime
    after: UUID = FROM_THE_FIRST
    """The workloads up to this one were looked at in this pass."""
    pieces: int = 0
    is_elsewhere: bool = False
    """Whether another server accounted when it was this one's turn: how far that came is not known here."""
    _moved: int = 0

    async def step(self, db: Database) -> bool:
        """Look at so many workloads, and read so many rows. Returns whether there is more to do."""
        async with db.transaction(self.tenant_id) as connection:
            if not await connection.fetchval(
                "SELECT pg_try_advisory_xact_lock($1, $2)", ACCOUNTING_LOCK, self.tenant_id
            ):
                self.is_elsewhere = True
                return False
            rows = await connection.fetch(
                _DUE,
                self.tenant_id,
                self.cluster_id,
                self.horizon,
                self.after,
                self.since,
                BATCH_ROWS,
            )
            last = await self._account(connection, rows) if rows else self.after
        if rows and (len(rows) == BATCH_ROWS or last != rows[-1]["id"]):
            self.after = last
            return True
        has_moved = self._moved > 0
        self.after, self._moved = FROM_THE_FIRST, 0
        return has_moved

    async def _account(self, connection: Connection, rows: Sequence[Row]) -> UUID:
        """Account a piece of each. Returns the last workload that there was room for."""
        firsts = {
            row["workload_id"]: row["at"]
            for row in await connection.fetch(
                "SELECT n.id AS workload_id, (SELECT min(at) FROM usage_step u "
                "WHERE u.tenant_id = $1 AND u.workload_id = n.id) AS at "
                "FROM unnest($2::uuid[]) AS n(id)",
                self.tenant_id,
                [row["id"] for row in rows],
            )
        }
        due = [piece for row in rows if (piece := _due(row, firsts[row["id"]], self.horizon))]
        ready = [piece for piece in due if piece.start is not None and piece.start < piece.end]
        histories = await _histories(connection, self.tenant_id, self.cluster_id, ready)
        last: UUID = rows[-1]["id"]
        if len(histories) < len(ready):
            last = ready[len(histories) - 1].id
        done = [
            replace(piece, end=histories[piece.id].end) if piece.id in histories else piece
            for piece in due
            if piece.id <= last
        ]
        await _store(connection, self.tenant_id, self.cluster_id, done, histories)
        self._moved += len(done)
        self.pieces += len(done)
        return last


async def usage_begin(
    db: Database,
    tenant_id: int,
    now: datetime,
    last: datetime | None,
    begun: Mapping[UUID, ClusterAccount] = NOTHING,
) -> list[ClusterAccount]:
    """What a round has to do, by cluster. `last`: the round before, which a clock that was set back since may
    have put into the future. `begun`: by cluster, what a round before had no time to finish; of no use any more
    where another server has finished one since."""
    async with db.acquire(tenant_id) as connection:
        clusters = await connection.fetch(_SETTLED, tenant_id, now, SETTLED_AFTER)
        since = datetime(1970, 1, 1, tzinfo=UTC)
        if last is not None:
            last = min(last, now)
            since = await connection.fetchval(_LOOK_SINCE, tenant_id, last - PIECE, SETTLED_AFTER)
    accounts = []
    for cluster in clusters:
        account = begun.get(cluster["id"])
        if account is None or (last is not None and account.began_at < last):
            account = ClusterAccount(
                tenant_id=tenant_id,
                cluster_id=cluster["id"],
                began_at=now,
                horizon=cluster["horizon"],
                since=since,
            )
        account.horizon = min(account.horizon, cluster["horizon"])
        account.since = min(account.since, since)
        accounts.append(account)
    return accounts


async def usage_account(db: Database, tenant_id: int, now: datetime) -> int:
    """Account all that is settled, cluster by cluster. Returns how many pieces there were.

    Raises ExceptionGroup where clusters failed, once the others are accounted.
    """
    last = await usage_last_round(db, tenant_id)
    accounts = await usage_begin(db, tenant_id, now, last)
    failures: list[Exception] = []
    for cluster in accounts:
        try:
            while await cluster.step(db):
                pass
        except Exception as error:
            error.add_note(f"cluster {cluster.cluster_id}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"the usage of {len(failures)} clusters was not accounted", failures)
    if not any(cluster.is_elsewhere for cluster in accounts):
        await usage_finish(db, tenant_id, now, last)
    return sum(cluster.pieces for cluster in accounts)


async def _store(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    done: Sequence[_Due],
    histories: Mapping[UUID, UsageHistory],
) -> None:
    rewound = [(piece.id, piece.start) for piece in done if piece.is_rewound]
    if rewound:
        await connection.execute(
            "DELETE FROM usage_day d USING unnest($2::uuid[], $3::timestamptz[]) AS n(id, start) "
            "WHERE d.tenant_id = $1 AND d.workload_id = n.id "
            "AND d.day >= (n.start AT TIME ZONE 'UTC')::date",
            tenant_id,
            *map(list, zip(*rewound, strict=True)),
        )
    work = TimeSlice(is_in_no_hurry=True)
    entries: list[tuple[UUID, UsageKey, UsageSums]] = []
    for id_, history in histories.items():
        entries += [(id_, key, sums) for key, sums in account_usage(history).items()]
        await work.rest()
    await _add(connection, tenant_id, cluster_id, entries)
    if done:
        await connection.execute(
            _ADVANCE,
            tenant_id,
            [piece.id for piece in done],
            [piece.end for piece in done],
            msgspec.json.encode({str(piece.id): piece.state_version for piece in done}).decode(),
        )


def _due(row: Row, first: datetime | None, horizon: datetime) -> _Due | None:
    """The next piece; None where there is nothing to account yet."""
    ended: datetime | None = row["ended_at"]
    stop = horizon if ended is None else min(ended, horizon)
    if first is None:
        return None
    until: datetime = row["until"] or first
    too_late = ended if ended is not None and until > ended else None
    rewind = min(filter(None, (row["rewind_at"], too_late)), default=None)
    if rewind is not None and row["until"] is not None:
        start = max(
            first, rewind.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        )
        # Before all that is known of it there is nothing to account, and nothing comes back.
        stop = stop if stop == ended else max(start, stop)
        return _Due(row["id"], start, min(stop, start + PIECE), True, row["state_version"])
    if until >= stop:
        return None
    return _Due(row["id"], until, min(stop, until + PIECE), False, row["state_version"])


async def _histories(
    connection: Connection, tenant_id: int, cluster_id: UUID, ready: Sequence[_Due]
) -> dict[UUID, UsageHistory]:
    """Of as many of the pieces as fit into `STEP_ROWS`, in their order; of the first one at least a part."""
    pieces = list(ready)
    rows: dict[str, list[Row]] = {}
    for name, query, extra in _HISTORY:
        if not pieces:
            return {}
        spans = (
            [piece.id for piece in pieces],
            [piece.start for piece in pieces],
            [piece.end for piece in pieces],
        )
        fetched = await connection.fetch(query, tenant_id, *spans, STEP_ROWS + 1, *extra)
        pieces, rows[name] = _fitting(pieces, fetched)
    gaps = [
        (row["from_at"], row["to_at"])
        for row in await connection.fetch(
            "SELECT from_at, coalesce(observed_from, to_at) AS to_at FROM cluster_gap "
            "WHERE tenant_id = $1 AND cluster_id = $2 AND is_silence AND to_at > $3",
            tenant_id,
            cluster_id,
            min((piece.start for piece in pieces if piece.start is not None), default=None),
        )
    ]
    steps = await _by_workload(rows["steps"], _step)
    phases = await _by_workload(rows["phases"], lambda row: (row["at"], Phase(row["phase"])))
    samples = await _by_workload(
        rows["samples"], lambda row: UtilizationSample(row["at"], row["utilization"] / 100)
    )
    work = TimeSlice(is_in_no_hurry=True)
    histories: dict[UUID, UsageHistory] = {}
    for piece in pieces:
        histories[piece.id] = UsageHistory(
            start=piece.start or piece.end,
            end=piece.end,
            steps=[step for step in steps[piece.id] if step.at < piece.end],
            phases=[phase for phase in phases[piece.id] if phase[0] < piece.end],
            gaps=gaps,
            samples=samples[piece.id],
        )
        await work.rest()
    return histories


def _fitting(pieces: list[_Due], rows: list[Row]) -> tuple[list[_Due], list[Row]]:
    """The pieces of which all rows were read; where that is none, the first one up to its last row."""
    if len(rows) <= STEP_ROWS:
        return pieces, rows
    cut = rows[-1]["workload_id"]
    whole = [piece for piece in pieces if piece.id < cut]
    if whole:
        return whole, [row for row in rows if row["workload_id"] < cut]
    first = pieces[0]
    assert first.start is not None  # only such pieces are ready
    return [replace(first, end=min(first.end, max(rows[-1]["at"], first.start + _SHORTEST)))], rows


async def _by_workload(
    rows: Sequence[Row], read: Callable[[Row], _T]
) -> defaultdict[UUID, list[_T]]:
    work = TimeSlice(is_in_no_hurry=True)
    by_id: defaultdict[UUID, list[_T]] = defaultdict(list)
    for row in rows:
        by_id[row["workload_id"]].append(read(row))
        await work.rest()
    return by_id


def _step(row: Row) -> UsageStep:
    values = {name: row[name] for name in _STEP_FIELDS}
    return UsageStep(**(values | {"gpu_by_model": msgspec.json.decode(row["gpu_by_model"])}))


_STEP_FIELDS = UsageStep.__dataclass_fields__


async def _add(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    entries: Iterable[tuple[UUID, UsageKey, UsageSums]],
) -> None:
    counted = await within_limits(connection, tenant_id, entries)
    if not counted:
        return
    work = TimeSlice(is_in_no_hurry=True)
    rows: list[tuple[object, ...]] = []
    for id_, key, sums in counted:
        rows.append((id_, *key, *map(_bounded, _sums_of(sums))))
        await work.rest()
    await connection.execute(_KEEP_WORKLOADS, tenant_id, list({id_ for id_, _, _ in counted}))
    unknown = {id_ for id_, key, _ in counted if key.attributes_id is None}
    if unknown:
        unknown -= await _ids_of_sets(connection, tenant_id, unknown)
        await connection.execute(_KEEP_LAST_ATTRIBUTES, tenant_id, list(unknown))
    await connection.execute(_ADD, tenant_id, cluster_id, *map(list, zip(*rows, strict=True)))


async def _ids_of_sets(connection: Connection, tenant_id: int, ids: set[UUID]) -> set[UUID]:
    """Those that are no workload's own entry, but a set that others have too: an agent chooses the ids of its
    workloads, and may choose one that follows from another's attributes."""
    rows = await connection.fetch(
        f"SELECT id, {', '.join(UsageAttributes._fields)} FROM usage_attributes "
        "WHERE tenant_id = $1 AND id = ANY($2::uuid[])",
        tenant_id,
        list(ids),
    )
    return {id_ for id_, *attributes in rows if UsageAttributes(*attributes).id == id_}


_sums_of = attrgetter(*SUMS)


def _bounded(amount: int) -> int:
    return max(-MAX_DAY_SUM, min(amount, MAX_DAY_SUM))


async def usage_purge(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Forget days that ended before `now - keep`. Returns how many rows were removed."""
    async with db.transaction(tenant_id) as connection:
        removed = await connection.fetch(
            "DELETE FROM usage_day WHERE tenant_id = $1 AND day < $2 RETURNING 1",
            tenant_id,
            (now - keep).astimezone(UTC).date(),
        )
        for table, period in _SUMS_OF_DAYS.items():
            await connection.execute(
                f"DELETE FROM {table} WHERE tenant_id = $1 AND {period} < $2 "
                f"AND ({', '.join(SUMS)}) = ({', '.join('0' for _ in SUMS)})",
                tenant_id,
                (now - keep).astimezone(UTC).date(),
            )
        await connection.execute(
            "DELETE FROM usage_workload u WHERE tenant_id = $1 AND NOT EXISTS (SELECT 1 "
            "FROM usage_day d WHERE d.tenant_id = $1 AND d.workload_id = u.workload_id) "
            "AND NOT EXISTS (SELECT 1 FROM workload w WHERE w.tenant_id = $1 AND w.id = u.workload_id)",
            tenant_id,
        )
        await attributes_purge(connection, tenant_id, before=(now - keep).astimezone(UTC).date())
    return len(removed)
