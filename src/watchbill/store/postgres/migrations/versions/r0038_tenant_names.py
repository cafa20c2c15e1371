"""The index of names knows whose names they are, as that of texts does (see r0032).

Images, labels and GPU models are alike in many tenants: a search for one read those of all of them.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0018_search import INDEXES
from watchbill.store.postgres.migrations.versions.r0036_names import FIELDS

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

_COLUMNS = ", ".join(FIELDS.values())
NAMES = f"""
CREATE FUNCTION tenant_names(tenant int, {", ".join(f"{column} text[]" for column in FIELDS.values())})
RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(tenant::text || ':' || name), '{{}}')
    FROM unnest(public.workload_names({_COLUMNS})) AS name
$$
"""
MATCHES = f"""
CREATE OR REPLACE FUNCTION workload_named_ids(deleted boolean, alternatives text[], most bigint)
RETURNS SETOF uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant int := NULLIF(current_setting('watchbill.tenant_id', true), '')::int;
    wanted text[] := ARRAY(SELECT tenant::text || ':' || name FROM unnest(alternatives) AS name);
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT id FROM public.workload_search WHERE tenant_id = $1 '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || 'AND public.tenant_names(tenant_id, {_COLUMNS}) && $2 LIMIT $3'
    USING tenant, wanted, most;
END $$
"""


def upgrade() -> None:
    op.execute(NAMES)
    for name, condition in INDEXES.items():
        op.execute(f"DROP INDEX workload_search_names_{name}")
        op.execute(
            f"CREATE INDEX workload_search_names_{name} ON workload_search USING gin "
            f"(tenant_names(tenant_id, {_COLUMNS})) WITH (gin_pending_list_limit = 512) "
            f"WHERE {condition}"
        )
    op.execute("ANALYZE workload_search")
    op.execute(MATCHES)


def downgrade() -> None:
    raise NotImplementedError("servers of this version filter by it")
