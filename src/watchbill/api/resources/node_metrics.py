"""Metrics of one node over time: for who sees its cluster as a whole."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer
from watchbill.api.resources.metrics import metrics_query, metrics_reply
from watchbill.errors import NotFound
from watchbill.metrics.node import node_outcomes
from watchbill.store.fleet.nodes import node_get


async def get_node_metrics(call: Call) -> Answer:
    """Raises NotFound also for a node of which only a part is in scope: its figures tell of others."""
    query = metrics_query(call.values)
    node_id = call.values["nodeId"]
    node = await node_get(call.db, call.access, node_id, call.now)
    if node is None or node.is_partial:
        raise NotFound(f"There is no node {node_id}.")
    return metrics_reply(call, await node_outcomes(call.db, call.access, node, query, call.now))


HANDLERS = (get_node_metrics,)
