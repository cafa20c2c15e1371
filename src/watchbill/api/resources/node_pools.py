"""Node pools, as the nodes tell them: a pool is there as long as a node is in it."""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.cluster_node import NodeResources, node_pool_id
from watchbill.errors import NotFound
from watchbill.query import NodeQuery, RowField, RowTable
from watchbill.responses.contract import WorkloadCount
from watchbill.responses.nodes import (
    NodePoolCondition,
    NodePoolResponse,
    NodePoolsResponse,
    NodePoolStatus,
    NodeResponse,
)
from watchbill.store.fleet.nodes import cluster_names, node_list
from watchbill.workload_fields import FieldKind

UNKNOWN_BY: dict[str, RowField[NodePoolResponse]] = {
    name: RowField(lambda pool: None)
    for name in (
        "networkTopologyName",
        "gpuNetworkAccelerationDetection",
        "gpuNetworkAccelerationDetected",
        "gpuNetworkAccelerationLabelKey",
        "swapEnabled",
        "nodeLevelSchedulerEnabled",
    )
}
"""Fields of the contract that no node tells: no pool has a value."""
_POOLS = RowTable[NodePoolResponse](
    {
        "name": RowField(lambda pool: pool.name),
        "phase": RowField(lambda pool: pool.phase),
        "clusterId": RowField(lambda pool: str(pool.cluster_id)),
        "createdAt": RowField(lambda pool: pool.created_at, FieldKind.INSTANT),
        "updatedAt": RowField(lambda pool: pool.updated_at, FieldKind.INSTANT),
    }
    | UNKNOWN_BY,
    key=lambda pool: f"{pool.name}/{pool.cluster_id}",
)


async def get_nodepools(call: Call) -> Answer:
    values = call.values
    matching = _POOLS.matching(await node_pools(call), values["filterBy"])
    ordered = _POOLS.ordered(
        matching, values["sortBy"] or "name", is_descending=values["sortOrder"] == "desc"
    )
    first, limit = values["offset"], values["limit"]
    return json_reply(NodePoolsResponse(nodepools=tuple(ordered[first : first + limit])))


async def count_nodepools(call: Call) -> Answer:
    matching = _POOLS.matching(await node_pools(call), call.values["filterBy"])
    return json_reply(WorkloadCount(count=len(matching)))


async def get_nodepool(call: Call) -> Answer:
    pool_id = call.values["nodepoolId"]
    for pool in await node_pools(call):
        if pool.id == pool_id.lower():
            return json_reply(pool)
    raise NotFound(f"There is no node pool {pool_id[:100]}.")


async def node_pools(call: Call) -> list[NodePoolResponse]:
    """Every pool with a node that the caller may see."""
    page = await node_list(call.db, call.access, NodeQuery(is_brief=True), call.now)
    names = await cluster_names(call.db, call.access)
    pools: dict[tuple[UUID, str], list[NodeResponse]] = {}
    for node in page.nodes:
        pools.setdefault((node.cluster_uuid, node.node_pool), []).append(node)
    return [
        _pool(nodes, names.get(cluster_id, ""), call.access.tenant_id)
        for (cluster_id, _), nodes in pools.items()
    ]


def _pool(nodes: Sequence[NodeResponse], cluster_name: str, tenant_id: int) -> NodePoolResponse:
    first = nodes[0]
    is_usable = any(node.is_schedulable for node in nodes)
    return NodePoolResponse(
        id=node_pool_id(first.cluster_uuid, first.node_pool),
        tenant_id=tenant_id,
        name=first.node_pool,
        label_key=first.node_pool_label,
        label_value=first.node_pool,
        cluster_id=first.cluster_uuid,
        cluster_name=cluster_name,
        created_by="",
        created_at=min(node.created_at for node in nodes),
        updated_by="",
        updated_at=max(node.updated_at for node in nodes),
        is_default=any(node.is_in_default_pool for node in nodes),
        phase="Ready" if is_usable else "Unschedulable",
        phase_message="" if is_usable else "No node of the pool accepts new pods.",
        status=NodePoolStatus(
            label_key=first.node_pool_label,
            label_value=first.node_pool,
            nodes=tuple(node.name for node in nodes),
            conditions=tuple(_conditions(nodes)),
        ),
        total=None if first.is_partial else _summed(node.capacity for node in nodes),
        allocated=_summed(node.allocated for node in nodes),
        cluster_state=first.cluster_state,
        data_as_of=first.data_as_of,
    )


_PROBLEMS: tuple[tuple[str, str, Callable[[NodeResponse], bool]], ...] = (
    ("NodesNotReady", "Kubelets do not report Ready.", lambda node: node.status != "Ready"),
    ("NodesCordoned", "They take no new pods.", lambda node: node.is_cordoned),
)


def _conditions(nodes: Sequence[NodeResponse]) -> Iterable[NodePoolCondition]:
    for reason, message, applies in _PROBLEMS:
        names = tuple(node.name for node in nodes if applies(node))
        if names:
            yield NodePoolCondition(
                type="NodesUsable", reason=reason, message=message, status="False", nodes=names
            )


def _summed(amounts: Iterable[NodeResources]) -> NodeResources:
    """None where a part of it is not known."""
    each = list(amounts)
    memory = [held.cpu_memory_bytes for held in each]
    return NodeResources(
        gpus=_sum([held.gpus for held in each]),
        cpu_cores=_sum([held.cpu_cores for held in each]),
        cpu_memory_bytes=None if None in memory else sum(filter(None, memory)),
    )


def _sum(amounts: Sequence[float | None]) -> float | None:
    return None if None in amounts else round(sum(filter(None, amounts)), 6)


HANDLERS = (get_nodepools, count_nodepools, get_nodepool)
