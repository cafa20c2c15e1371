"""The one table of what is known of a workload under its own name: `WORKLOAD_FIELDS`.

Filters and sorting (`query.py`), SQL (`store/workloads/select.py`), the stored row (`store/workloads/row.py`),
facets, the CSV export, the CLI's words for `--sort-by` and the page's list of fields follow from it. A new
field is a member of `workload.Workload`, what derives it, a migration that adds its column and the index
to sort by it, and one row here.

This module imports nothing of ours: the page's build reads it too.
"""

from dataclasses import dataclass
from enum import Enum

ADDITIONAL = "additionalFields"
"""The member of a workload that holds what the contract has no member for."""
LABELS = "labels"
"""Its member of labels: an object there, `KEY=VALUE` where workloads are filtered by them."""


class FieldKind(Enum):
    TEXT = "text"
    NUMBER = "number"
    INSTANT = "date"
    NAMES = "names"
    """Several names at once (node pools): a predicate holds when it holds for any of them."""


class Storage(Enum):
    """How the column of the table `workload` holds the value."""

    PLAIN = "plain"
    ID = "id"
    """A number or a UUID that the API shows, compares and sorts as text."""
    MILLIONTHS = "millionths"
    """GPUs as integer millionths."""
    PHASE_TOTAL = "phase total"
    """Two columns, `<column>_ms` and `<column>_since`: time spent in a phase, which runs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadField:
    """One field. `column`: None = can be shown and exported, but not filtered or sorted by.

    `path`: where a workload's JSON holds the value; `name` itself where it is not given.
    `is_server_owned`: the server, not the agent's record, knows the value.
    `aliases`: other words for it that the CLI takes.
    """

    name: str
    label: str
    kind: FieldKind = FieldKind.TEXT
    column: str | None = None
    storage: Storage = Storage.PLAIN
    is_nullable: bool = True
    is_server_owned: bool = False
    is_tallied: bool = False
    """Whether the tally counts by it, so that counting need not read the workloads."""
    is_sortable: bool = True
    """Where it has a column at all. Of many names there is no order that anybody wants."""
    path: tuple[str, ...] = ()
    export_column: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_beyond_contract(self) -> bool:
        """Whether it is ours alone: such a field's value is one of `additionalFields`."""
        return self.path[:1] == (ADDITIONAL,)

    @property
    def json_path(self) -> tuple[str, ...]:
        return self.path or (self.name,)


