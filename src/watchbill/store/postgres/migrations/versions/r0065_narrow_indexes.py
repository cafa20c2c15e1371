"""Indexes that answer alone, without the rows, what is asked of very many live workloads.

Each begins with what groups of rows have in common: within these an index has its entries in the rows' own
order, and asks but once for each stretch of the table whether they are visible to all. A value of 600
characters and all the others fit into one entry, so no index has two texts that an agent writes. What they have
beside their key changes with the phase or with what idles, which other indexes have already.
"""

from alembic import op

revision = "0065"
down_revision = "0064"
branch_labels = None
depends_on = None

INDEXES = {
    "workload_live": (
        "(tenant_id, phase, type) INCLUDE (id, cluster_id, project_id, department_id, priority, allocated_gpu, "
        "pending_ms, pending_since, running_ms, running_since) WHERE deleted_at IS NULL"
    ),
    "workload_pending": (
        "(tenant_id, cluster_id, project_id, department_id, type) INCLUDE (phase_updated_at) "
        "WHERE deleted_at IS NULL AND phase = 'Pending'"
    ),
    "workload_failed": (
        "(tenant_id, resting_phase_at) WHERE deleted_at IS NULL AND resting_phase = 'Failed' "
        "AND phase IN ('Failed', 'Deleting', 'Terminating')"
    ),
    "workload_idle": (
        "(tenant_id, cluster_id, submitted_by) INCLUDE (id, project_id, department_id, idle_allocated_gpu, "
        "idle_gpu_hours, idle_mean_since) WHERE deleted_at IS NULL AND idle_allocated_gpu > 0"
    ),
}


def upgrade() -> None:
    op.execute("DROP INDEX workload_idle")
    for name, definition in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON workload {definition}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute(
        "CREATE INDEX workload_idle ON workload (tenant_id, id) "
        "WHERE deleted_at IS NULL AND idle_allocated_gpu > 0"
    )
