"""`fleet`: GPUs, pending workloads and failures of all that the caller may read, now and over time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import note_old_figures
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import HEADERS, header_row
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_count,
    format_duration,
    format_known,
    format_number,
    sparkline,
)
from watchbill.cli.output.terminal import (
    PHASE_COLOURS,
    TABLE_DOCUMENTS,
    Cell,
    TableFormat,
    table_document,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.responses.fleet import Fleet, FleetGpus, FleetMoment

WIDTH = 48
MAX_HOURS = 30 * 24


@dataclass(frozen=True, slots=True)
class _Series:
    """`show` is how a value is written; `unknown` what stands for one that is not known."""

    label: str
    get: "Callable[[FleetMoment], float | None]"
    show: Callable[[float], str] = format_number
    unknown: str = NONE


_SERIES = (
    _Series("GPUs allocated", lambda moment: moment.gpus.allocated),
    _Series("GPUs idle", lambda moment: moment.gpus.idle, unknown=UNKNOWN),
    _Series("pending", lambda moment: moment.pending.count),
    _Series(
        "median pending time", lambda moment: moment.pending.median_wait_seconds, format_duration
    ),
    _Series("failed in 24h", lambda moment: moment.failed_in_last_day),
)


@server_command
async def fleet(
    session: CommandContext,
    output: options.TableOutput = TableFormat.TABLE,
    hours: Annotated[
        int, typer.Option(min=1, max=MAX_HOURS, help="How many hours the series goes back.")
    ] = 24,
) -> None:
    """Show the fleet's GPUs, pending workloads, their pending time and failures, now and over the last hours.

    In the small charts `·` is a time without data.
    """
    end = datetime.now(UTC)
    answer = await session.client.fleet(start=end - timedelta(hours=hours), end=end)
    if output in TABLE_DOCUMENTS:
        is_csv = output is TableFormat.CSV
        document = {"series": answer.series} if is_csv else answer
        from watchbill.responses.fleet import FleetMoment

        session.terminal.write(table_document(output, document, FleetMoment))
        return
    _print_now(session, answer)
    _print_series(session, answer, end, hours)
    await note_old_figures(session)


def _print_now(session: CommandContext, answer: "Fleet") -> None:
    for line in _headline(answer.now):
        session.terminal.print(line)
    phases = sorted(answer.now.phases.items(), key=lambda item: (-item[1], item[0]))
    rows: list[list[Cell | str]] = [
        [Cell(phase, PHASE_COLOURS.get(phase)), format_count(count)] for phase, count in phases
    ]
    if rows:
        session.terminal.print("")
        for line in table_lines(header_row("phase", "workloads"), rows, session.terminal):
            session.terminal.print(line)


def _print_series(session: CommandContext, answer: "Fleet", end: datetime, hours: int) -> None:
    if not answer.series:
        session.terminal.note("No data in this range; a data point is recorded every five minutes.")
        return
    session.terminal.print("")
    headers = [f"{HEADERS['last']} {hours}h", *header_row("", "now", "highest")]
    charts = list(_charts(answer, end - timedelta(hours=hours), end))
    for line in table_lines(headers, charts, session.terminal):
        session.terminal.print(line)


def _headline(now: "FleetMoment") -> Iterator[str]:
    gpus, pending = now.gpus, now.pending
    total = format_known(gpus.total)
    yield f"{'GPUs':<16}{format_number(gpus.allocated)} of {total} allocated; {_idle(gpus)}"
    wait = pending.median_wait_seconds
    half = "" if wait is None else f", half of them for more than {format_duration(wait)}"
    yield f"{'pending':<16}{format_count(pending.count)}{half}"
    yield f"{'failed in 24h':<16}{format_count(now.failed_in_last_day)}"
    yield f"{'workloads':<16}{format_count(now.workloads)}"


def _idle(gpus: "FleetGpus") -> str:
    if not gpus.allocated:
        return "none idle"
    if gpus.idle is None:
        return "idle GPUs are not measured"
    unmeasured = gpus.allocated - gpus.measured
    rest = f" ({format_number(unmeasured)} are not measured)" if unmeasured > 0 else ""
    return f"{format_number(gpus.idle)} idle{rest}"


def _charts(answer: "Fleet", start: datetime, end: datetime) -> Iterator[list[str]]:
    for series in _SERIES:
        values = _values(answer, series, start, end)
        now = series.get(answer.now)
        known = [value for value in (*values, now) if value is not None]
        yield [
            series.label,
            sparkline(values, width=WIDTH),
            series.unknown if now is None else series.show(now),
            series.show(max(known)) if known else NONE,
        ]


def _values(answer: "Fleet", series: _Series, start: datetime, end: datetime) -> list[float | None]:
    """The series over the whole range, with a gap where no moment was recorded."""
    step = timedelta(seconds=answer.step_seconds)
    values: list[float | None] = [None] * max(1, round((end - start) / step))
    for moment in answer.series:
        if start <= moment.at <= end:
            values[min(len(values) - 1, (moment.at - start) // step)] = series.get(moment)
    return values
