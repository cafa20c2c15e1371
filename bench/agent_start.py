"""`python -m bench.agent_start`: how soon an agent that has just started tells what its cluster holds.

A simulated API server and the server's end of the protocol run in another process, so that what is measured
here is the agent alone: seconds until the first record and until all were taken, processor time and resident
memory until then, with those of the process that reads owners ahead; with `--steps` the longest steps of its
event loop, too, in processor time (another process's turn does not count). Then it is stopped, 100 workloads
change, as many are deleted, and it starts anew: seconds until the server knows of them, and until every
workload was compared. Last is what changes cost it: of pods here and there, of whole workloads. The peak of
the resident memory is that of the agent's process alone, over all of this.
"""

import argparse
import asyncio
import json
import logging
import os
import resource
import sys
import tempfile
import time
from asyncio import events
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from tests.fixtures.kubernetes.replay import kubeconfig
from watchbill.agent.run import run_agent
from watchbill.background import loop_factory
from watchbill.settings.agent import AgentSettings

STEP_SECONDS = 0.1
LONGEST_STEPS = 5
UNSEEN = 100
"""Workloads that change while no agent is there, and as many that go."""
REST_SECONDS = 2.0
SETTLE_SECONDS = 10.0
"""From the inventory until changes begin."""


class LongestSteps:
    """The longest steps of the event loop in processor seconds, by what ran."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self._run = events.Handle._run  # noqa: SLF001 - the loop has no other hook for a step

    def install(self) -> None:
        def timed(handle: events.Handle) -> None:
            began = time.thread_time()
            self._run(handle)
            taken = time.thread_time() - began
            if taken > STEP_SECONDS / 4:
                name = _name(handle)
                self.steps[name] += 1
                self.longest[name] = max(self.longest.get(name, 0.0), taken)

        events.Handle._run = timed  # type: ignore[method-assign]  # noqa: SLF001

    def worst(self) -> dict[str, float]:
        worst = sorted(self.longest.items(), key=lambda step: -step[1])[:LONGEST_STEPS]
        return {f"{name} ({self.steps[name]})": round(seconds, 3) for name, seconds in worst}


def _name(handle: events.Handle) -> str:
    callback: Any = handle._callback  # type: ignore[attr-defined]  # noqa: SLF001
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine: Any = task.get_coro()
        return str(coroutine.__qualname__)
    return str(getattr(callback, "__qualname__", callback))


class OtherProcess:
    """The simulated API server and the server's end of the protocol."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.inventories = 0
        self.most_bytes = 0
        """Resident, of the agent with the process that reads owners ahead."""

    async def next_report(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        self.most_bytes = max(self.most_bytes, _resident_bytes(but=self._process.pid))
        assert line, "the other process has ended"
        report: dict[str, Any] = json.loads(line)
        self.inventories = report.get("inventories", self.inventories)
        return report

    async def order(self, **members: object) -> None:
        """Returns once it was done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(members).encode() + b"\n")
        while "changed" not in await self.next_report():
            pass


async def measure(options: argparse.Namespace) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.agent_cluster"),
        *(f"--workloads={options.workloads}", f"--pods-each={options.pods_each}"),
        *(f"--nodes={options.nodes}", f"--namespaces={options.namespaces}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        other = OtherProcess(process)
        addresses = await other.next_report()
        with tempfile.TemporaryDirectory() as folder:
            settings = AgentSettings(
                server_url=addresses["server"],
                credential=addresses["credential"],
                kubeconfig=kubeconfig(Path(folder) / "kubeconfig", addresses["api"]),
                scrape_seconds=0.0,
            )
            steps = LongestSteps()
            if options.steps:
                steps.install()
            async with running(settings):
                first = await _first_start(other)
            await other.order(unseen=UNSEEN)
            async with running(settings):
                again = await _start_again(other)
                await asyncio.sleep(SETTLE_SECONDS)
                changes = await _changes(other, options)
            return {
                **first,
                **again,
                **changes,
                "peak_resident_mebibytes": _resident_mebibytes(),
                **({"longest_steps_seconds": steps.worst()} if options.steps else {}),
            }
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def running(settings: AgentSettings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    agent = asyncio.create_task(run_agent(settings, stop=stop))
    yield
    stop.set()
    await agent


async def _first_start(other: OtherProcess) -> dict[str, object]:
    """The server holds nothing."""
    began, began_cpu = time.monotonic(), _processor_seconds()
    first: float | None = None
    while True:
        report = await other.next_report()
        if report["reported"] and first is None:
            first = time.monotonic() - began
        if report["reported"] >= report["of"]:
            break
    everything = time.monotonic() - began
    while not other.inventories:
        await other.next_report()
    cpu = _processor_seconds() - began_cpu
    return {
        "first_record_seconds": round(first or 0.0, 1),
        "all_records_seconds": round(everything, 1),
        "processor_seconds": round(cpu, 1),
        "resident_mebibytes": round(other.most_bytes / 2**20),
    }


async def _start_again(other: OtherProcess) -> dict[str, object]:
    """The server holds all but what changed and went meanwhile. An early inventory proves what went; everything
    was looked at again once the agent rests."""
    began, began_cpu, before = time.monotonic(), time.process_time(), other.inventories
    resting = asyncio.create_task(_rest())
    unknown = 2 * UNSEEN
    while unknown or other.inventories == before:
        unknown = (await other.next_report()).get("unknown", unknown)
    right = time.monotonic() - began
    rested_at, rested_cpu = await resting
    return {
        "right_again_seconds": round(right, 1),
        "resync_seconds": round(max(right, rested_at - began), 1),
        "resync_processor_seconds": round(rested_cpu - began_cpu, 1),
    }


async def _rest() -> tuple[float, float]:
    """Since when this process takes less than a fifth of a core, and its processor time then."""
    while True:
        at, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(REST_SECONDS)
        if time.process_time() - cpu < REST_SECONDS / 5:
            return at, cpu


async def _changes(other: OtherProcess, options: argparse.Namespace) -> dict[str, float]:
    """Pods here and there first, each of another workload; then workloads with all of their pods."""
    shares = {}
    for name, together in (("pods_apart", False), ("whole_workloads", True)):
        began, began_cpu = time.monotonic(), time.process_time()
        await other.order(rate=options.rate, seconds=options.seconds, together=together)
        took = time.monotonic() - began
        shares[f"changes_per_second_of_{name}"] = round(options.rate * options.seconds / took, 1)
        shares[f"share_of_a_core_of_{name}"] = round((time.process_time() - began_cpu) / took, 3)
    return shares


_OWN_AND_ENDED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
"""The process that reads owners ahead counts once it has ended; the cluster's process has not."""


def _processor_seconds() -> float:
    usages = map(resource.getrusage, _OWN_AND_ENDED)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _resident_bytes(*, but: int) -> int:
    """Of this process and its children but one, now."""
    lists = Path("/proc/self/task").glob("*/children")
    children = {int(pid) for each in lists for pid in each.read_text().split()} - {but}
    pages = 0
    for pid in (os.getpid(), *children):
        with suppress(OSError):  # it has just ended
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _resident_mebibytes() -> int:
    """The most so far, of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agent_start", description=__doc__)
    parser.add_argument("--workloads", type=int, default=5_000)
    parser.add_argument("--pods-each", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=1_500)
    parser.add_argument("--namespaces", type=int, default=40)
    parser.add_argument(
        "--rate", type=float, default=100.0, help="Changes a second, at the end, twice."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="Of changes, each time.")
    parser.add_argument("--steps", action="store_true", help="Tell the longest steps too.")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # Steps can be seen of asyncio's own loop alone, which takes more time than the agent's.
    with asyncio.Runner(loop_factory=None if options.steps else loop_factory()) as runner:
        print(json.dumps(runner.run(measure(options))))


if __name__ == "__main__":
    main()
