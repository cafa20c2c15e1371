"""Pods: of all workloads, or of one."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply, list_reply
from watchbill.api.resources.metrics import metrics_query, metrics_reply
from watchbill.api.resources.workloads import workload_not_found
from watchbill.errors import NotFound
from watchbill.metrics.pods_and_nodes import pod_outcomes
from watchbill.query import PodQuery, parse_pod_filters
from watchbill.responses.contract import WorkloadCount
from watchbill.store.workloads.pods import pod_count, pod_list

_COMPLETED = {"true": True, "false": False}


async def list_pods(call: Call) -> Answer:
    values = call.values
    query = PodQuery(
        predicates=parse_pod_filters(values["filterBy"]),
        search=values["search"],
        is_deleted=bool(values["deleted"]),
        is_completed=_COMPLETED.get(values["completed"]),
        sort_by=values["sortBy"] or "createdAt",
        is_descending=values["sortOrder"] == "desc",
        with_names=values["verbosity"] == "full",
        offset=values["offset"],
        limit=values["limit"],
    )
    page = await pod_list(call.db, call.access, query, call.now)
    assert page is not None, "no one workload is asked for"
    return list_reply("pods", zip(page.documents, strict=True), page.next_offset)


async def count_pods(call: Call) -> Answer:
    values = call.values
    query = PodQuery(
        predicates=parse_pod_filters(values["filterBy"]),
        search=values["search"],
        is_deleted=bool(values["deleted"]),
    )
    counts = call.services.gone_counts
    count = await pod_count(call.db, call.access, query, call.now, counts)
    return json_reply(WorkloadCount(count=count))


async def get_workload_pods(call: Call) -> Answer:
    values = call.values
    query = PodQuery(
        workload_id=values["workloadId"],
        search=values["search"],
        is_deleted=bool(values["deleted"]),
        offset=values["offset"],
        limit=values["limit"],
    )
    page = await pod_list(call.db, call.access, query, call.now)
    if page is None:
        raise workload_not_found(values["workloadId"])
    return list_reply("pods", zip(page.documents, strict=True), page.next_offset)


async def get_workload_pod_metrics(call: Call) -> Answer:
    """Raises NotFound where the workload has no such pod, or is not in scope."""
    query = metrics_query(call.values)
    workload_id, pod_id = call.values["workloadId"], call.values["podId"]
    outcomes = await pod_outcomes(call.db, call.access, workload_id, pod_id, query, call.now)
    if outcomes is None:
        raise NotFound(f"Workload {workload_id} has no pod {pod_id}.")
    return metrics_reply(call, outcomes)


HANDLERS = (list_pods, count_pods, get_workload_pods, get_workload_pod_metrics)
