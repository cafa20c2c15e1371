"""Pods and events count in what a cluster has stored; the index of texts knows whose text it is.

`stored_pod_bytes` is filled and read as `stored_bytes` is, apart from it: what pods and events take must not
keep workloads out. In the indexes of trigrams every number begins with the tenant's, so what other tenants'
texts have in common is not read by a search.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0018_search import INDEXES
from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0020_stored_bytes import (
    EVENTS,
    TABLE,
    fill,
)

revision = "0032"
down_revision = "0033"
branch_labels = None
depends_on = None

_ROW_BYTES = 200
"""Of a row and its places in indexes, besides its texts."""
_OF_WORKLOAD = (
    "SELECT w.tenant_id, w.cluster_id, {{sign}} ({size}) AS bytes FROM {{rows}} c "
    "JOIN workload w ON w.tenant_id = c.tenant_id AND w.id = c.workload_id"
)
SIZES = {
    "workload_pod": f"{_ROW_BYTES} + octet_length(c.document)",
    "workload_event": f"{_ROW_BYTES} + octet_length(c.message) + octet_length(c.reason) "
    "+ octet_length(c.source) + octet_length(c.object_name)",
}
"""What a row of each table counts for."""
_ADD = (
    "INSERT INTO stored_pod_bytes (tenant_id, cluster_id, bytes) "
    "SELECT tenant_id, cluster_id, sum(bytes) FROM ({rows}) AS moved "
    "GROUP BY tenant_id, cluster_id HAVING sum(bytes) <> 0;"
)
# A text beyond the bound has the number -1, which becomes the tenant's largest: no three bytes of UTF-8 are it.
TENANT_TRIGRAMS = """
CREATE FUNCTION tenant_trigrams(tenant int, content text) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(array_agg((tenant::bigint << 24) | (number & 16777215)), '{}')
    FROM unnest(public.text_trigrams(content)) AS number
$$
"""
MATCHES = """
CREATE OR REPLACE FUNCTION workload_search_ids(deleted boolean, trigrams int[], patterns text[], most bigint)
RETURNS SETOF uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant int := NULLIF(current_setting('watchbill.tenant_id', true), '')::int;
    wanted bigint[] := ARRAY(SELECT (tenant::bigint << 24) | number FROM unnest(trigrams) AS number);
    long_text bigint[] := ARRAY[(tenant::bigint << 24) | 16777215];
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT id FROM public.workload_search WHERE tenant_id = $1 '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || CASE WHEN trigrams = '{}' THEN '' ELSE
            'AND (public.tenant_trigrams(tenant_id, search) @> $2 '
            'OR public.tenant_trigrams(tenant_id, search) @> $3) ' END
        || 'AND search LIKE ALL ($4) LIMIT $5'
    USING tenant, wanted, long_text, patterns, most;
END $$
"""


def upgrade() -> None:
    _count_pods_and_events()
    op.execute(TENANT_TRIGRAMS)
    for name, condition in INDEXES.items():
        op.execute(f"DROP INDEX workload_search_{name}")
        op.execute(
            f"CREATE INDEX workload_search_{name} ON workload_search USING gin "
            f"(tenant_trigrams(tenant_id, search)) WITH (gin_pending_list_limit = 512) "
            f"WHERE {condition}"
        )
    op.execute("ANALYZE workload_search")
    op.execute(MATCHES)


def _count_pods_and_events() -> None:
    op.execute(TABLE.replace("stored_bytes", "stored_pod_bytes"))
    op.execute("ALTER TABLE stored_pod_bytes ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE stored_pod_bytes FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON stored_pod_bytes USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON stored_pod_bytes TO {APP_ROLE}")
    counted = {table: _OF_WORKLOAD.format(size=size) for table, size in SIZES.items()}
    for table, each in counted.items():
        for event, (seen, parts) in EVENTS.items():
            rows = " UNION ALL ".join(each.format(sign=sign, rows=rows) for sign, rows in parts)
            op.execute(
                f"CREATE FUNCTION stored_bytes_{table}_{event}() RETURNS trigger LANGUAGE plpgsql "
                f"AS $$ BEGIN {_ADD.format(rows=rows)} RETURN NULL; END $$"
            )
            op.execute(
                f"CREATE TRIGGER stored_bytes_{event} AFTER {event} ON {table} REFERENCING {seen} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION stored_bytes_{table}_{event}()"
            )
    stored = " UNION ALL ".join(
        each.format(sign="+", rows=table) for table, each in counted.items()
    )
    op.execute(fill(_ADD.format(rows=stored)))


def downgrade() -> None:
    raise NotImplementedError("servers of this version search in it and count by it")
