"""The command line against the real server: what was entered comes out, in this process and in others."""

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
import structlog
import yaml

from tests.conftest import RunningServer
from tests.fixtures.clusters import connected_agent
from tests.fixtures.command_line import Outcome, watchbill
from tests.fixtures.records import record, upsert, workload
from watchbill.protocol import Delete
from watchbill.store.postgres.database import Database
from watchbill.workload import Element, Phase

ME = (sys.executable, "-m", "watchbill")
REASON = {
    "source": "kai",
    "nodePool": "a100",
    "reason": "OverLimit",
    "message": "asked 16, quota 8",
    "userMessage": "GPU quota is short – 16 asked, 3 free – ask for fewer or wait.",
    "since": "2026-11-20T08:00:00Z",
}
HOSTILE = "evil\x1b[2J\nforged"


@pytest.fixture(autouse=True)
def _log_elsewhere() -> Iterator[None]:
    """The server shares this process, whose stdout is the command's while one runs."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.configure(**before)


class Fleet:
    """A served fleet of known workloads and a login to it."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.environ: Mapping[str, str] = {
            "WATCHBILL_URL": server.url,
            "WATCHBILL_CLIENT_ID": server.client_id,
            "WATCHBILL_CLIENT_SECRET": server.client_secret,
        }

    async def run(self, *arguments: str) -> Outcome:
        return await watchbill(*arguments, environ=self.environ)


@pytest_asyncio.fixture
async def fleet(server: RunningServer) -> AsyncIterator[Fleet]:
    now = datetime.now(UTC)
    hours_ago = now - timedelta(hours=2, minutes=11)
    db = await Database.open(server.database_url, pool_size=2)
    agent = await connected_agent(db, now)
    elements = (
        Element(id=UUID(int=0xE1), name="head", hierarchy_level=1),
        Element(id=UUID(int=0xE2), name="worker", hierarchy_level=2, parent_id=UUID(int=0xE1)),
    )
    waiting = workload(
        2,
        name="waiting",
        gpus=16,
        phase=Phase.PENDING,
        k8s_phase="Pending",
        phase_message=REASON["userMessage"],
        additional_fields={"pendingReasons": [REASON]},
        created_at=hours_ago,
    )
    await agent.send(
        upsert(record(workload(1, created_at=hours_ago), elements=elements, elements_total=5)),
        upsert(waiting, (Phase.CREATING, hours_ago), (Phase.PENDING, hours_ago)),
        upsert(workload(3, name="same", project_name="a", created_at=hours_ago)),
        upsert(workload(4, name="same", project_name="b", idle_allocated_gpus=1.5, idle_gpus=1)),
        upsert(workload(5, name="gone")),
        upsert(workload(6, name='=cmd|" /C calc"!A0', namespace="x")),
        upsert(workload(7, name=HOSTILE)),
        *(upsert(workload(n, name=f"many-{n}")) for n in range(100, 170)),
        now=now,
    )
    await agent.send(Delete(id=UUID(int=5), deleted_at=now), now=now)
    yield Fleet(server)
    await db.close()


async def test_the_table_the_count_and_the_rest_of_the_list(fleet: Fleet) -> None:
    table = await fleet.run("get", "--sort-by", "name")
    assert table.code == 0
    assert len(table.out.splitlines()) == 51
    assert table.err == "50 of 76 shown (--limit N for more)\n"
    assert (await fleet.run("count")).out == "76\n"
    assert (await fleet.run("count", "-f", "phase==Pending")).out == "1\n"
    assert len(json.loads((await fleet.run("get", "-o", "json")).out)["workloads"]) == 76
    single = await fleet.run("get", "-f", "name=^llama", "--no-headers")
    assert single.out.split() == [
        *("llama-sft-1", "PyTorchJob", "Running", "vision", "ada@example.com"),
        *("1/1", "2/2", "?", "2h", "11m"),
    ]


async def test_why_describe_history_tree(fleet: Fleet) -> None:
    why = await fleet.run("why", "waiting")
    assert why.code == 0
    assert "on cluster cluster-1 has been Pending for 2h 11m." in why.out
    assert f"Because: {REASON['userMessage']}" in why.out
    assert "source        KAI scheduler, for node pool a100" in why.out
    described = await fleet.run("describe", "waiting")
    assert "  GPUs                  16 requested, 16 allocated" in described.out
    history = await fleet.run("history", "waiting", "--no-headers")
    assert [line.split()[0] for line in history.out.splitlines()] == ["Creating", "Pending"]
    assert history.out.rstrip().splitlines()[-1].split("   ")[2].endswith("so far")
    tree = await fleet.run("tree", "llama-sft-1")
    assert tree.out.splitlines() == ["llama-sft-1 (PyTorchJob)", "└─ head", "   └─ worker"]
    assert tree.err == "2 of 5 elements are stored and shown.\n"


async def test_names_that_mean_two_or_none_or_one_that_is_gone(fleet: Fleet) -> None:
    two = await fleet.run("describe", "same")
    assert two.code == 2
    assert str(UUID(int=3)) in two.err
    assert "cluster-1" in two.err
    assert (await fleet.run("describe", "same", "-p", "b")).code == 0
    assert (await fleet.run("describe", "same", "--cluster", "cluster-1")).code == 2
    assert (await fleet.run("describe", "same", "--cluster", "nowhere")).code == 1
    none = await fleet.run("why", "man")
    assert none.code == 1
    assert "hint: similar: many-" in none.err
    gone = await fleet.run("why", "gone")
    assert (gone.code, "when it was deleted" in gone.out) == (0, True)
    assert (await fleet.run("get", "--deleted", "-o", "name")).out == "gone\n"


