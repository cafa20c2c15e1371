"""What Kubernetes said of workloads: one row for each event, which counts its repetitions."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0016"
down_revision = "0027"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE workload_event (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    source text NOT NULL,
    count int NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    object_uid uuid NOT NULL,
    object_kind text NOT NULL,
    object_name text NOT NULL,
    object_namespace text NOT NULL,
    PRIMARY KEY (tenant_id, workload_id, id)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("CREATE INDEX workload_event_age ON workload_event (tenant_id, last_at)")
    op.execute("ALTER TABLE workload_event ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE workload_event FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON workload_event USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON workload_event TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP TABLE workload_event")