WORKLOAD_FIELDS: tuple[WorkloadField, ...] = (
    WorkloadField(name="id", label="ID", is_nullable=False, export_column="id"),
    WorkloadField(
        name="name",
        label="Workload",
        column="name",
        is_nullable=False,
        export_column="name",
        aliases=("metadata.name",),
    ),
    WorkloadField(
        name="type",
        label="Type",
        column="type",
        is_nullable=False,
        is_tallied=True,
        export_column="type",
    ),
    WorkloadField(
        name="category",
        label="Category",
        column="category",
        is_tallied=True,
        export_column="category",
    ),
    WorkloadField(
        name="phase",
        label="Phase",
        column="phase",
        is_nullable=False,
        is_tallied=True,
        export_column="phase",
        aliases=("status.phase",),
    ),
    WorkloadField(name="phaseMessage", label="Message", export_column="phaseMessage"),
    WorkloadField(
        name="phaseUpdatedAt",
        label="In phase since",
        kind=FieldKind.INSTANT,
        column="phase_updated_at",
        is_nullable=False,
        is_server_owned=True,
        export_column="phaseUpdatedAt",
        aliases=("since",),
    ),
    WorkloadField(
        name="clusterId",
        label="Cluster",
        column="cluster_id",
        storage=Storage.ID,
        is_nullable=False,
        is_server_owned=True,
        is_tallied=True,
        export_column="clusterId",
        aliases=("cluster",),
    ),
    WorkloadField(
        name="departmentId",
        label="Department ID",
        column="department_id",
        storage=Storage.ID,
        is_server_owned=True,
        is_tallied=True,
        export_column="departmentId",
    ),
    WorkloadField(
        name="departmentName",
        label="Department",
        column="department_name",
        is_tallied=True,
        export_column="departmentName",
        aliases=("department",),
    ),
    WorkloadField(
        name="projectId",
        label="Project ID",
        column="project_id",
        storage=Storage.ID,
        is_nullable=False,
        is_server_owned=True,
        is_tallied=True,
        export_column="projectId",
    ),
    WorkloadField(
        name="projectName",
        label="Project",
        column="project_name",
        is_nullable=False,
        is_tallied=True,
        export_column="projectName",
        aliases=("project", "metadata.namespace"),
    ),
    WorkloadField(name="namespace", label="Namespace", export_column="namespace"),
    WorkloadField(
        name="submittedBy",
        label="Owner",
        column="submitted_by",
        export_column="submittedBy",
        aliases=("owner",),
    ),
    WorkloadField(
        name="priority",
        label="Priority",
        kind=FieldKind.NUMBER,
        column="priority",
        export_column="priority",
    ),
    WorkloadField(
        name="priorityClassName",
        label="Priority class",
        column="priority_class_name",
        export_column="priorityClassName",
        aliases=("class",),
    ),
    WorkloadField(name="preemptible", label="Preemptible", export_column="preemptible"),
    WorkloadField(
        name="distributedFramework",
        label="Framework",
        column="distributed_framework",
        export_column="distributedFramework",
        aliases=("framework",),
    ),
    WorkloadField(
        name="workloadClass",
        label="Workload class",
        column="workload_class",
        is_tallied=True,
        path=(ADDITIONAL, "workloadClass"),
        export_column="workloadClass",
    ),
    WorkloadField(
        name="createdAt",
        label="Created",
        kind=FieldKind.INSTANT,
        column="created_at",
        is_nullable=False,
        export_column="createdAt",
        aliases=("created", "age", "metadata.creationtimestamp"),
    ),
    WorkloadField(
        name="completedAt",
        label="Completed",
        kind=FieldKind.INSTANT,
        column="completed_at",
        export_column="completedAt",
        aliases=("completed",),
    ),
    WorkloadField(
        name="deletedAt",
        label="Deleted",
        kind=FieldKind.INSTANT,
        column="deleted_at",
        is_server_owned=True,
        export_column="deletedAt",
        aliases=("deleted",),
    ),
    WorkloadField(
        name="requestedGpus",
        label="Requested GPUs",
        kind=FieldKind.NUMBER,
        path=("workloadRequestedResources", "gpu", "request"),
        export_column="requestedGpus",
    ),
    WorkloadField(
        name="allocatedGPU",
        label="Allocated GPUs",
        kind=FieldKind.NUMBER,
        column="allocated_gpu",
        storage=Storage.MILLIONTHS,
        path=("allocatedResources", "gpu"),
        export_column="allocatedGpus",
        aliases=("gpu",),
    ),
    WorkloadField(
        name="idleAllocatedGpus",
        label="Idle GPUs",
        kind=FieldKind.NUMBER,
        column="idle_allocated_gpu",
        storage=Storage.MILLIONTHS,
        export_column="idleAllocatedGpus",
        aliases=("idle",),
    ),
    WorkloadField(
        name="idleGpus", label="Idle GPUs (whole)", kind=FieldKind.NUMBER, column="idle_gpus"
    ),
    WorkloadField(
        name="runningPods",
        label="Running pods",
        kind=FieldKind.NUMBER,
        export_column="runningPods",
    ),
    WorkloadField(
        name="requestedPods",
        label="Requested pods",
        kind=FieldKind.NUMBER,
        path=("requestedPods", "number"),
        export_column="requestedPods",
    ),
    WorkloadField(
        name="nodepool",
        label="Node pool",
        kind=FieldKind.NAMES,
        column="current_node_pools",
        is_tallied=True,
        path=("currentNodePools",),
        export_column="currentNodePools",
        aliases=("nodepools",),
    ),
    WorkloadField(
        name="totalPendingTimeSeconds",
        label="Pending time (s)",
        kind=FieldKind.NUMBER,
        column="pending",
        storage=Storage.PHASE_TOTAL,
        is_nullable=False,
        is_server_owned=True,
        export_column="totalPendingTimeSeconds",
        aliases=("pending",),
    ),
    WorkloadField(
        name="totalRunningTimeSeconds",
        label="Running time (s)",
        kind=FieldKind.NUMBER,
        column="running",
        storage=Storage.PHASE_TOTAL,
        is_nullable=False,
        is_server_owned=True,
        export_column="totalRunningTimeSeconds",
        aliases=("running",),
    ),
    WorkloadField(
        name="guaranteedRuntimeEndsAt",
        label="Guaranteed until",
        kind=FieldKind.INSTANT,
        column="guaranteed_runtime_ends_at",
    ),
    WorkloadField(
        name="aiApplicationName",
        label="Application",
        column="ai_application_name",
        aliases=("application",),
    ),
    WorkloadField(name="aiApplicationId", label="Application ID", column="ai_application_id"),
    WorkloadField(
        name="image",
        label="Image",
        kind=FieldKind.NAMES,
        column="images",
        path=("images",),
        is_sortable=False,
    ),
    WorkloadField(
        name="node",
        label="Node",
        kind=FieldKind.NAMES,
        column="nodes",
        path=(ADDITIONAL, "nodes"),
        is_sortable=False,
    ),
    WorkloadField(
        name="gpuModel",
        label="GPU type",
        kind=FieldKind.NAMES,
        column="gpu_models",
        path=(ADDITIONAL, "gpuModels"),
        is_sortable=False,
    ),
    WorkloadField(
        name="label",
        label="Label",
        kind=FieldKind.NAMES,
        column="labels",
        path=(ADDITIONAL, LABELS),
        is_sortable=False,
    ),
)

QUERY_FIELDS: dict[str, WorkloadField] = {
    field.name: field for field in WORKLOAD_FIELDS if field.column is not None
}
"""What workloads can be filtered by."""

SORT_FIELDS: dict[str, WorkloadField] = {
    name: field for name, field in QUERY_FIELDS.items() if field.is_sortable
}
"""What they can be sorted by."""

TALLIED_FIELDS: frozenset[str] = frozenset(
    field.name for field in WORKLOAD_FIELDS if field.is_tallied
)
EXPORT_COLUMNS: dict[str, tuple[str, ...]] = {
    field.export_column: field.json_path
    for field in WORKLOAD_FIELDS
    if field.export_column is not None
}
"""A column of the CSV export and the member of the workload that fills it."""
