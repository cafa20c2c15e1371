"""Measured samples, a row per workload, pod or node and scrape: written with their batch, read by steps.

A row holds figures alone; which figure is what stands in its layout. Days are partitions: forgetting one is
dropping its table. What an agent may send is bounded: known types, finite figures, sane times, own workloads.
"""

import hashlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import isfinite
from uuid import UUID, uuid5

from watchbill.metric_types import (
    HISTOGRAMS,
    MAX_DEVICES,
    SAMPLED_TYPES,
    MetricType,
    is_bound,
)
from watchbill.protocol import Measured, Scrape
from watchbill.store.metrics.measured_bytes import bytes_count, bytes_forget
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.postgres.errors import CheckViolation

MAX_SERIES = 4 * MAX_DEVICES
"""Series of one workload; further ones are left out."""
MAX_LABEL_LENGTH = 100
OLDEST = timedelta(days=1)
"""An agent that was cut off for longer than this has nothing to tell that a partition waits for."""
SEPARATOR = "\x1f"
PURGED_AT_ONCE = 10_000
ROWS_AT_ONCE = 100
"""Rows that are read together: as sent, one may hold `MAX_SERIES` figures and as many names."""
PARTITIONS_LOCK = 0x776D73  # any number that only this uses
_KEEP_ALL_DAYS = 36_500
MAX_NAMES = 100_000
"""Names of series in one answer, over all its layouts; rows of further layouts, the oldest, are left out."""

Series = tuple[str, str]
"""Metric type and label."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one moment; counters are counted up since `counted_since`."""

    at: datetime
    counted_since: datetime
    figures: Mapping[Series, float]


class _Figures(Mapping[Series, float]):
    """The figures of one row. Rows of one layout share `index`: series → place in the row's figures."""

    __slots__ = ("_figures", "_index")

    def __init__(self, index: Mapping[Series, int], figures: "array[float]") -> None:
        self._index = index
        self._figures = figures

    def __getitem__(self, series: Series) -> float:
        return self._figures[self._index[series]]

    def __iter__(self) -> Iterator[Series]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


