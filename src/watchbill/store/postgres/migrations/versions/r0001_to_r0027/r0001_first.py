"""The first schema: workloads and their history, clusters, organisation, access.

Every table of a tenant has row security, forced on its owner too: a session sees the tenant named by the
setting `watchbill.tenant_id`, and nothing while that is unset. Rows that are looked up before the tenant is
known (an account, a session, a cluster) also show themselves to whoever names their handle.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APP_ROLE = "watchbill_app"

TABLES = """
CREATE TABLE tenant (
    id int PRIMARY KEY CHECK (id > 0),
    name text NOT NULL,
    next_number int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tenant (id, name) VALUES (1, 'default');

CREATE TABLE cluster (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    id uuid NOT NULL,
    name text NOT NULL,
    credential_salt bytea NOT NULL,
    credential_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    removed_at timestamptz,
    stream_id text,
    last_seq bigint NOT NULL DEFAULT 0,
    last_reply bytea,
    last_contact_at timestamptz,
    takeovers int NOT NULL DEFAULT 0,
    agent_version text,
    kubernetes_version text,
    kinds bytea,
    node_pools bytea,
    suspect_since timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (id)
);
CREATE UNIQUE INDEX cluster_name ON cluster (tenant_id, name) WHERE removed_at IS NULL;

CREATE TABLE cluster_gap (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, from_at)
);

CREATE TABLE refused_item (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    workload_id uuid NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id, workload_id)
);

CREATE TABLE department (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id int NOT NULL,
    cluster_id uuid NOT NULL,
    key text NOT NULL COLLATE "C",
    name text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, cluster_id, key)
);

CREATE TABLE project (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id int NOT NULL,
    cluster_id uuid NOT NULL,
    key text NOT NULL COLLATE "C",
    name text NOT NULL,
    department_id int,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, cluster_id, key)
);

CREATE TABLE workload (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    id uuid NOT NULL,
    cluster_id uuid NOT NULL,
    project_id int NOT NULL,
    department_id int,
    name text NOT NULL COLLATE "C",
    type text NOT NULL COLLATE "C",
    namespace text NOT NULL COLLATE "C",
    project_name text NOT NULL COLLATE "C",
    department_name text COLLATE "C",
    submitted_by text COLLATE "C",
    phase text NOT NULL COLLATE "C",
    category text COLLATE "C",
    priority_class_name text COLLATE "C",
    distributed_framework text COLLATE "C",
    ai_application_id text COLLATE "C",
    ai_application_name text COLLATE "C",
    search text NOT NULL COLLATE "C",
    current_node_pools text[] COLLATE "C",
    requested_node_pools text[] COLLATE "C",
    gpu_node_pools text[] COLLATE "C",
    gpu_node_pool_shares bigint[],
    priority int,
    allocated_gpu bigint NOT NULL,
    idle_allocated_gpu bigint,
    idle_gpus int,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    completed_at timestamptz,
    deleted_at timestamptz,
    phase_updated_at timestamptz NOT NULL,
    guaranteed_runtime_ends_at timestamptz,
    k8s_phase text NOT NULL COLLATE "C",
    k8s_phase_updated_at timestamptz NOT NULL,
    resting_phase text NOT NULL COLLATE "C",
    resting_phase_at timestamptz NOT NULL,
    transition_count int NOT NULL,
    pending_ms bigint NOT NULL,
    pending_since timestamptz,
    running_ms bigint NOT NULL,
    running_since timestamptz,
    witness_group text NOT NULL COLLATE "C",
    witness_kind text NOT NULL COLLATE "C",
    witness_namespace text NOT NULL COLLATE "C",
    record_hash bytea NOT NULL,
    document_format smallint NOT NULL,
    revision bytea NOT NULL,
    document bytea NOT NULL,
    details bytea,
    PRIMARY KEY (tenant_id, id)
);
-- The document alone goes out of line. Text columns must stay in the row: fetching them from elsewhere makes
-- an unindexed sort several times slower.
ALTER TABLE workload SET (toast_tuple_target = 1024);