async def test_a_name_is_taken_as_it_is(fleet: Fleet) -> None:
    """Neither as a filter of its own nor as something that moves the cursor."""
    assert (await fleet.run("get", "x,phase==Running")).code == 1
    hostile = await fleet.run("describe", HOSTILE)
    assert hostile.code == 0
    assert "evil\\x1b[2J\\nforged" in hostile.out
    assert "\x1b" not in hostile.out


async def test_csv_and_exports(fleet: Fleet) -> None:
    for command in (("get", "-o", "csv"), ("export",)):
        text = (await fleet.run(*command)).out
        names = [row["name"] for row in csv.DictReader(io.StringIO(text, newline=""))]
        assert len(names) == 76
        assert '\'=cmd|" /C calc"!A0' in names
    lines = (await fleet.run("export", "-o", "ndjson", "-f", "phase==Pending")).out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["waiting"]


async def test_idle_counts_what_is_measured(fleet: Fleet) -> None:
    outcome = await fleet.run("idle", "--no-headers")
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["same"]
    assert outcome.err.splitlines() == [
        "1.5 GPUs of 1 workload are idle: 0.0 GPU-hours in their whole lives.",
        "1 of 76 workloads with GPUs is measured; the other 75 are not.",
    ]


async def test_top_adds_up(fleet: Fleet) -> None:
    by_project = await fleet.run("top", "--by", "project")
    assert [line.split() for line in by_project.out.splitlines()] == [
        ["PROJECT", "CLUSTER", "WORKLOADS", "ALLOCATED", "IDLE"],
        ["vision", "cluster-1", "74", "162", "?"],
        ["a", "cluster-1", "1", "2", "?"],
        ["b", "cluster-1", "1", "2", "1.5"],
    ]
    as_data = json.loads((await fleet.run("top", "--by", "project", "-o", "json")).out)
    assert as_data["groups"][2] == {
        "project": "b",
        "cluster": "cluster-1",
        "workloads": 1,
        "gpus": 2.0,
        "idleGpus": 1.5,
    }
    assert as_data["groups"][1]["idleGpus"] is None
    largest = yaml.safe_load((await fleet.run("top", "--limit", "1", "-o", "yaml")).out)
    assert set(largest["workloads"][0]) >= {"id", "allocatedGpus", "gpuUtilization"}
    by_cluster = await fleet.run("top", "--by", "cluster", "--no-headers")
    assert by_cluster.out.split() == ["cluster-1", "76", "166", "1.5"]
    cut = await fleet.run("top", "--by", "project", "--limit", "1", "--no-headers")
    assert (len(cut.out.splitlines()), cut.err) == (1, "1 of 3 shown (--limit N for more)\n")


async def test_a_bad_filter_is_refused_in_the_servers_words(fleet: Fleet) -> None:
    outcome = await fleet.run("get", "-f", "phase=Running")
    assert outcome.code == 2
    assert outcome.err.startswith("error: Invalid filter 'phase=Running'.\nhint: ")


async def test_clusters_are_registered_listed_and_removed(fleet: Fleet) -> None:
    made = await fleet.run("admin", "cluster", "create", "west")
    assert made.code == 0
    assert re.fullmatch(r"wba\.[0-9a-f-]{36}\.[\w-]+\n", made.out)
    again = await fleet.run("admin", "cluster", "create", "west")
    assert (again.code, again.out) == (2, "")
    listed = await fleet.run("clusters", "-o", "name")
    assert listed.out == "cluster-1\nwest\n"
    unasked = await fleet.run("admin", "cluster", "delete", "west")
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert (await fleet.run("admin", "cluster", "delete", "west", "--yes")).code == 0
    assert (await fleet.run("admin", "cluster", "list", "-o", "name")).out == "cluster-1\n"


async def test_another_process_and_a_reader_that_leaves(fleet: Fleet) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m watchbill get -o json | head -n 1; exit ${{PIPESTATUS[0]}}",
        executable="/bin/bash",
        env=os.environ | fleet.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, out, err) == (141, b"{\n", b"")


async def test_the_server_as_a_process_with_its_own_database(private_dir: Path) -> None:
    """From nothing: the first start prints a login, the login works, a second start prints none."""
    arguments = (*ME, "server", "--port", "0", "--data-dir", str(private_dir / "data"))
    first = await _started(arguments, last="client secret")
    try:
        address = re.search(r"answers at (http://\S+)", first.output)
        login = re.search(r"client id +(\S+)\n +client secret +(\S+)", first.output)
        assert address is not None
        assert login is not None
        environ = {
            "RUNAI_BASE_URL": address[1],
            "RUNAI_CLIENT_ID": login[1],
            "RUNAI_CLIENT_SECRET": login[2],
        }
        assert (await watchbill("count", environ=environ)).out == "0\n"
    finally:
        await first.stop()
    assert first.process.returncode == 0
    second = await _started(arguments, last="answers at")
    await second.stop()
    assert "client secret" not in second.output


class _Started:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def listen(self, last: str) -> None:
        """Until it has printed the line with `last`."""
        assert self.process.stdout is not None
        while last not in self.output:
            line = await self.process.stdout.readline()
            assert line, "the server ended before it answered"
            self.output += line.decode()

    async def stop(self) -> None:
        """Collects what it printed until its end."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGINT)
        self.output += (await asyncio.wait_for(self.process.stdout.read(), 120)).decode()
        await asyncio.wait_for(self.process.wait(), 120)


async def _started(arguments: tuple[str, ...], *, last: str) -> _Started:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    started = _Started(process)
    try:
        await asyncio.wait_for(started.listen(last), 180)
    except BaseException:
        process.kill()
        raise
    return started
