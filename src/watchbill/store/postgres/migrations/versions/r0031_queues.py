"""Queues of schedulers beside the projects and departments that they are; what projects hold, in the tally.

What was reported before tells nothing of CPU and memory until its agent reports it again: until then the sums
of its project are not known. `queue_quota` holds a row where a quota differs from the one before.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions import r0041_pools_held
from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import (
    r0006_tally,
    r0026_unknown_gpus,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0031"
down_revision = "0041"
branch_labels = None
depends_on = None

KEY = (*r0041_pools_held.KEY, "preemptible")
"""What the tally counts by."""
FIGURES = r0026_unknown_gpus.FIGURES | {
    "unknown_gpu": "(w.allocated_gpu IS NULL)::int",
    "unknown_host": "(w.allocated_cpu IS NULL)::int",
    "requested_gpu": "coalesce(w.requested_gpu, 0)",
    "requested_cpu": "coalesce(w.requested_cpu, 0)",
    "requested_memory": "coalesce(w.requested_memory, 0)",
    "allocated_cpu": "coalesce(w.allocated_cpu, 0)",
    "allocated_memory": "coalesce(w.allocated_memory, 0)",
}
"""What one live workload adds to each figure of the tally; what is not known adds to the unknown."""
WORKLOAD_COLUMNS = {
    "preemptible": "boolean",
    "requested_gpu": "bigint",
    "requested_cpu": "bigint",
    "requested_memory": "bigint",
    "allocated_cpu": "bigint",
    "allocated_memory": "bigint",
}
"""Millionths of GPUs, millicores, bytes."""
UNIT_COLUMNS = {
    "queue": "jsonb",
    "gpu_quota": "bigint",
    "cpu_quota": "bigint",
    "memory_quota": "bigint",
    "created_at": "timestamptz NOT NULL DEFAULT now()",
    "updated_at": "timestamptz NOT NULL DEFAULT now()",
}
"""Of projects and departments: the queue as its agent reported it, its quotas added up (millionths of GPUs,
millicores, MB); NULL where no queue states it, or one without a bound."""
QUOTAS = """
CREATE TABLE queue_quota (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    unit text NOT NULL COLLATE "C",
    id int NOT NULL,
    at timestamptz NOT NULL,
    gpu_quota bigint,
    cpu_quota bigint,
    memory_quota bigint,
    PRIMARY KEY (tenant_id, unit, id, at)
)
"""
# A superuser sees every tenant's rows, whatever tenant is set: each statement names its own.
FIRST_SEEN = """
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        UPDATE project p SET created_at = w.at, updated_at = w.at
            FROM (SELECT project_id, min(created_at) AS at FROM workload
                WHERE tenant_id = tenant_number GROUP BY 1) AS w
            WHERE p.tenant_id = tenant_number AND w.project_id = p.id;
        UPDATE department d SET created_at = w.at, updated_at = w.at
            FROM (SELECT department_id, min(created_at) AS at FROM workload
                WHERE tenant_id = tenant_number GROUP BY 1) AS w
            WHERE d.tenant_id = tenant_number AND w.department_id = d.id;
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""


def upgrade() -> None:
    for table in ("project", "department"):
        for column, kind in UNIT_COLUMNS.items():
            op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    op.execute("ALTER TABLE department ADD COLUMN parent_id int")
    op.execute(FIRST_SEEN)
    for column, kind in WORKLOAD_COLUMNS.items():
        op.execute(f"ALTER TABLE workload ADD COLUMN {column} {kind}")
    op.execute("ALTER TABLE workload_tally ADD COLUMN preemptible boolean")
    for figure in FIGURES.keys() - r0026_unknown_gpus.FIGURES.keys():
        op.execute(f"ALTER TABLE workload_tally ADD COLUMN {figure} numeric NOT NULL DEFAULT 0")
    for function in r0006_tally.functions(FIGURES, KEY):
        op.execute(function)
    op.execute(r0006_tally.FILL)
    for column in ("allocated_cpu", "allocated_memory"):
        op.execute(f"ALTER TABLE fleet_project ADD COLUMN {column} numeric")
    op.execute(QUOTAS)
    op.execute("ALTER TABLE queue_quota ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE queue_quota FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON queue_quota USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON queue_quota TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
