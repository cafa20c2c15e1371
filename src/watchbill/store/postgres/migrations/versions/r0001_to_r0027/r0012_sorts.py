"""An index for every sort of live workloads that can have one.

None for node pools (a list can be longer than an index entry may be) and none for the totals, which run on.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = {
    "type": "type",
    "category": "category",
    "phase_updated": "phase_updated_at",
    "cluster_id": "cluster_id",
    "project_id": '(project_id::text COLLATE "C")',
    "department_id": '(department_id::text COLLATE "C")',
    "department": "department_name",
    "submitted_by": "submitted_by",
    "priority": "priority",
    "priority_class": "priority_class_name",
    "framework": "distributed_framework",
    "completed": "completed_at",
    "allocated_gpu": "allocated_gpu",
    "idle_allocated_gpu": "idle_allocated_gpu",
    "idle_gpus": "idle_gpus",
    "guaranteed_until": "guaranteed_runtime_ends_at",
    "application": "ai_application_name",
    "application_id": "ai_application_id",
}


def upgrade() -> None:
    for name, expression in INDEXES.items():
        op.execute(
            f"CREATE INDEX workload_by_{name} ON workload (tenant_id, {expression}, id) "
            "WHERE deleted_at IS NULL"
        )


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX workload_by_{name}")