@dataclass(frozen=True, slots=True)
class _Row:
    """`workload_id`: a workload, a node or a pod. `owner_id`: of a pod its workload, else the same."""

    workload_id: UUID
    owner_id: UUID
    at: datetime
    counted_since: datetime
    series: tuple[str, ...]
    values: list[float]

    @property
    def layout(self) -> int:
        digest = hashlib.sha256("\n".join(self.series).encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def pod_samples_id(workload_id: UUID, pod_id: UUID) -> UUID:
    """The id under which a pod's samples are kept. It follows from its workload's, so that whoever may write of
    the one writes nothing of another."""
    return uuid5(workload_id, f"pod/{pod_id}")


async def scrape_write(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    scrapes: Sequence[Scrape],
    now: datetime,
) -> None:
    """Keep what is sound of the scrapes, of the cluster's own workloads and nodes; a moment that is reported
    twice is kept once."""
    rows = [row for scrape in scrapes for row in _sound_rows(scrape, now)]
    if not rows:
        return
    try:
        async with connection.transaction():
            await _insert(connection, tenant_id, cluster_id, rows, now.date())
    except CheckViolation:  # the day has no partition yet
        for day in sorted({row.at.date() for row in rows}):
            await _partitions(connection, day)
        await _insert(connection, tenant_id, cluster_id, rows, now.date())


def _sound_rows(scrape: Scrape, now: datetime) -> Iterator[_Row]:
    """An agent's clock that runs ahead does not count; the moment was now at the latest."""
    at = min(scrape.at, now).astimezone(UTC)
    if at < now - OLDEST:
        return
    for measured in scrape.workloads:
        figures = dict(_sound_figures(measured))
        if figures:
            owner = measured.workload_id
            yield _Row(
                measured.id if owner is None else pod_samples_id(owner, measured.id),
                owner or measured.id,
                at,
                scrape.counted_since,
                tuple(figures),
                list(figures.values()),
            )


def _sound_figures(measured: Measured) -> Iterator[tuple[str, float]]:
    for reading in measured.readings[:MAX_SERIES]:
        label = reading.label
        is_sound = (
            reading.type in SAMPLED_TYPES
            and isfinite(reading.value)
            and len(label) <= MAX_LABEL_LENGTH
            and label.isprintable()
            and (reading.type not in HISTOGRAMS or is_bound(label))
        )
        if is_sound:
            yield f"{reading.type}{SEPARATOR}{label}", reading.value


_INSERT_LAYOUT = (
    "INSERT INTO measured_layout AS l (tenant_id, id, series, used_on) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (tenant_id, id) DO UPDATE SET used_on = $4 WHERE l.used_on < $4"
)


_OWNERS = (
    "SELECT o.id, bool_and(o.is_of_node) AS is_of_node FROM (SELECT w.id, false AS is_of_node FROM workload w "
    "WHERE w.tenant_id = $1 AND w.id = ANY($3::uuid[]) AND w.cluster_id = $2 UNION ALL "
    "SELECT n.id, true FROM cluster_node n WHERE n.tenant_id = $1 AND n.id = ANY($3::uuid[]) "
    "AND n.cluster_id = $2) AS o WHERE NOT EXISTS (SELECT 1 FROM cluster_node n "
    "WHERE n.tenant_id = $1 AND n.id = o.id AND n.cluster_id <> $2) GROUP BY o.id"
)
"""Of these ids, the cluster's own workloads and nodes."""
_INSERT_SAMPLE = (
    "INSERT INTO measured_sample "
    '(tenant_id, cluster_id, workload_id, at, counted_since, layout, "values", is_of_node) '
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
)
OF_WORKLOAD = "(s.cluster_id IS NULL OR (s.cluster_id = w.cluster_id AND NOT s.is_of_node))"
"""Of the samples `s` under the id of the workload `w`, those that its own cluster reported of a workload: an
agent chooses ids, and may choose one that another cluster's node or workload has or had. Without a cluster are
those of earlier versions."""


async def _insert(
    connection: Connection, tenant_id: int, cluster_id: UUID, rows: Sequence[_Row], today: date
) -> None:
    owners = {
        row["id"]: row["is_of_node"]
        for row in await connection.fetch(
            _OWNERS, tenant_id, cluster_id, list({row.owner_id for row in rows})
        )
    }
    rows = [row for row in rows if row.owner_id in owners]
    if not rows:
        return
    layouts = {row.layout: row.series for row in rows}
    figures = [(row.at.date(), len(row.values)) for row in rows]
    await bytes_count(connection, tenant_id, cluster_id, figures, layouts, today)
    await connection.executemany(
        _INSERT_LAYOUT,
        [(tenant_id, layout, list(series), today) for layout, series in sorted(layouts.items())],
    )
    await connection.executemany(
        _INSERT_SAMPLE,
        [
            (
                tenant_id,
                cluster_id,
                row.workload_id,
                row.at,
                row.counted_since,
                row.layout,
                row.values,
                owners[row.owner_id],
            )
            for row in rows
        ],
    )


_BACKFILL = (
    "INSERT INTO measured_sample "
    '(tenant_id, workload_id, at, counted_since, layout, "values", cluster_id, is_of_node) '
    "SELECT $1, $2, n.at, $4, $5, ($6::float8[])[(n.number - 1) * $7 + 1 : n.number * $7], "
    "(SELECT w.cluster_id FROM workload w WHERE w.tenant_id = $1 AND w.id = $2), false "
    "FROM unnest($3::timestamptz[]) WITH ORDINALITY AS n(at, number) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSamples:
    """Samples of one workload from before anybody reported it.

    `figures`: of each moment in turn, one for each series; counters are counted up since `counted_since`.
    """

    workload_id: UUID
    counted_since: datetime
    series: Sequence[Series]
    at: Sequence[datetime]
    figures: Sequence[float]


async def measured_backfill(connection: Connection, tenant_id: int, past: PastSamples) -> None:
    """Write samples of known types; those of moments that have a sample are left out. Their days must have
    partitions (`partitions_make`)."""
    if not past.at:
        return
    names = tuple(f"{kind}{SEPARATOR}{label}" for kind, label in past.series)
    owner = past.workload_id
    layout = _Row(owner, owner, past.at[0], past.counted_since, names, []).layout
    await connection.execute(_INSERT_LAYOUT, tenant_id, layout, list(names), past.at[-1].date())
    await connection.execute(
        _BACKFILL,
        tenant_id,
        past.workload_id,
        past.at,
        past.counted_since,
        layout,
        past.figures,
        len(names),
    )


async def partitions_make(db: Database, first: datetime, last: datetime) -> None:
    """Make the partitions of all days from `first` to `last`, in transactions of their own: the table is locked
    as a whole meanwhile."""
    day, end = first.astimezone(UTC).date(), last.astimezone(UTC).date()
    while day <= end:
        async with db.transaction(0) as connection:
            await _partitions(connection, day)
        day += timedelta(days=1)


async def _partitions(connection: Connection, today: date, keep_days: int = _KEEP_ALL_DAYS) -> int:
    """Make the partitions around a day, drop those `keep_days` before. Returns how many were dropped.

    One at a time: two that find a partition missing at once would both make it.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITIONS_LOCK)
    dropped: int = await connection.fetchval("SELECT measured_partitions($1, $2)", today, keep_days)
    return dropped


async def measured_purge(
    db: Database, tenant_id: int, *, days: int, longest_days: int | None = None, now: datetime
) -> int:
    """Make the partitions of the days around now, drop those that no tenant keeps any more, and what this
    tenant keeps no longer. Returns how many partitions were dropped.

    `longest_days`: how long any tenant keeps samples; None = `days`.
    """
    longest_days = days if longest_days is None else longest_days
    today = now.astimezone(UTC).date()
    async with db.transaction(0) as connection:
        dropped = await _partitions(connection, today, longest_days)
    if days < longest_days:
        await _delete_samples(
            db, tenant_id, datetime.combine(today, time.min, UTC) - timedelta(days)
        )
    async with db.acquire(tenant_id) as connection:
        await bytes_forget(connection, tenant_id, today - timedelta(days))
        await connection.execute(
            "DELETE FROM measured_layout WHERE tenant_id = $1 AND used_on < $2",
            tenant_id,
            today - timedelta(days=days + 1),
        )
    return dropped


async def _delete_samples(db: Database, tenant_id: int, before: datetime) -> None:
    """Of one tenant, in batches: its rows share their partitions with those of others."""
    while True:
        async with db.acquire(tenant_id) as connection:
            status: str = await connection.execute(
                "DELETE FROM measured_sample WHERE (tenant_id, workload_id, at) IN (SELECT tenant_id, "
                "workload_id, at FROM measured_sample WHERE tenant_id = $1 AND at < $2 LIMIT $3)",
                tenant_id,
                before,
                PURGED_AT_ONCE,
            )
        if int(status.rpartition(" ")[2]) < PURGED_AT_ONCE:
            return


_OWN = (
    "(s.cluster_id IS NULL OR (s.is_of_node = ($5::uuid IS NOT NULL) AND s.cluster_id = coalesce($5::uuid, "
    "(SELECT w.cluster_id FROM workload w WHERE w.tenant_id = $1 AND w.id = $6))))"
)
"""`OF_WORKLOAD` of one id, or, with the cluster of a node, what that cluster reported of it. $6: the workload,
of a pod its workload."""
_ENDS_OF_STEPS = (
    "SELECT DISTINCT p.at FROM unnest($3::timestamptz[], $4::timestamptz[]) AS step(after, until) "
    "CROSS JOIN LATERAL ("
    + " UNION ALL ".join(
        "(SELECT s.at FROM measured_sample s WHERE s.tenant_id = $1 AND s.workload_id = $2 "
        f"AND s.at > step.after AND s.at <= step.until AND {_OWN} ORDER BY s.at {direction} LIMIT 1)"
        for direction in ("ASC", "DESC")
    )
    + ") AS p ORDER BY 1 DESC"
)
_ROWS = (
    'SELECT at, counted_since, layout, "values" FROM measured_sample '
    "WHERE tenant_id = $1 AND workload_id = $2 AND at = ANY($3::timestamptz[]) ORDER BY at DESC"
)


async def measured_list(
    db: Database,
    tenant_id: int,
    workload_id: UUID,
    *,
    node_cluster_id: UUID | None = None,
    owner_id: UUID | None = None,
    after: datetime,
    until: datetime,
    origin: datetime,
    step: timedelta,
    types: Collection[str],
    max_labels: int,
) -> list[Point]:
    """The first and the last point of each step, counted from `origin` both ways, of a workload in scope.
    With `node_cluster_id` of the node of that cluster that has the id; with `owner_id` of a pod of that one.

    Of `types` alone. A type with more than `max_labels` labels is read as a whole: the label "". So neither
    the rows nor the bytes that are read depend on what was stored.
    """
    layouts = _Layouts(types, max_labels)
    starts, ends = _step_bounds(after, until, origin, step)
    points: list[Point] = []
    async with db.acquire(tenant_id) as connection:
        chosen_rows = await connection.fetch(
            _ENDS_OF_STEPS,
            tenant_id,
            workload_id,
            starts,
            ends,
            node_cluster_id,
            owner_id or workload_id,
        )
        instants = [row["at"] for row in chosen_rows]
        for first in range(0, len(instants), ROWS_AT_ONCE):
            chosen = instants[first : first + ROWS_AT_ONCE]
            rows = await connection.fetch(_ROWS, tenant_id, workload_id, chosen)
            await layouts.load(connection, tenant_id, dict.fromkeys(row["layout"] for row in rows))
            points += filter(None, map(layouts.point, rows))
    return points[::-1]


_UTILIZATION = (
    "SELECT w.id, i.number, f.figure FROM workload w "
    "CROSS JOIN unnest($3::timestamptz[]) WITH ORDINALITY AS i(at, number) CROSS JOIN LATERAL ("
    'SELECT s.layout, s."values" FROM measured_sample s WHERE s.tenant_id = $1 '
    f"AND s.workload_id = w.id AND s.at <= i.at AND s.at > i.at - $4::interval AND {OF_WORKLOAD} "
    "ORDER BY s.at DESC LIMIT 1) AS p JOIN measured_layout l "
    "ON l.tenant_id = $1 AND l.id = p.layout CROSS JOIN LATERAL "
    '(SELECT p."values"[array_position(l.series, $5)] AS figure) AS f '
    'WHERE cardinality(l.series) = cardinality(p."values") '
    "AND w.tenant_id = $1 AND w.id = ANY($2::uuid[])"
)


async def utilization_list(
    db: Database,
    tenant_id: int,
    ids: Collection[UUID],
    *,
    instants: Sequence[datetime],
    window: timedelta,
) -> dict[UUID, list[float | None]]:
    """Percent of each workload's GPUs as a whole at each instant: the last figure within the window before
    it, None where there is none. Of workloads that are known to be in scope."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            _UTILIZATION,
            tenant_id,
            list(ids),
            list(instants),
            window,
            f"{MetricType.GPU_UTILIZATION}{SEPARATOR}",
        )
    figures: dict[UUID, list[float | None]] = {}
    for row in rows:
        if row["figure"] is not None:
            values = figures.setdefault(row["id"], [None] * len(instants))
            values[row["number"] - 1] = row["figure"]
    return figures


def _step_bounds(
    after: datetime, until: datetime, origin: datetime, step: timedelta
) -> tuple[list[datetime], list[datetime]]:
    """Where each step of (after, until] begins, itself outside, and where it ends."""
    edges, number = [after], (after - origin) // step + 1
    while (edge := origin + number * step) < until:
        edges.append(edge)
        number += 1
    return edges, [*edges[1:], until]


class _Layouts:
    """Which of a row's figures are read, by layout."""

    def __init__(self, types: Collection[str], max_labels: int) -> None:
        self._types = types
        self._max_labels = max_labels
        self._names_left = MAX_NAMES
        self._lengths: dict[int, int] = {}
        self._places: dict[int, dict[Series, int]] = {}
        self._indices: dict[int, dict[Series, int]] = {}

    async def load(self, connection: Connection, tenant_id: int, ids: Iterable[int]) -> None:
        """Those that come first come before the others where not all can be read."""
        unknown = [id_ for id_ in ids if id_ not in self._lengths]
        rows = await connection.fetch(
            "SELECT id, series FROM measured_layout WHERE tenant_id = $1 AND id = ANY($2::bigint[])",
            tenant_id,
            unknown,
        )
        names = {row["id"]: row["series"] for row in rows}
        for id_ in filter(names.__contains__, unknown):
            places = self._chosen(names[id_])
            self._lengths[id_] = len(names[id_])
            if len(places) <= self._names_left:
                self._names_left -= len(places)
                self._places[id_] = places
                self._indices[id_] = {series: n for n, series in enumerate(places)}

    def _chosen(self, names: Sequence[str]) -> dict[Series, int]:
        by_type: dict[str, dict[Series, int]] = {}
        for place, name in enumerate(names):
            series = _series(name)
            if series[0] in self._types:
                by_type.setdefault(series[0], {})[series] = place
        chosen: dict[Series, int] = {}
        for metric, places in by_type.items():
            if len(places) > self._max_labels:
                whole = {(metric, ""): places[metric, ""]} if (metric, "") in places else {}
                places = whole or dict(list(places.items())[: self._max_labels])
            chosen |= places
        return chosen

    def point(self, row: Row) -> Point | None:
        """None where nothing of the row is read, or it does not fit its layout."""
        places, figures = self._places.get(row["layout"]), row["values"]
        if not places or len(figures) != self._lengths[row["layout"]]:
            return None
        chosen = array("d", (figures[place] for place in places.values()))
        return Point(
            row["at"], row["counted_since"], _Figures(self._indices[row["layout"]], chosen)
        )


def _series(name: str) -> Series:
    metric, _, label = name.partition(SEPARATOR)
    return metric, label
