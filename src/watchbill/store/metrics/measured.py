"""Measured samples, a row per workload and scrape: written with the batch that brings them, read by steps.

A row holds figures alone; which figure is what stands in its layout. Days are partitions: forgetting one is
dropping its table. What an agent may send is bounded: known types, finite figures, sane times, own workloads.

A workload's usage over time, as its Kubernetes objects told it: a step function, kept as its steps.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import isfinite, isnan
from uuid import UUID

import msgspec

from watchbill.metric_types import (
    EXPORTER_GROUP,
    MAX_DEVICES,
    MEASURED_TYPES,
    METRICS,
    MetricForm,
)
from watchbill.protocol import KindState, Measured, Scrape
from watchbill.query import Scope
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.postgres.errors import CheckViolation
from watchbill.store.workloads.select import Statement, in_scope
from watchbill.workload import Usage

MAX_SERIES = 4 * MAX_DEVICES
"""Series of one workload; further ones are left out."""
MAX_LABEL_LENGTH = 100
OLDEST = timedelta(days=1)
"""An agent that was cut off for longer than this has nothing to tell that a partition waits for."""
SEPARATOR = "\x1f"

Series = tuple[str, str]
"""Metric type and label."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one moment; counters are counted up since `counted_since`."""

    at: datetime
    counted_since: datetime
    figures: dict[Series, float]


