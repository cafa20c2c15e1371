"""Three days of four workloads, counted minute by minute: API, CSV and command line say the same."""

import csv
import io
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
import structlog
from msgspec.structs import replace

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.command_line import watchbill
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served, serving
from watchbill.protocol import Delete
from watchbill.settings.server import ServerSettings
from watchbill.store.usage.accounting import usage_account
from watchbill.workload import Phase

FIRST = datetime(2026, 10, 20, tzinfo=UTC)
DAY = 24 * 60
MINUTES = 3 * DAY
DOWN = range(DAY + 11 * 60, DAY + 12 * 60)
"""Nobody observes the cluster."""
THIRD, MIG = Fraction(333_333, 10**6), Fraction(285_714, 10**6)
"""As they are recorded: a third of a GPU, and two of seven slices of one."""
PRICES = "{currency: EUR, gpuHour: 2, changes: [{from: 2026-10-22, gpuHour: 3}]}"


@dataclass(frozen=True)
class Change:
    """From `minute` on a workload is so; `project` None = deleted. `clock`: minutes by which the agent's is
    wrong, which moves the change back with it where it is behind."""

    minute: int
    number: int
    project: str | None
    requested: Fraction = Fraction(0)
    allocated: Fraction = Fraction(0)
    phase: Phase = Phase.RUNNING
    clock: int = 0

    @property
    def counts_from(self) -> int:
        return self.minute + min(0, self.clock)


CHANGES = (
    Change(0, 1, "vision", THIRD, THIRD),
    Change(0, 2, "vision", MIG, MIG),
    Change(120, 3, "speech", Fraction(4), phase=Phase.PENDING),
    Change(165, 3, "speech", Fraction(4), Fraction(4)),
    Change(311, 2, "vision", MIG, phase=Phase.PENDING),  # preempted
    Change(599, 2, "vision", MIG, MIG),
    Change(600, 1, "vision", THIRD, phase=Phase.STOPPED),  # suspended
    Change(817, 1, "vision", THIRD, THIRD),
    Change(DAY + 1, 4, "speech", Fraction(1), Fraction(1)),
    Change(DAY + 210, 2, "speech", MIG, MIG),  # moved
    Change(DAY + 366, 4, "speech", Fraction(2), Fraction(2), clock=30),
    Change(DAY + 540, 4, "speech", Fraction(3), Fraction(3)),
    Change(DAY + 1205, 3, "speech", Fraction(4), phase=Phase.COMPLETED, clock=-20),
    Change(2 * DAY + 433, 1, None),
    Change(2 * DAY + 1000, 3, None),
)
Sums = dict[tuple[str, str], dict[str, Fraction]]


def by_minutes() -> Sums:
    """By project and day: no integral, no step, no rollup; every minute of every workload by itself."""
    sums: Sums = defaultdict(lambda: defaultdict(Fraction))
    for number in {change.number for change in CHANGES}:
        own = [change for change in CHANGES if change.number == number]
        for minute in range(MINUTES):
            now = next((each for each in reversed(own) if each.counts_from <= minute), None)
            if now is None or now.project is None:
                continue
            day = (FIRST + timedelta(minutes=minute)).date().isoformat()
            figures = sums[now.project, day]
            if minute in DOWN:
                figures["gapGpuHours"] += now.allocated / 60
                continue
            figures["requestedGpuHours"] += now.requested / 60
            figures["allocatedGpuHours"] += now.allocated / 60
            figures["pendingGpuHours"] += now.requested / 60 * (now.phase == Phase.PENDING)
            figures["cost"] += now.allocated / 60 * (3 if day >= "2026-10-22" else 2)
    return sums


