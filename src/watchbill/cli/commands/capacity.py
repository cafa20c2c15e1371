"""`capacity`: what node pools offer, and how much of it is allocated."""

from typing import TYPE_CHECKING, Any

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import find_cluster
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import note_stale
from watchbill.cli.output.humanize import (
    NONE,
    format_bytes,
    format_count,
    format_known,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    AnswerFormat,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.protocol import NodePoolCapacity
    from watchbill.responses.contract import TelemetryResponse
    from watchbill.responses.fleet import Cluster

_HEADERS = ("CLUSTER", "NODE-POOL", "NODES", "GPUS", "ALLOCATED", "FREE", "MEMORY/GPU")
Allocated = dict[tuple[str, str], float]
"""GPUs by cluster's id and node pool."""


@server_command
async def capacity(
    session: CommandContext,
    output: options.Output = AnswerFormat.TABLE,
    cluster: options.ClusterOption = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Show each node pool: its nodes, its GPUs, how many are allocated, and how many are free.

    ALLOCATED counts the workloads in your scope, so FREE is right where these are all of the cluster;
    MEMORY/GPU is the mean of the pool.
    """
    import asyncio

    if cluster is not None:
        cluster = str((await find_cluster(session.client, cluster)).id)
    clusters, telemetry = await asyncio.gather(
        session.client.clusters(),
        session.client.telemetry("GPU_ALLOCATION", group_by=("CurrentNodepools", "ClusterId")),
    )
    allocated = _allocated(telemetry)
    pools = [
        (shown, pool)
        for shown in clusters
        if cluster in (None, str(shown.id))
        for pool in sorted(shown.node_pools, key=lambda pool: (-(pool.gpus or 0), pool.node_pool))
    ]
    if output in DOCUMENTS:
        documents = [_document(shown, pool, allocated) for shown, pool in pools]
        session.terminal.write(DOCUMENTS[output]({"nodePools": documents}))
        return
    if not pools:
        session.terminal.note(
            "No node pools are known to you; `watchbill clusters` tells what reports."
        )
        return
    rows = [_row(shown, pool, allocated) for shown, pool in pools]
    for line in table_lines(None if no_headers else _HEADERS, rows, session.terminal):
        session.terminal.print(line)
    of = {shown.id: shown for shown, _ in pools}
    note_stale(session.terminal, of.values(), session.now(), "nodes")


def _allocated(telemetry: "TelemetryResponse") -> Allocated:
    return {
        (value.groups[1].value, value.groups[0].value): float(value.value)
        for value in telemetry.values
    }


def _document(cluster: "Cluster", pool: "NodePoolCapacity", allocated: Allocated) -> dict[str, Any]:
    held = allocated.get((str(cluster.id), pool.node_pool), 0.0)
    return {
        "cluster": cluster.name,
        "nodePool": pool.node_pool,
        "nodes": pool.nodes,
        "gpus": pool.gpus,
        "allocatedGpus": held,
        "freeGpus": None if pool.gpus is None else max(0.0, pool.gpus - held),
        "gpuMemoryBytes": pool.gpu_memory_bytes,
    }


def _row(cluster: "Cluster", pool: "NodePoolCapacity", allocated: Allocated) -> list[str]:
    facts = _document(cluster, pool, allocated)
    memory = pool.gpu_memory_bytes
    return [
        cluster.name,
        pool.node_pool,
        format_count(pool.nodes),
        *(format_known(facts[name]) for name in ("gpus", "allocatedGpus", "freeGpus")),
        format_bytes(memory / pool.gpus) if memory and pool.gpus else NONE,
    ]
