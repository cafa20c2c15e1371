"""Usage by what a workload was at the time, and gaps that its agent observed.

`usage_attributes` holds each set of owner, node pool, priority class, type and category once; steps, days and
months name it. Where they name none, they are of a version that kept the last ones known of each workload:
those have an entry under the workload's own id. The columns of `usage_workload` stay for its servers.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import (
    r0010_usage,
    r0027_usage_by_model,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0046"
down_revision = "0044"
branch_labels = None
depends_on = None

KEY = (*r0027_usage_by_model.KEY, "attributes_id")
DEFINITION = """
CREATE TABLE usage_attributes (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id uuid NOT NULL,
    type text NOT NULL COLLATE "C",
    category text COLLATE "C",
    submitted_by text COLLATE "C",
    priority_class_name text COLLATE "C",
    node_pool text COLLATE "C",
    used_on date NOT NULL,
    PRIMARY KEY (tenant_id, id)
)
"""
FILL = """
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        INSERT INTO usage_attributes SELECT tenant_id, workload_id, type, category, submitted_by,
            priority_class_name, node_pool, current_date
        FROM usage_workload WHERE tenant_id = tenant_number;
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""


def upgrade() -> None:
    op.execute(DEFINITION)
    op.execute("ALTER TABLE usage_attributes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE usage_attributes FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON usage_attributes USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON usage_attributes TO {APP_ROLE}")
    op.execute("ALTER TABLE cluster_gap ADD COLUMN observed_from timestamptz")
    op.execute("ALTER TABLE usage_step ADD COLUMN attributes_id uuid")
    op.execute("ALTER TABLE usage_workload ALTER COLUMN type DROP NOT NULL")
    op.execute(FILL)
    for period in ("day", "month"):
        table = f"usage_{period}"
        op.execute(f"ALTER TABLE {table} ADD COLUMN attributes_id uuid")
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_key")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_key UNIQUE NULLS NOT DISTINCT "
            f"(tenant_id, workload_id, {period}, project_id, department_id, gpu_model, attributes_id)"
        )
    for function in r0010_usage.month_functions(KEY):
        op.execute(function)


def downgrade() -> None:
    raise NotImplementedError("servers of this version read it")
