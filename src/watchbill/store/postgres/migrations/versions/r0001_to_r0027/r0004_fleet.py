"""The fleet's figures every five minutes: a row per project, and one per cluster that also says "we looked".

Where a cluster has no row for an instant nothing is known of it; where a project has none it had no workload.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PHASES = (
    *("creating", "initializing", "resuming", "pending", "deleting", "running", "updating"),
    *("stopped", "stopping", "degraded", "failed", "completed", "terminating", "unknown"),
)
TABLES = (
    """
CREATE TABLE fleet_cluster (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    at timestamptz NOT NULL,
    cluster_id uuid NOT NULL,
    gpu bigint,
    PRIMARY KEY (tenant_id, at, cluster_id)
)
""",
    f"""
CREATE TABLE fleet_project (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    at timestamptz NOT NULL,
    cluster_id uuid NOT NULL,
    project_id int NOT NULL,
    department_id int NOT NULL,
    allocated_gpu bigint NOT NULL,
    measured_gpu bigint NOT NULL,
    idle_gpu bigint NOT NULL,
    failed_in_day int NOT NULL,
    {" ".join(f"phase_{phase} int NOT NULL," for phase in PHASES)}
    wait_buckets int[],
    wait_counts int[],
    PRIMARY KEY (tenant_id, at, cluster_id, project_id, department_id)
)
""",
)
TENANT_TABLES = ("fleet_cluster", "fleet_project")


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("the series would be lost")
