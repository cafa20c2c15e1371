"""The commands that look at the whole fleet, against the real server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio
import structlog

from tests.conftest import Engine, RunningServer, fresh_database, running_server
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.command_line import Outcome, watchbill
from tests.fixtures.records import upsert, workload
from watchbill.metric_types import DCGM
from watchbill.protocol import Batch, Delete, Heartbeat, KindState, Measured, Reading, Scrape
from watchbill.store.fleet.fleet import fleet_record, last_instant
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.workload import Phase


@pytest.fixture(autouse=True)
def _log_elsewhere() -> Iterator[None]:
    """The server shares this process, whose stdout is the command's while one runs."""
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
    assert "0 of ? allocated; none idle" in outcome.out
    assert outcome.err.startswith("No data in this range")


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
    await fleet_record(fleet.db, 1, last_instant(now))
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
    await fleet.agent.send(upsert(workload(5, gpus=4)), now=now)
    lines = (await fleet.run("fleet", "--hours", "1")).out.splitlines()
    assert next(line for line in lines if line.startswith("GPUs allocated")).split()[3:] == [
        "9",
        "9",
    ]


async def test_sums_say_of_which_clusters_they_are_old(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    lost = await connected_agent(fleet.db, now - timedelta(hours=3), number=2)
    await lost.send(upsert(workload(1, gpus=2)), now=now - timedelta(hours=3))
    for command in (("fleet",), ("top",), ("top", "--by", "project")):
        outcome = await fleet.run(*command)
        assert outcome.code == 0
        assert "note: cluster cluster-2 is disconnected: not observed for 3h" in outcome.err
        assert "No contact with its agent." in outcome.err
        assert "cluster-1" not in outcome.err


class Watching:
    """`watchbill get --watch` in a process of its own, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> list[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            return (await self.process.stdout.readline()).decode().split()

    async def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, output = await asyncio.wait_for(self.process.communicate(), 120)
        assert self.process.returncode is not None
        return self.process.returncode, output.decode()


async def watching(fleet: Fleet, *arguments: str) -> Watching:
    return Watching(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watchbill", "get", "--watch", *arguments),
            env=os.environ | dict(fleet.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )


async def test_watching_a_list(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    await fleet.agent.send(upsert(workload(1)), now=now)
    watch = await watching(fleet, "-f", "phase==Running", "--columns", "name,phase")
    assert await watch.line() == ["EVENT", "NAME", "PHASE"]
    assert await watch.line() == ["-", "llama-sft-1", "Running"]
    await fleet.agent.send(upsert(workload(2, name="evil\x1b[2J")), now=now)
    assert await watch.line() == ["changed", "evil\\x1b[2J", "Running"]
    unseen = upsert(workload(3, phase=Phase.PENDING))
    await fleet.agent.send(unseen, upsert(workload(1, phase=Phase.FAILED)), now=now)
    assert await watch.line() == ["left", "llama-sft-1", "Failed"]
    await fleet.agent.send(Delete(id=UUID(int=2), deleted_at=now), now=now)
    assert await watch.line() == ["deleted", "evil\\x1b[2J", "Running"]
    assert await watch.interrupt() == (130, "")


async def test_what_cannot_be_watched(fleet: Fleet) -> None:
    assert (await fleet.run("get", "--watch", "some-name")).code == 2
    assert (await fleet.run("get", "--watch", "-o", "csv")).code == 2
    assert (await fleet.run("get", "--watch", "-f", "nonsense")).code == 2


async def test_doctor_looks_at_everything(fleet: Fleet) -> None:
    outcome = await fleet.run("doctor")
    assert outcome.code == 0
    lines = [line.split()[:2] for line in outcome.out.splitlines() if "→" not in line]
    assert lines == [
        ["ok", "server"],
        ["ok", "clock"],
        ["ok", "login"],
        ["ok", "version"],
        ["ok", "database"],
        ["ok", "vacuum"],
        ["ok", "cluster"],
        ["ok", "kinds"],
        ["warn", "agent"],
        ["warn", "metrics"],
    ]
    wrong = dict(fleet.environ) | {"WATCHBILL_CLIENT_SECRET": "wrong"}
    refused = await watchbill("doctor", environ=wrong)
    assert refused.code == 3
    assert "fail  login" in refused.out


async def test_the_page_of_a_workload(fleet: Fleet) -> None:
    await fleet.agent.send(upsert(workload(1)), now=datetime.now(UTC))
    assert (await fleet.run("open")).out == f"{fleet.server.url}/\n"
    single = await fleet.run("open", "llama-sft-1")
    assert single.out == f"{fleet.server.url}/workloads/{UUID(int=1)}\n"
    assert (await fleet.run("open", "nobody")).code == 1


async def test_top_by_workload_with_and_without_measurements(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    await fleet.agent.send(upsert(workload(1, gpus=2)), upsert(workload(2, gpus=4)), now=now)
    outcome = await fleet.run("top", "--no-headers")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["llama-sft-2", "vision", "Running", "4", "?", "?", "-", "?", "-"],
        ["llama-sft-1", "vision", "Running", "2", "?", "?", "-", "?", "-"],
    ]
    assert outcome.err.startswith("No use measured in the last hour")
    readings = (Reading("GPU_UTILIZATION", 50.0),)
    scrapes = tuple(
        Scrape(
            at=now - timedelta(minutes=minutes),
            counted_since=now - timedelta(hours=2),
            workloads=(Measured(UUID(int=1), readings),),
        )
        for minutes in range(30, 0, -1)
    )
    seen = KindState(group="metrics", kind=DCGM, state="complete", since=now)
    agent = fleet.agent
    beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq, kinds=(seen,), node_pools=())
    await heartbeat_apply(fleet.db, agent.identity, beat, now)
    agent.seq += 1
    batch = Batch(stream_id=agent.stream_id, seq=agent.seq, items=(), scrapes=scrapes)
    await batch_apply(fleet.db, agent.identity, batch, now)
    drawn = (await fleet.run("top", "--by", "workload", "--no-headers")).out.splitlines()
    first = drawn[1].split()
    assert first[:6] == ["llama-sft-1", "vision", "Running", "2", "?", "50%"]
    assert set(first[6]) == {"·", "▅"}
    assert first[7:] == ["?", "-"]


async def test_names_are_completed_and_nothing_is_printed(fleet: Fleet) -> None:
    await fleet.agent.send(
        *(upsert(workload(n)) for n in range(1, 4)),
        upsert(workload(9, name="evil\x1b[2J")),
        now=datetime.now(UTC),
    )

    async def completed(words: str, **environ: str) -> tuple[list[str], str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watchbill"),
            env=os.environ
            | dict(fleet.environ)
            | {
                "_WATCHBILL_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split())),
            }
            | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
        return out.decode().split(), err.decode()

    everything = ["llama-sft-1", "llama-sft-2", "llama-sft-3"]
    assert await completed("watchbill describe ") == (everything, "")
    assert (await completed("watchbill why ", WATCHBILL_URL="http://127.0.0.1:9")) == ([], "")
