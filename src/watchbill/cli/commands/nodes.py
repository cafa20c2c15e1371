"""`nodes`: what nodes offer, how much of it is allocated, and to whom; what is the matter with one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import (
    cluster_names,
    filter_item,
    find_cluster,
    noted_cluster_names,
)
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    format_age,
    format_bytes,
    format_count,
    format_gpu_type,
    format_known,
    plural,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    AnswerFormat,
    Cell,
    Row,
    TableFormat,
    safe,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.cluster_node import NodeDevice
    from watchbill.responses.nodes import NodeResponse, NodeWorkload

SHOWN_NODES = 50
_COLUMNS = (
    *("name", "status", "nodePool", "gpuType"),
    *("gpus", "allocatedGpus", "idleAllocatedGpus", "freeGpus"),
)
_WIDE = ("cpuAllocatedAndTotal", "memoryAllocatedAndTotal", "workloads", "cluster", "age")
_CSV_HEADERS = (
    *("cluster", "name", "status", "isCordoned", "nodePool", "gpuType", "gpus", "allocatedGpus"),
    *("idleAllocatedGpus", "freeGpus", "cpuCores", "allocatedCpuCores", "cpuMemoryBytes"),
    *("allocatedCpuMemoryBytes", "workloads"),
)


Node = Annotated[
    str | None,
    typer.Argument(
        metavar="NODE",
        help="One node, by name: its conditions, its GPUs, and the workloads that hold them.",
        show_default=False,
        autocompletion=options.complete_node,
    ),
]
Pool = Annotated[
    str | None,
    typer.Option("--node-pool", "--pool", metavar="NAME", help="Only in this node pool."),
]
NodeSearch = Annotated[
    str | None,
    typer.Option("--search", "-s", help="Text in the name, the node pool or the GPU type."),
]


@server_command
async def nodes(
    session: CommandContext,
    name: Node = None,
    output: Annotated[
        TableFormat, typer.Option("--output", "-o", help="How to print.")
    ] = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    node_pool: Pool = None,
    gpu_type: options.GpuType = None,
    search: NodeSearch = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List nodes: status, GPUs, how many are allocated, idle and free; or show one with its workloads.

    ALLOCATED counts the workloads in your scope. Of a cluster that you see in part, only the nodes that these
    workloads run on are listed, and FREE is not known (`?`). With -o wide, CPU(A/T) and MEMORY(A/T) are
    allocated/total.
    """
    from watchbill.errors import NotFound

    filters = [] if name is None else [filter_item("name", name)]
    filters += [] if node_pool is None else [filter_item("nodePool", node_pool)]
    filters += [] if gpu_type is None else [filter_item("gpuType", gpu_type, "=@")]
    if cluster is not None:
        filters.append(f"clusterUuid=={(await find_cluster(session.client, cluster)).id}")
    is_for_people = output in (TableFormat.TABLE, TableFormat.WIDE)
    most = limit or (SHOWN_NODES if is_for_people else None)
    listed = await session.client.nodes(filters=tuple(filters), search=search, most=most)
    if name is not None and not listed.nodes:
        raise NotFound(f"There is no node {name}.", details="`watchbill nodes` lists them.")
    if not is_for_people:
        await _write(session, listed.nodes, output)
        return
    shown = {node.cluster_uuid for node in listed.nodes}
    clusters = await noted_cluster_names(session, shown, "nodes")
    if name is not None:
        for node in listed.nodes:
            for line in _lines(node, clusters, session):
                session.terminal.print(line)
        return
    rows = [_row(node, clusters, session.now(), output) for node in listed.nodes]
    headers = header_row(*_COLUMNS, *(_WIDE if output is TableFormat.WIDE else ()))
    for line in table_lines(None if no_headers else headers, rows, session.terminal):
        session.terminal.print(line)
    if not listed.nodes:
        session.terminal.note(
            "No nodes visible to you; `watchbill clusters` shows which clusters report."
        )
    if listed.next_offset is not None:
        session.terminal.note(f"The first {format_count(len(rows))}; --limit shows more.")


async def _write(
    session: CommandContext, listed: "Sequence[NodeResponse]", output: TableFormat
) -> None:
    if output is not TableFormat.CSV:
        session.terminal.write(DOCUMENTS[AnswerFormat(output.value)]({"nodes": listed}))
        return
    from watchbill.tabular import rows_as_csv

    clusters = await cluster_names(session)
    rows = [
        (
            *(clusters.get(node.cluster_uuid, str(node.cluster_uuid)), node.name, node.status),
            *("true" if node.is_cordoned else "false", node.node_pool),
            node.gpu_info.gpu_type if node.gpu_info else None,
            *(node.capacity.gpus, node.allocated.gpus, node.idle_allocated_gpus, node.free_gpus),
            *(node.capacity.cpu_cores, node.allocated.cpu_cores),
            *(node.capacity.cpu_memory_bytes, node.allocated.cpu_memory_bytes),
            node.workloads_total,
        )
        for node in listed
    ]
    session.terminal.write(rows_as_csv([_CSV_HEADERS, *rows]))


