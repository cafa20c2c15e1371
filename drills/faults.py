"""`python -m drills.faults [WORD …]`: faults between a cluster and its record; a row of docs/faults.md each.

Agent, server and PostgreSQL are processes, the cluster is a simulated one whose pods come and go all the
time. Of each fault two things are told: what was shown while it lasted, and how long after its end the
record was right (`Scene.check` says what that is). What `watchbill doctor` says then goes to stderr.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import structlog

from drills import faulty_program
from drills.link import Way
from drills.outages import OUTAGES
from drills.processes import Child, folder, free_port, until, until_ready
from drills.scene import Scene, clock_of, scene, server_process
from simulator.resources import JOBS, PODS
from watchbill.errors import WatchbillError
from watchbill.store.postgres import backup
from watchbill.store.postgres.backup import restore_backup, write_backup

SKEW_SECONDS = 3_600.0
FIRST_RELEASE = (
    Path(__file__).parents[1] / "tests" / "fixtures" / "releases" / "0.1.0" / "backup.dump"
)
DISK_BYTES = 256 * 2**20
FULL_SECONDS = 20.0
MASS = 2_000
"""Pods of a namespace that goes while nobody watches: by far the most of all."""
MASS_SECONDS = 300.0
NAMESAKES = 40
"""With those that go beside them about as many as are held for a second look."""
TURNS_SECONDS = 60.0

Fault = Callable[[Scene], Awaitable[str]]
"""Does it, ends it, and returns what was seen meanwhile."""


async def kill_agent(made: Scene) -> str:
    await made.agent.stop(signal.SIGKILL)
    await asyncio.sleep(5)
    made.agent.start()
    return "the record stands still for 5 s"


async def stop_agent(made: Scene) -> str:
    await made.agent.stop()
    await asyncio.sleep(120)
    seen = await made.state()
    made.agent.start()
    return seen


def suspend_agent(seconds: float) -> Fault:
    async def fault(made: Scene) -> str:
        process = made.agent.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        seen = await made.state()
        process.send_signal(signal.SIGCONT)
        return f"{seen}; the record stands still for {seconds:.0f} s"

    return fault


async def run_a_second_agent(made: Scene) -> str:
    """With the credential of the first, as where a rollout stands still half-way: they take turns."""
    second = Child(made.agent.arguments, made.root / "second-agent.log", made.agent.environ)
    async with second.running():
        await asyncio.sleep(TURNS_SECONDS)
        seen = await made.state()
        (cluster,) = await made.client.clusters()
    return f"{seen}; {cluster.takeovers} takeovers are counted"


async def refuse_in_turns(made: Scene) -> str:
    """Watches end as expired, and lists are answered 429, 503 and, once begun, 410."""
    faults = made.cluster.api.faults
    until_at = time.monotonic() + TURNS_SECONDS
    while time.monotonic() < until_at:
        faults.too_many_requests = faults.unavailable_requests = faults.page_breaks = 2
        faults.expire_watches()
        await asyncio.sleep(3)
    seen = await made.state()
    faults.too_many_requests = faults.unavailable_requests = faults.page_breaks = 0
    return seen


async def make_a_namespace_anew(made: Scene) -> str:
    """Its pods go, others of the same names come, all while the agent is down."""
    gone = made.create_namespace("anew", NAMESAKES)
    await until(partial(made.are_shown, gone), seconds=MASS_SECONDS, what="the namespace is shown")
    await made.agent.stop(signal.SIGKILL)
    made.delete_namespace("anew")
    made.create_namespace("anew", NAMESAKES)
    made.agent.start()
    took = await until(
        partial(made.are_shown, set(made.others)), seconds=MASS_SECONDS, what="the new are shown"
    )
    return f"{NAMESAKES} pods of the same names are shown {took:.0f} s after its start"


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
    url, file = made.database.url("watchbill"), made.root / "backup.dump"
    await write_backup(url, file)
    await asyncio.sleep(20)
    await made.server.stop(signal.SIGKILL)
    connection = await asyncpg.connect(made.database.url("postgres"))
    await connection.execute("DROP DATABASE watchbill WITH (FORCE)")
    await connection.execute("CREATE DATABASE watchbill")
    await connection.close()
    await restore_backup(url, file)
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


def kill_agent_at(point: str) -> Fault:
    async def fault(made: Scene) -> str:
        made.kill_at(point)
        if point == faulty_program.INVENTORY_SENT:
            made.cluster.api.faults.compact()
        await made.until_killed(made.agent)
        await asyncio.sleep(5)
        made.agent.start()
        return f"the agent is killed: {point}; the record stands still for 5 s"

    return fault


def kill_server_at(point: str) -> Fault:
    async def fault(made: Scene) -> str:
        made.kill_at(point)
        if point == faulty_program.INVENTORY_READ:
            made.cluster.api.faults.compact()
        await made.until_killed(made.server)
        await asyncio.sleep(5)
        made.server.start()
        await until_ready(made.url)
        return f"the server is killed: {point}; no answer for 5 s"

    return fault


async def kill_migration(made: Scene) -> str:
    """Of a database of the first release, which another server shall bring to the present schema."""
    await made.database.execute("CREATE DATABASE older")
    url = made.database.url("older")
    await backup._fill(url, FIRST_RELEASE)  # noqa: SLF001 - `restore_backup` would migrate it
    before = await _revision(url)
    made.kill_at(faulty_program.MIGRATING)
    port = free_port()
    server = server_process(made.root, url, port)
    server.start()
    await made.until_killed(server)
    assert await _revision(url) == before, "half a migration is kept"
    async with server.running():
        took = await until_ready(f"http://127.0.0.1:{port}")
        assert await _revision(url) != before
    return f"the schema is as it was, {before}; the next server changes it within {took:.0f} s"


async def _revision(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        revision: str = await connection.fetchval("SELECT version_num FROM alembic_version")
    finally:
        await connection.close()
    return revision


async def lose_the_right_to_jobs(made: Scene) -> str:
    """An agent that starts without it knows jobs by their pods alone, and the last pod of one goes."""
    made.cluster.api.faults.forbid(JOBS)
    await made.agent.stop(signal.SIGKILL)
    made.agent.start()
    await asyncio.sleep(60)
    made.cluster.api.store.delete(PODS, "team", next(iter(made.jobs.values())))
    await asyncio.sleep(15)
    (cluster,) = await made.client.clusters()
    states = [
        f"{kind.kind} {kind.state}"
        for kind in cluster.kinds
        if (kind.group, kind.kind) == ("batch", "Job")
    ]
    assert not made.false_deletions, "a job whose pod is gone is there"
    made.cluster.api.faults.allow(JOBS)
    return f"{cluster.state}; {', '.join(states)}; no job is deleted, though the pod of one is"


async def delete_a_namespace(made: Scene) -> str:
    """While the agent is down: too many to be believed at first sight. Others come and go on meanwhile."""
    gone = made.create_namespace("gone", MASS)
    await until(partial(made.are_shown, gone), seconds=MASS_SECONDS, what="the namespace is shown")
    await made.agent.stop(signal.SIGKILL)
    made.delete_namespace("gone")
    made.agent.start()
    took = await until(made.are_deletions_held, seconds=MASS_SECONDS, what="deletions are held")
    seen = await made.state()
    (cluster,) = await made.client.clusters()
    assert cluster.held_deletions is not None
    held = cluster.held_deletions.count
    assert held >= MASS, "and those that went beside them"
    newest = next(reversed(made.live))
    other = await until(partial(made.are_shown, {newest}), seconds=60, what="others are shown")
    assert "deleted if the next inventory confirms it" in await made.doctor()
    return (
        f"{seen}; {held} deletions are held {took:.0f} s after its start; "
        f"a pod that came is shown within {other:.0f} s"
    )


async def fill_the_disk(made: Scene) -> str:
    """Of the database. Its operator starts it anew where it has given up."""
    ballast = made.database.data.parent / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**20))
    await asyncio.sleep(FULL_SECONDS)
    try:
        seen = await made.state()
    except WatchbillError as error:
        seen = error.message
    ballast.unlink()
    if not await made.database.answers():
        await made.database.child.stop(signal.SIGKILL)
        (made.database.data / "postmaster.pid").unlink(missing_ok=True)
        made.database.child.start()
        await until(made.database.answers, seconds=60, what="PostgreSQL answers")
    await until_ready(made.url)
    return seen


async def repeat_batches(made: Scene) -> str:
    made.link.way = Way.REPEATS
    await asyncio.sleep(30)
    seen = await made.state()
    made.link.way = Way.OPEN
    return f"{seen}; {made.link.repeated} batches came once more, late and in another order"


FAULTS: dict[str, Fault] = {
    "agent killed": kill_agent,
    "agent stopped for 120 s": stop_agent,
    "agent suspended for 30 s": suspend_agent(30),
    "agent suspended for 180 s": suspend_agent(180),
    "two agents with one credential for 60 s": run_a_second_agent,
    "agent killed after a batch was sent, before its reply was read": kill_agent_at(
        faulty_program.BATCH_SENT
    ),
    "agent killed before it committed an inventory": kill_agent_at(faulty_program.INVENTORY_SENT),
    "server killed": kill_server,
    "server killed after a commit, before anybody was notified": kill_server_at(
        faulty_program.BATCH_COMMITTED
    ),
    "server killed with an inventory half read": kill_server_at(faulty_program.INVENTORY_READ),
    "server killed in the middle of a migration": kill_migration,
    "PostgreSQL's postmaster killed": kill_postmaster,
    "database's disk full for 20 s": fill_the_disk,
    "half-open connection to the server for 75 s": on_the_way(Way.HALF_OPEN, 75),
    "requests cut for 20 s": on_the_way(Way.CUTS_REQUESTS, 20),
    "replies lost for 20 s, so that batches come twice": on_the_way(Way.LOSES_REPLIES, 20),
    "200 ms each way, every tenth packet lost, for 60 s": on_the_way(Way.IS_LONG, 60),
    "batches come again, late and in another order, for 30 s": repeat_batches,
    "no right to pods for 75 s": lose_the_right_to_pods,
    "pods may be listed, not watched": list_pods_only,
    "no right to jobs for 75 s, the agent started anew": lose_the_right_to_jobs,
    "namespace of 2,000 pods deleted while the agent is down": delete_a_namespace,
    "namespace deleted and made anew while the agent is down": make_a_namespace_anew,
    "API server answers 429, 503 and 410 in turns for 60 s": refuse_in_turns,
    "token revoked for 75 s": revoke_the_token,
    "events lost, history compacted": lose_events_and_history,
    "API server's clock an hour ahead": jump_the_cluster_s_clock,
    "agent's clock an hour ahead, then behind": set_the_agent_s_clock,
    "database restored from a backup": restore_an_older_database,
    "another cluster at the same address": another_cluster,
    **OUTAGES,
}


ON_A_SMALL_DISK = ("database's disk full for 20 s",)


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder for the database on a disk of its own, in memory."""
    with folder() as root:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0711", "tmpfs", str(root)]
        subprocess.run(mount, check=True)
        try:
            yield root / "data"
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


@contextlib.asynccontextmanager
async def scene_of(name: str) -> AsyncIterator[Scene]:
    if name not in ON_A_SMALL_DISK:
        async with scene() as made:
            yield made
        return
    with small_disk() as data:
        async with scene(data=data) as made:
            yield made


async def suffer(*names: str) -> tuple[str, float, str]:
    """One after the other: what was seen during each, the seconds until the record was right after the last,
    and what it then held."""
    async with scene_of(names[0]) as made:
        watching = asyncio.create_task(made.watch_deletions())
        changing = asyncio.create_task(made.change())
        try:
            await asyncio.sleep(3)
            seen = [await FAULTS[name](made) for name in names]
            changing.cancel()
            took = await made.until_right()
        finally:
            changing.cancel()
            watching.cancel()
        print(await made.doctor(), file=sys.stderr)
        return "; ".join(seen), took, await made.check()


async def main(words: list[str]) -> int:
    failed = 0
    for name in FAULTS:
        if words and not any(word in name for word in words):
            continue
        began = time.monotonic()
        try:
            seen, took, held = await suffer(name)
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
