"""To order workloads by idle GPU-hours: those of spells that are over, since when the others last."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE workload ADD COLUMN idle_gpu_hours double precision")
    op.execute("ALTER TABLE workload ADD COLUMN idle_mean_since timestamptz")


def downgrade() -> None:
    raise NotImplementedError("records would have to be sent again")
