"""Present figures of projects or departments together: quotas, what is held, what of it cannot be preempted."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from watchbill.cluster_node import node_pool_id
from watchbill.query import Scope
from watchbill.responses.contract import TelemetryGroup, TelemetryValue
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.organisation.answer import SCALES
from watchbill.store.organisation.source import (
    exists_condition,
    top_condition,
    unit_number,
    unit_source,
    whole_condition,
)
from watchbill.store.organisation.units import pool_uses
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.workloads.select import Statement, in_scope

Resource = Literal["gpu", "cpu", "memory"]
_NAMES: dict[str, Resource] = {"GPU": "gpu", "CPU": "cpu", "MEMORY": "memory"}
_FIGURES = {"QUOTA": "quota", "ALLOCATION": "allocated", "ALLOCATION_NON_PREEMPTIBLE": "fixed"}
NODE_POOL = "NodepoolId"
_QUOTA_SCALES = SCALES | {"memory": 1}
_EACH_QUOTA = "CROSS JOIN LATERAL jsonb_array_elements(w.queue -> 'quotas') AS q(quota)"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTelemetryQuery:
    """`groups` of ClusterId, ParentId and NodepoolId; `node_pool`: its id or its name."""

    unit: OrganisationUnit
    telemetry_type: str
    groups: tuple[str, ...] = ()
    cluster_id: UUID | None = None
    node_pool: str | None = None
    department_id: str | None = None

    @property
    def resource(self) -> Resource:
        return _NAMES[self.telemetry_type.partition("_")[0]]

    @property
    def figure(self) -> str:
        return _FIGURES[self.telemetry_type.partition("_")[2]]

    @property
    def is_by_pool(self) -> bool:
        return self.node_pool is not None or NODE_POOL in self.groups


@dataclass(frozen=True, slots=True)
class _Share:
    """A figure of one unit, or of one of its node pools. `amount` None = not known."""

    unit: Row
    pool: str
    amount: Decimal | None
    pool_id: str
    """Of `pool`; "" = of no one."""


def _share(unit: Row, pool: str, amount: Decimal | None) -> _Share:
    return _Share(unit, pool, amount, node_pool_id(unit["cluster_id"], pool) if pool else "")


async def unit_telemetry(
    db: Database, scope: Scope, query: UnitTelemetryQuery, now: datetime
) -> list[TelemetryValue]:
    """In the order of the groups. A group of which a part is not known is left out."""
    statement = Statement(now)
    source = _narrowed(statement, scope, query)
    is_quota = query.figure == "quota"
    column = f"w.{query.resource}_quota" if is_quota else f"s.{query.figure}_{query.resource}"
    async with db.acquire(scope.tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT w.id, w.cluster_id, c.name AS cluster_name, w.above, w.above_name, "
            f"s.workloads, {column} AS amount FROM {source} WHERE {statement.where}",
            *statement.parameters,
        )
        if not query.is_by_pool:
            shares = [_share(row, "", _amount(row, is_quota=is_quota)) for row in rows]
        elif is_quota:
            shares = await _quota_shares(connection, scope, query, rows)
        else:
            shares = await _held_shares(connection, scope, query, rows, now)
    wanted = [share for share in shares if query.node_pool in (None, share.pool, share.pool_id)]
    return _summed(query, wanted)


def _narrowed(statement: Statement, scope: Scope, query: UnitTelemetryQuery) -> str:
    source = unit_source(statement, scope, query.unit)
    if query.unit == "project":
        in_scope(statement, scope)
    else:
        statement.conditions.append(f"w.tenant_id = {statement.bind(scope.tenant_id, '::int')}")
        statement.conditions.append(whole_condition(statement, scope))
    statement.conditions.append(exists_condition(query.unit))
    if query.cluster_id is not None:
        statement.conditions.append(f"w.cluster_id = {statement.bind(query.cluster_id, '::uuid')}")
    if query.department_id is not None:
        number = statement.bind(unit_number(query.department_id) or 0, "::int")
        column = "w.above" if query.unit == "project" else "w.id"
        statement.conditions.append(f"{column} = {number}")
    elif query.unit == "department":
        statement.conditions.append(top_condition(statement, scope))
    return source


def _amount(row: Row, *, is_quota: bool) -> Decimal | None:
    """No quota adds nothing; nor does a unit without live workloads."""
    if row["amount"] is None and (is_quota or row["workloads"] is None):
        return Decimal(0)
    return None if row["amount"] is None else Decimal(row["amount"])


async def _quota_shares(
    connection: Connection, scope: Scope, query: UnitTelemetryQuery, rows: Iterable[Row]
) -> list[_Share]:
    """Without those that have no bound."""
    units = {row["id"]: row for row in rows}
    quotas = await connection.fetch(
        "SELECT w.id, coalesce(q.quota ->> 'nodePool', '') AS pool, "
        f"(q.quota -> $3 ->> 'quota')::numeric AS amount FROM {query.unit} w {_EACH_QUOTA} "
        "WHERE w.tenant_id = $1 AND w.id = ANY($2::int[])",
        scope.tenant_id,
        list(units),
        query.resource,
    )
    scale = _QUOTA_SCALES[query.resource]
    return [
        _share(units[row["id"]], row["pool"], row["amount"] * scale)
        for row in quotas
        if row["amount"] is not None and row["amount"] >= 0
    ]


async def _held_shares(
    connection: Connection,
    scope: Scope,
    query: UnitTelemetryQuery,
    rows: Iterable[Row],
    now: datetime,
) -> list[_Share]:
    units = {row["id"]: row for row in rows}
    uses = await pool_uses(
        connection, scope, query.unit, list(units), now, is_fixed=query.figure == "fixed"
    )
    return [
        _share(units[number], pool, use.amount(query.resource))
        for number, pools in uses.items()
        for pool, use in pools.items()
    ]


def _summed(query: UnitTelemetryQuery, shares: Iterable[_Share]) -> list[TelemetryValue]:
    scales = _QUOTA_SCALES if query.figure == "quota" else SCALES
    sums: dict[tuple[str, ...], Decimal | None] = {} if query.groups else {(): Decimal(0)}
    names: dict[str, str] = {}
    for share in shares:
        key = tuple(_group(name, share) for name in query.groups)
        names |= {
            str(share.unit["cluster_id"]): share.unit["cluster_name"],
            str(share.unit["above"]): share.unit["above_name"],
            share.pool_id: share.pool,
        }
        total = sums.get(key, Decimal(0))
        sums[key] = None if total is None or share.amount is None else total + share.amount
    return [
        TelemetryValue(
            decimal_text(total / scales[query.resource]),
            tuple(
                TelemetryGroup(name, value, names.get(value, value) if value else None)
                for name, value in zip(query.groups, key, strict=True)
            ),
        )
        for key, total in sorted(sums.items())
        if total is not None
    ]


def _group(name: str, share: _Share) -> str:
    """ "" = of no department, or of no one node pool."""
    if name == NODE_POOL:
        return share.pool_id
    value = share.unit["cluster_id" if name in ("ClusterId", "CLUSTER_ID") else "above"]
    return "" if value is None else str(value)


def decimal_text(amount: Decimal | int) -> str:
    """A plain decimal without trailing zeros."""
    text = f"{amount:.6f}"
    return text.rstrip("0").rstrip(".")
