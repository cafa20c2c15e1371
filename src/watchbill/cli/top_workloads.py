"""`top`: who holds most GPUs, and what the last hour of each looked like."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from watchbill.cli.columns import JSON, member
from watchbill.cli.formats import DOCUMENTS, AnswerFormat
from watchbill.cli.hour import LAG, Hour, Series, drawn, is_known, last_hour, newest
from watchbill.cli.session import Session
from watchbill.cli.table import lines
from watchbill.cli.words import NONE, UNKNOWN, brief, grouped, number

ROWS = 20
MEASURED_ROWS = 100
"""Further ones are listed without a chart: each costs a question."""
ASKED_AT_ONCE = 4
_HEADERS = ["WORKLOAD", "PROJECT", "PHASE", "GPUS", "IDLE", "GPU-USE", "", "CPU-CORES", ""]
_GPU, _CPU = "GPU_UTILIZATION", "CPU_USAGE_CORES"


async def top_workloads(
    session: Session,
    here: tuple[str, ...],
    output: AnswerFormat,
    *,
    limit: int | None,
    has_headers: bool,
) -> None:
    """`here`: items of filterBy that narrow it."""
    from watchbill.client import Selection

    client, terminal = session.client, session.terminal
    holding = Selection(
        filters=(*here, "allocatedGPU>=0.000001"), sort_by="allocatedGPU", is_descending=True
    )
    shown = limit or ROWS
    workloads = await client.workloads(holding, most=shown)
    if not workloads and output not in DOCUMENTS:
        terminal.remark("No workload that you may see holds GPUs.")
        return
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    end = datetime.now(UTC) - LAG

    async def measured(workload: JSON) -> Hour:
        async with places:
            return await last_hour(client, UUID(workload["id"]), (_GPU, _CPU), end=end)

    hours = await asyncio.gather(*(measured(one) for one in workloads[:MEASURED_ROWS]))
    charts = [*hours, *({} for _ in workloads[MEASURED_ROWS:])]
    if output in DOCUMENTS:
        found = [_figures(*one) for one in zip(workloads, charts, strict=True)]
        terminal.write(DOCUMENTS[output]({"workloads": found}))
        return
    rows = [_row(workload, chart) for workload, chart in zip(workloads, charts, strict=True)]
    for line in lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    if not any(is_known(chart.get((name, ""))) for chart in hours for name in (_GPU, _CPU)):
        terminal.remark(
            "No use was measured in the last hour; `watchbill doctor` says whether anything measures it."
        )
    if len(workloads) >= shown:
        count = await client.workload_count(holding)
        if count > shown:
            terminal.remark(f"{grouped(shown)} of {grouped(count)} shown (--limit N for more)")


def _figures(workload: JSON, chart: Hour) -> JSON:
    """For programs; null is not known. `gpuUtilization` in percent."""
    utilization, cores = chart.get((_GPU, "")), chart.get((_CPU, ""))
    return {
        **{name: workload.get(name) for name in ("id", "name", "projectName", "phase")},
        "allocatedGpus": member(workload, ("allocatedResources", "gpu")),
        "idleAllocatedGpus": workload.get("idleAllocatedGpus"),
        "gpuUtilization": newest(utilization) if is_known(utilization) else None,
        "cpuUsageCores": newest(cores) if is_known(cores) else None,
    }


def _row(workload: JSON, chart: Hour) -> list[str]:
    idle = workload.get("idleAllocatedGpus")
    return [
        workload["name"],
        str(workload.get("projectName") or NONE),
        workload["phase"],
        number(member(workload, ("allocatedResources", "gpu"))),
        UNKNOWN if idle is None else number(idle),
        *_use(chart.get((_GPU, "")), unit="%", top=100.0),
        *_use(chart.get((_CPU, "")), unit="", top=None),
    ]


def _use(values: Series | None, *, unit: str, top: float | None) -> tuple[str, str]:
    """The newest value and the hour, or that it is not known."""
    if values is None or not is_known(values):
        return UNKNOWN, ""
    return f"{brief(newest(values))}{unit}", drawn(values, top=top)
