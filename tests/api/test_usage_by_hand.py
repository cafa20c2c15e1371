"""Days of cut, moved, preempted and corrected GPUs through the API, against sums that were made by hand."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served, serving
from watchbill.protocol import Delete
from watchbill.settings.server import ServerSettings
from watchbill.store.usage.accounting import usage_account
from watchbill.workload import Phase

FIRST = datetime(2026, 10, 20, tzinfo=UTC)
END = FIRST + timedelta(days=2)
HALF = Fraction(1, 2)
SLICE = Fraction(142_857, 1_000_000)
"""A seventh of a GPU, in whole millionths as they are recorded."""

VISION, SPEECH = ("vision", "2026-10-20"), ("speech", "2026-10-20")
ALLOCATED = {
    VISION: HALF * (10 + 4 + Fraction(3, 2)) + SLICE * 6,
    SPEECH: SLICE * (12 - 1),
    ("speech", "2026-10-21"): SLICE * 3,
}
"""The notebook: ten hours, suspended for six, four hours, an hour unseen, an hour and a half. The slice: six
hours in vision, then in speech; the hours from 20:00 and, of the next day, from 3:00 are unseen."""
REQUESTED = ALLOCATED | {VISION: HALF * (Fraction(45, 2) - 1) + SLICE * 6}
"""A suspended workload still asks for its GPU."""
GAPS = {
    VISION: HALF,
    SPEECH: SLICE,
    ("speech", "2026-10-21"): SLICE,
}

BEFORE = FIRST - timedelta(days=3)
AUDIT, BILLING, CLAIMS = (
    tuple((project, f"2026-10-{day}") for day in (17, 18))
    for project in ("audit", "billing", "claims")
)
QUARTER, THREE = Fraction(1, 4), Fraction(428_571, 1_000_000)
"""Three slices of seven."""
EARLIER = {
    "allocatedGpuHours": {
        AUDIT[0]: QUARTER * (6 + 6 + 4),
        AUDIT[1]: QUARTER * 4,
        BILLING[0]: QUARTER * 3 + 2 * 24,
        BILLING[1]: Fraction(2 * 6 + 1 * 10),
        CLAIMS[0]: THREE * Fraction(37, 2),
        CLAIMS[1]: THREE * Fraction(43, 2),
    },
    "pendingGpuHours": {CLAIMS[0]: THREE * Fraction(11, 2), CLAIMS[1]: THREE * Fraction(5, 2)},
    "requestedGpuHours": {
        AUDIT[0]: QUARTER * 16,
        AUDIT[1]: QUARTER * 4,
        BILLING[0]: QUARTER * 3 + 2 * 24,
        BILLING[1]: Fraction(22),
        CLAIMS[0]: THREE * 24,
        CLAIMS[1]: THREE * 24,
    },
}
"""A notebook: six hours in audit, three in billing, six in audit again, gone for five hours, back for eight.
Slices: pending until 5:30, taken away from 10:00 to 12:30 of the next day. Two GPUs in billing, of which the
server learns long after it counted them that one was given back after 30 hours, and the other after 40."""


def at(hours: float) -> datetime:
    return FIRST + timedelta(hours=hours)


async def send_earlier(agent: Agent) -> None:
    busy: dict[str, Any] = {"idle_allocated_gpus": 0.0, "idle_gpus": 0}
    asked = {"workload_requested_resources": workload(gpus=3 / 7).workload_requested_resources}
    pending = {"phase": Phase.PENDING, **asked, **busy}
    await send(agent, -72, 11, 0.25, project_name="audit", **busy)
    await send(agent, -72, 12, 0, project_name="claims", **pending)
    await send(agent, -72, 13, 2, project_name="billing", **busy)
    await send(agent, -66.5, 12, 3 / 7, project_name="claims", **busy)
    await send(agent, -66, 11, 0.25, project_name="billing", **busy)
    await send(agent, -63, 11, 0.25, project_name="audit", **busy)
    await agent.send(Delete(id=UUID(int=11), deleted_at=at(-57)), now=at(-57))
    await send(agent, -52, 11, 0.25, project_name="audit", **busy)
    await agent.send(Delete(id=UUID(int=11), deleted_at=at(-44)), now=at(-44))
    await send(agent, -38, 12, 0, project_name="claims", **pending)
    await send(agent, -35.5, 12, 3 / 7, project_name="claims", **busy)
    await agent.send(Delete(id=UUID(int=12), deleted_at=at(-24)), now=at(-24))


async def correct(agent: Agent) -> None:
    made = workload(
        13, gpus=1, project_name="billing", created_at=BEFORE, idle_allocated_gpus=0.0, idle_gpus=0
    )
    await agent.send(upsert(made, observed_at=at(-42)), now=END)
    await agent.send(Delete(id=UUID(int=13), deleted_at=at(-32)), now=END)


async def send(agent: Agent, hours: float, number: int, gpus: float, **members: Any) -> None:
    phase = members.pop("phase", Phase.RUNNING)
    made = workload(number, gpus=gpus, phase=phase, k8s_phase=phase, created_at=BEFORE, **members)
    await agent.send(upsert(made, (phase, at(hours)), observed_at=at(hours)), now=at(hours))


@pytest_asyncio.fixture(scope="module")
async def served(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text("{currency: EUR, gpuHour: 2}")
    settings = ServerSettings(data_dir=Path("/nonexistent"), prices_file=prices)
    url = await fresh_database(embedded_engine)
    async with serving(url, settings, clock=lambda: END + timedelta(minutes=10)) as served:
        agent = await connected_agent(served.db, BEFORE)
        await send_earlier(agent)
        busy = {"idle_allocated_gpus": 0.0, "idle_gpus": 0}
        half = workload(gpus=0.5).workload_requested_resources
        await send(agent, 0, 1, 0.5, **busy)
        await send(agent, 6, 2, 1 / 7)
        stopped = {"phase": Phase.STOPPED, "workload_requested_resources": half}
        await send(agent, 10, 1, 0, **stopped, **busy)
        await send(agent, 12, 2, 1 / 7, project_name="speech")
        await send(agent, 16, 1, 0.5, **busy)
        await agent.send(Delete(id=UUID(int=1), deleted_at=at(22.5)), now=at(22.5))
        lost = Delete(id=UUID(int=2), deleted_at=at(28), not_before=at(27))
        await agent.send(lost, now=at(28))
        async with served.db.transaction(1) as connection:
            await connection.execute("DELETE FROM cluster_gap")
            for start in (20, 27):
                await connection.execute(
                    "INSERT INTO cluster_gap SELECT 1, id, $1, $2 FROM cluster",
                    *(at(start), at(start + 1)),
                )
            await connection.execute("UPDATE cluster SET last_contact_at = $1", END)
        await usage_account(served.db, 1, END)
        counted = await report(served, groupBy="project", filterBy="project==billing")
        held = 2 * (48 - 2 - 1 / 6)  # without the two hours of gaps and the newest ten minutes
        assert counted["totals"]["allocatedGpuHours"] == pytest.approx(held)
        await correct(agent)
        await usage_account(served.db, 1, END)
        yield served


async def report(served: Served, **query: str) -> dict[str, Any]:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await served.get(f"/api/v1/usage?start=2026-10-20T00:00:00Z&{text}")
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def test_every_day_of_every_project_is_what_hands_counted(served: Served) -> None:
    rows = (await report(served, groupBy="project,day"))["rows"]
    for member, expected in (
        ("allocatedGpuHours", ALLOCATED),
        ("requestedGpuHours", REQUESTED),
        ("gapGpuHours", GAPS),
    ):
        counted = {(row["group"]["project"], row["group"]["day"]): row[member] for row in rows}
        assert counted == pytest.approx({key: float(value) for key, value in expected.items()}), (
            member
        )


async def test_moved_twice_come_back_preempted_and_corrected(served: Served) -> None:
    path = "start=2026-10-17T00:00:00Z&end=2026-10-19T00:00:00Z&groupBy=project,day"
    answer = (await served.get(f"/api/v1/usage?{path}")).json
    for member, expected in EARLIER.items():
        counted = {
            (row["group"]["project"], row["group"]["day"]): row[member]
            for row in answer["rows"]
            if row[member]
        }
        assert counted == pytest.approx({key: float(value) for key, value in expected.items()}), (
            member
        )
    used = float(sum(EARLIER["allocatedGpuHours"].values()))
    assert answer["totals"]["cost"] == pytest.approx(2 * used, abs=1e-5)
    billing = f"/api/v1/usage?{path.replace('-19T', '-30T')}&filterBy=project==billing"
    totals = (await served.get(billing)).json["totals"]
    assert totals["allocatedGpuHours"] == 0.75 + 48 + 22, "nothing is left of later days"


async def test_used_reserved_unmeasured_and_money_stand_apart(served: Served) -> None:
    whole = await report(served)
    totals, used = whole["totals"], sum(ALLOCATED.values())
    assert whole["currency"] == "EUR"
    assert totals["allocatedGpuHours"] == pytest.approx(float(used), abs=1e-6)
    assert totals["requestedGpuHours"] == pytest.approx(float(sum(REQUESTED.values())), abs=1e-6)
    assert totals["unmeasuredGpuHours"] == pytest.approx(float(SLICE * 20), abs=1e-6)
    assert totals["idleGpuHours"] == 0
    assert totals["pendingGpuHours"] == 0
    assert totals["cost"] == pytest.approx(float(2 * used), abs=1e-5)
    assert totals["unpricedGpuHours"] == 0


@pytest.mark.parametrize("groups", ["department", "department,month", "workload", "owner,day"])
async def test_the_lines_of_the_csv_are_the_total(served: Served, groups: str) -> None:
    path = f"/api/v1/usage?start=2026-10-01T00:00:00Z&end=2026-11-01T00:00:00Z&groupBy={groups}"
    total = dict((await served.get(path)).json)["totals"]
    lines = [*csv.DictReader(io.StringIO((await served.get(f"{path}&format=csv")).body.decode()))]
    for member in ("allocatedGpuHours", "requestedGpuHours", "gapGpuHours", "cost"):
        summed = sum(float(line[member]) for line in lines)
        assert summed == pytest.approx(total[member], abs=1e-6 * len(lines)), member
