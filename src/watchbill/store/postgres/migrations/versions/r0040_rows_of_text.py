"""The rows of the search table that hold a text: all of them, to be counted."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0040"
down_revision = "0038"
branch_labels = None
depends_on = None

ROWS = """
CREATE FUNCTION workload_search_rows(deleted boolean, trigrams int[], patterns text[])
RETURNS SETOF workload_search
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant int := NULLIF(current_setting('watchbill.tenant_id', true), '')::int;
    wanted bigint[] := ARRAY(SELECT (tenant::bigint << 24) | number FROM unnest(trigrams) AS number);
    long_text bigint[] := ARRAY[(tenant::bigint << 24) | 16777215];
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT * FROM public.workload_search WHERE tenant_id = $1 '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || 'AND (public.tenant_trigrams(tenant_id, search) @> $2 '
        'OR public.tenant_trigrams(tenant_id, search) @> $3) AND search LIKE ALL ($4)'
    USING tenant, wanted, long_text, patterns;
END $$
"""


def upgrade() -> None:
    op.execute(ROWS)
    op.execute("REVOKE ALL ON FUNCTION workload_search_rows FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION workload_search_rows TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
