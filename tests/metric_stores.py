"""Real stores that speak Prometheus' API, started by the suite: each scrapes what it is told to."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import require


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _prometheus(binary: Path, config: Path, data: Path, address: str) -> list[str]:
    return [
        str(binary),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]


def _victoria_metrics(binary: Path, config: Path, data: Path, address: str) -> list[str]:
    """As it comes, but for the 30 seconds that it holds back what it has scraped: the runs here are shorter."""
    return [
        str(binary),
        f"-promscrape.config={config}",
        f"-storageDataPath={data}",
        f"-httpListenAddr={address}",
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=128MB",
        "-loggerLevel=ERROR",
    ]


Command = Callable[[Path, Path, Path, str], list[str]]
STORES: dict[str, tuple[Command, str]] = {
    "Prometheus": (_prometheus, "/-/ready"),
    "VictoriaMetrics": (_victoria_metrics, "/health"),
}


class Store:
    """A store's process; killed and started again on the same address and data."""

    def __init__(self, name: str, folder: Path, scrapes: list[dict[str, Any]]) -> None:
        command, self._ready = STORES[name]
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        config = folder / "scrape.yml"
        interval = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
        config.write_text(json.dumps({"global": interval, "scrape_configs": scrapes}))
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._command = command(require(name), config, folder / "data", address)

    async def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with aiohttp.ClientSession() as session:
            for _ in range(400):
                with suppress(aiohttp.ClientError):
                    async with session.get(self.url + self._ready) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
        raise TimeoutError(f"{self._command[0]} did not start")

    def kill(self) -> None:
        """As a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def freeze(self) -> None:
        """It accepts connections, as its system does for it, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._process.wait(20)


@asynccontextmanager
async def store(name: str, folder: Path, scrapes: list[dict[str, Any]]) -> AsyncIterator[Store]:
    """A store of that name that is ready, and scrapes."""
    made = Store(name, folder, scrapes)
    try:
        await made.start()
        yield made
    finally:
        made.stop()
