"""`top --by workload`: who holds most GPUs, and what the last hour of each looked like."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.columns import JSON, member
from watchbill.cli.session import Session
from watchbill.cli.spark import sparkline
from watchbill.cli.table import lines
from watchbill.cli.words import NONE, UNKNOWN, grouped, number
from watchbill.errors import NotFound, TooMany, Unavailable

if TYPE_CHECKING:
    from watchbill.client import Client

ROWS = 20
MEASURED_ROWS = 100
"""Further ones are listed without a chart: each costs a question."""
ASKED_AT_ONCE = 4
SAMPLES = 24
HOUR = timedelta(hours=1)
LAG = timedelta(seconds=40)
"""Nothing is known past a cluster's last contact; by then every connected one has been heard of again."""
_HEADERS = ["WORKLOAD", "PROJECT", "PHASE", "GPUS", "IDLE", "GPU-USE", "", "CPU-CORES", ""]
_GPU, _CPU = "GPU_UTILIZATION", "CPU_USAGE_CORES"


async def top_workloads(session: Session, *, limit: int | None, has_headers: bool) -> None:
    from watchbill.client import Selection

    client, terminal = session.client, session.terminal
    holding = Selection(
        filters=("allocatedGPU>=0.000001",), sort_by="allocatedGPU", is_descending=True
    )
    shown = limit or ROWS
    workloads = await client.workloads(holding, most=shown)
    if not workloads:
        terminal.remark("No workload that you may see holds GPUs.")
        return
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    end = datetime.now(UTC) - LAG

    async def measured(workload: JSON) -> dict[str, list[float | None]]:
        async with places:
            return await _hour(client, UUID(workload["id"]), end)

    series = await asyncio.gather(*(measured(one) for one in workloads[:MEASURED_ROWS]))
    charts = [*series, *({} for _ in workloads[MEASURED_ROWS:])]
    rows = [_row(workload, chart) for workload, chart in zip(workloads, charts, strict=True)]
    for line in lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    if not any(_is_known(chart.get(name)) for chart in series for name in (_GPU, _CPU)):
        terminal.remark("Nothing measures use here; `watchbill doctor` says what is missing.")
    if len(workloads) >= shown:
        count = await client.workload_count(holding)
        if count > shown:
            terminal.remark(f"{grouped(shown)} of {grouped(count)} shown (--limit N for more)")


async def _hour(
    client: "Client", workload_id: UUID, end: datetime
) -> dict[str, list[float | None]]:
    """The series that there are; a type that is not measured, or a source that is down, has none."""
    try:
        answer = await client.metrics(
            workload_id, (_GPU, _CPU), start=end - HOUR, end=end, samples=SAMPLES
        )
    except (NotFound, Unavailable, TooMany):
        return {}
    return {
        one["type"]: _spread(one["values"] or (), end)
        for one in answer["measurements"]
        if not one.get("labels")
    }


def _spread(values: Sequence[JSON], end: datetime) -> list[float | None]:
    """By position in the hour, with a gap where there is no sample."""
    step = HOUR / SAMPLES
    found: list[float | None] = [None] * SAMPLES
    for one in values:
        age = end - datetime.fromisoformat(one["timestamp"])
        position = SAMPLES - 1 - round(age / step)
        if 0 <= position < SAMPLES:
            found[position] = float(one["value"])
    return found


def _row(workload: JSON, chart: dict[str, list[float | None]]) -> list[str]:
    idle = workload.get("idleAllocatedGpus")
    return [
        workload["name"],
        str(workload.get("projectName") or NONE),
        workload["phase"],
        number(member(workload, ("allocatedResources", "gpu"))),
        UNKNOWN if idle is None else number(idle),
        *_drawn(chart.get(_GPU), unit="%", top=100.0),
        *_drawn(chart.get(_CPU), unit="", top=None),
    ]


def _drawn(
    values: Sequence[float | None] | None, *, unit: str, top: float | None
) -> tuple[str, str]:
    """The newest value and the hour, or that it is not known."""
    if not _is_known(values) or values is None:
        return UNKNOWN, ""
    newest = next(value for value in reversed(values) if value is not None)
    return f"{newest:.3g}{unit}", sparkline(values, width=SAMPLES, top=top)


def _is_known(values: Sequence[float | None] | None) -> bool:
    return values is not None and any(value is not None for value in values)
