"""Metrics over time of one node and of one cluster: for who sees the cluster as a whole."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer
from watchbill.api.resources.metrics import metrics_query, metrics_reply
from watchbill.errors import NotFound
from watchbill.metrics.cluster import cluster_outcomes
from watchbill.metrics.node import node_outcomes
from watchbill.store.fleet.nodes import cluster_names, node_get, sees_whole


async def get_node_metrics(call: Call) -> Answer:
    """Raises NotFound also for a node of which only a part is in scope: its figures tell of others."""
    query = metrics_query(call.values)
    node_id = call.values["nodeId"]
    node = await node_get(call.db, call.access, node_id, call.now)
    if node is None or node.is_partial:
        raise NotFound(f"There is no node {node_id}.")
    return metrics_reply(call, await node_outcomes(call.db, call.access, node, query, call.now))


async def get_cluster_metrics(call: Call) -> Answer:
    """Raises NotFound also for a cluster of which only a part is in scope."""
    query = metrics_query(call.values)
    cluster_id = call.values["clusterUuid"]
    names = await cluster_names(call.db, call.access)
    if cluster_id not in names or not sees_whole(call.access, cluster_id):
        raise NotFound(f"There is no cluster {cluster_id}.")
    is_divided = bool(call.values["groupBy"] or call.values["nodepoolName"])
    tenant_id = call.access.tenant_id
    outcomes = await cluster_outcomes(
        call.db, tenant_id, cluster_id, query, call.now, is_divided=is_divided
    )
    return metrics_reply(call, outcomes)


HANDLERS = (get_node_metrics, get_cluster_metrics)
