"""Usage over HTTP: the questions that a finance department asks, and what must not be answered."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served, serving
from watchbill.api.resources import usage as resource
from watchbill.prices import PriceChange, Prices
from watchbill.protocol import Delete
from watchbill.query import Scope, UsageQuery
from watchbill.settings.server import ServerSettings
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account
from watchbill.store.usage.report import usage_report

FIRST = datetime(2028, 1, 31, tzinfo=UTC)
"""Of a leap year: the workloads live from 31 January to 2 March."""
END = datetime(2028, 3, 2, tzinfo=UTC)
DAYS = 31
PRICES = "{currency: EUR, gpuHour: 1, nodePools: {h100: 3}}"
HOSTILE = "=cmd|' /C calc'!A0"


def at(hours: float) -> datetime:
    return FIRST + timedelta(hours=hours)


async def put(agent: Agent, number: int, hours: float, gpus: float, **members: object) -> None:
    made = workload(
        number, gpus=gpus, created_at=FIRST, idle_allocated_gpus=0.0, idle_gpus=0, **members
    )
    await agent.send(upsert(made, observed_at=at(hours)), now=at(hours))


async def fill(db: Database) -> None:
    """By hand: vision holds 2 GPUs all 31 days, speech 8 for ten days in the pool h100, and a project with a
    hostile name one for 31 days, of nobody."""
    agent = await connected_agent(db, FIRST)
    await put(agent, 1, 0, 2)
    await put(agent, 2, 0, 8, project_name="speech", current_node_pools=("h100",))
    await put(agent, 3, 0, 1, project_name=HOSTILE, submitted_by=None)
    await agent.send(Delete(id=UUID(int=2), deleted_at=at(240)), now=at(240))
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM cluster_gap")
        await connection.execute("UPDATE cluster SET last_contact_at = $1", END)
    await usage_account(db, 1, END)


@pytest_asyncio.fixture(scope="module")
async def billed(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Accounted to ten minutes before the end of 1 March; nothing here changes it."""
    prices = tmp_path_factory.mktemp("billed") / "prices.yaml"
    prices.write_text(PRICES)
    settings = ServerSettings(
        data_dir=Path("/nonexistent"), requests_burst=1_000_000, prices_file=prices
    )
    url = await fresh_database(embedded_engine)
    async with serving(url, settings, clock=lambda: END) as served:
        await fill(served.db)
        yield served


async def ask(
    served: Served, token: str = "administrator", filters: tuple[str, ...] = (), **query: str
) -> dict[str, Any]:
    text = urlencode([*query.items(), *(("filterBy", item) for item in filters)])
    answer = await served.get(f"/api/v1/usage?{text}", token=token)
    assert answer.status == 200, answer.body
    return dict(answer.json)


def hours(report: dict[str, Any], *names: str) -> dict[tuple[str | None, ...], float]:
    return {
        tuple(row["group"][name] for name in names): row["allocatedGpuHours"]
        for row in report["rows"]
    }


FEBRUARY = {"start": "2028-02-01T00:00:00Z", "end": "2028-03-01T00:00:00Z"}


async def test_a_leap_years_february_has_29_days(billed: Served) -> None:
    report = await ask(billed, **FEBRUARY, groupBy="project")
    assert hours(report, "project") == {
        ("speech",): 8 * 24 * 9,
        ("vision",): 2 * 24 * 29,
        (HOSTILE,): 24 * 29,
    }
    by_day = await ask(billed, **FEBRUARY, groupBy="day")
    assert len(by_day["rows"]) == 29
    before = await ask(billed, start="2028-01-01T00:00:00Z", end="2028-02-01T00:00:00Z")
    assert before["totals"]["allocatedGpuHours"] == 11 * 24


async def test_days_months_csv_and_totals_are_one_sum(billed: Served) -> None:
    whole = await ask(billed, start="2028-01-01T00:00:00Z")
    total = whole["totals"]["allocatedGpuHours"]
    assert total == pytest.approx(3 * (24 * DAYS - 1 / 6) + 8 * 240, abs=1e-6)
    for groups in ("day", "week", "month", "project,day", "owner,month,nodePool", "workload"):
        report = await ask(billed, start="2028-01-01T00:00:00Z", groupBy=groups)
        assert report["totals"] == whole["totals"], groups
        summed = sum(row["allocatedGpuHours"] for row in report["rows"])
        assert summed == pytest.approx(total, abs=1e-5), groups
        assert sum(row["cost"] for row in report["rows"]) == pytest.approx(whole["totals"]["cost"])
        text = await billed.get(
            f"/api/v1/usage?start=2028-01-01T00:00:00Z&format=csv&groupBy={groups}"
        )
        lines = list(csv.DictReader(io.StringIO(text.body.decode())))
        assert sum(float(line["allocatedGpuHours"]) for line in lines) == pytest.approx(summed)
    assert whole["totals"]["cost"] == pytest.approx(total + 2 * 8 * 240, abs=1e-5)


