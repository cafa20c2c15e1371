"""Nodes and node pools with what only the server knows of them. Their schemas are the second contract's."""

from typing import Literal
from uuid import UUID

import msgspec

from watchbill.cluster_node import ClusterNode, NodeResources
from watchbill.responses.contract import Instant
from watchbill.responses.fleet import ClusterState
from watchbill.workload import Wire


class NodeWorkload(Wire, frozen=True, kw_only=True):
    """A workload whose pods hold a node. `gpus` None = not known."""

    id: UUID
    name: str
    project_name: str
    pods: int
    gpus: float | None


class NodeResponse(ClusterNode, frozen=True, kw_only=True):
    """A node and who holds it, as far as the caller may see.

    `is_partial`: the caller does not see the cluster as a whole; then only the caller's own workloads are
    counted, and how much of the node is free is not known. `workloads`: those with the most GPUs, of
    `workloads_total`.
    """

    cluster_uuid: UUID
    updated_at: Instant
    allocated: NodeResources
    idle_allocated_gpus: float | None
    """Of the allocated ones, those that do nothing; None where nothing measures any of them."""
    workloads: tuple[NodeWorkload, ...]
    workloads_total: int
    is_partial: bool
    cluster_state: ClusterState | None = None
    data_as_of: Instant | None = None
    """Until when the cluster was observed: what is shown of the node is as of then."""

    @property
    def free_gpus(self) -> float | None:
        """GPUs that new pods can have; None where that is not known, or not this caller's to know."""
        if self.is_partial or self.allocatable.gpus is None or self.allocated.gpus is None:
            return None
        free = max(0.0, round(self.allocatable.gpus - self.allocated.gpus, 6))
        return free if self.is_schedulable else 0.0


class NodesResponse(Wire, frozen=True, kw_only=True):
    nodes: tuple[NodeResponse, ...]
    next_offset: int | None = msgspec.field(default=None, name="next")


NodePoolPhase = Literal["Ready", "Unschedulable"]


class NodePoolCondition(Wire, frozen=True, kw_only=True):
    """What is wrong with some of a pool's nodes."""

    type: str
    reason: str
    message: str
    status: Literal["True", "False"]
    nodes: tuple[str, ...]


class NodePoolStatus(Wire, frozen=True, kw_only=True):
    """`nodes`: their names, those that the caller may see."""

    label_key: str
    label_value: str
    nodes: tuple[str, ...]
    conditions: tuple[NodePoolCondition, ...] = ()


class NodePoolResponse(Wire, frozen=True, kw_only=True):
    """A pool of a cluster, as its nodes tell it. `total` None = the caller sees a part of the cluster alone."""

    id: str
    tenant_id: int
    name: str
    label_key: str
    label_value: str
    cluster_id: UUID
    cluster_name: str
    created_by: str
    created_at: Instant
    updated_by: str
    updated_at: Instant
    is_default: bool
    phase: NodePoolPhase
    phase_message: str
    status: NodePoolStatus
    total: NodeResources | None
    allocated: NodeResources
    cluster_state: ClusterState | None = None
    data_as_of: Instant | None = None


class NodePoolsResponse(Wire, frozen=True, kw_only=True):
    nodepools: tuple[NodePoolResponse, ...]


ROOTS: tuple[type[msgspec.Struct], ...] = (NodeResponse,)
"""Their members beyond the contract, for the page's types."""
