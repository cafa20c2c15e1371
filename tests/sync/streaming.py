"""An agent's stream of a made-up cluster, for tests of what it sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.fixtures.agents import until
from tests.fixtures.receiver import CREDENTIAL, Receiver
from tests.fixtures.records import node
from tests.unit.agent.test_pending_changes import derived
from watchbill.agent.cache.nodes import PresentedNode
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.stream import Stream
from watchbill.client import AgentClient
from watchbill.cluster_node import node_bytes, node_hash
from watchbill.kinds.derive import Derived
from watchbill.protocol import Covered, HelloReply, KindState, NodePoolCapacity
from watchbill.scheduler_queue import SchedulerQueue
from watchbill.workload import Phase

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class Cluster:
    """What the stream asks of the rest of the agent."""

    pending: PendingChanges = field(default_factory=PendingChanges)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    possible: list[OwnerKey] = field(default_factory=list)
    proves: bool = True
    uid: str = "11111111-0000-4000-8000-000000000001"
    kinds: list[str] = field(default_factory=lambda: ["Pod"])
    unbroken: float | None = None
    derived: dict[str, Derived] = field(default_factory=dict)

    def put(self, number: int, phase: Phase = Phase.RUNNING, name: str = "w") -> UUID:
        root = UUID(int=number)
        result = self.derived[str(root)] = derived(phase, number=number, name=name)
        self.pending.update(str(root), result, datetime.now(UTC))
        self.changed.set()
        return root

    def delete(self, number: int) -> None:
        self.pending.delete(str(UUID(int=number)), datetime.now(UTC))
        self.changed.set()

    def can_take_inventory(self) -> bool:
        return self.proves

    def is_synced(self) -> bool:
        return True

    def coverage(self) -> tuple[Covered, ...]:
        return tuple(Covered(group="", kind=kind) for kind in self.kinds)

    def live_workloads(self) -> list[str]:
        return list(self.pending.workloads)

    def possible_workloads(self) -> list[OwnerKey]:
        return self.possible

    def states(self) -> tuple[KindState, ...]:
        return (KindState(group="", kind="Pod", state="complete", since=NOW),)

    def unobserved(self) -> list[tuple[datetime, datetime]]:
        return []

    def observed_seconds_ago(self) -> float | None:
        return 0.0

    def unbroken_seconds(self) -> float | None:
        return self.unbroken

    def queues(self) -> tuple[SchedulerQueue, ...] | None:
        return ()

    def node_pools(self) -> tuple[NodePoolCapacity, ...]:
        return (NodePoolCapacity(node_pool="default", nodes=1, gpus=8.0),)

    async def nodes(self) -> dict[str, PresentedNode]:
        made = node()
        encoded = node_bytes(made)
        return {made.name: PresentedNode(made, len(encoded), node_hash(encoded))}

    def cluster_clock_ahead_seconds(self) -> float | None:
        return 7.0

    def kubernetes_version(self) -> str:
        return "v1.36.2"

    def cluster_uid(self) -> str:
        return self.uid

    def derive_now(self, root: str) -> Derived | None:
        return self.derived.get(root)

    def restore(self, known: HelloReply) -> None:
        assert known.idle == ()


@dataclass
class StreamTest:
    cluster: Cluster
    server: Receiver
    stream: Stream
    task: asyncio.Task[None]

    async def drained(self) -> None:
        await until(lambda: self.server.commits and self.stream.is_drained)


@asynccontextmanager
async def streaming(
    server: Receiver,
    cluster: Cluster | None = None,
    *,
    credential: str = CREDENTIAL,
    **options: Any,
) -> AsyncIterator[StreamTest]:
    cluster = cluster or Cluster()
    async with AgentClient(server.url, credential) as client:
        stream = Stream(client, cluster.pending, cluster, cluster.changed, **options)
        task = asyncio.create_task(stream.run())
        try:
            yield StreamTest(cluster, server, stream, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
