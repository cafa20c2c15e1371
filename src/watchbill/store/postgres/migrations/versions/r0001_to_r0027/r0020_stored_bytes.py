"""The bytes that each cluster has stored, live and deleted workloads alike; the fleet of many projects.

Triggers add what a statement stores or removes as a row of its own, so that no two writers meet; the cluster's
own writer adds them up now and then. Counted are documents, details, elements and phases.

A cluster of many projects is not counted at every instant of the fleet's series: `fleet_cluster.counted_at` is
the instant whose rows in `fleet_project` count (NULL = its own), `project_rows` how many they are.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0020"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE stored_bytes (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, id)
)
"""
_WORKLOAD = (
    "SELECT tenant_id, cluster_id, "
    "{sign} (octet_length(document) + coalesce(octet_length(details), 0)) AS bytes FROM {rows}"
)
_ELEMENTS = (
    "SELECT w.tenant_id, w.cluster_id, {sign} (SELECT coalesce(sum(octet_length(e)), 0) "
    "FROM unnest(c.elements) AS e) AS bytes FROM {rows} c "
    "JOIN workload w ON w.tenant_id = c.tenant_id AND w.id = c.workload_id"
)
_PHASES = (
    "SELECT w.tenant_id, w.cluster_id, {sign} (100 + coalesce(octet_length(c.message), 0)) AS bytes "
    "FROM {rows} c JOIN workload w ON w.tenant_id = c.tenant_id AND w.id = c.workload_id"
)
SOURCES = {"workload": _WORKLOAD, "workload_elements": _ELEMENTS, "phase_transition": _PHASES}
"""What a row of each table counts for."""
ADD = (
    "INSERT INTO stored_bytes (tenant_id, cluster_id, bytes) "
    "SELECT tenant_id, cluster_id, sum(bytes) FROM ({rows}) AS moved "
    "GROUP BY tenant_id, cluster_id HAVING sum(bytes) <> 0;"
)
EVENTS = {
    "insert": ("NEW TABLE AS came", (("+", "came"),)),
    "update": ("OLD TABLE AS went NEW TABLE AS came", (("+", "came"), ("-", "went"))),
    "delete": ("OLD TABLE AS went", (("-", "went"),)),
}
"""Event: what its trigger sees of it, and the rows that count with their signs."""
FILL = """
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        {add}
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""


def fill(add: str) -> str:
    """Counts what is there: of each tenant its own, though a superuser sees the rows of all."""
    return FILL.format(
        add=add.replace(") AS moved ", ") AS moved WHERE tenant_id = tenant_number ")
    )


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE stored_bytes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE stored_bytes FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON stored_bytes USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON stored_bytes TO {APP_ROLE}")
    for table, each in SOURCES.items():
        for event, (seen, parts) in EVENTS.items():
            rows = " UNION ALL ".join(each.format(sign=sign, rows=rows) for sign, rows in parts)
            op.execute(
                f"CREATE FUNCTION stored_bytes_{table}_{event}() RETURNS trigger LANGUAGE plpgsql "
                f"AS $$ BEGIN {ADD.format(rows=rows)} RETURN NULL; END $$"
            )
            op.execute(
                f"CREATE TRIGGER stored_bytes_{event} AFTER {event} ON {table} REFERENCING {seen} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION stored_bytes_{table}_{event}()"
            )
    stored = " UNION ALL ".join(
        each.format(sign="+", rows=table) for table, each in SOURCES.items()
    )
    op.execute(fill(ADD.format(rows=stored)))
    op.execute(
        "ALTER TABLE fleet_cluster ADD COLUMN counted_at timestamptz, "
        "ADD COLUMN project_rows int NOT NULL DEFAULT 0"
    )


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