CREATE INDEX workload_created ON workload (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX workload_name ON workload (tenant_id, name, id) WHERE deleted_at IS NULL;
CREATE INDEX workload_phase ON workload (tenant_id, phase, id) WHERE deleted_at IS NULL;
CREATE INDEX workload_project ON workload (tenant_id, project_name, id) WHERE deleted_at IS NULL;
CREATE INDEX workload_history ON workload (tenant_id, deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workload_cluster ON workload (tenant_id, cluster_id, witness_kind)
    WHERE deleted_at IS NULL;

CREATE TABLE workload_elements (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    total int NOT NULL,
    elements bytea[] NOT NULL,
    PRIMARY KEY (tenant_id, workload_id)
);

CREATE TABLE phase_transition (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    number int NOT NULL,
    at timestamptz NOT NULL,
    phase text NOT NULL,
    message text,
    PRIMARY KEY (tenant_id, workload_id, number)
);

CREATE TABLE usage_sample (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    workload_id uuid NOT NULL,
    at timestamptz NOT NULL,
    pod_count int NOT NULL,
    running_pod_count int NOT NULL,
    gpu_millionths bigint NOT NULL,
    gpu_memory_request_bytes bigint NOT NULL,
    cpu_request_cores double precision,
    cpu_limit_cores double precision,
    cpu_memory_request_bytes bigint,
    cpu_memory_limit_bytes bigint,
    PRIMARY KEY (tenant_id, workload_id, at)
);

CREATE TABLE inventory (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    cluster_id uuid NOT NULL,
    id uuid NOT NULL,
    stream_id text NOT NULL,
    coverage bytea NOT NULL,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, cluster_id)
);
-- Unlogged: after a crash it is empty, the commit's count does not agree, and nothing is deleted.
CREATE UNLOGGED TABLE inventory_entry (
    tenant_id int NOT NULL CHECK (tenant_id > 0),
    inventory_id uuid NOT NULL,
    workload_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, inventory_id, workload_id)
);

CREATE TABLE account (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    id uuid NOT NULL,
    client_id text NOT NULL UNIQUE COLLATE "C",
    name text NOT NULL,
    secret_salt bytea NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE access_rule (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    id uuid NOT NULL,
    subject_kind text NOT NULL,
    subject text NOT NULL COLLATE "C",
    role text NOT NULL,
    scope_kind text NOT NULL,
    scope_id text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, subject_kind, subject, role, scope_kind, scope_id)
);

CREATE TABLE session (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    token_hash bytea NOT NULL,
    account_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (token_hash)
);

CREATE TABLE signing_key (
    kid text PRIMARY KEY,
    private_jwk text NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
"""

TENANT_TABLES = (
    "cluster",
    "cluster_gap",
    "refused_item",
    "department",
    "project",
    "workload",
    "workload_elements",
    "phase_transition",
    "usage_sample",
    "inventory",
    "inventory_entry",
    "account",
    "access_rule",
    "session",
)
GLOBAL_TABLES = ("tenant", "signing_key")

HANDLES = {
    "account": "client_id = current_setting('watchbill.client_id', true)",
    "session": "encode(token_hash, 'hex') = current_setting('watchbill.session', true)",
    "cluster": "id = NULLIF(current_setting('watchbill.cluster_id', true), '')::uuid",
}

# The sub-select is evaluated once a query, not once a row; a setting that was local reads back as ''.
IN_TENANT = "tenant_id = (SELECT NULLIF(current_setting('watchbill.tenant_id', true), '')::int)"

TEXT_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = 'workload'::regclass AND attnum > 0 "
    "AND attname NOT IN ('document', 'details') AND attstorage = 'x'"
)


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(
        f"DO $$ DECLARE c name; BEGIN FOR c IN {TEXT_COLUMNS} LOOP "
        "EXECUTE format('ALTER TABLE workload ALTER COLUMN %I SET STORAGE MAIN', c); "
        "END LOOP; END $$"
    )
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    for table, handle in HANDLES.items():
        op.execute(f"CREATE POLICY handle ON {table} FOR SELECT USING ({handle})")
    for table in TENANT_TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP_ROLE}")
    for table in GLOBAL_TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing before it")
