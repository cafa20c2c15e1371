"""What usage is accounted from, and the series of a workload: a row only where something that counts changes.

A record is the newest that is known of its workload. Its step is in force from when it was observed, but
neither later than now nor before the last one: an agent's clock may be ahead, or be set back. What an agent
observed while it was cut off has its own time and may lie before what is known already.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from watchbill.protocol import Upsert
from watchbill.query import Scope
from watchbill.store.postgres.database import Connection, Database
from watchbill.store.workloads.row import OrganisationIds, stored_text
from watchbill.store.workloads.select import Statement, in_scope
from watchbill.workload import Usage, WorkloadStep

_USAGE = Usage.__struct_fields__


@dataclass(frozen=True, slots=True)
class Observed:
    """A record, and the numbers of its project and department.

    `gone_since`: when the workload was deleted, where it is there again.
    """

    upsert: Upsert
    organisation: OrganisationIds
    gone_since: datetime | None = None


class UsageAttributes(NamedTuple):
    """What a step is grouped by beside its project. Each set of them is stored once for all workloads."""

    type: str
    category: str | None
    submitted_by: str | None
    priority_class_name: str | None
    node_pool: str | None

    @property
    def id(self) -> UUID:
        """The same for equal attributes, wherever they are seen."""
        return UUID(bytes=hashlib.sha256(msgspec.json.encode(self)).digest()[:16])


_USAGE_TYPES = dict(
    zip(
        Usage.__struct_fields__,
        (
            *("int", "int", "bigint", "bigint"),
            *("double precision", "double precision", "bigint", "bigint"),
        ),
        strict=True,
    )
)
_STEP_TYPES = {
    "project_id": "int",
    "department_id": "int",
    "requested_gpu": "bigint",
    "allocated_gpu": "bigint",
    "idle_gpu": "bigint",
    "idle_hours": "double precision",
    "idle_mean_since": "timestamptz",
    "cpu_cores": "double precision",
    "memory_bytes": "bigint",
    "gpu_by_model": "jsonb",
    "attributes_id": "uuid",
}
"""What usage is accounted from, by column."""


def _insert(table: str, types: Mapping[str, str]) -> str:
    """Adds what is current after all else, where it differs from the last; what is not, as it is reported."""
    names = ", ".join(types)
    arrays = ", ".join(f"${index}::{kind}[]" for index, kind in enumerate(types.values(), 5))

    def figures(alias: str) -> str:
        return ", ".join(f"{alias}.{name}" for name in types)

    return f"""
WITH given AS (SELECT * FROM unnest($2::uuid[], $3::timestamptz[], $4::bool[], {arrays})
    AS g(workload_id, observed_at, is_current, {names})),
placed AS (SELECT g.*, CASE WHEN g.is_current THEN
        greatest(g.observed_at, last.at + interval '1 millisecond') ELSE g.observed_at END AS at
    FROM given g LEFT JOIN LATERAL (SELECT max(u.at) AS at FROM {table} u
        WHERE u.tenant_id = $1 AND u.workload_id = g.workload_id) AS last ON true)
INSERT INTO {table} (tenant_id, workload_id, at, {names})
SELECT $1, n.workload_id, n.at, {figures("n")} FROM placed n
LEFT JOIN LATERAL (SELECT * FROM {table} u WHERE u.tenant_id = $1 AND u.workload_id = n.workload_id
    AND u.at < n.at ORDER BY u.at DESC LIMIT 1) AS last ON true
WHERE NOT n.is_current OR last.at IS NULL OR ({figures("last")}) IS DISTINCT FROM ({figures("n")})
ON CONFLICT DO NOTHING
"""


_INSERT_USAGE = _insert("usage_sample", _USAGE_TYPES)
_INSERT_STEPS = f"{_insert('usage_step', _STEP_TYPES)} RETURNING attributes_id"
_KEEP_ATTRIBUTES = f"""
INSERT INTO usage_attributes (tenant_id, id, {", ".join(UsageAttributes._fields)}, used_on)
SELECT $1, n.*, $8 FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS n(id, {", ".join(UsageAttributes._fields)})
WHERE NOT EXISTS (SELECT FROM usage_attributes a WHERE a.tenant_id = $1 AND a.id = n.id AND a.used_on >= $8
    AND ({", ".join(f"a.{name}" for name in UsageAttributes._fields)})
        IS NOT DISTINCT FROM ({", ".join(f"n.{name}" for name in UsageAttributes._fields)})) ORDER BY n.id
ON CONFLICT (tenant_id, id) DO UPDATE SET used_on = excluded.used_on,
    {", ".join(f"{name} = excluded.{name}" for name in UsageAttributes._fields)}
"""
"""Touched once a day, so that batches do not wait for each other; what else stands there is replaced."""
_PURGE_ATTRIBUTES = """
DELETE FROM usage_attributes a WHERE tenant_id = $1 AND used_on < $2
    AND NOT EXISTS (SELECT FROM usage_step s WHERE s.tenant_id = $1 AND s.attributes_id = a.id)
    AND NOT EXISTS (SELECT FROM usage_day d
        WHERE d.tenant_id = $1 AND coalesce(d.attributes_id, d.workload_id) = a.id)
