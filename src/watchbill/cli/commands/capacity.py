"""`capacity`: what node pools or GPU types offer, and how much of it is allocated."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import find_cluster
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import note_stale
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    format_bytes,
    format_count,
    format_gpu_type,
    format_known,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    TableFormat,
    table_lines,
)

if TYPE_CHECKING:
    from uuid import UUID

    from watchbill.protocol import NodePoolCapacity
    from watchbill.responses.contract import TelemetryResponse
    from watchbill.responses.fleet import Cluster
    from watchbill.responses.nodes import NodeResponse

_FIGURES = ("gpus", "allocatedGpus", "idleGpus", "freeGpus")
Allocated = dict[tuple[str, str], float]
"""GPUs by cluster's id and node pool."""
Document = dict[str, Any]


class CapacityGrouping(StrEnum):
    NODE_POOL = "nodepool"
    GPU_TYPE = "gpu-type"
    BOTH = "nodepool,gpu-type"


_OF_POOLS = ("nodes", "gpus", "allocatedGpus", "freeGpus", "memoryPerGpu")
_OF_TYPES = ("nodes", "gpus", "allocatedGpus", "idleAllocatedGpus", "freeGpus", "memoryPerGpu")
_COLUMNS: dict[CapacityGrouping, tuple[str, ...]] = {
    CapacityGrouping.NODE_POOL: ("cluster", "nodePool", *_OF_POOLS),
    CapacityGrouping.GPU_TYPE: ("cluster", "gpuType", *_OF_TYPES),
    CapacityGrouping.BOTH: ("cluster", "nodePool", "gpuType", *_OF_TYPES),
}
_DOCUMENT_NAMES = {
    CapacityGrouping.NODE_POOL: "nodePools",
    CapacityGrouping.GPU_TYPE: "gpuTypes",
    CapacityGrouping.BOTH: "gpuTypes",
}