async def test_a_csv_has_every_row_whatever_the_limit(
    billed: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/api/v1/usage?start=2028-01-01T00:00:00Z&groupBy=workload,day&format=csv&limit=5"
    lines = (await billed.get(path)).body.decode().splitlines()
    assert len(lines) == 1 + 31 + 10 + 31
    monkeypatch.setattr(resource, "MAX_CSV_ROWS", 20)
    refused = await billed.get(path)
    assert refused.status == 400
    assert b"more than 20 rows" in refused.body


async def test_what_has_no_owner_can_be_asked_for(billed: Served) -> None:
    for filters, projects in (
        (("owner==",), {(HOSTILE,)}),
        (("owner!=",), {("vision",), ("speech",)}),
        ((f"project=={HOSTILE}",), {(HOSTILE,)}),
        (("owner=@ADA", "nodePool!=h100"), {("vision",)}),
        (("month==2028-01", "project==speech"), {("speech",)}),
    ):
        report = await ask(
            billed,
            filters=filters,
            **FEBRUARY | {"start": "2028-01-01T00:00:00Z"},
            groupBy="project",
        )
        assert set(hours(report, "project")) == projects, filters


async def test_no_cell_of_a_csv_is_a_formula(billed: Served) -> None:
    answer = await billed.get("/api/v1/usage?start=2028-01-01T00:00:00Z&groupBy=project&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert {row["project"] for row in rows} == {"vision", "speech", f"'{HOSTILE}"}


async def test_whoever_reads_one_project_sees_its_sums_alone(billed: Served) -> None:
    async with billed.db.acquire(1) as connection:
        speech = await connection.fetchval("SELECT id FROM project WHERE name = 'speech'")
    token = await billed.account(("viewer", "project", str(speech)))
    for groups in ("cluster", "project", "department", "day", "gpuModel", "workload"):
        report = await ask(billed, token, start="2028-01-01T00:00:00Z", groupBy=groups)
        assert report["totals"]["allocatedGpuHours"] == 8 * 240, groups
        assert sum(hours(report, groups).values()) == pytest.approx(8 * 240), groups
    for filters in (("project==vision",), (f"workload=={UUID(int=1)}",)):
        other = await ask(billed, token, filters=filters, start="2028-01-01T00:00:00Z")
        assert other["totals"]["allocatedGpuHours"] == 0


async def test_a_workload_is_named_by_its_id_too(billed: Served) -> None:
    """By hand: 8 GPUs for ten days."""
    whole = {"start": "2028-01-01T00:00:00Z"}
    for filters in (
        (f"workload=={UUID(int=2)}",),
        (f"workload=={UUID(int=2)}", "workload==nobody"),
    ):
        report = await ask(billed, filters=filters, **whole, groupBy="project")
        assert hours(report, "project") == {("speech",): 8 * 240}
    none = await ask(billed, filters=(f"workload=={UUID(int=99)}",), **whole)
    assert none["totals"]["allocatedGpuHours"] == 0


@pytest.mark.parametrize(
    "groups", ["", "project", "department", "month", "project,day", "workload"]
)
@pytest.mark.parametrize("changed", [date(2028, 2, 1), date(2028, 2, 5)])
async def test_every_day_is_counted_at_its_own_prices(
    billed: Served, groups: str, changed: date
) -> None:
    """By hand: 1 a GPU-hour, 3 in h100; from a day on 2, and 5 in h100. Whatever rollup is read."""
    change = PriceChange(since=changed, gpu_hour=2.0, node_pools={"h100": 5.0})
    prices = Prices(currency="EUR", gpu_hour=1.0, node_pools={"h100": 3.0}, changes=(change,))
    query = UsageQuery(
        start=date(2028, 1, 1),
        end=date(2028, 3, 1),
        groups=tuple(name for name in groups.split(",") if name),
    )
    page = await usage_report(billed.db, Scope(1, is_whole_tenant=True), query, prices, END)
    days = [date(2028, 1, 31) + timedelta(days=number) for number in range(30)]
    expected = sum(24 * 3 * (2 if day >= changed else 1) for day in days)
    expected += sum(24 * 8 * (5 if day >= changed else 3) for day in days[:10])
    assert page.totals.cost == pytest.approx(expected)
    assert sum(row.cost or 0 for row in page.rows) == pytest.approx(expected)
    assert page.totals.unpriced_gpu_hours == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("start=2028-03-01T00:00:00Z&end=2028-02-01T00:00:00Z", "start must lie before end"),
        ("start=2028-02-01T00:00:00Z&end=2028-02-01T00:00:00Z", "start must lie before end"),
        ("start=2001-01-01T00:00:00Z", "at most 3660 days"),
        ("start=9999-06-01T00:00:00Z&end=9999-12-31T23:30:00Z", "before the year 3000"),
        ("end=0001-01-01T00:00:00Z", "before the year 1970"),
        ("groupBy=project,owner,day,type", "groupBy"),
        ("groupBy=project,project", "groupBy"),
        ("groupBy=team", "groupBy"),
        ("filterBy=team==x", "Invalid filter"),
        ("filterBy=project", "Invalid filter"),
        ("format=xlsx", "format"),
        ("start=yesterday", "start"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_words(
    billed: Served, query: str, words: str
) -> None:
    answer = await billed.get(f"/api/v1/usage?{query}")
    assert answer.status == 400, answer.body
    assert words in answer.body.decode()


@pytest.mark.parametrize("offset", ["+14:00", "-11:00", "Z"])
async def test_days_are_of_utc_whatever_zone_they_are_asked_in(billed: Served, offset: str) -> None:
    """An instant stands for the UTC day that holds it, in summer time or not."""
    start = datetime.fromisoformat(f"2028-02-10T12:00:00{offset}")
    report = await ask(billed, start=start.isoformat(), end=(start + timedelta(days=1)).isoformat())
    first = start.astimezone(UTC).date()
    assert report["start"] == f"{first}T00:00:00Z"
    assert report["end"] == f"{first + timedelta(days=2)}T00:00:00Z"
