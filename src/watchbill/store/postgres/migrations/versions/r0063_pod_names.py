"""The indexes of pods by node have their names too, so that counts and searches read no pods."""

from alembic import op

revision = "0063"
down_revision = "0062"
branch_labels = None
depends_on = None

STATES = {
    "workload_pod_node": "deleted_at IS NULL",
    "workload_pod_gone_node": "deleted_at IS NOT NULL",
}
BEFORE = {
    "workload_pod_node": "(tenant_id, node_name)",
    "workload_pod_gone_node": "(tenant_id, node_name, workload_id, id)",
}


def upgrade() -> None:
    for name, state in STATES.items():
        op.execute(f"DROP INDEX {name}")
        op.execute(
            f"CREATE INDEX {name} ON workload_pod (tenant_id, node_name, workload_id, id) "
            f"INCLUDE (name) WHERE {state}"
        )


def downgrade() -> None:
    for name, state in STATES.items():
        op.execute(f"DROP INDEX {name}")
        op.execute(f"CREATE INDEX {name} ON workload_pod {BEFORE[name]} WHERE {state}")
