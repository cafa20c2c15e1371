"""Access rules as they are kept: a subject, a role's name, a scope. What a role allows is not known here."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from watchbill.identity import Grant, NewGrant, Rule, SubjectNames
from watchbill.store.postgres.database import Connection, Database


async def rules_for(
    connection: Connection, tenant_id: int, subjects: SubjectNames
) -> tuple[Rule, ...]:
    rows = await connection.fetch(
        "SELECT role, scope_kind, scope_id FROM access_rule WHERE tenant_id = $1 AND "
        "((subject_kind = $2 AND subject = $3) OR (subject_kind = 'group' "
        "AND subject = ANY($4::text[]))) ORDER BY role, scope_kind, scope_id",
        tenant_id,
        subjects.kind,
        subjects.subject,
        list(subjects.groups),
    )
    return tuple(Rule(**row) for row in rows)


async def rule_list(db: Database, tenant_id: int) -> list[Grant]:
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT id, subject_kind, subject, role, scope_kind, scope_id, created_at, "
            "created_by, managed_by FROM access_rule WHERE tenant_id = $1 "
            "ORDER BY subject_kind, subject, role, scope_kind, scope_id",
            tenant_id,
        )
    return [
        Grant(
            id=row["id"],
            subject_kind=row["subject_kind"],
            subject=row["subject"],
            rule=Rule(role=row["role"], scope_kind=row["scope_kind"], scope_id=row["scope_id"]),
            created_at=row["created_at"],
            created_by=row["created_by"],
            managed_by=row["managed_by"],
        )
        for row in rows
    ]


async def rule_insert(
    connection: Connection,
    tenant_id: int,
    grants: Iterable[NewGrant],
    *,
    created_by: str | None,
    managed_by: str | None,
    now: datetime,
) -> list[UUID]:
    """Ids of the rules, whether they are new or were there; a file takes over what it declares."""
    return [
        await connection.fetchval(
            "INSERT INTO access_rule AS r (tenant_id, id, subject_kind, subject, role, scope_kind, "
            "scope_id, created_by, managed_by, created_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
            "ON CONFLICT (tenant_id, subject_kind, subject, role, scope_kind, scope_id) "
            "DO UPDATE SET managed_by = coalesce(excluded.managed_by, r.managed_by) RETURNING id",
            tenant_id,
            uuid4(),
            subject_kind,
            subject,
            rule.role,
            rule.scope_kind,
            rule.scope_id,
            created_by,
            managed_by,
            now,
        )
        for subject_kind, subject, rule in grants
    ]


async def rule_delete(connection: Connection, tenant_id: int, ids: Sequence[UUID]) -> int:
    removed = await connection.fetch(
        "DELETE FROM access_rule WHERE tenant_id = $1 AND id = ANY($2::uuid[]) RETURNING id",
        tenant_id,
        list(ids),
    )
    return len(removed)


async def scope_names_in(
    connection: Connection, tenant_id: int
) -> dict[str, list[tuple[str, str, str]]]:
    """What scopes can be named: by kind, (name, id, name of the cluster). Projects and departments have two
    names where what people see is not their queue's own."""
    names: dict[str, list[tuple[str, str, str]]] = {}
    rows = await connection.fetch(
        "SELECT 'cluster' AS kind, name, id::text, name AS cluster FROM cluster "
        "WHERE tenant_id = $1 AND removed_at IS NULL "
        "UNION ALL SELECT 'department', n.name, d.id::text, c.name FROM department d "
        "CROSS JOIN LATERAL (SELECT d.name UNION SELECT d.key) n(name) "
        "JOIN cluster c ON c.tenant_id = d.tenant_id AND c.id = d.cluster_id "
        "WHERE d.tenant_id = $1 AND c.removed_at IS NULL "
        "UNION ALL SELECT 'project', n.name, p.id::text, c.name FROM project p "
        "CROSS JOIN LATERAL (SELECT p.name UNION SELECT p.key) n(name) "
        "JOIN cluster c ON c.tenant_id = p.tenant_id AND c.id = p.cluster_id "
        "WHERE p.tenant_id = $1 AND c.removed_at IS NULL",
        tenant_id,
    )
    for row in rows:
        names.setdefault(row["kind"], []).append((row["name"], row["id"], row["cluster"]))
    return names