@dataclass(frozen=True, slots=True)
class _Row:
    workload_id: UUID
    at: datetime
    counted_since: datetime
    series: tuple[str, ...]
    values: list[float]

    @property
    def layout(self) -> int:
        digest = hashlib.sha256("\n".join(self.series).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


async def scrape_write(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    scrapes: Sequence[Scrape],
    now: datetime,
) -> None:
    """Keep what is sound of the scrapes; a moment told twice is kept once."""
    rows = [row for scrape in scrapes for row in _sound_rows(scrape, now)]
    if not rows:
        return
    try:
        async with connection.transaction():
            await _insert(connection, tenant_id, cluster_id, rows, now.date())
    except CheckViolation:  # the day has no partition yet
        for day in sorted({row.at.date() for row in rows}):
            await _make_partitions(connection, day)
        await _insert(connection, tenant_id, cluster_id, rows, now.date())


def _sound_rows(scrape: Scrape, now: datetime) -> Iterator[_Row]:
    """An agent's clock that runs ahead is not believed; the moment was now at the latest."""
    at = min(scrape.at, now).astimezone(UTC)
    if at < now - OLDEST:
        return
    for measured in scrape.workloads:
        figures = dict(_sound_figures(measured))
        if figures:
            yield _Row(
                measured.id, at, scrape.counted_since, tuple(figures), list(figures.values())
            )


HISTOGRAMS = {name for name, metric in METRICS.items() if metric.form is MetricForm.HISTOGRAM}


def _sound_figures(measured: Measured) -> Iterator[tuple[str, float]]:
    for reading in measured.readings[:MAX_SERIES]:
        label = reading.label
        is_sound = (
            reading.type in MEASURED_TYPES
            and isfinite(reading.value)
            and len(label) <= MAX_LABEL_LENGTH
            and label.isprintable()
            and (reading.type not in HISTOGRAMS or _is_bound(label))
        )
        if is_sound:
            yield f"{reading.type}{SEPARATOR}{label}", reading.value


def _is_bound(label: str) -> bool:
    """Whether it is a bucket's upper bound, as Prometheus writes them."""
    try:
        return not isnan(float(label))
    except ValueError:
        return False


async def _insert(
    connection: Connection, tenant_id: int, cluster_id: UUID, rows: Sequence[_Row], today: date
) -> None:
    layouts = {row.layout: row.series for row in rows}
    await connection.executemany(
        "INSERT INTO measured_layout AS l (tenant_id, id, series, used_on) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (tenant_id, id) DO UPDATE SET used_on = $4 WHERE l.used_on < $4",
        [(tenant_id, layout, list(series), today) for layout, series in sorted(layouts.items())],
    )
    await connection.executemany(
        'INSERT INTO measured_sample (tenant_id, workload_id, at, counted_since, layout, "values") '
        "SELECT $1, $3, $4, $5, $6, $7 WHERE EXISTS (SELECT 1 FROM workload w "
        "WHERE w.tenant_id = $1 AND w.id = $3 AND w.cluster_id = $2) ON CONFLICT DO NOTHING",
        [
            (
                tenant_id,
                cluster_id,
                row.workload_id,
                row.at,
                row.counted_since,
                row.layout,
                row.values,
            )
            for row in rows
        ],
    )


async def _make_partitions(connection: Connection, today: date) -> None:
    await connection.execute("SELECT measured_partitions($1, 36500)", today)


async def measured_purge(db: Database, tenants: Iterable[int], *, days: int, now: datetime) -> int:
    """Make the partitions of the days around now, drop those older than `days`, and layouts that nothing
    uses any more. Returns how many days were dropped."""
    today = now.astimezone(UTC).date()
    async with db.transaction(0) as connection:
        dropped: int = await connection.fetchval("SELECT measured_partitions($1, $2)", today, days)
    for tenant_id in tenants:
        async with db.acquire(tenant_id) as connection:
            await connection.execute(
                "DELETE FROM measured_layout WHERE tenant_id = $1 AND used_on < $2",
                tenant_id,
                today - timedelta(days=days + 1),
            )
    return dropped


@dataclass(frozen=True, slots=True)
class ObservedCluster:
    """Where a workload runs; `observed`: how well each kind of exporter can be read there."""

    name: str
    namespace: str
    observed: dict[str, str]


async def observed_cluster_get(db: Database, tenant_id: int, workload_id: UUID) -> ObservedCluster:
    """Of a workload that is known to be in scope."""
    async with db.acquire(tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT c.name, c.kinds, w.namespace FROM workload w "
            "JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
            "WHERE w.tenant_id = $1 AND w.id = $2",
            tenant_id,
            workload_id,
        )
    if row is None:  # purged between two questions
        return ObservedCluster("", "", {})
    kinds = msgspec.json.decode(row["kinds"] or b"[]", type=tuple[KindState, ...])
    observed = {kind.kind: str(kind.state) for kind in kinds if kind.group == EXPORTER_GROUP}
    return ObservedCluster(row["name"], row["namespace"], observed)


_STEPS = (
    'SELECT s.at, s.counted_since, l.series, s."values" FROM measured_sample s '
    "JOIN measured_layout l ON l.tenant_id = s.tenant_id AND l.id = s.layout "
    "WHERE s.tenant_id = $1 AND s.workload_id = $2 AND s.at > $3 AND s.at <= $4 AND s.at IN ("
    "SELECT unnest(ARRAY[min(at), max(at)]) FROM measured_sample "
    "WHERE tenant_id = $1 AND workload_id = $2 AND at > $3 AND at <= $4 "
    "GROUP BY date_bin($6, at - interval '1 microsecond', $5)) ORDER BY s.at"
)


async def measured_list(
    db: Database,
    tenant_id: int,
    workload_id: UUID,
    *,
    after: datetime,
    until: datetime,
    origin: datetime,
    step: timedelta,
) -> list[Point]:
    """The first and the last point of each step, counted from `origin` both ways, of a workload in scope."""
    async with db.acquire(tenant_id) as connection:
        found = await connection.fetch(_STEPS, tenant_id, workload_id, after, until, origin, step)
    return list(_points(found))


def _points(rows: Iterable[Row]) -> Iterator[Point]:
    layouts: dict[tuple[str, ...], list[Series]] = {}
    for row in rows:
        names = tuple(row["series"])
        series = layouts.get(names)
        if series is None:
            series = layouts[names] = [_series(name) for name in names]
        yield Point(row["at"], row["counted_since"], dict(zip(series, row["values"], strict=True)))


def _series(name: str) -> Series:
    metric, _, label = name.partition(SEPARATOR)
    return metric, label


_USAGE = Usage.__struct_fields__


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """In force from `at` until the next point."""

    at: datetime
    usage: Usage


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """Points of an interval, the one in force at its start included.

    `end`: until when they are known: the workload's deletion, else the cluster's last contact.
    """

    points: list[UsagePoint]
    end: datetime | None


async def usage_list(
    db: Database, scope: Scope, workload_id: UUID, *, start: datetime, end: datetime, now: datetime
) -> UsageSeries | None:
    """None = the workload is not there or not in scope."""
    statement = Statement(now)
    in_scope(statement, scope)
    statement.conditions.append(f"w.id = {statement.bind(workload_id, '::uuid')}")
    async with db.acquire(scope.tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT coalesce(w.deleted_at, c.last_contact_at) AS until FROM workload w "
            "JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = w.cluster_id "
            f"WHERE {statement.where}",
            *statement.parameters,
        )
        if row is None:
            return None
        rows = await connection.fetch(
            f"SELECT at, {', '.join(_USAGE)} FROM usage_sample "
            "WHERE tenant_id = $1 AND workload_id = $2 AND at <= $4 AND at >= coalesce("
            "(SELECT max(at) FROM usage_sample WHERE tenant_id = $1 AND workload_id = $2 "
            "AND at <= $3), $3) ORDER BY at",
            scope.tenant_id,
            workload_id,
            start,
            end,
        )
    points = [
        UsagePoint(found["at"], Usage(**{name: found[name] for name in _USAGE})) for found in rows
    ]
    return UsageSeries(points, row["until"])
