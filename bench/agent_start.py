"""`python -m bench.agent_start`: how soon an agent that has just started tells what its cluster holds.

A simulated API server and the server's end of the protocol run in another process, so that what is measured
here is the agent alone: seconds until the first record and until all were taken, the longest steps of its
event loop in processor time (another process's turn does not count), and its resident memory.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from asyncio import events
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fixtures.kubernetes.replay import kubeconfig
from watchbill.agent.run import run_agent
from watchbill.settings.agent import AgentSettings

STEP_SECONDS = 0.1
LONGEST_STEPS = 5


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


async def measure(options: argparse.Namespace) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.agent_cluster"),
        *(f"--workloads={options.workloads}", f"--pods-each={options.pods_each}"),
        *(f"--nodes={options.nodes}", f"--namespaces={options.namespaces}"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        addresses = json.loads(await process.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            settings = AgentSettings(
                server_url=addresses["server"],
                credential=addresses["credential"],
                kubeconfig=kubeconfig(Path(folder) / "kubeconfig", addresses["api"]),
                scrape_seconds=0.0,
            )
            return await _start(settings, process.stdout)
    finally:
        process.kill()
        await process.wait()


async def _start(settings: AgentSettings, reports: asyncio.StreamReader) -> dict[str, object]:
    steps = LongestSteps()
    steps.install()
    stop = asyncio.Event()
    began, began_cpu = time.monotonic(), time.process_time()
    agent = asyncio.create_task(run_agent(settings, stop=stop))
    first: float | None = None
    while line := await reports.readline():
        report = json.loads(line)
        if report["reported"] and first is None:
            first = time.monotonic() - began
        if report["reported"] >= report["of"]:
            break
    everything = time.monotonic() - began
    cpu = time.process_time() - began_cpu
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stop.set()
    await agent
    return {
        "first_record_seconds": round(first or 0.0, 1),
        "all_records_seconds": round(everything, 1),
        "processor_seconds": round(cpu, 1),
        "peak_resident_mebibytes": round(resident / 2**20),
        "longest_steps_seconds": steps.worst(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agent_start", description=__doc__)
    parser.add_argument("--workloads", type=int, default=5_000)
    parser.add_argument("--pods-each", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=1_500)
    parser.add_argument("--namespaces", type=int, default=40)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
