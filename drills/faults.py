"""`python -m drills.faults [WORD …]`: faults between a cluster and its record; a row of docs/faults.md each.

Agent, server and PostgreSQL are processes, the cluster is a simulated one whose pods come and go all the
time. Of each fault two things are told: what was shown while it lasted, and how long after its end the
record was right: live is exactly what exists, no pod has two histories, and none that exists was ever shown
as deleted.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import asyncpg
import structlog

from drills.link import Link, Way
from drills.processes import (
    Child,
    Postgres,
    administrator,
    folder,
    free_port,
    postgres,
    until,
    until_ready,
    watchbill_server,
)
from drills.traffic import Cluster
from simulator.resources import PODS
from watchbill.client import Client, Selection
from watchbill.errors import WatchbillError
from watchbill.store.postgres.backup import restore_backup, write_backup

CHANGES_PER_SECOND = 10.0
PODS_AT_FIRST = 60
RIGHT_SECONDS = 400.0
SKEW_SECONDS = 3_600.0
SKEWED_AGENT = Path(__file__).with_name("skewed_agent.py")


class Scene:
    """All parts, and the pods that exist."""

    def __init__(
        self,
        root: Path,
        database: Postgres,
        server: Child,
        agent: Child,
        cluster: Cluster,
        link: Link,
        client: Client,
        url: str,
    ) -> None:
        self.root = root
        self.database = database
        self.server = server
        self.agent = agent
        self.cluster = cluster
        self.link = link
        self.client = client
        self.url = url
        self.live: dict[UUID, str] = {}
        self.ended: set[UUID] = set()
        self.false_deletions: set[UUID] = set()

    def create(self) -> None:
        name = f"pod-{len(self.cluster.pods)}"
        self.live[self.cluster.create_pod()] = name

    def delete_oldest(self) -> None:
        uid = next(iter(self.live))
        self.cluster.api.store.delete(PODS, "team", self.live.pop(uid))
        self.ended.add(uid)

    async def change(self) -> None:
        """Two come for each that goes, until cancelled."""
        for number in range(1_000_000):
            self.create() if number % 3 else self.delete_oldest()
            await asyncio.sleep(1 / CHANGES_PER_SECOND)

    async def watch_deletions(self) -> None:
        """Whoever exists and is shown as deleted, until cancelled."""
        while True:
            with contextlib.suppress(WatchbillError):
                deleted = await self.client.workloads(Selection(is_deleted=True))
                self.false_deletions |= {workload.id for workload in deleted} & self.live.keys()
            await asyncio.sleep(0.5)

    async def state(self) -> str:
        (cluster,) = await self.client.clusters()
        return f"{cluster.state}{': ' + cluster.reason if cluster.reason else ''}"

    async def until_right(self) -> float:
        """Seconds. Raises TimeoutError."""

        async def is_right() -> bool:
            with contextlib.suppress(WatchbillError):
                listed = [workload.id for workload in await self.client.workloads(Selection())]
                return sorted(listed) == sorted(self.live)
            return False

        return await until(is_right, seconds=RIGHT_SECONDS, what="the record is right")

    async def check(self) -> str:
        assert not self.false_deletions, f"shown as deleted, and there: {self.false_deletions}"
        for uid in self.live:
            phases = [interval.phase for interval in (await self.client.history(uid)).history]
            assert len(phases) == len(set(phases)), f"{uid}: {phases}"
        deleted = {
            workload.id for workload in await self.client.workloads(Selection(is_deleted=True))
        }
        unseen = len(self.ended - deleted)
        return f"{len(self.live)} live, {len(deleted)} ended" + (
            f", {unseen} came and went unseen" if unseen else ""
        )


def clock_of(root: Path) -> Path:
    """The file that says by how many seconds the agent's clock is ahead."""
    return root / "clock"


