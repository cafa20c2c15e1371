"""The figures of each node pool every five minutes: what it has, what is held, what exporters measured on it.

Sums, so that those of several pools add up; utilization is a sum over GPUs, each with its percent. What was
measured stands beside the whole that it is a part of: of nodes that nobody measured, neither counts.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0044"
down_revision = "0042"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE fleet_node_pool (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    at timestamptz NOT NULL,
    cluster_id uuid NOT NULL,
    node_pool text NOT NULL COLLATE "C",
    gpu_nodes int NOT NULL,
    gpu bigint,
    allocated_gpu bigint,
    workloads int NOT NULL,
    measured_gpu float8 NOT NULL,
    gpu_percent float8 NOT NULL,
    gpu_memory float8 NOT NULL,
    used_gpu_memory float8 NOT NULL,
    cpu float8 NOT NULL,
    used_cpu float8 NOT NULL,
    cpu_memory float8 NOT NULL,
    used_cpu_memory float8 NOT NULL,
    PRIMARY KEY (tenant_id, at, cluster_id, node_pool)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE fleet_node_pool ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE fleet_node_pool FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON fleet_node_pool USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON fleet_node_pool TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("the series would be lost")
