"""`usage`: what it asks for and what it prints."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fixtures.command_line import FakeServer, cluster
from watchbill.cli.commands.usage import NOT_COMPLETE, NOT_YET, _change, _period_before
from watchbill.query import USAGE_SORTS

FIGURES: dict[str, Any] = {
    "requestedGpuHours": 120.0,
    "allocatedGpuHours": 100.0,
    "busyGpuHours": None,
    "sampledGpuHours": 0.0,
    "idleGpuHours": 20.0,
    "unmeasuredGpuHours": 20.0,
    "gapGpuHours": 0.0,
    "pendingGpuHours": 8.0,
    "cpuCoreHours": 1.0,
    "memoryGibHours": 1.0,
    "cost": None,
    "unpricedGpuHours": 100.0,
}


def answer(*rows: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "accountedUntil": "2026-11-29T06:10:00Z",
        "currency": None,
        "totals": FIGURES,
        "rows": list(rows),
    } | members


ROWS = (
    FIGURES | {"group": {"project": "vision", "owner": "ada@example.com"}},
    FIGURES | {"group": {"project": "=cmd()", "owner": None}, "idleGpuHours": None},
)


async def test_a_table_says_how_much_was_idle_and_how_far_it_counts() -> None:
    async with FakeServer(usage=answer(*ROWS)).running() as watchbill:
        outcome = await watchbill("usage", "--by", "project,owner", "--since", "7d")
        (request,) = watchbill.asked("/api/v1/usage")
    header, first, second, *_ = outcome.out.splitlines()
    assert header.split() == [
        *("PROJECT", "OWNER", "ALLOCATED-HOURS", "IDLE-HOURS", "IDLE%", "PENDING-HOURS")
    ]
    assert first.split() == ["vision", "ada@example.com", "100.0", "20.0", "25", "8.0"]
    assert second.split() == ["=cmd()", "-", "100.0", "?", "-", "8.0"]
    assert "from 2026-11-01 to 2026-11-30, 20.0 of them idle" in outcome.err
    assert "20.0 GPU-hours were not measured" in outcome.err
    assert "up to 2026-11-29 06:10 UTC" in outcome.err
    assert request.query["groupBy"] == "project,owner"
    start = datetime.fromisoformat(request.query["start"])
    assert start.date() in {
        (datetime.now(UTC) - timedelta(days=6, minutes=minutes)).date() for minutes in (0, 5)
    }, "seven days with today"


@pytest.mark.parametrize("arguments", [(), ("-o", "wide"), ("--compare",), ("-o", "csv")])
async def test_before_the_first_accounting_no_figure_is_shown(arguments: tuple[str, ...]) -> None:
    nothing = dict.fromkeys(FIGURES, 0.0)
    report = answer(accountedUntil=None, totals=nothing)
    async with FakeServer(usage=report).running() as watchbill:
        outcome = await watchbill("usage", *arguments)
    assert outcome.err.splitlines() == [NOT_YET]
    assert " 0.0" not in outcome.out


@pytest.mark.parametrize("arguments", [(), ("--compare",), ("-o", "csv")])
async def test_figures_that_are_counted_anew_are_not_complete(arguments: tuple[str, ...]) -> None:
    async with FakeServer(usage=answer(*ROWS, accountedUntil=None)).running() as watchbill:
        outcome = await watchbill("usage", *arguments)
    assert outcome.err.splitlines() == [NOT_COMPLETE]
    assert "vision" in outcome.out


@pytest.mark.parametrize("output", ["table", "csv"])
async def test_hours_of_a_silent_cluster_end_with_its_last_contact(output: str) -> None:
    silent = cluster(name="oslo", state="disconnected", lastContactAt="2026-11-20T04:05:06Z")
    later = cluster(name="lagos", state="disconnected", lastContactAt="2026-12-01T00:00:01Z")
    async with FakeServer(usage=answer(*ROWS), clusters=[silent, later]).running() as watchbill:
        outcome = await watchbill("usage", "-o", output)
    assert "cluster oslo is disconnected" in outcome.err
    assert "2026-11-20 04:05 UTC" in outcome.err
    assert "lagos" not in outcome.err, "its days are over"


@pytest.mark.parametrize(
    ("now", "before", "change"),
    [
        (125.0, 100.0, "+25%"),
        (0.0, 5.0, "-100%"),
        (1099.0, 100.0, "+999%"),
        (1100.0, 100.0, "11 times"),
        (10_000.0, 100.0, "-"),
        (5.0, 0.0, "-"),
    ],
)
def test_a_change_is_written_as_the_page_writes_it(now: float, before: float, change: str) -> None:
    assert _change(now, before)[1] == change


async def test_days_without_gpus_are_told_in_one_sentence() -> None:
    nothing = dict.fromkeys(FIGURES, 0.0)
    async with FakeServer(usage=answer(totals=nothing)).running() as watchbill:
        none = (await watchbill("usage")).err.splitlines()
        compared = (await watchbill("usage", "--compare")).err
    async with FakeServer(
        usage=answer(totals=nothing | {"pendingGpuHours": 2.0})
    ).running() as watchbill:
        pending = (await watchbill("usage")).err.splitlines()
    assert none[0].startswith("No GPU was allocated or requested from 2026-11-")
    assert pending[0].startswith("No GPU was allocated from 2026-11-")
    assert not any("0.0 GPU-hours" in line for line in (*none, *pending, compared))
    assert ": no usage is recorded.\n" in compared


async def test_a_group_may_be_written_as_capacity_and_top_write_it() -> None:
    async with FakeServer(usage=answer()).running() as watchbill:
        await watchbill("usage", "--by", "nodepool,gpu-type,Project")
        await watchbill("usage", "--by", "node-pool,priority-class,bogus")
        first, second = watchbill.asked("/api/v1/usage")
    assert first.query["groupBy"] == "nodePool,gpuModel,project"
    assert second.query["groupBy"] == "nodePool,priorityClass,bogus", "the server refuses it"


async def test_wide_shows_every_figure() -> None:
    async with FakeServer(usage=answer(*ROWS)).running() as watchbill:
        outcome = await watchbill("usage", "--by", "project", "-o", "wide")
    header, first, *_ = outcome.out.splitlines()
    assert header.split()[5:] == [
        "REQUESTED-HOURS",
        "BUSY-HOURS",
        "UNMEASURED-HOURS",
        "GAP-HOURS",
        "CORE-HOURS",
        "GIB-HOURS",
        "UNPRICED-HOURS",
    ]
    assert first.split()[5:] == ["120.0", "?", "20.0", "0.0", "1.0", "1.0", "100.0"]


async def test_csv_is_for_spreadsheets_and_runs_nothing() -> None:
    async with FakeServer(usage=answer(*ROWS)).running() as watchbill:
        outcome = await watchbill("usage", "--by", "project,owner", "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [row["project"] for row in rows] == ["vision", "'=cmd()"]
    assert rows[0]["allocatedGpuHours"] == "100.0"
    assert rows[1]["idleGpuHours"] == ""


async def test_the_largest_of_any_figure_come_first() -> None:
    async with FakeServer(usage=answer()).running() as watchbill:
        for figure in ("allocated", "requested", "idle", "pending", "cost"):
            await watchbill("usage", "--by", "owner", "--sort-by", figure)
        asked = watchbill.asked("/api/v1/usage")
    assert {each.query["sortBy"] for each in asked} == set(USAGE_SORTS)


async def test_every_page_is_read() -> None:
    server = FakeServer(usage=answer(*ROWS))
    async with server.running() as watchbill:
        outcome = await watchbill("usage", "-o", "json")
    assert len(json.loads(outcome.out)["rows"]) == 2


async def test_money_where_there_are_prices() -> None:
    priced = FIGURES | {"cost": 250.0, "group": {"project": "vision"}}
    async with FakeServer(usage=answer(priced, currency="EUR")).running() as watchbill:
        outcome = await watchbill("usage")
    assert outcome.out.splitlines()[0].split()[-1] == "EUR"
    assert outcome.out.splitlines()[1].split()[-1] == "250.00"


async def test_a_month_is_compared_with_the_month_before_it() -> None:
    now = FIGURES | {"group": {"project": "vision"}}
    before = FIGURES | {"group": {"project": "vision"}, "allocatedGpuHours": 80.0}
    ended = FIGURES | {"group": {"project": "speech"}, "allocatedGpuHours": 5.0}
    months = {
        ("2026-11-01", "2026-12-01"): answer(now, accountedUntil="2026-12-01T00:00:00Z"),
        ("2026-10-01", "2026-11-01"): answer(
            *(before, ended),
            start="2026-10-01T00:00:00Z",
            end="2026-11-01T00:00:00Z",
            totals=FIGURES | {"allocatedGpuHours": 85.0},
        ),
    }
    arguments = ["--since", "2026-11-01", "--until", "2026-12-01", "--compare"]
    async with FakeServer(usage_by_days=months).running() as watchbill:
        outcome = await watchbill("usage", *arguments)
        first, second = watchbill.asked("/api/v1/usage")
        as_csv = await watchbill("usage", *arguments, "-o", "csv")
        as_json = await watchbill("usage", *arguments, "-o", "json")
        by_day = await watchbill("usage", *arguments, "--by", "day")
    october = months["2026-10-01", "2026-11-01"]
    months["2026-10-01", "2026-11-01"] = october | {"recordedSince": "2026-10-30T00:00:00Z"}
    async with FakeServer(usage_by_days=months).running() as watchbill:
        in_part = await watchbill("usage", *arguments)
    header, vision, speech = (line.split() for line in outcome.out.splitlines())
    assert header[-2:] == ["HOURS-BEFORE", "CHANGE"]
    assert (vision[0], vision[1], *vision[-2:]) == ("vision", "100.0", "80.0", "+25%")
    assert (speech[0], speech[1], *speech[-2:]) == ("speech", "0.0", "5.0", "-100%")
    assert "Before, from 2026-10-01 to 2026-10-31: 85.0 (+18% since)." in outcome.err
    assert in_part.out.splitlines()[1].split()[-2:] == ["80.0", "-"], "two days are not a month"
    assert "Before, from 2026-10-01 to 2026-10-31: 85.0.\n" in in_part.err
    assert "Usage is recorded from 2026-10-30 on" in in_part.err
    assert second.query["start"] == "2026-10-01T00:00:00+00:00"
    assert second.query["end"] == "2026-11-01T00:00:00+00:00"
    assert (as_json.code, by_day.code) == (2, 2)
    lines = [*csv.DictReader(io.StringIO(as_csv.out))]
    assert [
        [
            line[name]
            for name in ("project", "allocatedGpuHours", "comparedGpuHours", "gpuHoursBefore")
        ]
        for line in lines
    ] == [["vision", "100.0", "100.0", "80.0"], ["speech", "0.0", "0.0", "5.0"]]
    assert first.query["groupBy"] == second.query["groupBy"] == "project"


async def test_a_day_that_has_begun_is_compared_with_none() -> None:
    """Of three days the third is half over: two are compared with the two before."""

    def hours(start: str, end: str, allocated: float) -> dict[str, Any]:
        figures = FIGURES | {"allocatedGpuHours": allocated}
        row = figures | {"group": {"project": "vision"}}
        return answer(
            row,
            start=f"2026-11-{start}T00:00:00Z",
            end=f"2026-11-{end}T00:00:00Z",
            accountedUntil="2026-11-07T12:00:00Z",
            totals=figures,
        )

    reports = {
        ("2026-11-05", "2026-11-08"): hours("05", "08", 60.0),
        ("2026-11-05", "2026-11-07"): hours("05", "07", 48.0),
        ("2026-11-03", "2026-11-05"): hours("03", "05", 24.0),
        ("2026-11-07", "2026-11-08"): hours("07", "08", 12.0),
    }
    arguments = ["--until", "2026-11-08", "--compare"]
    async with FakeServer(usage_by_days=reports).running() as watchbill:
        outcome = await watchbill("usage", "--since", "2026-11-05", *arguments)
        as_csv = await watchbill("usage", "--since", "2026-11-05", *arguments, "-o", "csv")
        refused = await watchbill("usage", "--since", "2026-11-07", *arguments)
    vision = outcome.out.splitlines()[1].split()
    assert (vision[1], *vision[-2:]) == ("60.0", "24.0", "+100%")
    assert "Before, from 2026-11-03 to 2026-11-04: 24.0 (+100% since)." in outcome.err
    assert "Compared with 48.0 up to 2026-11-06" in outcome.err
    (line,) = csv.DictReader(io.StringIO(as_csv.out))
    assert (line["comparedGpuHours"], line["gpuHoursBefore"]) == ("48.0", "24.0")
    assert refused.code == 2
    assert "needs a complete day" in refused.err


@pytest.mark.parametrize(
    ("days", "before"),
    [
        ("2028-02-01 2028-03-01", "2028-01-01 2028-02-01"),
        ("2028-03-01 2028-04-01", "2028-02-01 2028-03-01"),
        ("2027-01-01 2027-02-01", "2026-12-01 2027-01-01"),
        ("2026-10-01 2027-01-01", "2026-07-01 2026-10-01"),
        ("2026-11-01 2026-11-30", "2026-10-01 2026-10-30"),
        ("2026-03-01 2026-03-31", "2026-02-01 2026-03-01"),
        ("2026-01-01 2026-11-30", "2025-02-01 2025-12-30"),
        ("2026-11-08 2026-11-15", "2026-11-01 2026-11-08"),
    ],
)
def test_the_period_before_is_as_long_or_the_same_days_of_months(days: str, before: str) -> None:
    def bounds(text: str) -> list[datetime]:
        return [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in text.split()]

    start, end = bounds(days)
    assert [*_period_before(start, end, by_months=True)] == bounds(before)
    assert _period_before(start, end, by_months=False) == (start - (end - start), start)


@pytest.mark.parametrize("flag", ["--since", "--until"])
async def test_a_moment_that_is_none_is_refused(flag: str) -> None:
    async with FakeServer(usage=answer()).running() as watchbill:
        outcome = await watchbill("usage", flag, "yesterday")
    assert outcome.code == 2
    assert "yesterday" in outcome.err
    assert "hint: write 30d, 4w or 2026-11-01" in outcome.err, "the formats that the help names"
