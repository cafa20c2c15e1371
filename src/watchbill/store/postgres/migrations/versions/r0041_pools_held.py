"""The tally counts by the node pools that GPUs are held in, too: what one pool holds is known without reading
workloads. Those that hold GPUs in several pools have an index, since each pool's share is their own alone."""

from alembic import op

from watchbill.store.postgres.migrations.versions.r0001_to_r0027 import (
    r0006_tally,
    r0025_workload_class,
    r0026_unknown_gpus,
)

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

KEY = (*r0025_workload_class.KEY, "gpu_node_pools")
"""What the tally of live workloads counts by."""


def upgrade() -> None:
    op.execute('ALTER TABLE workload_tally ADD COLUMN gpu_node_pools text[] COLLATE "C"')
    for function in r0006_tally.functions(r0026_unknown_gpus.FIGURES, KEY):
        op.execute(function)
    op.execute(r0006_tally.FILL)
    op.execute(
        "CREATE INDEX workload_in_pools ON workload (tenant_id) "
        "WHERE deleted_at IS NULL AND cardinality(gpu_node_pools) > 1"
    )


def downgrade() -> None:
    raise NotImplementedError("servers of this version count by it")
