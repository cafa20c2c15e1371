"""A reflector of pods beside a simulated API server, and what it told its sink."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tests.fixtures.kubernetes.kube_api import KubeApi, kube_api
from tests.fixtures.kubernetes.replay import kubeconfig
from watchbill.agent.kubernetes.client import UNLIMITED, KubeClient, ListSlots, ServedResource
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.kubernetes.pauses import PauseDetector
from watchbill.agent.kubernetes.reflector import Reflector
from watchbill.agent.kubernetes.watch_stream import ObjectMeta


@dataclass
class Seen:
    """A sink that keeps names, and how often each came and went."""

    names: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    intervals: list[datetime | None] = field(default_factory=list)
    """Of what was removed: since when it may have been gone."""
    puts: int = 0
    unreadable: set[str] = field(default_factory=set)

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        if meta.name in self.unreadable:
            raise msgspec.DecodeError("unreadable")
        msgspec.json.decode(body)
        self.puts += 1
        self.names[meta.uid] = meta.name

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        self.removed.append(self.names.pop(uid))
        self.intervals.append(not_before)


@dataclass
class Kept:
    api: KubeApi
    seen: Seen
    reflector: Reflector
    states: list[str]

    def cut_off(self) -> None:
        """No pods are listed any more, and the watch breaks."""
        self.api.fault = lambda request: (
            web.Response(status=503, text="no\n") if "pods" in request.path else None
        )
        self.api.end_watches(is_cut=True)

    def holds(self, *names: str) -> Callable[[], bool]:
        return lambda: sorted(self.seen.names.values()) == sorted(names)

    async def stays(self, *names: str) -> None:
        for _ in range(10):
            await asyncio.sleep(0.02)
            assert self.holds(*names)(), self.seen.names


def pod(name: str, uid: str | None = None, **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "n", "uid": uid or f"uid-{name}"} | metadata
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}


@asynccontextmanager
async def keeping(
    folder: Path, *, names: tuple[str, ...] = (), resync_seconds: float = 900.0
) -> AsyncIterator[Kept]:
    async with kube_api() as api:
        for name in names:
            api.put(pod(name))
        credentials = Credentials(kubeconfig(folder / "config", api.url), None)
        await credentials.load()
        seen = Seen()
        states: list[str] = []
        async with KubeClient(credentials) as client:
            reflector = Reflector(
                client,
                ServedResource("", "v1", "Pod", "pods"),
                seen,
                is_metadata=False,
                resync_seconds=resync_seconds,
                list_slots=ListSlots(asyncio.Semaphore(1), UNLIMITED),
                retry_slots=ListSlots(asyncio.Semaphore(1), UNLIMITED),
                pauses=PauseDetector(),
                on_change=lambda connection: states.append(connection.state.state),
            )
            task = asyncio.create_task(reflector.run())
            try:
                yield Kept(api, seen, reflector, states)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
