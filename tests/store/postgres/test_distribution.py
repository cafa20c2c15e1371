"""The schema can be spread over machines by tenant: what must be unique or refer to a row names its tenant."""

from watchbill.store.postgres.database import Database

KEYS_WITHOUT_TENANT = {
    ("account", "client_id"): "a login names its account before its tenant is known",
    ("cluster", "id"): "an agent's credential names its cluster alone",
    ("session", "token_hash"): "a cookie names its session alone",
    ("refresh_token", "token_hash"): "a refresh token names its login alone",
}
"""Unique over all tenants, each with the reason: a directory of these would stay on one machine."""
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
    SELECT c.conrelid::regclass::text AS table_name, c.conname AS name,
           bool_or(a.attname = 'tenant_id') AS has_tenant
    FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)
    WHERE c.contype = 'f' AND c.conparentid = 0 AND c.connamespace = 'public'::regnamespace
    GROUP BY c.oid, c.conrelid, c.conname
"""


async def test_what_is_unique_is_so_within_a_tenant(db: Database) -> None:
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_UNIQUE)
    assert len(rows) >= 30
    without = {(row["table_name"], row["columns"]) for row in rows if not row["has_tenant"]}
    assert without == KEYS_WITHOUT_TENANT.keys()


async def test_what_refers_to_a_row_names_its_tenant(db: Database) -> None:
    async with db.acquire(1) as connection:
        rows = await connection.fetch(_REFERENCES)
    assert [row["name"] for row in rows if not row["has_tenant"]] == []
