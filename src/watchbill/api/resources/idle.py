"""Idle GPUs: the workloads that hold some, the most GPU-hours first."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, encode
from watchbill.api.resources.workloads import workload_query
from watchbill.store.workloads.idle import idle_list


async def get_idle_workloads(call: Call) -> Answer:
    page = await idle_list(call.db, call.access, workload_query(call.values), call.now)
    following = b"" if page.next_offset is None else b',"next":%d' % page.next_offset
    body = b'{"total":%d,"idleGpus":%.6g,"idleGpuHours":%.4f,"owners":%b,"workloads":[%b]%b}' % (
        page.total,
        page.idle_gpus,
        page.idle_gpu_hours,
        encode(page.owners),
        b",".join(page.documents),
        following,
    )
    return Reply(body=body)


HANDLERS = (get_idle_workloads,)
