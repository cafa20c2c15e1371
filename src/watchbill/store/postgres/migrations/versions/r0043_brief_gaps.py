"""Gaps that are too short, or concern too little, to count as a silence of the cluster.

Of a silence nothing is counted as used, and the cluster's state begins anew after it; in any gap workloads may
have lived unseen.
"""

from alembic import op

revision = "0043"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE cluster_gap ADD COLUMN is_silence boolean NOT NULL DEFAULT true")


def downgrade() -> None:
    op.execute("DELETE FROM cluster_gap WHERE NOT is_silence")
    op.execute("ALTER TABLE cluster_gap DROP COLUMN is_silence")
