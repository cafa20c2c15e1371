"""Who holds idle GPUs is asked often, and they are few."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX workload_idle ON workload (tenant_id, id) "
        "WHERE deleted_at IS NULL AND idle_allocated_gpu > 0"
    )


def downgrade() -> None:
    op.execute("DROP INDEX workload_idle")