"""


async def usage_write(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    observed: Sequence[Observed],
    now: datetime,
) -> None:
    """Keep what is new in the records, and the steps that were observed before them."""
    if not observed:
        return
    samples = [
        (
            each.upsert.record.workload.id,
            min(each.upsert.observed_at, now),
            True,
            *(getattr(each.upsert.record.usage, name) for name in _USAGE_TYPES),
        )
        for each in observed
    ]
    await connection.execute(_INSERT_USAGE, tenant_id, *map(list, zip(*samples, strict=True)))
    attributes: dict[UUID, UsageAttributes] = {}
    earlier = await _earlier_rows(connection, tenant_id, cluster_id, observed, attributes, now)
    current = [
        _row(each, each.upsert.record.step(min(each.upsert.observed_at, now)), attributes)
        for each in observed
    ]
    kept: set[UUID] = set()
    for rows in filter(None, (earlier, current)):
        added = await connection.fetch(
            _INSERT_STEPS, tenant_id, *map(list, zip(*rows, strict=True))
        )
        kept |= {row["attributes_id"] for row in added}
    new = {id_: attributes[id_] for id_ in kept}
    await _keep_attributes(connection, tenant_id, new, now.date())


async def attributes_purge(connection: Connection, tenant_id: int, *, before: date) -> None:
    """Forget those that no step and no day has, and that nobody had since `before`."""
    await connection.execute(_PURGE_ATTRIBUTES, tenant_id, before)


async def _earlier_rows(
    connection: Connection,
    tenant_id: int,
    cluster_id: UUID,
    observed: Sequence[Observed],
    attributes: dict[UUID, UsageAttributes],
    now: datetime,
) -> list[tuple[object, ...]]:
    """Of the steps before the records: in the project that they name, where the server knows it."""
    steps = [(each, step) for each in observed for step in _earlier_steps(each)]
    if not steps:
        return []
    projects = await _known(
        connection, "project", tenant_id, cluster_id, (step.project_key for _, step in steps)
    )
    departments = await _known(
        connection, "department", tenant_id, cluster_id, (step.department_key for _, step in steps)
    )
    rows = []
    for each, step in steps:
        organisation = each.organisation
        if step.project_key in projects:
            department_id = departments.get(step.department_key)
            organisation = OrganisationIds(projects[step.project_key], department_id)
        at = min(step.at, each.upsert.observed_at, now)
        placed = Observed(each.upsert, organisation)
        rows.append(
            _row(placed, msgspec.structs.replace(step, at=at), attributes, is_current=False)
        )
    return rows


def _earlier_steps(observed: Observed) -> Iterator[WorkloadStep]:
    """Between a deletion and its return a workload holds nothing."""
    if observed.gone_since is not None:
        yield msgspec.structs.replace(
            observed.upsert.record.step(observed.gone_since),
            requested_gpu=0,
            allocated_gpu=0,
            idle_gpu=None,
            cpu_cores=0.0,
            memory_bytes=0,
            gpu_by_model={},
        )
    yield from observed.upsert.steps


async def _known(
    connection: Connection, table: str, tenant_id: int, cluster_id: UUID, keys: Iterable[str]
) -> dict[str, int]:
    rows = await connection.fetch(
        f"SELECT key, id FROM {table} "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND key = ANY($3::text[])",
        tenant_id,
        cluster_id,
        list(set(keys)),
    )
    return {row["key"]: row["id"] for row in rows}


def _row(
    observed: Observed,
    step: WorkloadStep,
    attributes: dict[UUID, UsageAttributes],
    *,
    is_current: bool = True,
) -> tuple[object, ...]:
    """The row's values in the order of `_STEP_TYPES`; its attributes are added to those that there are."""
    own = UsageAttributes(
        stored_text(step.type),
        stored_text(step.category) or None,
        stored_text(step.submitted_by) or None,
        stored_text(step.priority_class_name) or None,
        stored_text(step.node_pool) or None,
    )
    attributes[own.id] = own
    return (
        observed.upsert.record.workload.id,
        step.at,
        is_current,
        *observed.organisation,
        step.requested_gpu,
        step.allocated_gpu or 0,  # what is not known is counted for nobody
        step.idle_gpu,
        step.idle_hours,
        step.idle_mean_since,
        step.cpu_cores,
        step.memory_bytes,
        _models(step.gpu_by_model),
        own.id,
    )


def _models(shares: Mapping[str, int]) -> str:
    """As JSON, with names that the database can hold."""
    return msgspec.json.encode(
        {stored_text(name): share for name, share in shares.items()}
    ).decode()


async def _keep_attributes(
    connection: Connection, tenant_id: int, new: Mapping[UUID, UsageAttributes], today: date
) -> None:
    if new:
        rows = [(id_, *attributes) for id_, attributes in new.items()]
        await connection.execute(
            _KEEP_ATTRIBUTES, tenant_id, *map(list, zip(*rows, strict=True)), today
        )


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """In force from `at` until the next point."""

    at: datetime
    usage: Usage


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """The points in force at the instants asked for, each once, oldest first.

    `end`: until when they are known: the workload's deletion, else the cluster's last contact.
    """

    points: list[UsagePoint]
    end: datetime | None


async def usage_list(
    db: Database, scope: Scope, workload_id: UUID, *, instants: Sequence[datetime], now: datetime
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
            f"SELECT DISTINCT u.at, {', '.join(f'u.{name}' for name in _USAGE)} "
            "FROM unnest($3::timestamptz[]) AS instant CROSS JOIN LATERAL ("
            "SELECT * FROM usage_sample s WHERE s.tenant_id = $1 AND s.workload_id = $2 "
            "AND s.at <= instant ORDER BY s.at DESC LIMIT 1) AS u ORDER BY u.at",
            scope.tenant_id,
            workload_id,
            list(instants),
        )
    points = [UsagePoint(row["at"], Usage(**{name: row[name] for name in _USAGE})) for row in rows]
    return UsageSeries(points, row["until"])
