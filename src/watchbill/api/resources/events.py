"""What Kubernetes said of a workload; and that with its phases in one line of time."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.api.resources.workloads import workload_not_found
from watchbill.responses.events import EventsResponse, HistoryResponse
from watchbill.store.workloads.events import event_list, history_list


async def get_workload_events(call: Call) -> Answer:
    values = call.values
    page = await event_list(
        call.db,
        call.access,
        values["workloadId"],
        is_ascending=values["sortOrder"] == "asc",
        offset=values["offset"],
        limit=values["limit"],
        now=call.now,
    )
    if page is None:
        raise workload_not_found(values["workloadId"])
    return json_reply(EventsResponse(events=tuple(page.events), next_offset=page.next_offset))


async def get_workload_history(call: Call) -> Answer:
    values = call.values
    page = await history_list(
        call.db,
        call.access,
        values["workloadId"],
        offset=values["offset"],
        limit=values["limit"],
        now=call.now,
    )
    if page is None:
        raise workload_not_found(values["workloadId"])
    return json_reply(HistoryResponse(records=tuple(page.records), next_offset=page.next_offset))


HANDLERS = (get_workload_events, get_workload_history)