async def send(agent: Agent, change: Change) -> None:
    now = FIRST + timedelta(minutes=change.minute)
    seen = now + timedelta(minutes=change.clock)
    if change.project is None:
        await agent.send(Delete(id=UUID(int=change.number), deleted_at=seen), now=now)
        return
    made = workload(
        change.number,
        gpus=change.allocated,
        phase=change.phase,
        k8s_phase=change.phase,
        created_at=FIRST,
        project_name=change.project,
        department_name=None,
        idle_allocated_gpus=0.0,
        idle_gpus=0,
    )
    asked = workload(gpus=change.requested).workload_requested_resources
    made = replace(made, workload_requested_resources=asked)
    await agent.send(upsert(made, (change.phase, seen), observed_at=seen), now=now)


@pytest.fixture(autouse=True)
def _log_elsewhere() -> Iterator[None]:
    """The server shares this process, whose stdout is the command's while one runs."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest_asyncio.fixture(scope="module")
async def served(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
    prices.write_text(PRICES)
    settings = ServerSettings(data_dir=Path("/nonexistent"), prices_file=prices)
    url = await fresh_database(embedded_engine)
    end = FIRST + timedelta(minutes=MINUTES + 10)
    async with serving(url, settings, clock=lambda: end) as served:
        agent = await connected_agent(served.db, FIRST)
        for change in CHANGES:
            await send(agent, change)
        async with served.db.transaction(1) as connection:
            await connection.execute("DELETE FROM cluster_gap")
            await connection.execute(
                "INSERT INTO cluster_gap SELECT 1, id, $1, $2 FROM cluster",
                *(FIRST + timedelta(minutes=minute) for minute in (DOWN.start, DOWN.stop)),
            )
            await connection.execute("UPDATE cluster SET last_contact_at = $1", end)
        await usage_account(served.db, 1, end)
        yield served


def assert_equal(lines: Mapping[tuple[str, str], Mapping[str, object]]) -> None:
    expected = by_minutes()
    assert lines.keys() == expected.keys()
    for key, figures in expected.items():
        for name in (
            "requestedGpuHours",
            "allocatedGpuHours",
            "pendingGpuHours",
            "gapGpuHours",
            "cost",
        ):
            assert float(str(lines[key][name])) == pytest.approx(float(figures[name]), abs=2e-6), (
                key,
                name,
            )


RANGE = "start=2026-10-20T00:00:00Z&end=2026-10-23T00:00:00Z"


async def test_what_the_page_shows_is_what_every_minute_adds_up_to(served: Served) -> None:
    answer = await served.get(f"/api/v1/usage?{RANGE}&groupBy=project,day")
    assert answer.json["currency"] == "EUR"
    rows = answer.json["rows"]
    assert_equal({(row["group"]["project"], row["group"]["day"]): row for row in rows})


async def test_so_is_the_csv(served: Served) -> None:
    answer = await served.get(f"/api/v1/usage?{RANGE}&groupBy=project,day&format=csv")
    lines = csv.DictReader(io.StringIO(answer.body.decode()))
    assert_equal({(line["project"], line["day"]): line for line in lines})


async def test_so_is_what_the_command_prints(served: Served) -> None:
    environ = {
        "WATCHBILL_URL": served.url,
        "WATCHBILL_CLIENT_ID": served.client_id,
        "WATCHBILL_CLIENT_SECRET": served.secret,
    }
    arguments = ("usage", "--since", "2026-10-20", "--until", "2026-10-23")
    outcome = await watchbill(*arguments, "--by", "project,day", "-o", "csv", environ=environ)
    lines = csv.DictReader(io.StringIO(outcome.out))
    assert_equal({(line["project"], line["day"]): line for line in lines})
    table = await watchbill(*arguments, "--by", "project", environ=environ)
    shown = {line.split()[0]: line.split()[1] for line in table.out.splitlines()[1:]}
    totals: dict[str, Fraction] = defaultdict(Fraction)
    for (project, _), figures in by_minutes().items():
        totals[project] += figures["allocatedGpuHours"]
    assert shown == {project: f"{float(hours):,.1f}" for project, hours in totals.items()}
    assert "Not counted: 7.6 GPU-hours" in table.err, "4 + 3 + a third + two sevenths, for an hour"
