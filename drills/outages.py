"""Faults of `drills.faults` in which something stands still, or starts again and again, for minutes."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import asyncpg

from drills.processes import until, until_ready
from drills.scene import Scene
from simulator.resources import PODS
from watchbill.errors import WatchbillError

SLOW_LIST_SECONDS = 2.0
"""Of each page: with all kinds and their pages more than an agent lives for."""
MANY = 3_000
LIFE_SECONDS = 20.0
LIVES = 15
LOCKED_SECONDS = 120.0
SMART_SECONDS = 30.0
SHOWN_SECONDS = 400.0
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Debian's libfaketime."""


async def state_or_error(made: Scene) -> str:
    try:
        return await made.state()
    except WatchbillError as error:
        return error.message


async def lose_events_of_pods(made: Scene) -> str:
    """Watches of pods go on with bookmarks alone, until some are shown all the same."""
    faults = made.cluster.api.faults
    faults.loses_events = lambda resource: resource == PODS
    await asyncio.sleep(5)
    unseen = made.create_namespace("unseen", 5)
    states: Counter[str] = Counter()

    async def is_shown() -> bool:
        states[(await made.state()).partition(":")[0]] += 1
        return await made.are_shown(unseen)

    took = await until(is_shown, seconds=SHOWN_SECONDS, what="pods without an event are shown")
    faults.loses_events = None
    return f"pods are shown {took:.0f} s after they came, {' and '.join(states)} meanwhile"


async def kill_agent_again_and_again(made: Scene) -> str:
    """Before it has listed all kinds."""
    made.create_namespace("many", MANY)
    await until(
        partial(made.are_shown, set(made.others)), seconds=SHOWN_SECONDS, what="all are shown"
    )
    made.cluster.api.faults.delay_seconds = SLOW_LIST_SECONDS
    newest = None
    states: Counter[str] = Counter()
    shown = 0
    for _ in range(LIVES):
        await made.agent.stop(signal.SIGKILL)
        made.agent.start()
        await asyncio.sleep(LIFE_SECONDS)
        states[(await state_or_error(made)).partition(":")[0]] += 1
        shown += newest is not None and await made.are_shown({newest})
        newest = next(reversed(made.live))
    made.cluster.api.faults.delay_seconds = 0.0
    seen = ", ".join(f"{state} {count} times" for state, count in states.items())
    return f"of {LIVES} lives {shown} showed a pod that came in the one before; {seen}"


def restart_postgres(number: signal.Signals) -> Callable[[Scene], Awaitable[str]]:
    async def fault(made: Scene) -> str:
        process = made.database.child.process
        assert process is not None
        began = time.monotonic()
        process.send_signal(number)
        if number is signal.SIGTERM:
            await asyncio.sleep(SMART_SECONDS)
        else:
            await asyncio.to_thread(process.wait, 60)
        seen = await state_or_error(made)
        has_ended = process.poll() is not None
        ended = time.monotonic() - began
        if not has_ended:
            await made.database.child.stop(signal.SIGINT)
        made.database.child.start()
        await until(made.database.answers, seconds=60, what="PostgreSQL answers")
        took = await until_ready(made.url)
        ending = "it ends" if has_ended else "it waits for the server's connections"
        return f"{ending}, {ended:.0f} s after the signal; {seen}; /readyz {took:.1f} s after its start"

    return fault


async def lock_workloads(made: Scene) -> str:
    """Somebody holds a lock that everything waits for, so that all connections of the pool are in use."""
    connection = await asyncpg.connect(made.database.url("watchbill"))
    states: Counter[str] = Counter()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE workload IN ACCESS EXCLUSIVE MODE")
            until_at = time.monotonic() + LOCKED_SECONDS
            while time.monotonic() < until_at:
                states[await state_or_error(made)] += 1
                await asyncio.sleep(5)
    finally:
        await connection.close()
    took = await until_ready(made.url)
    return f"{' and '.join(states)}; /readyz {took:.1f} s after its end"


async def set_the_server_s_clock(made: Scene) -> str:
    """An hour ahead, then an hour behind, by libfaketime; the database's clock is right."""
    clock = made.root / "server-clock"
    clock.write_text("+0")
    made.server.environ = {
        **made.server.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    await made.server.stop()
    made.server.start()
    await until_ready(made.url)
    seen = []
    for offset in ("+3600", "-3600", "+0"):
        clock.write_text(offset)
        await asyncio.sleep(20)
        (cluster,) = await made.client.clusters()
        ahead = cluster.agent_clock_ahead_seconds
        seen.append(f"{await state_or_error(made)} (agent's clock {ahead or 0.0:+.0f} s)")
    return ", then ".join(seen)


OUTAGES = {
    "pods' events lost while bookmarks go on": lose_events_of_pods,
    "agent killed every 20 s for 5 min, before it has listed all": kill_agent_again_and_again,
    "PostgreSQL restarted (fast)": restart_postgres(signal.SIGINT),
    "PostgreSQL asked to stop (smart) for 30 s": restart_postgres(signal.SIGTERM),
    "server's clock an hour ahead, then behind": set_the_server_s_clock,
    "workloads locked for 120 s, all connections in use": lock_workloads,
}
