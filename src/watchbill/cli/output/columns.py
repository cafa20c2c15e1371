"""What is shown of a workload in a list: each column's cell for people and its members for programs.

A new column is one row of `COLUMNS`. What a disconnected cluster means for the rows is a note, never an error.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.output.headers import HEADERS
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_age,
    format_duration,
    format_known,
    format_number,
    rfc3339,
)
from watchbill.cli.output.terminal import PHASE_COLOURS, Cell, Terminal
from watchbill.errors import Invalid
from watchbill.workload_fields import WORKLOAD_FIELDS

if TYPE_CHECKING:
    from watchbill.responses.contract import WorkloadResponse
    from watchbill.responses.fleet import Cluster

Path = tuple[str, ...]
STALE_STATES = frozenset({"degraded", "disconnected"})


@dataclass(frozen=True, slots=True)
class ColumnView:
    """What a cell needs beside its workload; times are shown in the time zone of `now`."""

    now: datetime
    clusters: "Sequence[Cluster]" = ()

    def cluster_name(self, cluster_id: UUID) -> str:
        """Its id where the cluster is not known."""
        names = {cluster.id: cluster.name for cluster in self.clusters}
        return names.get(cluster_id, str(cluster_id))


Show = Callable[["WorkloadResponse", ColumnView], Cell | str]


@dataclass(frozen=True, slots=True)
class TableColumn:
    """`fields`: those of the API that it shows, for CSV."""

    header: str
    show: Show
    fields: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, Path]:
        """The CSV's columns, named as in an export, each with the path to the value in the API's document."""
        return dict(_member(name) for name in self.fields)


def _text(get: Callable[["WorkloadResponse"], object]) -> Show:
    return lambda workload, view: str(get(workload) or NONE)


def _names(get: Callable[["WorkloadResponse"], Iterable[str]]) -> Show:
    return lambda workload, view: ", ".join(get(workload)) or NONE


def _labels(workload: "WorkloadResponse") -> Iterable[str]:
    return (f"{key}={value}" for key, value in workload.extra.labels.items())


def _age(get: Callable[["WorkloadResponse"], datetime | None]) -> Show:
    return lambda workload, view: format_age(get(workload), view.now)


def _duration(get: Callable[["WorkloadResponse"], int]) -> Show:
    return lambda workload, view: format_duration(get(workload))


def _time(get: Callable[["WorkloadResponse"], datetime | None]) -> Show:
    def show(workload: "WorkloadResponse", view: ColumnView) -> str:
        at = get(workload)
        return NONE if at is None else rfc3339(at, view.now.tzinfo or UTC)

    return show


def _phase(workload: "WorkloadResponse", view: ColumnView) -> Cell:
    return Cell(workload.phase, PHASE_COLOURS.get(workload.phase))


def _pods(workload: "WorkloadResponse", view: ColumnView) -> str:
    requested = workload.requested_pods.number
    return f"{workload.running_pods}/{UNKNOWN if requested is None else requested}"


def requested_gpus(workload: "WorkloadResponse") -> str:
    """Devices or shares of them, or the memory where that is what was requested."""
    resources = workload.workload_requested_resources
    memory = resources.gpu_memory and resources.gpu_memory.request
    if resources.gpu_request_type == "memory" and memory:
        return memory
    return format_number((resources.gpu and resources.gpu.request) or 0)


def allocated_gpus(workload: "WorkloadResponse") -> str:
    """`?` where the nodes do not tell what a unit of their GPUs is."""
    gpus = workload.allocated_resources.gpu
    return format_known(gpus)


def _gpu(workload: "WorkloadResponse", view: ColumnView) -> str:
    requested = requested_gpus(workload)
    allocated = allocated_gpus(workload)
    return NONE if requested == allocated == "0" else f"{requested}/{allocated}"


def idle_gpus(workload: "WorkloadResponse") -> Cell | str:
    """`?` where GPUs are allocated and nothing measures them, or it is not known how many are."""
    if workload.allocated_resources.gpu == 0:
        return NONE
    idle = workload.idle_allocated_gpus
    if idle is None:
        return UNKNOWN
    return Cell(format_number(idle), "yellow" if idle else None)


_FIELDS = {field.name: field for field in WORKLOAD_FIELDS}


def _member(name: str) -> tuple[str, Path]:
    field = _FIELDS.get(name)
    return (field.export_column or name, field.json_path) if field else (name, (name,))


COLUMNS: dict[str, TableColumn] = {
    "name": TableColumn(HEADERS["name"], _text(lambda workload: workload.name), ("name",)),
    "type": TableColumn(HEADERS["type"], _text(lambda workload: workload.type), ("type",)),
    "phase": TableColumn(HEADERS["phase"], _phase, ("phase",)),
    "project": TableColumn(
        HEADERS["project"], _text(lambda workload: workload.project_name), ("projectName",)
    ),
    "owner": TableColumn(
        HEADERS["owner"], _text(lambda workload: workload.submitted_by), ("submittedBy",)
    ),
    "pods": TableColumn(HEADERS["pods"], _pods, ("runningPods", "requestedPods")),
    "gpu": TableColumn(
        HEADERS["gpusRequestedAndAllocated"],
        _gpu,
        ("requestedGpus", "allocatedGPU"),
    ),
    "idle": TableColumn(
        HEADERS["idleAllocatedGpus"],
        lambda workload, view: idle_gpus(workload),
        ("idleAllocatedGpus",),
    ),
    "age": TableColumn(HEADERS["age"], _age(lambda workload: workload.created_at), ("createdAt",)),
    "namespace": TableColumn(
        HEADERS["namespace"], _text(lambda workload: workload.namespace), ("namespace",)
    ),
    "cluster": TableColumn(
        HEADERS["cluster"],
        lambda workload, view: view.cluster_name(workload.cluster_id),
        ("clusterId",),
    ),
    "nodepools": TableColumn(
        HEADERS["nodePools"], _names(lambda workload: workload.current_node_pools), ("nodepool",)
    ),
    "priority": TableColumn(
        HEADERS["priority"],
        lambda workload, view: NONE if workload.priority is None else str(workload.priority),
        ("priority",),
    ),
    "id": TableColumn(HEADERS["id"], _text(lambda workload: workload.id), ("id",)),
    "department": TableColumn(
        HEADERS["department"], _text(lambda workload: workload.department_name), ("departmentName",)
    ),
    "category": TableColumn(
        HEADERS["category"], _text(lambda workload: workload.category), ("category",)
    ),
    "workload-class": TableColumn(
        HEADERS["workloadClass"],
        _text(lambda workload: workload.extra.workload_class),
        ("workloadClass",),
    ),
    "framework": TableColumn(
        HEADERS["distributedFramework"],
        _text(lambda workload: workload.distributed_framework),
        ("distributedFramework",),
    ),
    "application": TableColumn(
        HEADERS["aiApplicationName"],
        _text(lambda workload: workload.ai_application_name),
        ("aiApplicationName",),
    ),
    "class": TableColumn(
        HEADERS["priorityClass"],
        _text(lambda workload: workload.priority_class_name),
        ("priorityClassName",),
    ),
    "message": TableColumn(
        HEADERS["message"], _text(lambda workload: workload.phase_message), ("phaseMessage",)
    ),
    "since": TableColumn(
        HEADERS["phaseUpdatedAt"],
        _age(lambda workload: workload.phase_updated_at),
        ("phaseUpdatedAt",),
    ),
    "pending": TableColumn(
        HEADERS["totalPendingTimeSeconds"],
        _duration(lambda workload: workload.total_pending_time_seconds),
        ("totalPendingTimeSeconds",),
    ),
    "running": TableColumn(
        HEADERS["totalRunningTimeSeconds"],
        _duration(lambda workload: workload.total_running_time_seconds),
        ("totalRunningTimeSeconds",),
    ),
    "created": TableColumn(
        HEADERS["createdAt"], _time(lambda workload: workload.created_at), ("createdAt",)
    ),
    "completed": TableColumn(
        HEADERS["completedAt"], _time(lambda workload: workload.completed_at), ("completedAt",)
    ),
    "deleted": TableColumn(
        HEADERS["deletedAt"], _age(lambda workload: workload.deleted_at), ("deletedAt",)
    ),
    "images": TableColumn(HEADERS["images"], _names(lambda workload: workload.images), ("images",)),
    "nodes": TableColumn(HEADERS["nodes"], _names(lambda workload: workload.extra.nodes)),
    "gpu-types": TableColumn(
        HEADERS["gpuModels"], _names(lambda workload: workload.extra.gpu_models)
    ),
    "labels": TableColumn(HEADERS["labels"], _names(_labels)),
}

TABLE_ROWS = 50
"""Unless --limit says otherwise."""
TABLE = ("name", "type", "phase", "project", "owner", "pods", "gpu", "idle", "age")
WIDE = (*TABLE, "namespace", "cluster", "nodepools", "priority", "id")


def select_columns(
    names: str | None, default: tuple[str, ...], known: Mapping[str, TableColumn] = COLUMNS
) -> tuple[TableColumn, ...]:
    """The columns of a comma list, in its order. Raises Invalid, naming those that there are."""
    wanted = [name.strip().lower() for name in names.split(",")] if names else list(default)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise Invalid(f"There is no column '{unknown[0]}'.", details=f"columns: {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def stale_clusters(view: ColumnView, workloads: "Iterable[WorkloadResponse]") -> "list[Cluster]":
    """Those not observed for a while that live workloads are shown of."""
    shown = {workload.cluster_id for workload in workloads if workload.deleted_at is None}
    return [
        cluster
        for cluster in view.clusters
        if cluster.id in shown and cluster.state in STALE_STATES
    ]


def note_stale_clusters(
    terminal: Terminal, view: ColumnView, workloads: "Iterable[WorkloadResponse]"
) -> None:
    """Of clusters that workloads are shown of; where none is, of all: there may be some by now."""
    shown = list(workloads)
    clusters = stale_clusters(view, shown) if shown else view.clusters
    note_stale(terminal, clusters, view.now, "workloads")
    note_no_cluster(terminal, view.clusters)


def note_no_cluster(terminal: Terminal, visible: "Sequence[Cluster]") -> None:
    """Where there is none, nothing else can be shown."""
    if not visible:
        terminal.note(
            "No clusters visible to you. An administrator registers one with "
            "`watchbill admin cluster create NAME`."
        )


def note_stale(
    terminal: Terminal, clusters: "Iterable[Cluster]", now: datetime, shown: str
) -> None:
    """Which of the clusters were never observed, or not for a while. `shown`: what of them is, as
    `workloads`."""
    for cluster in clusters:
        if cluster.state == "waiting":
            terminal.note(
                f"note: the agent of cluster {cluster.name} has never connected: start it with the "
                "cluster's credential"
            )
        if cluster.state in STALE_STATES:
            terminal.note(
                f"note: cluster {cluster.name} is {cluster.state}: not observed for "
                f"{format_age(cluster.last_contact_at, now)}, its {shown} are shown as last reported"
                + (f". {cluster.reason}" if cluster.reason else "")
            )
