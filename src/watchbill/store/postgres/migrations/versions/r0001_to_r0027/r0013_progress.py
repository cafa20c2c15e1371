"""How far a cluster's agent has come, and the deletions that wait for a second look.

`last_contact_at` is until when the cluster was observed; `last_message_at` is the newest message of its agent,
which may be unable to read the cluster.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE held_deletion (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    workload_id uuid NOT NULL,
    held_at timestamptz NOT NULL,
    refused_at timestamptz,
    PRIMARY KEY (tenant_id, cluster_id, workload_id)
)
"""


def upgrade() -> None:
    op.execute(
        "ALTER TABLE cluster DROP COLUMN suspect_since, "
        "ADD COLUMN last_message_at timestamptz, ADD COLUMN is_blind boolean NOT NULL DEFAULT false, "
        "ADD COLUMN backlog int NOT NULL DEFAULT 0, ADD COLUMN last_change_at timestamptz, "
        "ADD COLUMN last_inventory_at timestamptz"
    )
    op.execute(TABLE)
    op.execute("ALTER TABLE held_deletion ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE held_deletion FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON held_deletion USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON held_deletion TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP TABLE held_deletion")
    op.execute(
        "ALTER TABLE cluster ADD COLUMN suspect_since timestamptz, DROP COLUMN last_message_at, "
        "DROP COLUMN is_blind, DROP COLUMN backlog, DROP COLUMN last_change_at, "
        "DROP COLUMN last_inventory_at"
    )
