"""What is shown of a workload in a list: each column's cell for people and its members for programs.

A new column is one row of `COLUMNS`. What a silent cluster means for the rows is always said, never an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from watchbill.cli.output.humanize import NONE, UNKNOWN, format_age, format_duration, format_number
from watchbill.cli.output.terminal import PHASE_COLOURS, Cell, Terminal
from watchbill.errors import Invalid

JSON = dict[str, Any]
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnView:
    """What a cell needs beside its workload."""

    now: datetime
    cluster_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """`members`: the CSV's columns, each with the way to the value."""

    header: str
    shown: Callable[[JSON, ColumnView], Cell | str]
    members: Mapping[str, Path]


def value_at(workload: JSON, path: Path) -> Any:
    """The value at the end of the way, or None."""
    found: Any = workload
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _text(name: str) -> Callable[[JSON, ColumnView], str]:
    return lambda workload, view: str(workload.get(name) or NONE)


def _number(name: str) -> Callable[[JSON, ColumnView], str]:
    return lambda workload, view: format_number(workload.get(name))


def _names(name: str) -> Callable[[JSON, ColumnView], str]:
    return lambda workload, view: ", ".join(workload.get(name) or ()) or NONE


def _since(name: str) -> Callable[[JSON, ColumnView], str]:
    return lambda workload, view: format_age(workload.get(name), view.now)


def _span(name: str) -> Callable[[JSON, ColumnView], str]:
    return lambda workload, view: format_duration(workload.get(name) or 0)


def _phase(workload: JSON, view: ColumnView) -> Cell:
    phase = str(workload.get("phase") or NONE)
    return Cell(phase, PHASE_COLOURS.get(phase))


def _pods(workload: JSON, view: ColumnView) -> str:
    wanted = value_at(workload, ("requestedPods", "number"))
    return f"{workload.get('runningPods', 0)}/{UNKNOWN if wanted is None else wanted}"


def requested_gpus(workload: JSON) -> str:
    """Devices or shares of them, or the memory where that is what was asked for."""
    memory = value_at(workload, ("workloadRequestedResources", "gpuMemory", "request"))
    if value_at(workload, ("workloadRequestedResources", "gpuRequestType")) == "memory" and memory:
        return str(memory)
    return format_number(value_at(workload, ("workloadRequestedResources", "gpu", "request")) or 0)


def _gpu(workload: JSON, view: ColumnView) -> str:
    requested = requested_gpus(workload)
    allocated = format_number(value_at(workload, ("allocatedResources", "gpu")) or 0)
    return NONE if requested == allocated == "0" else f"{requested}/{allocated}"


def idle(workload: JSON, view: ColumnView) -> Cell | str:
    """`?` where GPUs are allocated and nothing measures them."""
    if not value_at(workload, ("allocatedResources", "gpu")):
        return NONE
    found = workload.get("idleAllocatedGpus")
    if found is None:
        return UNKNOWN
    return Cell(format_number(found), "yellow" if found else None)


def _cluster(workload: JSON, view: ColumnView) -> str:
    found = str(workload.get("clusterId") or NONE)
    return view.cluster_names.get(found, found)


def _one(name: str) -> dict[str, Path]:
    return {name: (name,)}


COLUMNS: dict[str, TableColumn] = {
    "name": TableColumn("NAME", _text("name"), _one("name")),
    "type": TableColumn("TYPE", _text("type"), _one("type")),
    "phase": TableColumn("PHASE", _phase, _one("phase")),
    "project": TableColumn("PROJECT", _text("projectName"), _one("projectName")),
    "owner": TableColumn("OWNER", _text("submittedBy"), _one("submittedBy")),
    "pods": TableColumn(
        "PODS", _pods, _one("runningPods") | {"requestedPods": ("requestedPods", "number")}
    ),
    "gpu": TableColumn(
        "GPU(R/A)",
        _gpu,
        {
            "requestedGpus": ("workloadRequestedResources", "gpu", "request"),
            "allocatedGpus": ("allocatedResources", "gpu"),
        },
    ),
    "idle": TableColumn("IDLE", idle, _one("idleAllocatedGpus")),
    "age": TableColumn("AGE", _since("createdAt"), _one("createdAt")),
    "namespace": TableColumn("NAMESPACE", _text("namespace"), _one("namespace")),
    "cluster": TableColumn("CLUSTER", _cluster, _one("clusterId")),
    "nodepools": TableColumn("NODE-POOLS", _names("currentNodePools"), _one("currentNodePools")),
    "priority": TableColumn("PRIORITY", _number("priority"), _one("priority")),
    "id": TableColumn("ID", _text("id"), _one("id")),
    "department": TableColumn("DEPARTMENT", _text("departmentName"), _one("departmentName")),
    "category": TableColumn("CATEGORY", _text("category"), _one("category")),
    "framework": TableColumn(
        "FRAMEWORK", _text("distributedFramework"), _one("distributedFramework")
    ),
    "application": TableColumn(
        "APPLICATION", _text("aiApplicationName"), _one("aiApplicationName")
    ),
    "class": TableColumn("PRIORITY-CLASS", _text("priorityClassName"), _one("priorityClassName")),
    "message": TableColumn("MESSAGE", _text("phaseMessage"), _one("phaseMessage")),
    "since": TableColumn("IN-PHASE", _since("phaseUpdatedAt"), _one("phaseUpdatedAt")),
    "pending": TableColumn(
        "PENDING", _span("totalPendingTimeSeconds"), _one("totalPendingTimeSeconds")
    ),
    "running": TableColumn(
        "RUNNING", _span("totalRunningTimeSeconds"), _one("totalRunningTimeSeconds")
    ),
    "created": TableColumn("CREATED", _text("createdAt"), _one("createdAt")),
    "completed": TableColumn("COMPLETED", _text("completedAt"), _one("completedAt")),
    "deleted": TableColumn("DELETED", _since("deletedAt"), _one("deletedAt")),
    "images": TableColumn("IMAGES", _names("images"), _one("images")),
}

TABLE_ROWS = 50
"""Unless --limit says otherwise."""
TABLE = ("name", "type", "phase", "project", "owner", "pods", "gpu", "idle", "age")
WIDE = (*TABLE, "namespace", "cluster", "nodepools", "priority", "id")


def select_columns(
    words: str | None, default: tuple[str, ...], known: Mapping[str, TableColumn] = COLUMNS
) -> tuple[TableColumn, ...]:
    """The columns of a comma list, in its order. Raises Invalid, naming those that there are."""
    names = [word.strip().lower() for word in words.split(",")] if words else list(default)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Invalid(f"There is no column '{unknown[0]}'.", details=f"columns: {', '.join(known)}")
    return tuple(known[name] for name in names)


STALE_STATES = frozenset({"degraded", "disconnected"})


def stale_clusters(clusters: Sequence[JSON], workloads: Sequence[JSON]) -> list[JSON]:
    """Those without contact for a while that live workloads are shown of."""
    shown = {workload.get("clusterId") for workload in workloads if not workload.get("deletedAt")}
    return [one for one in clusters if one["id"] in shown and one["state"] in STALE_STATES]


def note_stale_clusters(
    terminal: Terminal, clusters: Sequence[JSON], workloads: Sequence[JSON], now: datetime
) -> None:
    for cluster in stale_clusters(clusters, workloads):
        terminal.note(stale_note(cluster, now))


def stale_note(cluster: JSON, now: datetime) -> str:
    return (
        f"note: cluster {cluster['name']} is {cluster['state']}: no contact for "
        f"{format_age(cluster.get('lastContactAt'), now)}, its workloads are shown as last reported"
    )
