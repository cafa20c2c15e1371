"""How many GPUs a workload holds may be unknown: where its node does not tell what a unit of them is."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import (
    r0006_tally,
    r0025_workload_class,
)

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

FIGURES = r0006_tally.FIGURES | {
    "allocated_gpu": "coalesce(w.allocated_gpu, 0)",
    "measured_workloads": "(w.idle_allocated_gpu IS NOT NULL AND coalesce(w.allocated_gpu, 0) > 0)::int",
    "measured_gpu": "CASE WHEN w.idle_allocated_gpu IS NULL THEN 0 ELSE coalesce(w.allocated_gpu, 0) END",
}
"""What one live workload adds to each figure of the tally; what is not known adds nothing."""


def upgrade() -> None:
    for function in r0006_tally.functions(FIGURES, r0025_workload_class.KEY):
        op.execute(function)
    op.execute("ALTER TABLE workload ALTER COLUMN allocated_gpu DROP NOT NULL")
    op.execute("ALTER TABLE usage_sample ALTER COLUMN gpu_millionths DROP NOT NULL")


def downgrade() -> None:
    raise NotImplementedError("unknown figures would have to become 0")