@server_command
async def capacity(
    session: CommandContext,
    by: Annotated[
        CapacityGrouping, typer.Option("--by", help="What a row is, within each cluster.")
    ] = CapacityGrouping.NODE_POOL,
    output: options.TableOutput = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show each node pool or GPU type: its nodes, its GPUs, how many are allocated, and how many are free.

    ALLOCATED counts the workloads in your scope. FREE is what new pods can get, without the GPUs of nodes that
    are cordoned or not Ready. Where your scope is a part of the cluster, it is `?` by GPU type, and GPUS less
    ALLOCATED by node pool, which is too high. MEMORY/GPU is the mean of the row.
    """
    only = None if cluster is None else await find_cluster(session.client, cluster)
    clusters = [
        each for each in await session.client.clusters() if only is None or each.id == only.id
    ]
    is_of_pools = by is CapacityGrouping.NODE_POOL
    documents = await (
        _pools(session, clusters)
        if is_of_pools
        else _gpu_types(session, clusters, with_pools=by is CapacityGrouping.BOTH)
    )
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({_DOCUMENT_NAMES[by]: documents}))
        return
    if output is TableFormat.CSV:
        from watchbill.tabular import rows_as_csv

        names = _csv_names(by)
        rows = [[document[name] for name in names] for document in documents]
        session.terminal.write(rows_as_csv([names, *rows]))
        return
    if not documents:
        what = "node pools" if is_of_pools else "nodes with GPUs"
        session.terminal.note(
            f"No {what} visible to you; `watchbill clusters` shows which clusters report."
        )
        return
    headers = header_row(*_COLUMNS[by])
    lines = [_row(document) for document in documents]
    for line in table_lines(None if no_headers else headers, lines, session.terminal):
        session.terminal.print(line)
    shown = {document["cluster"] for document in documents}
    note_stale(
        session.terminal,
        (each for each in clusters if each.name in shown),
        session.now(),
        "nodes",
    )


def _csv_names(by: CapacityGrouping) -> list[str]:
    """As the documents have them."""
    groups = {
        CapacityGrouping.NODE_POOL: ["nodePool"],
        CapacityGrouping.GPU_TYPE: ["gpuType"],
        CapacityGrouping.BOTH: ["nodePool", "gpuType"],
    }
    is_of_pools = by is CapacityGrouping.NODE_POOL
    figures = [name for name in _FIGURES if not (is_of_pools and name == "idleGpus")]
    return ["cluster", *groups[by], "nodes", *figures, "gpuMemoryBytes"]


async def _pools(session: CommandContext, clusters: "Sequence[Cluster]") -> list[Document]:
    """In each cluster the pool with most GPUs first."""
    allocated = _allocated(
        await session.client.telemetry("GPU_ALLOCATION", group_by=("CurrentNodepools", "ClusterId"))
    )
    free = _free_by_pool((await session.client.nodes()).nodes)
    return [
        _pool(cluster, pool, allocated, free.get((cluster.id, pool.node_pool)))
        for cluster in clusters
        for pool in sorted(cluster.node_pools, key=lambda pool: (-(pool.gpus or 0), pool.node_pool))
    ]


def _allocated(telemetry: "TelemetryResponse") -> Allocated:
    return {
        (value.groups[1].value, value.groups[0].value): float(value.value)
        for value in telemetry.values
    }


def _free_by_pool(nodes: "Sequence[NodeResponse]") -> "dict[tuple[UUID, str], float | None]":
    """Of cluster and node pool what its nodes offer: what pods hold of cordoned ones takes nothing from it."""
    groups: dict[tuple[UUID, str], list[float | None]] = {}
    for node in nodes:
        if node.capacity.gpus != 0:
            groups.setdefault((node.cluster_uuid, node.node_pool), []).append(node.free_gpus)
    return {key: _sum(amounts) for key, amounts in groups.items()}


def _pool(
    cluster: "Cluster", pool: "NodePoolCapacity", allocated: Allocated, free: float | None
) -> Document:
    held = allocated.get((str(cluster.id), pool.node_pool), 0.0)
    if free is None and pool.gpus is not None:
        free = max(0.0, pool.gpus - held)
    return {
        "cluster": cluster.name,
        "nodePool": pool.node_pool,
        "nodes": pool.nodes,
        "gpus": pool.gpus,
        "allocatedGpus": held,
        "freeGpus": free,
        "gpuMemoryBytes": pool.gpu_memory_bytes,
    }


async def _gpu_types(
    session: CommandContext, clusters: "Sequence[Cluster]", *, with_pools: bool
) -> list[Document]:
    """Sums over nodes that have GPUs; in each cluster the type with most GPUs first."""
    listed = await session.client.nodes()
    groups: dict[tuple[str, str, str], list[NodeResponse]] = {}
    names = {cluster.id: cluster.name for cluster in clusters}
    for node in listed.nodes:
        if node.capacity.gpus == 0 or node.cluster_uuid not in names:
            continue
        gpu_type = node.gpu_info.gpu_type if node.gpu_info else ""
        pool = node.node_pool if with_pools else ""
        groups.setdefault((names[node.cluster_uuid], pool, gpu_type), []).append(node)
    documents = [
        {
            "cluster": cluster,
            **({"nodePool": pool} if with_pools else {}),
            "gpuType": gpu_type,
            **_sums(nodes),
        }
        for (cluster, pool, gpu_type), nodes in groups.items()
    ]
    return sorted(
        documents, key=lambda each: (each["cluster"], -(each["gpus"] or 0), each["gpuType"])
    )


def _sums(nodes: "Sequence[NodeResponse]") -> Document:
    """None where it is not known of one of the nodes. What is idle is so where somebody measures it."""
    figures: tuple[Iterable[float | None], ...] = (
        (node.capacity.gpus for node in nodes),
        (node.allocated.gpus for node in nodes),
        (node.idle_allocated_gpus for node in nodes if node.allocated.gpus != 0),
        (node.free_gpus for node in nodes),
    )
    memory = (
        node.gpu_memory_bytes * node.capacity.gpus
        if node.gpu_memory_bytes is not None and node.capacity.gpus is not None
        else None
        for node in nodes
    )
    sums = dict(zip(_FIGURES, map(_sum, figures), strict=True))
    return {"nodes": len(nodes), **sums, "gpuMemoryBytes": _sum(memory)}


def _sum(values: Iterable[float | None]) -> float | None:
    amounts = list(values)
    if None in amounts:
        return None
    return round(sum(amount for amount in amounts if amount is not None), 6)


def _row(document: Document) -> list[str]:
    return list(_cells(document))


def _cells(document: Document) -> Iterator[str]:
    yield document["cluster"]
    if "nodePool" in document:
        yield document["nodePool"]
    if "gpuType" in document:
        yield format_gpu_type(document["gpuType"])
    yield format_count(document["nodes"])
    yield from (format_known(document[name]) for name in _FIGURES if name in document)
    memory, gpus = document["gpuMemoryBytes"], document["gpus"]
    yield format_bytes(memory / gpus) if memory and gpus else NONE
