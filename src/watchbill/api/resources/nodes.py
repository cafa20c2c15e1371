"""Nodes: of all clusters, or of one."""

from dataclasses import replace

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply, list_reply
from watchbill.errors import Invalid, NotFound
from watchbill.query import NodeQuery, Predicate, parse_node_filters
from watchbill.responses.contract import WorkloadCount
from watchbill.store.fleet.nodes import cluster_names, node_count, node_list

_ENCODER = msgspec.json.Encoder()


async def get_tenant_nodes(call: Call) -> Answer:
    return await _list(call, _page_query(call))


async def count_tenant_nodes(call: Call) -> Answer:
    return await _count(call, _query(call))


async def get_nodes(call: Call) -> Answer:
    """Raises Invalid where `nodeName` comes with another choice of nodes, NotFound for an unknown cluster."""
    await _check_cluster(call)
    query = _page_query(call)
    name = call.values["nodeName"]
    if name is not None:
        if query.predicates or query.search or query.offset or call.values["sortBy"]:
            raise Invalid("nodeName cannot be sent with filterBy, sortBy, offset or search.")
        query = replace(query, predicates=(Predicate("name", "==", name),))
    return await _list(call, query)


async def count_nodes(call: Call) -> Answer:
    """Raises NotFound for an unknown cluster."""
    await _check_cluster(call)
    return await _count(call, _query(call))


async def _check_cluster(call: Call) -> None:
    cluster_id = call.values["clusterUuid"]
    if cluster_id not in await cluster_names(call.db, call.access):
        raise NotFound(f"There is no cluster {cluster_id}.")


def _query(call: Call) -> NodeQuery:
    values = call.values
    return NodeQuery(
        predicates=parse_node_filters(values["filterBy"]),
        search=values["search"],
        cluster_id=values.get("clusterUuid"),
    )


def _page_query(call: Call) -> NodeQuery:
    values = call.values
    return replace(
        _query(call),
        sort_by=values["sortBy"] or "name",
        is_descending=values["sortOrder"] == "desc",
        offset=values["offset"],
        limit=values["limit"],
    )


async def _list(call: Call, query: NodeQuery) -> Answer:
    page = await node_list(call.db, call.access, query, call.now)
    return list_reply("nodes", ((_ENCODER.encode(node),) for node in page.nodes), page.next_offset)


async def _count(call: Call, query: NodeQuery) -> Answer:
    return json_reply(WorkloadCount(count=await node_count(call.db, call.access, query, call.now)))


HANDLERS = (get_tenant_nodes, count_tenant_nodes, get_nodes, count_nodes)
