"""`fleet`: the headline figures of all that the caller may read, and how they went."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import JSON, value_at
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_count,
    format_duration,
    format_number,
    parse_time,
    sparkline,
)
from watchbill.cli.output.terminal import DOCUMENTS, PHASE_COLOURS, AnswerFormat, Cell, table_lines

WIDTH = 48
MOST_HOURS = 30 * 24


_SERIES = {
    "GPUs allocated": ("gpus", "allocated"),
    "GPUs idle": ("gpus", "idle"),
    "pending": ("pending", "count"),
    "median wait": ("pending", "medianWaitSeconds"),
    "failed in 24h": ("failedInLastDay",),
}


@server_command
async def fleet(
    session: CommandContext,
    output: options.Output = AnswerFormat.TABLE,
    hours: Annotated[
        int, typer.Option(min=1, max=MOST_HOURS, help="How far the series goes back.")
    ] = 24,
) -> None:
    """Show the fleet's GPUs, pending workloads, their wait and failures, now and over the last hours.

    In the small charts `·` is a time without data.
    """
    end = datetime.now(UTC)
    found = await session.client.fleet(start=end - timedelta(hours=hours), end=end)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](found))
        return
    for line in _headline(found["now"]):
        session.terminal.print(line)
    phases = sorted(found["now"]["phases"].items(), key=lambda one: (-one[1], one[0]))
    rows: list[list[Cell | str]] = [
        [Cell(phase, PHASE_COLOURS.get(phase)), format_count(count)] for phase, count in phases
    ]
    if rows:
        session.terminal.print("")
        for line in table_lines(["PHASE", "WORKLOADS"], rows, session.terminal):
            session.terminal.print(line)
    series = found["series"]
    if not series:
        session.terminal.note("No data in this range; a data point is recorded every five minutes.")
        return
    session.terminal.print("")
    charts = list(_charts(found, end - timedelta(hours=hours), end))
    for line in table_lines([f"LAST {hours}h", "", "NOW", "HIGHEST"], charts, session.terminal):
        session.terminal.print(line)


def _headline(now: JSON) -> Iterator[str]:
    gpus, pending = now["gpus"], now["pending"]
    of_total = UNKNOWN if gpus["total"] is None else format_number(gpus["total"])
    yield f"{'GPUs':<16}{format_number(gpus['allocated'])} of {of_total} allocated; {_idle(gpus)}"
    wait = pending["medianWaitSeconds"]
    since = "" if wait is None else f", half of them for more than {format_duration(wait)}"
    yield f"{'pending':<16}{format_count(pending['count'])}{since}"
    yield f"{'failed in 24h':<16}{format_count(now['failedInLastDay'])}"
    yield f"{'workloads':<16}{format_count(now['workloads'])}"


def _idle(gpus: JSON) -> str:
    if not gpus["allocated"]:
        return "none idle"
    if gpus["idle"] is None:
        return "idle GPUs are not measured"
    unmeasured = gpus["allocated"] - gpus["measured"]
    rest = f" ({format_number(unmeasured)} are not measured)" if unmeasured > 0 else ""
    return f"{format_number(gpus['idle'])} idle{rest}"


def _charts(found: JSON, start: datetime, end: datetime) -> Iterator[list[str]]:
    for label, path in _SERIES.items():
        values = _spread(found, path, start, end)
        known = [value for value in values if value is not None]
        words = _span_or_none if label == "median wait" else format_number
        now = value_at(found["now"], path)
        highest = max([*known, *([] if now is None else [now])], default=None)
        yield [
            label,
            sparkline(values, width=WIDTH),
            UNKNOWN if now is None and label == "GPUs idle" else words(now),
            NONE if highest is None else words(highest),
        ]


def _span_or_none(seconds: float | None) -> str:
    return NONE if seconds is None else format_duration(seconds)


def _spread(found: JSON, path: Sequence[str], start: datetime, end: datetime) -> list[float | None]:
    """The series over the whole range, with a gap where no moment was recorded."""
    step = timedelta(seconds=found["stepSeconds"])
    values: list[float | None] = [None] * max(1, round((end - start) / step))
    for moment in found["series"]:
        at = parse_time(moment["at"])
        if at is not None and start <= at <= end:
            values[min(len(values) - 1, (at - start) // step)] = value_at(moment, tuple(path))
    return values
