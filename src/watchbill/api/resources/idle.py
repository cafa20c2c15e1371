"""Idle GPUs: the workloads that hold some, the most GPU-hours first."""

from typing import Any

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.api.resources.workloads import workload_query
from watchbill.responses.workloads import IdleWorkloadList
from watchbill.store.workloads.idle import idle_list

GPU_DECIMALS = 6
HOUR_DECIMALS = 4


async def get_idle_workloads(call: Call) -> Answer:
    page = await idle_list(
        call.db, call.services.documents, call.access, workload_query(call.values), call.now
    )
    workloads: Any = tuple(msgspec.Raw(document) for document in page.documents)
    return json_reply(
        IdleWorkloadList(
            total=page.total,
            idle_gpus=round(page.idle_gpus, GPU_DECIMALS),
            idle_gpu_hours=round(page.idle_gpu_hours, HOUR_DECIMALS),
            owners=tuple(page.owners),
            workloads=workloads,
            next_offset=page.next_offset,
        )
    )


HANDLERS = (get_idle_workloads,)
