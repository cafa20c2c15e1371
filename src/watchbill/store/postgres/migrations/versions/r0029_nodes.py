"""Nodes of clusters, one row each, and what each pod holds of its node as numbers that can be summed."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0029"
down_revision = "0036"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE cluster_node (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    name text NOT NULL COLLATE "C",
    id uuid NOT NULL,
    status text NOT NULL COLLATE "C",
    node_pool text NOT NULL COLLATE "C",
    gpu_type text COLLATE "C",
    nv_link_domain_uid text COLLATE "C",
    nv_link_clique_id text COLLATE "C",
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    document bytea NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, name)
)
"""
AMOUNTS = ("gpu_millionths", "cpu_millicores", "cpu_memory_bytes")
BACKFILL = """
UPDATE workload_pod p SET
    gpu_millionths = CASE WHEN a.held IS NULL THEN 0
        ELSE round((a.held->>'gpu')::numeric * 1000000) END,
    cpu_millicores = round(least(coalesce((a.held->>'cpu')::numeric, 0), 1000000) * 1000),
    cpu_memory_bytes = least(coalesce(substring(a.held->>'cpuMemory' FROM '^[0-9]+')::numeric, 0)
        * CASE substring(a.held->>'cpuMemory' FROM '[A-Za-z]*$')
            WHEN 'Ki' THEN 1024::numeric ^ 1 WHEN 'Mi' THEN 1024::numeric ^ 2
            WHEN 'Gi' THEN 1024::numeric ^ 3 WHEN 'Ti' THEN 1024::numeric ^ 4
            WHEN 'Pi' THEN 1024::numeric ^ 5 WHEN 'Ei' THEN 1024::numeric ^ 6
            WHEN 'k' THEN 10::numeric ^ 3 WHEN 'M' THEN 10::numeric ^ 6
            WHEN 'G' THEN 10::numeric ^ 9 WHEN 'T' THEN 10::numeric ^ 12
            WHEN 'P' THEN 10::numeric ^ 15 WHEN 'E' THEN 10::numeric ^ 18
            ELSE 1 END, 1125899906842624)
FROM (SELECT tenant_id, workload_id, id,
        nullif((convert_from(document, 'UTF8') || '}')::jsonb->'allocatedResources', 'null') AS held
    FROM workload_pod WHERE deleted_at IS NULL
    AND position('\\u0000' IN convert_from(document, 'UTF8')) = 0) AS a
WHERE p.tenant_id = a.tenant_id AND p.workload_id = a.workload_id AND p.id = a.id
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("CREATE INDEX cluster_node_id ON cluster_node (tenant_id, id)")
    op.execute("ALTER TABLE cluster_node ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE cluster_node FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON cluster_node USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON cluster_node TO {APP_ROLE}")
    op.execute("ALTER TABLE cluster ADD COLUMN nodes_digest text")
    for amount in AMOUNTS:
        op.execute(f"ALTER TABLE workload_pod ADD COLUMN {amount} bigint")
    op.execute("ALTER TABLE workload_pod NO FORCE ROW LEVEL SECURITY")
    op.execute(BACKFILL)
    op.execute("ALTER TABLE workload_pod FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    for amount in AMOUNTS:
        op.execute(f"ALTER TABLE workload_pod DROP COLUMN {amount}")
    op.execute("ALTER TABLE cluster DROP COLUMN nodes_digest")
    op.execute("DROP TABLE cluster_node")
