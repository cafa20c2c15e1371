"""An index of trigrams over the names and nodes of pods that are gone, written once in a pod's life.

As with the search of workloads, row security lets no such index answer, so one function that names the
session's tenant reads the table as its owner. Pods that live are few, and change more often than they are
searched.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0060"
down_revision = "0052"
branch_labels = None
depends_on = None

_TEXT = "lower(name || chr(31) || coalesce(node_name, ''))"
INDEX = (
    "CREATE INDEX workload_pod_gone_text ON workload_pod USING gin "
    f"(tenant_trigrams(tenant_id, {_TEXT})) WITH (gin_pending_list_limit = 512) "
    "WHERE deleted_at IS NOT NULL"
)
MATCHES = f"""
CREATE FUNCTION workload_pod_gone_ids(trigrams int[], pattern text, most bigint)
RETURNS TABLE (workload_id uuid, id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant int := NULLIF(current_setting('watchbill.tenant_id', true), '')::int;
    wanted bigint[] := ARRAY(SELECT (tenant::bigint << 24) | number FROM unnest(trigrams) AS number);
    long_text bigint[] := ARRAY[(tenant::bigint << 24) | 16777215];
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT p.workload_id, p.id FROM public.workload_pod p WHERE tenant_id = $1 '
        'AND deleted_at IS NOT NULL AND (public.tenant_trigrams(tenant_id, {_TEXT.replace("'", "''")}) @> $2 '
        'OR public.tenant_trigrams(tenant_id, {_TEXT.replace("'", "''")}) @> $3) '
        'AND {_TEXT.replace("'", "''")} LIKE $4 LIMIT $5'
    USING tenant, wanted, long_text, pattern, most;
END $$
"""


def upgrade() -> None:
    op.execute(INDEX)
    op.execute(MATCHES)
    op.execute("ALTER TABLE workload_pod NO FORCE ROW LEVEL SECURITY")
    op.execute("REVOKE ALL ON FUNCTION workload_pod_gone_ids FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION workload_pod_gone_ids TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("ALTER TABLE workload_pod FORCE ROW LEVEL SECURITY")
    op.execute("DROP FUNCTION workload_pod_gone_ids")
    op.execute("DROP INDEX workload_pod_gone_text")
