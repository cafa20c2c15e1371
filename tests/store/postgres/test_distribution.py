"""The schema can be spread over machines by tenant: what must be unique or refer to a row names its tenant.

So does every statement: `tests/conftest.py` looks at those of every test, and here is tried how it looks.
"""

from pathlib import Path

import pytest

from tests.conftest import Engine
from tests.fixtures.statements import TENANT_TABLES
from tests.fixtures.tenant_binding import unbound_tables
from watchbill.store.postgres.database import Database

KEYS_WITHOUT_TENANT = {
    ("account", "client_id"): "a login names its account before its tenant is known",
    ("cluster", "id"): "an agent's credential names its cluster alone",
    ("session", "token_hash"): "a cookie names its session alone",
    ("refresh_token", "token_hash"): "a refresh token names its login alone",
}
"""Unique over all tenants, each with the reason: their tables would be copied to every machine."""
REFERENCE_TABLES = {"tenant", *(table for table, _ in KEYS_WITHOUT_TENANT)}
TABLES_OF_ONE_MACHINE = {
    "alembic_version": "which migrations have run",
    "device_login": "a login that nobody has confirmed has no tenant yet",
    "signing_key": "signs the tokens of all tenants",
    "table_size": "how large each table was",
    "upkeep": "when each background task ran last",
}
"""Without a tenant, each with what it holds."""
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
_UNIQUE = """
    SELECT t.relname AS table_name, string_agg(a.attname, ', ' ORDER BY a.attnum) AS columns,
           bool_or(a.attname = 'tenant_id') AS has_tenant
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY(i.indkey)
    WHERE i.indisunique AND NOT t.relispartition AND t.relnamespace = 'public'::regnamespace
    AND EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = t.oid AND x.attname = 'tenant_id')
    GROUP BY i.indexrelid, t.relname
"""
_REFERENCES = """
    SELECT c.conname AS name, c.confrelid::regclass::text AS referenced,
           bool_or(own.attname = 'tenant_id' AND other.attname = 'tenant_id') AS has_tenant
    FROM pg_constraint c
    CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS pair (own_number, other_number)
    JOIN pg_attribute own ON own.attrelid = c.conrelid AND own.attnum = pair.own_number
    JOIN pg_attribute other ON other.attrelid = c.confrelid AND other.attnum = pair.other_number
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.connamespace = 'public'::regnamespace
    GROUP BY c.oid, c.conname, c.confrelid
"""
_WITHOUT_TENANT = """
    SELECT t.relname AS table_name FROM pg_class t
    WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition AND t.relnamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'tenant_id')
"""
_STATEMENT_TRIGGERS = """
    SELECT DISTINCT t.tgrelid::regclass::text AS table_name FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND t.tgtype & 1 = 0 AND c.relnamespace = 'public'::regnamespace
"""


async def test_what_is_unique_is_so_within_a_tenant(db: Database) -> None:
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_UNIQUE)
    assert len(rows) >= 30
    without = {(row["table_name"], row["columns"]) for row in rows if not row["has_tenant"]}
    assert without == KEYS_WITHOUT_TENANT.keys()


async def test_what_refers_to_a_row_names_its_tenant(db: Database) -> None:
    """On both sides, or the row is one that every machine has."""
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_REFERENCES)
    assert len(rows) >= 8
    far = [row for row in rows if row["referenced"] not in REFERENCE_TABLES]
    assert [row["name"] for row in far if not row["has_tenant"]] == []


async def test_every_table_has_its_place(db: Database) -> None:
    """By tenant, on every machine or on one; the page about operations names those that are not by tenant."""
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_WITHOUT_TENANT)
    assert {row["table_name"] for row in rows} == {"tenant", *TABLES_OF_ONE_MACHINE}
    page = OPERATIONS.read_text(encoding="utf-8")
    named = REFERENCE_TABLES | TABLES_OF_ONE_MACHINE.keys()
    assert [table for table in sorted(named) if f"`{table}`" not in page] == []


