"""The parts of a workload and where it answers."""

from watchbill.api.call import Call
from watchbill.api.reply import Answer, Reply, json_reply, list_reply
from watchbill.api.workloads import absent
from watchbill.store.workloads import element_count, element_list, endpoint_list


async def get_workload_elements(call: Call) -> Answer:
    values = call.values
    page = await element_list(
        call.db,
        call.access,
        values["workloadId"],
        offset=values["offset"],
        limit=values["limit"],
        now=call.now,
    )
    if page is None:
        raise absent(values["workloadId"])
    return list_reply("elements", page.documents, page.next_offset)


async def count_workload_elements(call: Call) -> Answer:
    counts = await element_count(call.db, call.access, call.values["workloadId"], call.now)
    if counts is None:
        raise absent(call.values["workloadId"])
    total, stored = counts
    return json_reply({"totalElementsCount": total, "storedElementsCount": stored})


async def get_workload_endpoints(call: Call) -> Answer:
    endpoints = await endpoint_list(call.db, call.access, call.values["workloadId"], call.now)
    if endpoints is None:
        raise absent(call.values["workloadId"])
    return Reply(body=b'{"endpoints":' + endpoints + b"}")


HANDLERS = (get_workload_elements, count_workload_elements, get_workload_endpoints)
