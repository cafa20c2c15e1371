"""How many rows of the search table hold a text, counted where they are read, by several processes.

`workload_search_rows` hands each of them out, all columns, to be counted by the statement that calls it, which
writes a text's hundred thousand rows to disk. It stays for counts that narrow them further.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import APP_ROLE

revision = "0066"
down_revision = "0065"
branch_labels = None
depends_on = None

COUNT = """
CREATE FUNCTION workload_search_count(deleted boolean, trigrams int[], patterns text[], without_phases text[])
RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant int := NULLIF(current_setting('watchbill.tenant_id', true), '')::int;
    wanted bigint[] := ARRAY(SELECT (tenant::bigint << 24) | number FROM unnest(trigrams) AS number);
    long_text bigint[] := ARRAY[(tenant::bigint << 24) | 16777215];
    counted bigint;
BEGIN
    -- As text, so that it is planned for these values and not for any.
    EXECUTE 'SELECT count(*) FROM public.workload_search WHERE tenant_id = $1 '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || 'AND (public.tenant_trigrams(tenant_id, search) @> $2 '
        'OR public.tenant_trigrams(tenant_id, search) @> $3) AND search LIKE ALL ($4) '
        'AND phase <> ALL ($5)'
    INTO counted USING tenant, wanted, long_text, patterns, without_phases;
    RETURN counted;
END $$
"""


def upgrade() -> None:
    op.execute(COUNT)
    op.execute("REVOKE ALL ON FUNCTION workload_search_count FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION workload_search_count TO {APP_ROLE}")


def downgrade() -> None:
    op.execute("DROP FUNCTION workload_search_count")
