"""More of what is asked of very many workloads is read from indexes alone.

An index on what an expression yields answers alone only where it has the expression's column, too.
"""

from alembic import op

revision = "0067"
down_revision = "0066"
branch_labels = None
depends_on = None

PENDING_CATEGORY = (
    "CREATE INDEX workload_pending_category ON workload "
    "(tenant_id, cluster_id, project_id, department_id, category) INCLUDE (phase_updated_at) "
    "WHERE deleted_at IS NULL AND phase = 'Pending'"
)
STATES = {"workload_by": "deleted_at IS NULL", "workload_deleted_by": "deleted_at IS NOT NULL"}
COLUMNS = ("project_id", "department_id")


def upgrade() -> None:
    op.execute(PENDING_CATEGORY)
    _replace(included=True)


def downgrade() -> None:
    op.execute("DROP INDEX workload_pending_category")
    _replace(included=False)


def _replace(*, included: bool) -> None:
    for index, where in STATES.items():
        for column in COLUMNS:
            include = f" INCLUDE ({column})" if included else ""
            op.execute(f"DROP INDEX {index}_{column}")
            op.execute(
                f"CREATE INDEX {index}_{column} ON workload "
                f'(tenant_id, ({column}::text COLLATE "C"), id){include} WHERE {where}'
            )
