"""The commands that look at the whole fleet, against the real server."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import structlog

from tests.clusters import Agent, connected_agent
from tests.command_line import Outcome, watchbill
from tests.conftest import Engine, RunningServer, fresh_database, running_server
from tests.records import upsert, workload
from watchbill.store.database import Database
from watchbill.store.fleet import last_instant, record_fleet
from watchbill.workload import Phase


@pytest.fixture(autouse=True)
def _log_elsewhere() -> Iterator[None]:
    """The server shares this process, whose stdout is the command's while one runs."""
    import sys

    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.configure(**before)


@dataclass
class Fleet:
    server: RunningServer
    db: Database
    agent: Agent

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "WATCHBILL_URL": self.server.url,
            "WATCHBILL_CLIENT_ID": self.server.client_id,
            "WATCHBILL_CLIENT_SECRET": self.server.client_secret,
        }

    async def run(self, *arguments: str) -> Outcome:
        return await watchbill(*arguments, environ=self.environ)


@pytest_asyncio.fixture
async def fleet(embedded_engine: Engine) -> AsyncIterator[Fleet]:
    async with running_server(await fresh_database(embedded_engine)) as server:
        db = await Database.open(server.database_url, pool_size=2)
        agent = await connected_agent(db, datetime.now(UTC))
        yield Fleet(server, db, agent)
        await db.close()


async def test_an_empty_fleet(fleet: Fleet) -> None:
    outcome = await fleet.run("fleet")
    assert outcome.code == 0
    assert "0 of ? allocated; none to be idle" in outcome.out
    assert outcome.err.startswith("No moment of this time was recorded")


async def test_the_figures_and_their_series(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    waiting_since = now - timedelta(hours=2, minutes=11, seconds=5)
    await fleet.agent.send(
        upsert(workload(1, gpus=3)),
        upsert(workload(2, gpus=2, idle_allocated_gpus=1.5, idle_gpus=1)),
        upsert(workload(3, gpus=0, phase=Phase.PENDING), (Phase.PENDING, waiting_since)),
        upsert(workload(4, gpus=0, phase=Phase.FAILED), (Phase.FAILED, now - timedelta(hours=1))),
        now=now,
    )
    await record_fleet(fleet.db, 1, last_instant(now))
    outcome = await fleet.run("fleet", "--hours", "1")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "GPUs            5 of ? allocated; 1.5 idle (3 are not measured)"
    assert lines[1] == "pending         1, half of them for more than 2h 11m"
    assert lines[2] == "failed in 24h   1"
    charts = {line.split("  ")[0]: line.split() for line in lines[lines.index("") + 6 :]}
    allocated = charts["GPUs allocated"]
    assert set(allocated[2]) == {"·", "█"}
    assert len(allocated[2]) == 12
    assert allocated[3:] == ["5", "5"]
    document = json.loads((await fleet.run("fleet", "-o", "json")).out)
    assert document["now"]["gpus"]["allocated"] == document["series"][0]["gpus"]["allocated"] == 5
