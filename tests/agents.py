"""Runs the whole agent against a test's API server and receiver, quickly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kube_api import KubeApi
from tests.receiver import CREDENTIAL, Receiver
from tests.replay import kubeconfig
from watchbill.agent.run import run_agent
from watchbill.config import AgentSettings


@dataclass
class Running:
    task: asyncio.Task[None]
    stop: asyncio.Event


@asynccontextmanager
async def agent(
    folder: Path, api: KubeApi, server: Receiver | None, **settings: object
) -> AsyncIterator[Running]:
    """An agent that runs until the block ends; its own failure is the test's."""
    options: dict[str, object] = {
        "server_url": server.url if server is not None else "",
        "credential": CREDENTIAL,
        "kubeconfig": kubeconfig(folder / "kubeconfig", api.url),
        "debounce_seconds": 0.02,
        "resync_seconds": 900.0,
        "scrape_seconds": 0.0,
    }
    stop = asyncio.Event()
    task = asyncio.create_task(run_agent(AgentSettings(**(options | settings)), stop=stop))  # type: ignore[arg-type]
    try:
        yield Running(task, stop)
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for something to become true; what it was waiting for fails otherwise."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not become true in time"
        await asyncio.sleep(0.02)
