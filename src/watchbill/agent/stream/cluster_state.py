"""What the stream needs from the rest of the agent, and what it knows of an inventory in progress."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from watchbill.agent.cache.nodes import PresentedNode
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.kinds.derive import Derived
from watchbill.protocol import (
    STATE_MESSAGE_CHARACTERS,
    Covered,
    HelloReply,
    InventoryEntry,
    KindState,
    NodePoolCapacity,
)
from watchbill.scheduler_queue import SchedulerQueue


@dataclass(slots=True)
class InventoryInProgress:
    """`sent`: roots, of which `entries` were entries."""

    id: UUID
    coverage: tuple[Covered, ...]
    roots: list[str]
    possible: list[InventoryEntry]
    """Entries still to be sent of owners that cannot be read."""
    sent: int = 0
    entries: int = 0
    missing: int = 0


class ClusterState(Protocol):
    """The cluster as the agent knows it now."""

    def can_take_inventory(self) -> bool:
        """Whether an inventory taken now would be correct and would prove anything."""

    def is_synced(self) -> bool:
        """Whether every workload has been derived, so that the server can be right in all of them."""

    def coverage(self) -> tuple[Covered, ...]: ...

    def live_workloads(self) -> list[str]:
        """Every workload that exists as far as the agent knows."""

    def possible_workloads(self) -> list[OwnerKey]:
        """Owners that may be workloads although they cannot be read."""

    def states(self) -> tuple[KindState, ...]: ...

    def observed_seconds_ago(self) -> float | None:
        """How long ago all that is reported was known to be current; None before the first time."""

    def unobserved(self) -> list[tuple[datetime, datetime]]:
        """Times in which pods may have come and gone unseen, and that are still to be reported: whoever
        reported them removes them."""

    def unbroken_seconds(self) -> float | None:
        """For how long all changes were seen as they happened; None while they are not."""

    def queues(self) -> tuple[SchedulerQueue, ...] | None:
        """All that schedulers have; None while they are not known."""

    def node_pools(self) -> tuple[NodePoolCapacity, ...]: ...

    async def nodes(self) -> Mapping[str, PresentedNode] | None:
        """By name; None while or where not all of them are known."""

    def cluster_clock_ahead_seconds(self) -> float | None:
        """Of the API server's clock against this machine's, None where it gave none yet."""

    def kubernetes_version(self) -> str: ...

    def cluster_uid(self) -> str:
        """Of the namespace kube-system; "" while or where it cannot be read."""

    def derive_now(self, root: str) -> Derived | None: ...

    def restore(self, known: HelloReply) -> None:
        """What earlier agents of the cluster observed."""


def bounded_state(state: KindState) -> KindState:
    """With no longer a message than the server takes."""
    message = state.message and state.message[:STATE_MESSAGE_CHARACTERS]
    return msgspec.structs.replace(state, message=message)


def covered_kinds(coverage: tuple[Covered, ...]) -> frozenset[tuple[str, str]]:
    """The kinds that are covered in all namespaces."""
    return frozenset((each.group, each.kind) for each in coverage if each.namespaces is None)