def agent_process(root: Path, url: str, credential: str, kubeconfig: Path) -> Child:
    file = root / "credential"
    file.write_text(credential + "\n")
    file.chmod(0o600)
    clock_of(root).write_text("0")
    command = [sys.executable, str(SKEWED_AGENT), str(clock_of(root)), "agent", "--server", url]
    command += ["--credential", str(file), "--kubeconfig", str(kubeconfig)]
    return Child(command, root / "agent.log", {"WATCHBILL_AGENT_SCRAPE_SECONDS": "0"})


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    with folder() as root:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(postgres(root))
            login = await administrator(database.url("watchbill"))
            port = free_port()
            server = watchbill_server(root, database.url("watchbill"), port)
            await stack.enter_async_context(server.running())
            url = f"http://127.0.0.1:{port}"
            await until_ready(url)
            client = await stack.enter_async_context(Client(url, *login))
            link = await stack.enter_async_context(Link(port).running())
            cluster = Cluster()
            await cluster.api.start()
            stack.push_async_callback(cluster.api.stop)
            created = await client.cluster_create("faulty")
            kubeconfig = cluster.api.kubeconfig(root / "kubeconfig")
            agent = agent_process(root, link.url, created.credential, kubeconfig)
            made = Scene(root, database, server, agent, cluster, link, client, url)
            for _ in range(PODS_AT_FIRST):
                made.create()
            await stack.enter_async_context(agent.running())
            await made.until_right()
            yield made


Fault = Callable[[Scene], Awaitable[str]]
"""Does it, ends it, and returns what was seen meanwhile."""


async def kill_agent(made: Scene) -> str:
    await made.agent.stop(signal.SIGKILL)
    await asyncio.sleep(5)
    made.agent.start()
    return "the record stands still for 5 s"


async def stop_agent(made: Scene) -> str:
    await made.agent.stop()
    await asyncio.sleep(75)
    seen = await made.state()
    made.agent.start()
    return seen


async def suspend_agent(made: Scene) -> str:
    process = made.agent.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(30)
    process.send_signal(signal.SIGCONT)
    return "the record stands still for 30 s"


async def kill_server(made: Scene) -> str:
    await made.server.stop(signal.SIGKILL)
    await asyncio.sleep(5)
    made.server.start()
    await until_ready(made.url)
    return "no answer"


async def kill_postmaster(made: Scene) -> str:
    await made.database.child.stop(signal.SIGKILL)
    await asyncio.sleep(5)
    try:
        seen = await made.state()
    except WatchbillError as error:
        seen = error.message
    pid = made.database.data / "postmaster.pid"
    pid.unlink(missing_ok=True)
    made.database.child.start()
    await until(made.database.answers, seconds=60, what="PostgreSQL answers")
    await until_ready(made.url)
    return seen


def on_the_way(way: Way, seconds: float) -> Fault:
    async def fault(made: Scene) -> str:
        made.link.way, made.link.broken = way, 0
        await asyncio.sleep(seconds)
        seen = await made.state()
        made.link.way = Way.OPEN
        return f"{seen}; {made.link.broken} connections broken" if made.link.broken else seen

    return fault


async def lose_the_right_to_pods(made: Scene) -> str:
    made.cluster.api.faults.forbid(PODS)
    await asyncio.sleep(75)
    seen = await made.state()
    made.cluster.api.faults.allow(PODS)
    return seen


async def list_pods_only(made: Scene) -> str:
    made.cluster.api.faults.forbid(PODS, "watch")
    await asyncio.sleep(75)
    (cluster,) = await made.client.clusters()
    message = next((kind.message for kind in cluster.kinds if kind.kind == "Pod"), None)
    return f"{cluster.state}; Pod {message}"


async def another_cluster(made: Scene) -> str:
    """The same address leads to another cluster, and the agent starts anew."""
    await made.agent.stop(signal.SIGKILL)
    made.cluster.api.faults.replace_cluster()
    made.agent.start()
    process = made.agent.process
    assert process is not None
    code = await asyncio.wait_for(asyncio.to_thread(process.wait), 120)
    (cluster,) = await made.client.clusters()
    await made.client.cluster_repin(cluster.id)
    made.agent.start()
    return f"the agent is refused and ends with {code}; nothing is deleted; repinned, it goes on"


