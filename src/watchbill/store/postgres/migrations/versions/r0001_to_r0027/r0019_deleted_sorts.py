"""An index for every sort of deleted workloads too: what is gone is looked for among far more rows than live.

A deleted row does not change any more, so each is written once, and again when the row is purged.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0012_sorts import (
    INDEXES as LIVE_INDEXES,
)

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INDEXES = LIVE_INDEXES | {
    "created": "created_at",
    "name": "name",
    "phase": "phase",
    "project": "project_name",
}


def upgrade() -> None:
    for name, expression in INDEXES.items():
        op.execute(
            f"CREATE INDEX workload_deleted_by_{name} ON workload (tenant_id, {expression}, id) "
            "WHERE deleted_at IS NOT NULL"
        )


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX workload_deleted_by_{name}")
