"""Measured samples: one narrow row per workload and scrape, partitioned by day.

What the values of a row are stands in a layout, shared by all rows with the same series in the same order. The
pooled role may not create or drop tables, so one function that runs as the owner makes and drops partitions.
"""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = (
    """
CREATE TABLE measured_layout (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id bigint NOT NULL,
    series text[] NOT NULL COLLATE "C",
    used_on date NOT NULL,
    PRIMARY KEY (tenant_id, id)
)
""",
    """
CREATE TABLE measured_sample (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    at timestamptz NOT NULL,
    counted_since timestamptz NOT NULL,
    layout bigint NOT NULL,
    "values" double precision[] NOT NULL,
    PRIMARY KEY (tenant_id, workload_id, at)
) PARTITION BY RANGE (at)
""",
)
TENANT_TABLES = ("measured_layout", "measured_sample")

# Days as text in the partition's name, so that what to drop is known without reading bounds.
PARTITIONS = """
CREATE FUNCTION measured_partitions(today date, keep_days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    day date;
    name text;
    dropped int := 0;
BEGIN
    FOR day IN SELECT today + n FROM generate_series(-1, 1) AS n LOOP
        name := 'measured_sample_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(quote_ident('{schema}') || '.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF measured_sample FOR VALUES FROM (%L) TO (%L)',
                name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format('CREATE POLICY tenant ON %I USING ({policy}) WITH CHECK ({policy})', name);
        END IF;
    END LOOP;
    FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'measured_sample'::regclass
        AND c.relname < 'measured_sample_' || to_char(today - keep_days, 'YYYYMMDD') LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$
"""


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP_ROLE}")
    schema = op.get_bind().exec_driver_sql("SELECT current_schema()").scalar_one()
    policy = IN_TENANT.replace("'", "''")
    op.execute(PARTITIONS.replace("{schema}", schema).replace("{policy}", policy))
    function = "measured_partitions(date, int)"
    op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("the samples would be lost")
