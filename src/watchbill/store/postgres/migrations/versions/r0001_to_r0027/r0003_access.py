"""Access for people: persons from issuers, access keys, refresh tokens, device logins, and the audit log."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027.r0001_first import (
    APP_ROLE,
    IN_TENANT,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
CREATE TABLE person (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    id uuid NOT NULL,
    issuer text NOT NULL COLLATE "C",
    external_id text NOT NULL COLLATE "C",
    name text NOT NULL COLLATE "C",
    email text,
    groups text[] NOT NULL,
    created_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    told_at timestamptz NOT NULL,
    disabled_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, issuer, external_id)
)
""",
    "ALTER TABLE account ADD COLUMN person_id uuid, ADD COLUMN expires_at timestamptz, "
    "ADD COLUMN created_by text",
    "ALTER TABLE access_rule ADD COLUMN managed_by text, ADD COLUMN created_by text, "
    "ADD COLUMN created_at timestamptz",
    # 'account' or 'person': whose id the column account_id holds.
    "ALTER TABLE session ADD COLUMN holder text NOT NULL DEFAULT 'account'",
    # Published first, used later: other servers read the keys from time to time only.
    "ALTER TABLE signing_key ADD COLUMN active_at timestamptz",
    """
CREATE TABLE refresh_family (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    id uuid NOT NULL,
    holder text NOT NULL,
    holder_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, id)
)
""",
    """
CREATE TABLE refresh_token (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    token_hash bytea NOT NULL,
    family_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (token_hash)
)
""",
    "CREATE INDEX refresh_token_family ON refresh_token (tenant_id, family_id)",
    # Of no tenant: whose login it becomes is known only once somebody has confirmed it.
    """
CREATE TABLE device_login (
    device_hash bytea PRIMARY KEY,
    user_code text NOT NULL UNIQUE COLLATE "C",
    address text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    polled_at timestamptz,
    denied_at timestamptz,
    for_tenant int,
    holder text,
    holder_id uuid
)
""",
    """
CREATE TABLE audit_event (
    tenant_id int NOT NULL CHECK (tenant_id > 0) REFERENCES tenant,
    at timestamptz NOT NULL,
    id uuid NOT NULL,
    last_at timestamptz NOT NULL,
    count int NOT NULL,
    subject_kind text NOT NULL,
    subject text NOT NULL COLLATE "C",
    operation text NOT NULL COLLATE "C",
    target text NOT NULL,
    rules text[] NOT NULL,
    address text NOT NULL,
    outcome int NOT NULL,
    request_id text NOT NULL,
    details text NOT NULL,
    PRIMARY KEY (tenant_id, at, id)
)
""",
)

TENANT_TABLES = ("person", "refresh_family", "refresh_token", "audit_event")
HANDLES = {
    "refresh_token": "encode(token_hash, 'hex') = current_setting('watchbill.refresh_token', true)"
}
GRANTS = {
    "person": "SELECT, INSERT, UPDATE",
    "refresh_family": "SELECT, INSERT, UPDATE, DELETE",
    "refresh_token": "SELECT, INSERT, UPDATE, DELETE",
    "device_login": "SELECT, INSERT, UPDATE, DELETE",
    # What was written stays as it was written: only retention removes it.
    "audit_event": "SELECT, INSERT, DELETE",
}


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({IN_TENANT}) WITH CHECK ({IN_TENANT})")
    for table, handle in HANDLES.items():
        op.execute(f"CREATE POLICY handle ON {table} FOR SELECT USING ({handle})")
    for table, rights in GRANTS.items():
        op.execute(f"GRANT {rights} ON {table} TO {APP_ROLE}")


def downgrade() -> None:
    raise NotImplementedError("logins and the audit log have no place in the schema before")
