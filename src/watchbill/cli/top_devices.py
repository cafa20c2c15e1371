"""`top NAME`: what one workload uses, in all and GPU by GPU, now and in the last hour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from watchbill.cli.columns import JSON, member
from watchbill.cli.find import Place, find_workload
from watchbill.cli.formats import DOCUMENTS, AnswerFormat
from watchbill.cli.hour import LAG, Hour, Series, drawn, is_known, last_hour, newest
from watchbill.cli.session import Session
from watchbill.cli.table import lines
from watchbill.cli.text import safe
from watchbill.cli.words import NONE, UNKNOWN, brief, byte_size, grouped, number, plural

GPU_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Figure:
    """`limit`: the type whose value is what was asked for; `top`: what a full column of the chart is."""

    label: str
    type: str
    shown: Callable[[float], str]
    limit: str = ""
    top: float | None = None


def _percent(value: float) -> str:
    return f"{brief(value)}%"


def _rate(value: float) -> str:
    return f"{byte_size(value)}/s"


_FIGURES = (
    _Figure("GPU use", "GPU_UTILIZATION", _percent, top=100.0),
    _Figure("GPU memory", "GPU_MEMORY_USAGE_BYTES", byte_size),
    _Figure("NVLink", "NVLINK_BANDWIDTH_TOTAL", _rate),
    _Figure("CPU cores", "CPU_USAGE_CORES", brief, limit="CPU_REQUEST_CORES"),
    _Figure("memory", "CPU_MEMORY_USAGE_BYTES", byte_size, limit="CPU_MEMORY_REQUEST_BYTES"),
    _Figure("running pods", "RUNNING_POD_COUNT", brief, limit="POD_COUNT"),
)
_GPU, _GPU_MEMORY, _NVLINK = _FIGURES[:3]
_TYPES = tuple(name for figure in _FIGURES for name in (figure.type, figure.limit) if name)


async def top_devices(
    session: Session, word: str, output: AnswerFormat, *, place: Place, has_headers: bool
) -> None:
    terminal = session.terminal
    workload = await find_workload(session.client, word, place)
    ended = workload.get("completedAt") or workload.get("deletedAt")
    end = datetime.fromisoformat(ended) if ended else datetime.now(UTC) - LAG
    hour = await last_hour(session.client, UUID(workload["id"]), _TYPES, end=end)
    if output in DOCUMENTS:
        terminal.write(DOCUMENTS[output](_figures(workload, hour)))
        return
    terminal.print(_headline(workload))
    if not any(is_known(values) for values in hour.values()):
        terminal.remark(
            "No use of it was measured then; `watchbill doctor` says whether anything measures it."
        )
        return
    headers = ["", "NOW" if ended is None else "LAST", "REQUESTED", "LAST HOUR"]
    totals = [_total(figure, hour) for figure in _FIGURES if is_known(hour.get((figure.type, "")))]
    for line in ("", *lines(headers if has_headers else None, totals, terminal)):
        terminal.print(line)
    _print_devices(session, hour, has_headers=has_headers)


def _figures(workload: JSON, hour: Hour) -> JSON:
    """The newest of each series, for programs."""
    return {
        "id": workload["id"],
        "name": workload["name"],
        "metrics": [
            {"type": name, **({"gpu": gpu} if gpu else {}), "value": newest(values)}
            for (name, gpu), values in hour.items()
            if is_known(values)
        ],
    }


def _headline(workload: JSON) -> str:
    held = member(workload, ("allocatedResources", "gpu")) or 0
    idle = workload.get("idleAllocatedGpus")
    unused = "" if not held else f", {UNKNOWN if idle is None else number(idle)} of them idle"
    where = (
        f"{workload['type']}, {workload['phase']}, project {workload.get('projectName') or NONE}"
    )
    pods = plural(workload.get("runningPods") or 0, "running pod")
    return safe(f"{workload['name']} ({where}): {number(held)} GPUs{unused}, {pods}")


def _total(figure: _Figure, hour: Hour) -> Sequence[str]:
    values, asked = hour[figure.type, ""], hour.get((figure.limit, ""))
    return [
        figure.label,
        figure.shown(newest(values)),
        figure.shown(newest(asked)) if asked is not None and is_known(asked) else NONE,
        drawn(values, top=figure.top),
    ]


def _print_devices(session: Session, hour: Hour, *, has_headers: bool) -> None:
    """A row a GPU, the least used first: that is the one to ask about."""
    devices = {gpu for _, gpu in hour if gpu}
    use = {gpu: _now(hour.get((_GPU.type, gpu))) for gpu in devices}
    order = sorted(devices, key=lambda gpu: (use[gpu] is None, use[gpu] or 0.0, gpu))
    rows = [
        [
            gpu,
            *(_cell(figure, hour, gpu) for figure in (_GPU, _GPU_MEMORY, _NVLINK)),
            _chart(hour, gpu),
        ]
        for gpu in order[:GPU_ROWS]
    ]
    if not rows:
        return
    headers = ["GPU", "USE", "MEMORY", "NVLINK", "LAST HOUR OF USE"]
    for line in ("", *lines(headers if has_headers else None, rows, session.terminal)):
        session.terminal.print(line)
    if len(order) > GPU_ROWS:
        session.terminal.remark(
            f"The {GPU_ROWS} least used of {grouped(len(order))} GPUs are shown."
        )


def _now(values: Series | None) -> float | None:
    return newest(values) if values is not None and is_known(values) else None


def _cell(figure: _Figure, hour: Hour, gpu: str) -> str:
    found = _now(hour.get((figure.type, gpu)))
    return UNKNOWN if found is None else figure.shown(found)


def _chart(hour: Hour, gpu: str) -> str:
    values = hour.get((_GPU.type, gpu))
    return drawn(values, top=_GPU.top) if values is not None and is_known(values) else ""
