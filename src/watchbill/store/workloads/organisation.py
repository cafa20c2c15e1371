"""The numbers of projects and departments: unique in the tenant, given at first sight or when an access rule
names them before, kept for ever.

A project belongs to one cluster; its key is the queue's object name, its name what people call it.
"""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from watchbill.protocol import Record
from watchbill.store.postgres.database import Connection, Database
from watchbill.store.workloads.row import OrganisationIds


class UnknownName(NamedTuple):
    """`kind` is `project` or `department`, `key` the queue's object name."""

    kind: str
    cluster_id: str
    key: str


async def organisation_assign_ids(
    connection: Connection, tenant_id: int, cluster_id: UUID, records: Iterable[Record]
) -> dict[str, OrganisationIds]:
    """The numbers by project key (the namespace where a record names no project)."""
    projects: dict[str, Record] = {}
    for record in records:
        projects[record.project_key or record.workload.namespace] = record
    departments = {
        record.department_key: record.workload.department_name
        for record in projects.values()
        if record.department_key
    }
    department_ids = await unit_numbers(
        connection, "department", tenant_id, cluster_id, departments
    )
    project_ids = await unit_numbers(
        connection,
        "project",
        tenant_id,
        cluster_id,
        {key: record.workload.project_name for key, record in projects.items()},
    )
    existing = {
        key: OrganisationIds(project_ids[key], department_ids.get(record.department_key))
        for key, record in projects.items()
    }
    await connection.execute(
        "UPDATE project p SET department_id = n.department_id "
        "FROM unnest($2::int[], $3::int[]) AS n(id, department_id) "
        "WHERE p.tenant_id = $1 AND p.id = n.id "
        "AND p.department_id IS DISTINCT FROM n.department_id",
        tenant_id,
        [o.project_id for o in existing.values()],
        [o.department_id for o in existing.values()],
    )
    return existing


async def unit_numbers(
    connection: Connection, table: str, tenant_id: int, cluster_id: UUID, names: dict[str, str]
) -> dict[str, int]:
    """The numbers by key; `names` by key. `table` is `project` or `department`."""
    if not names:
        return {}
    known = {
        row["key"]: row
        for row in await connection.fetch(
            f"SELECT key, id, name FROM {table} "
            "WHERE tenant_id = $1 AND cluster_id = $2 AND key = ANY($3::text[])",
            tenant_id,
            cluster_id,
            list(names),
        )
    }
    ids = {key: row["id"] for key, row in known.items()}
    new = {key: names[key] for key in sorted(names.keys() - known.keys())}
    if new:
        ids |= await _new(connection, table, tenant_id, cluster_id, new)
    renamed = {row["id"]: names[key] for key, row in known.items() if row["name"] != names[key]}
    if renamed:
        await connection.execute(
            f"UPDATE {table} t SET name = n.name FROM unnest($2::int[], $3::text[]) AS n(id, name) "
            "WHERE t.tenant_id = $1 AND t.id = n.id",
            tenant_id,
            list(renamed),
            list(renamed.values()),
        )
    return ids


async def _new(
    connection: Connection, table: str, tenant_id: int, cluster_id: UUID, names: dict[str, str]
) -> dict[str, int]:
    """The numbers by key; somebody else may have given one meanwhile. Two statements however many there are:
    until the transaction ends all other clusters of the tenant wait for the next number."""
    end: int = await connection.fetchval(
        "UPDATE tenant SET next_number = next_number + $2 WHERE id = $1 RETURNING next_number",
        tenant_id,
        len(names),
    )
    rows = await connection.fetch(
        f"INSERT INTO {table} AS t (tenant_id, id, cluster_id, key, name) "
        "SELECT $1, n.id, $3, n.key, n.name FROM unnest($2::int[], $4::text[], $5::text[]) "
        "AS n(id, key, name) ON CONFLICT (tenant_id, cluster_id, key) DO UPDATE SET key = t.key "
        "RETURNING key, id",
        tenant_id,
        list(range(end - len(names), end)),
        cluster_id,
        list(names),
        list(names.values()),
    )
    return {row["key"]: row["id"] for row in rows}


async def organisation_declare(db: Database, tenant_id: int, unseen: Iterable[UnknownName]) -> None:
    """Give numbers to projects and departments of which no workload was seen yet."""
    async with db.transaction(tenant_id) as connection:
        for name in sorted(unseen):
            cluster_id, names = UUID(name.cluster_id), {name.key: name.key}
            await _new(connection, name.kind, tenant_id, cluster_id, names)
