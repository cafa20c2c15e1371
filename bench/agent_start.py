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
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.derive import Object, recorded_pod, workload
from simulator.apiserver.protocol import SimulatedCluster
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver
from tests.fixtures.replay import kubeconfig
from watchbill.agent.run import run_agent
from watchbill.settings.agent import AgentSettings

TOKEN = "t0ken"
STEP_SECONDS = 0.1
LONGEST_STEPS = 5


def objects(workloads: int, pods_each: int, nodes: int) -> Iterator[Object]:
    template = recorded_pod()
    for number in range(nodes):
        yield _node(number)
    for number in range(workloads):
        for index, obj in enumerate(workload(template, number, pods_each=pods_each)):
            if obj["kind"] == "Pod":
                obj["spec"]["nodeName"] = f"node-{(number * pods_each + index) % nodes}"
            yield obj


def _node(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"node-{number}",
            "uid": str(UUID(int=2 * 10**9 + number)),
            "labels": {"kubernetes.io/hostname": f"node-{number}", "pool": f"pool-{number % 8}"},
        },
        "status": {"allocatable": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}},
    }


async def serve(options: argparse.Namespace) -> None:
    """The other process: prints its addresses, then a line for each share of the records that was told."""
    cluster = SimulatedCluster(token=TOKEN)
    kinds = {
        (table.resource.api_version, table.resource.kind): table.resource
        for table in cluster.store.tables()
    }
    kube_system = {"metadata": {"name": "kube-system", "uid": "5f0a7c1e"}}
    cluster.store.put(kinds["v1", "Namespace"], kube_system)
    for obj in objects(options.workloads, options.pods_each, options.nodes):
        cluster.store.put(kinds[obj["apiVersion"], obj["kind"]], obj)
    await cluster.start()
    async with receiver() as server:
        _tell(api=cluster.url, server=server.url)
        await _report(server, options.workloads)
    await cluster.stop()


async def _report(server: Receiver, workloads: int) -> None:
    told = -1
    while True:
        live = len(server.rows)
        if live != told:
            told = live
            _tell(told=told, of=workloads)
        await asyncio.sleep(0.05)


def _tell(**members: object) -> None:
    print(json.dumps(members), flush=True)


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
        *(sys.executable, "-m", "bench.agent_start", "--serve"),
        *(f"--workloads={options.workloads}", f"--pods-each={options.pods_each}"),
        f"--nodes={options.nodes}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        addresses = json.loads(await process.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            settings = AgentSettings(
                server_url=addresses["server"],
                credential=CREDENTIAL,
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
        if report["told"] and first is None:
            first = time.monotonic() - began
        if report["told"] >= report["of"]:
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
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options))
    else:
        print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