async def test_what_citus_does_not_have_is_named(db: Database) -> None:
    """Triggers for each statement: the page about operations names the tables that have some."""
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_STATEMENT_TRIGGERS)
    assert len(rows) >= 5
    page = OPERATIONS.read_text(encoding="utf-8")
    assert [name for (name,) in rows if f"`{name}`" not in page] == []


BOUND = (
    "SELECT FROM workload w WHERE w.tenant_id = $2::int AND w.id = $1",
    "SELECT FROM workload w JOIN cluster c ON c.tenant_id = w.tenant_id AND c.id = $1 WHERE w.tenant_id = $2",
    "SELECT FROM workload w LEFT JOIN cluster c USING (tenant_id) WHERE w.tenant_id = $1",
    "SELECT (SELECT count(*) FROM workload_pod p WHERE p.tenant_id = w.tenant_id) FROM workload w "
    "WHERE w.tenant_id = $1",
    "SELECT FROM workload w, LATERAL (SELECT FROM cluster c WHERE c.tenant_id = w.tenant_id) AS x "
    "WHERE w.tenant_id = 1",
    "SELECT FROM workload WHERE (tenant_id = $1 AND id = $2) OR (tenant_id = $1 AND id = $3)",
    "SELECT FROM workload WHERE (tenant_id, id) = ($1, $2)",
    "WITH x AS (SELECT tenant_id FROM workload WHERE tenant_id = $1) "
    "DELETE FROM workload_pod p USING x WHERE p.tenant_id = x.tenant_id",
    "UPDATE workload SET name = n.name FROM unnest($2::uuid[], $3::text[]) AS n(id, name) "
    "WHERE n.id = workload.id AND tenant_id = $1",
    "INSERT INTO workload (tenant_id, id) SELECT $1, id FROM cluster WHERE tenant_id = $1",
    "SELECT FROM (SELECT tenant_id, id FROM workload UNION ALL SELECT tenant_id, id FROM cluster) AS w "
    "WHERE w.tenant_id = $1",
    "SELECT FROM (SELECT w.* FROM workload w WHERE w.id = $2) AS w WHERE w.tenant_id = $1",
    "SELECT FROM tenant WHERE id = $1",
)
UNBOUND = {
    "SELECT FROM workload w WHERE w.id = $1": ["w workload"],
    "SELECT FROM workload w JOIN cluster c ON c.id = w.cluster_id WHERE w.tenant_id = $1": [
        "c cluster"
    ],
    "SELECT FROM workload w WHERE w.tenant_id = w.project_id": ["w workload"],
    "SELECT FROM workload WHERE tenant_id = $1 OR id = $2": ["workload"],
    "SELECT FROM workload WHERE tenant_id > $1": ["workload"],
    "SELECT id FROM workload WHERE tenant_id = $1 UNION ALL SELECT id FROM cluster": ["cluster"],
    "SELECT FROM workload WHERE tenant_id = $1 AND id IN (SELECT workload_id FROM workload_pod)": [
        "workload_pod"
    ],
    "WITH x AS (SELECT tenant_id FROM workload) DELETE FROM workload_pod p USING x "
    "WHERE p.tenant_id = x.tenant_id": ["workload"],
    "SELECT FROM (SELECT id FROM workload) AS w JOIN cluster c ON c.tenant_id = $1": ["workload"],
    "SELECT FROM (SELECT tenant_id FROM workload) AS w": ["workload"],
    "UPDATE workload SET name = '' WHERE id = $1": ["workload"],
    "INSERT INTO workload (id) VALUES ($1)": ["workload"],
    "DELETE FROM workload": ["workload"],
}


@pytest.mark.parametrize("sql", BOUND)
def test_a_statement_that_names_its_tenant_is_let_through(
    sql: str, embedded_engine: Engine
) -> None:
    assert unbound_tables(sql, frozenset(TENANT_TABLES)) == []


@pytest.mark.parametrize("sql", UNBOUND)
def test_a_table_for_which_no_tenant_is_named_is_found(sql: str, embedded_engine: Engine) -> None:
    assert unbound_tables(sql, frozenset(TENANT_TABLES)) == UNBOUND[sql]
