"""People and a cluster as servers see them: an agent that reports pods, readers, a follower of the stream."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp

from drills.processes import until
from simulator.apiserver.protocol import SimulatedCluster
from simulator.resources import NAMESPACES, PODS
from watchbill.agent.run import run_agent
from watchbill.client import Client, Selection
from watchbill.errors import WatchbillError
from watchbill.settings.agent import AgentSettings

READERS = 3


def _namespace(name: str) -> dict[str, object]:
    metadata = {"name": name, "uid": str(uuid4())}
    return {"metadata": metadata, "status": {"phase": "Active"}}


class Cluster:
    """A simulated cluster whose real agent reports to `url`; it only ever gains pods."""

    def __init__(self) -> None:
        self.api = SimulatedCluster()
        for name in ("kube-system", "team"):
            self.api.store.put(NAMESPACES, _namespace(name))
        self.pods: set[UUID] = set()

    def create_pod(self) -> UUID:
        """One that runs at once, without GPUs."""
        uid = uuid4()
        self._put_pod(f"pod-{len(self.pods)}", uid)
        self.pods.add(uid)
        return uid

    def create_pods_in(self, namespace: str, number: int) -> dict[UUID, str]:
        """In a namespace of their own; their names by UID."""
        self.api.store.put(NAMESPACES, _namespace(namespace))
        names = {uuid4(): f"{namespace}-{index}" for index in range(number)}
        for uid, name in names.items():
            self._put_pod(name, uid, namespace=namespace)
        return names

    def create_pod_of(self, version: str, kind: str, name: str, owner: UUID, index: int = 0) -> str:
        """The name of a pod that this object owns."""
        reference = {"apiVersion": version, "kind": kind, "name": name, "uid": str(owner)}
        pod = f"{name}-{index}"
        self._put_pod(pod, uuid4(), ownerReferences=[reference | {"controller": True}])
        return pod

    def _put_pod(self, name: str, uid: UUID, **members: object) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        metadata = {
            "name": name,
            "namespace": "team",
            "uid": str(uid),
            "creationTimestamp": now,
            **members,
        }
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        state = {
            "name": "main",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [state],
        }
        spec = {"nodeName": "n1", "containers": [{"name": "main", "image": "drill"}]}
        self.api.store.put(PODS, {"metadata": metadata, "spec": spec, "status": status})

    @contextlib.asynccontextmanager
    async def reporting(self, url: str, credential: str, root: Path) -> AsyncIterator[None]:
        await self.api.start()
        stop = asyncio.Event()
        settings = AgentSettings(
            server_url=url,
            credential=credential,
            kubeconfig=self.api.kubeconfig(root / "kubeconfig"),
            scrape_seconds=0,
            debounce_seconds=0.2,
        )
        agent = asyncio.create_task(run_agent(settings, stop=stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait({agent}, timeout=20)
            agent.cancel()
            await self.api.stop()


@dataclass
class Readers:
    """Requests one after another, of several at once; every failure counts."""

    url: str
    token: str
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        paths = itertools.cycle(
            ("/api/v1/workloads?limit=20", "/api/v1/workloads/count", "/api/v1/clusters")
        )
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(self.url, headers=headers, timeout=timeout) as session:
            for path in paths:
                self.requests += 1
                try:
                    async with session.get(path) as answer:
                        text = await answer.text()
                        if answer.status != 200:
                            self.failures.append(f"{path}: {answer.status} {text[:200]}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.failures.append(f"{path}: {error!r}")
                await asyncio.sleep(0.05)


@dataclass
class Follower:
    """The ids that somebody knows who reads the list at each `ready` and the stream from there on."""

    client: Client
    known: set[UUID] = field(default_factory=set)
    opened: int = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(WatchbillError):
                async for event in self.client.stream(Selection()):
                    if event.name in ("ready", "resync"):
                        self.opened += event.name == "ready"
                        self.known = {
                            workload.id for workload in await self.client.workloads(Selection())
                        }
                    self.known |= set(getattr(event.data, "changed", ()))
            await asyncio.sleep(0.5)


@dataclass
class Traffic:
    """All of it against one address, while a drill does something to what is behind it."""

    client: Client
    cluster: Cluster
    readers: Readers
    follower: Follower
    pods_per_second: float = 5.0

    async def create_pods(self) -> None:
        while True:
            self.cluster.create_pod()
            await asyncio.sleep(1 / self.pods_per_second)

    async def check(self, *, seconds: float = 120.0) -> float:
        """Seconds until API and stream show everything that was created, nothing lost and nothing doubled, each
        with one history. Raises TimeoutError, AssertionError."""

        async def is_complete() -> bool:
            with contextlib.suppress(WatchbillError):
                listed = [workload.id for workload in await self.client.workloads(Selection())]
                counted = await self.client.workload_count(Selection())
                is_listed = sorted(listed) == sorted(self.cluster.pods)
                return (
                    is_listed
                    and counted == len(listed)
                    and self.follower.known == self.cluster.pods
                )
            return False

        took = await until(is_complete, seconds=seconds, what="API and stream show every pod")
        for uid in self.cluster.pods:
            phases = [interval.phase for interval in (await self.client.history(uid)).history]
            assert len(phases) == len(set(phases)), f"{uid}: {phases}"
        return took


@contextlib.asynccontextmanager
async def traffic(
    url: str, login: tuple[str, str], root: Path, *, pods: int = 40
) -> AsyncIterator[Traffic]:
    """Runs until the block ends; begins with so many pods that are shown."""
    async with Client(url, *login) as client:
        created = await client.cluster_create("drill")
        cluster = Cluster()
        for _ in range(pods):
            cluster.create_pod()
        async with cluster.reporting(url, created.credential, root):
            running = Traffic(client, cluster, Readers(url, await client.token()), Follower(client))
            following = asyncio.create_task(running.follower.run())
            try:
                await running.check()
                yield running
            finally:
                following.cancel()
                await asyncio.wait({following})


@contextlib.asynccontextmanager
async def busy(running: Traffic, *, with_readers: bool = True) -> AsyncIterator[None]:
    """Pods are created and people read until the block ends."""
    work = [
        running.create_pods(),
        *(running.readers.run() for _ in range(READERS if with_readers else 0)),
    ]
    tasks = {asyncio.create_task(task) for task in work}
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