def _row(
    node: "NodeResponse", clusters: Mapping[Any, str], now: datetime, output: TableFormat
) -> Row:
    has_gpus = node.capacity.gpus != 0
    figures = (
        *(node.capacity.gpus, node.allocated.gpus, node.idle_allocated_gpus, node.free_gpus),
    )
    row: list[Cell | str] = [
        node.name,
        _status(node),
        node.node_pool,
        _model(node),
        *(format_known(figure) if has_gpus else NONE for figure in figures),
    ]
    if output is TableFormat.WIDE:
        row += [
            f"{format_known(node.allocated.cpu_cores)}/{format_known(node.capacity.cpu_cores)}",
            f"{format_known(node.allocated.cpu_memory_bytes, format_bytes)}/"
            f"{format_known(node.capacity.cpu_memory_bytes, format_bytes)}",
            format_count(node.workloads_total),
            clusters.get(node.cluster_uuid, NONE),
            format_age(node.created_at, now),
        ]
    return row


def _status(node: "NodeResponse") -> Cell:
    """As kubectl has it, which says SchedulingDisabled."""
    if node.is_cordoned:
        return Cell(f"{node.status},Cordoned", "yellow")
    return Cell(node.status, "green" if node.status == "Ready" else "red")


def _model(node: "NodeResponse") -> str:
    return format_gpu_type(node.gpu_info.gpu_type if node.gpu_info else "")


def _lines(
    node: "NodeResponse", clusters: Mapping[Any, str], session: CommandContext
) -> Iterator[str]:
    facts = {
        "Node": node.name,
        "Cluster": clusters.get(node.cluster_uuid, str(node.cluster_uuid)),
        "Status": _status(node).text,
        "Node pool": node.node_pool,
        "GPUs": _gpus_text(node),
        "CPU": f"{format_known(node.allocated.cpu_cores)} of "
        f"{format_known(node.capacity.cpu_cores)} cores allocated",
        "Memory": f"{format_known(node.allocated.cpu_memory_bytes, format_bytes)} of "
        f"{format_known(node.capacity.cpu_memory_bytes, format_bytes)} allocated",
        "Taints": ", ".join(
            f"{taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"
            for taint in node.taints
        ),
        "Age": format_age(node.created_at, session.now()),
    }
    for label, text in facts.items():
        if text:
            yield f"{label + ':':<11}{safe(text)}"
    for condition in node.conditions:
        is_ready = condition.type == "Ready"
        if (condition.status == "True") is not is_ready:
            message = f": {condition.message}" if condition.message else "."
            yield safe(f"{condition.type} is {condition.status} ({condition.reason}){message}")
    yield from _device_lines(node, session)
    yield from _workload_lines(node, session)


def _gpus_text(node: "NodeResponse") -> str:
    if node.capacity.gpus == 0:
        return ""
    shared = f", shared by {node.gpu_sharing}" if node.gpu_sharing else ""
    free = "" if node.is_partial else f", {format_known(node.free_gpus)} free"
    idle = f", {format_known(node.idle_allocated_gpus)} of them idle" if node.allocated.gpus else ""
    return (
        f"{format_known(node.capacity.gpus)} {_model(node)}{shared}: "
        f"{format_known(node.allocated.gpus)} allocated{idle}{free}"
    )


def _device_lines(node: "NodeResponse", session: CommandContext) -> Iterator[str]:
    if not node.devices:
        return
    yield ""
    rows: list[Row] = [
        [
            device.index or NONE,
            device.id,
            device.profile or NONE,
            _use(device, node),
            ", ".join(f"{each.name} ({each.project_name})" for each in device.workloads) or NONE,
        ]
        for device in node.devices
    ]
    headers = header_row("gpu", "id", "gpuProfile", "state", "workload")
    yield from table_lines(headers, rows, session.terminal, indent="  ")


def _use(device: "NodeDevice", node: "NodeResponse") -> Cell:
    """As its exporter tells who holds it, which knows nothing of a pod that has just begun or ended: where it
    contradicts what the node's pods hold, that is not known. Of a node without a GPU left all are allocated."""
    allocated = node.allocated.gpus
    if device.workloads:
        if allocated == 0:
            return Cell("not known", "dim")
        return Cell("idle", "yellow") if device.is_idle else Cell("allocated")
    if _has_none_left(node):
        return Cell("allocated")
    held = sum(bool(each.workloads) for each in node.devices)
    if node.is_partial or (allocated is not None and held < math.ceil(allocated - 0.005)):
        return Cell("not known", "dim")
    return Cell("free", "green") if node.is_schedulable else Cell("not usable", "red")


def _has_none_left(node: "NodeResponse") -> bool:
    """Whether its pods hold all of its GPUs. What the number of slices tells of their GPUs is not known."""
    whole, allocated = len(node.devices), node.allocated.gpus
    are_whole = node.capacity.gpus == whole and not any(each.profile for each in node.devices)
    return are_whole and allocated is not None and allocated > whole - 0.005


def _workload_lines(node: "NodeResponse", session: CommandContext) -> Iterator[str]:
    if not node.workloads:
        yield "No workload that is visible to you has pods on it."
        return
    total = plural(node.workloads_total, "workload")
    yield ""
    yield (
        f"Not Ready, so {total} may be lost with it:"
        if node.status != "Ready"
        else f"{total[0].upper()}{total[1:]} on it:"
    )
    headers = header_row("name", "project", "pods", "allocatedGpus")
    rows = [_workload_row(workload) for workload in node.workloads]
    yield from table_lines(headers, rows, session.terminal, indent="  ")
    if node.workloads_total > len(node.workloads):
        yield f"  ({format_count(node.workloads_total - len(node.workloads))} more)"


def _workload_row(workload: "NodeWorkload") -> Row:
    return [
        workload.name,
        workload.project_name,
        format_count(workload.pods),
        format_known(workload.gpus),
    ]
