"""Which cluster a credential's agent watches is kept at first sight."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE cluster ADD COLUMN cluster_uid text")


def downgrade() -> None:
    op.execute("ALTER TABLE cluster DROP COLUMN cluster_uid")
