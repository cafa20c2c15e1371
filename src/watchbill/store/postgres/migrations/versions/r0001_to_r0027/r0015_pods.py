"""Pods of workloads, one row each, live or gone; `document` is the agent's part of what is answered."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0015"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE workload_pod (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL COLLATE "C",
    node_name text COLLATE "C",
    current_node_pool text COLLATE "C",
    k8s_phase text NOT NULL COLLATE "C",
    k8s_phase_updated_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    document bytea NOT NULL,
    PRIMARY KEY (tenant_id, workload_id, id)
)
"""
INDEXES = (
    "CREATE INDEX workload_pod_live ON workload_pod (tenant_id, created_at, id) "
    "WHERE deleted_at IS NULL",
    "CREATE INDEX workload_pod_node ON workload_pod (tenant_id, node_name) WHERE deleted_at IS NULL",
    "CREATE INDEX workload_pod_gone ON workload_pod (tenant_id, deleted_at, id) "
    "WHERE deleted_at IS NOT NULL",
)


def upgrade() -> None:
    op.execute(TABLE)
    for index in INDEXES:
        op.execute(index)
    op.execute("ALTER TABLE workload_pod ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE workload_pod FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON workload_pod USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON workload_pod TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP TABLE workload_pod")
