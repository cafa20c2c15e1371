"""What `search` and the text operators look into, in a narrow table with an index of trigrams.

Under row security an index answers only operators that are known to leak nothing, and none that compares parts
of texts is. So the table's owner reads it, in one function that names the session's tenant itself; for all
others row security holds on it as on any other. Triggers keep it, in the transaction that changes a workload; a
change that leaves the text, the phase and the place alone writes nothing here.
"""

from collections.abc import Sequence

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0018"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE workload_search (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id uuid NOT NULL,
    cluster_id uuid NOT NULL,
    project_id int NOT NULL,
    department_id int,
    phase text NOT NULL COLLATE "C",
    deleted_at timestamptz,
    search text NOT NULL COLLATE "C",
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05)
"""
STORAGE = "ALTER TABLE workload_search ALTER COLUMN search SET STORAGE MAIN"
# Three bytes of UTF-8 as one number: the index over arrays of numbers is built in, unlike pg_trgm.
# A text beyond the bound, which only many long names of node pools make, has one number that all searches take.
TRIGRAMS = """
CREATE FUNCTION text_trigrams(content text) RETURNS int[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(content) > 1000 THEN '{-1}' ELSE (
        SELECT coalesce(array_agg(DISTINCT (get_byte(bytes, at) << 16)
            + (get_byte(bytes, at + 1) << 8) + get_byte(bytes, at + 2)), '{}')
        FROM convert_to(content, 'UTF8') AS bytes,
            generate_series(0, octet_length(bytes) - 3) AS at) END
$$
"""
MATCHES = """
CREATE FUNCTION workload_search_ids(deleted boolean, trigrams int[], patterns text[], most bigint)
RETURNS SETOF uuid LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- As text, so that it is planned for these values and not for any.
    RETURN QUERY EXECUTE 'SELECT id FROM public.workload_search '
        'WHERE tenant_id = NULLIF(current_setting(''watchbill.tenant_id'', true), '''')::int '
        || CASE WHEN deleted THEN 'AND deleted_at IS NOT NULL ' ELSE 'AND deleted_at IS NULL ' END
        || CASE WHEN trigrams = '{}' THEN '' ELSE 'AND (public.text_trigrams(search) @> $1 '
            'OR public.text_trigrams(search) @> ''{-1}'') ' END
        || 'AND search LIKE ALL ($2) LIMIT $3'
    USING trigrams, patterns, most;
END $$
"""
FOLLOWED = ("cluster_id", "project_id", "department_id", "phase", "deleted_at", "search")
"""What changes with the workload's own column."""
_COLUMNS = ", ".join(("tenant_id", "id", *FOLLOWED))


def triggers(followed: Sequence[str]) -> dict[str, tuple[str, str]]:
    """By event what its trigger does and when it fires, for these columns."""
    columns = ", ".join(("tenant_id", "id", *followed))
    return {
        "insert": (
            f"INSERT INTO workload_search ({columns}) SELECT {columns} FROM came; RETURN NULL;",
            "AFTER INSERT ON workload REFERENCING NEW TABLE AS came FOR EACH STATEMENT",
        ),
        "update": (
            f"UPDATE workload_search s SET {', '.join(f'{name} = NEW.{name}' for name in followed)} "
            "WHERE s.tenant_id = NEW.tenant_id AND s.id = NEW.id; RETURN NULL;",
            f"AFTER UPDATE OF {', '.join(followed)} ON workload FOR EACH ROW WHEN "
            f"({' OR '.join(f'NEW.{name} IS DISTINCT FROM OLD.{name}' for name in followed)})",
        ),
        "delete": (
            "DELETE FROM workload_search s USING went WHERE s.tenant_id = went.tenant_id "
            "AND s.id = went.id; RETURN NULL;",
            "AFTER DELETE ON workload REFERENCING OLD TABLE AS went FOR EACH STATEMENT",
        ),
    }


FILL = f"""
DO $$
DECLARE
    tenant_number int;
BEGIN
    FOR tenant_number IN SELECT id FROM tenant LOOP
        PERFORM set_config('watchbill.tenant_id', tenant_number::text, true);
        INSERT INTO workload_search ({_COLUMNS}) SELECT {_COLUMNS} FROM workload
            WHERE tenant_id = tenant_number;
    END LOOP;
    PERFORM set_config('watchbill.tenant_id', '', true);
END $$
"""
# Whatever waits to be sorted into an index of this kind is read whole by every search.
INDEXES = {"live": "deleted_at IS NULL", "deleted": "deleted_at IS NOT NULL"}


def upgrade() -> None:
    for statement in (TABLE, STORAGE, TRIGRAMS, MATCHES, FILL):
        op.execute(statement)
    for name, condition in INDEXES.items():
        op.execute(
            f"CREATE INDEX workload_search_{name} ON workload_search USING gin "
            f"(text_trigrams(search)) WITH (gin_pending_list_limit = 512) WHERE {condition}"
        )
    op.execute("ANALYZE workload_search")
    op.execute("ALTER TABLE workload_search ENABLE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON workload_search USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})"
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON workload_search TO {APP_ROLE}")
    for event, (body, fires) in triggers(FOLLOWED).items():
        op.execute(
            f"CREATE FUNCTION workload_search_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"BEGIN {body} END $$"
        )
        op.execute(
            f"CREATE TRIGGER search_{event} {fires} EXECUTE FUNCTION workload_search_{event}()"
        )
    op.execute("REVOKE ALL ON FUNCTION workload_search_ids FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION workload_search_ids TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("servers of this version search in it")
