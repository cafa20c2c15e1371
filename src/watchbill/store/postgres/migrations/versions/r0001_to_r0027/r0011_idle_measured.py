"""Since when a workload's GPUs are measured, as a column: an agent that starts anew is told it for thousands of
workloads, and their whole documents are too much to read for it."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Row security holds for the owner too, hence tenant by tenant. A document that holds what jsonb cannot is left
# out: its workload is told at its next record.
FILL = """
DO $$
DECLARE
    tenant_number int;
    workload_id uuid;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        FOR workload_id IN SELECT id FROM workload WHERE tenant_id = tenant_number
            AND deleted_at IS NULL AND (idle_gpu_hours > 0 OR idle_allocated_gpu > 0) LOOP
            BEGIN
                UPDATE workload SET idle_measured_since = (convert_from(document || '}'::bytea, 'UTF8')::jsonb
                    #>> '{additionalFields,idleMeasuredSince}')::timestamptz
                WHERE tenant_id = tenant_number AND id = workload_id;
            EXCEPTION WHEN data_exception THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE workload ADD COLUMN idle_measured_since timestamptz")
    op.execute(FILL)


def downgrade() -> None:
    op.execute("ALTER TABLE workload DROP COLUMN idle_measured_since")