async def jump_the_cluster_s_clock(made: Scene) -> str:
    made.cluster.api.faults.clock_skew_seconds = SKEW_SECONDS
    made.cluster.api.faults.cut_watches()

    async def is_skew_reported() -> bool:
        (cluster,) = await made.client.clusters()
        return (cluster.cluster_clock_ahead_seconds or 0.0) > SKEW_SECONDS / 2

    took = await until(is_skew_reported, seconds=120, what="the clock is told")
    seen = await made.state()
    made.cluster.api.faults.clock_skew_seconds = 0.0
    return f"{seen}; that its clock is ahead is told after {took:.0f} s"


async def set_the_agent_s_clock(made: Scene) -> str:
    """An hour ahead, then an hour behind, as where somebody sets it."""
    clock, reported = clock_of(made.root), []
    for seconds in (SKEW_SECONDS, -SKEW_SECONDS):
        clock.write_text(str(seconds))
        await asyncio.sleep(20)
        (cluster,) = await made.client.clusters()
        reported.append(f"{cluster.agent_clock_ahead_seconds or 0.0:+.0f} s")
    seen = await made.state()
    clock.write_text("0")
    return f"{seen}; the agent's clock is told as {' and '.join(reported)}"


async def restore_an_older_database(made: Scene) -> str:
    """A backup is restored over what came after it, and the server starts anew."""
    url, backup = made.database.url("watchbill"), made.root / "backup.dump"
    await write_backup(url, backup)
    await asyncio.sleep(20)
    await made.server.stop(signal.SIGKILL)
    connection = await asyncpg.connect(made.database.url("postgres"))
    await connection.execute("DROP DATABASE watchbill WITH (FORCE)")
    await connection.execute("CREATE DATABASE watchbill")
    await connection.close()
    await restore_backup(url, backup)
    made.server.start()
    await until_ready(made.url)
    return "20 s are gone, with what began and ended in them"


async def revoke_the_token(made: Scene) -> str:
    made.cluster.api.faults.revokes_tokens = True
    made.cluster.api.faults.cut_watches()
    await asyncio.sleep(75)
    seen = await made.state()
    made.cluster.api.faults.revokes_tokens = False
    return seen


async def lose_events_and_history(made: Scene) -> str:
    with made.cluster.api.faults.losing_changes():
        await asyncio.sleep(3)
    made.cluster.api.faults.compact()
    return "3 s of events are lost, then history is compacted"


FAULTS: dict[str, Fault] = {
    "agent killed": kill_agent,
    "agent stopped for 75 s": stop_agent,
    "agent suspended for 30 s": suspend_agent,
    "server killed": kill_server,
    "PostgreSQL's postmaster killed": kill_postmaster,
    "half-open connection to the server for 75 s": on_the_way(Way.HALF_OPEN, 75),
    "requests cut for 20 s": on_the_way(Way.CUTS_REQUESTS, 20),
    "replies lost for 20 s, so that batches come twice": on_the_way(Way.LOSES_REPLIES, 20),
    "no right to pods for 75 s": lose_the_right_to_pods,
    "pods may be listed, not watched": list_pods_only,
    "token revoked for 75 s": revoke_the_token,
    "events lost, history compacted": lose_events_and_history,
    "API server's clock an hour ahead": jump_the_cluster_s_clock,
    "agent's clock an hour ahead, then behind": set_the_agent_s_clock,
    "database restored from a backup": restore_an_older_database,
    "another cluster at the same address": another_cluster,
}


async def suffer(fault: Fault) -> tuple[str, float, str]:
    """What was seen during it, the seconds until the record was right, and what the record then held."""
    async with scene() as made:
        watching = asyncio.create_task(made.watch_deletions())
        changing = asyncio.create_task(made.change())
        try:
            await asyncio.sleep(3)
            seen = await fault(made)
        finally:
            changing.cancel()
        took = await made.until_right()
        watching.cancel()
        return seen, took, await made.check()


async def main(words: list[str]) -> int:
    failed = 0
    for name, fault in FAULTS.items():
        if words and not any(word in name for word in words):
            continue
        began = time.monotonic()
        try:
            seen, took, held = await suffer(fault)
            row = f"| {name} | {seen} | {took:.1f} s | {held} |"
        except Exception as error:
            failed += 1
            row = f"| {name} | FAILED: {type(error).__name__}: {error} | | |"
        print(row, flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s in all", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    sys.exit(asyncio.run(main(sys.argv[1:])))
