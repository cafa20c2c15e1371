"""An index for every order of pods, live or gone, but the one by cluster, which only the workload knows."""

from alembic import op

revision = "0051"
down_revision = "0048"
branch_labels = None
depends_on = None

LIVE, GONE = "deleted_at IS NULL", "deleted_at IS NOT NULL"
INDEXES = {
    "workload_pod_live_pool": ("current_node_pool", LIVE),
    "workload_pod_live_completed": ("completed_at", LIVE),
    "workload_pod_gone_created": ("created_at", GONE),
    "workload_pod_gone_completed": ("completed_at", GONE),
    "workload_pod_gone_node": ("node_name", GONE),
    "workload_pod_gone_pool": ("current_node_pool", GONE),
}
"""Beside those of the first version: of what lives by creation and node, of what is gone by deletion."""


def upgrade() -> None:
    for name, (column, state) in INDEXES.items():
        op.execute(
            f"CREATE INDEX {name} ON workload_pod (tenant_id, {column}, workload_id, id) "
            f"WHERE {state}"
        )


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
