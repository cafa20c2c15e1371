"""Measured samples count in what a cluster has stored, by day: a day's count goes with its samples.

What was stored before is not counted; it goes with its days.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE measured_bytes (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    day date NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, day)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("ALTER TABLE measured_bytes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE measured_bytes FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON measured_bytes USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON measured_bytes TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP TABLE measured_bytes")
