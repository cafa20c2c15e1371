"""The nodes as they are reported to the server, one by one. Pure, except that what did not change is kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, get_args

from msgspec.structs import replace

from watchbill.agent.cache.cluster import ClusterView, NodeDetails, NodeOffer
from watchbill.agent.cache.held_devices import NOTHING_HELD, HeldOnNode, held_by_node
from watchbill.agent.cache.node_pools import node_gpus
from watchbill.background import TimeSlice
from watchbill.cluster_node import (
    CONDITION_CHARACTERS,
    MAX_CONDITIONS,
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_TAINTS,
    ClusterNode,
    GpuInfo,
    GpuSharing,
    NodeCondition,
    NodeDevice,
    NodeResources,
    NodeStatus,
    NodeTaint,
    node_bytes,
    node_hash,
)
from watchbill.kinds.derivation.elements import element_id
from watchbill.kinds.derivation.placement import node_pool_of
from watchbill.kinds.derivation.presentation import (
    bounded,
    presented_word,
    printable,
    sanitized_message,
)
from watchbill.kinds.objects.device_slices import NodeDevices, device_labels
from watchbill.kinds.objects.gpu_units import (
    gpu_bytes,
    gpu_model,
    is_node_cut,
    node_sharing,
)
from watchbill.kinds.objects.json_access import instant
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.quantity import parse_quantity

CLIQUE_LABEL = "nvidia.com/gpu.clique"
"""Written by GPU Feature Discovery: the UUID of the NVLink domain, a dot, the number of the clique."""
_STATUSES: Mapping[str, NodeStatus] = {"True": "Ready", "False": "NotReady"}
_EFFECTS = get_args(NodeTaint.__annotations__["effect"])
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_CORES, _MAX_BYTES = 1_000_000, 2**60


@dataclass(frozen=True, slots=True)
class PresentedNode:
    """A node as it travels, how many bytes it takes and a hash of them."""

    node: ClusterNode
    size: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class _Source:
    """What a node was presented from."""

    details: NodeDetails
    offer: NodeOffer
    devices: tuple[NodeDevice, ...]
    held: HeldOnNode

    def equals(self, other: "_Source") -> bool:
        is_same_object = self.details is other.details and self.offer is other.offer
        return is_same_object and (self.devices, self.held) == (other.devices, other.held)


class NodeReports:
    """Presents a node anew only when it was read anew, or drivers or exporters say something else of it."""

    def __init__(self, view: ClusterView, settings: DeriveSettings) -> None:
        self._view = view
        self._settings = settings
        self._presented: dict[str, tuple[_Source, PresentedNode]] = {}

    def current(self) -> dict[str, PresentedNode]:
        """By name, in the order of names; of too many the first `MAX_NODES`."""
        names, held = self._names(), self._held()
        self._presented = {name: self._current(name, held) for name in names}
        return {each.node.name: each for _, each in self._presented.values()}

    async def prepare(self) -> None:
        """Present those that changed, in slices: all of a large cluster at once take a third of a second."""
        work, held = TimeSlice(), self._held()
        for name in self._names():
            if name in self._view.node_details:  # others had their turn meanwhile
                self._presented[name] = self._current(name, held)
            await work.rest()

    def _held(self) -> Mapping[str, HeldOnNode]:
        return held_by_node(self._view.shared_devices, self._view.holders)

    def _names(self) -> list[str]:
        return sorted(self._view.node_details)[:MAX_NODES]

    def _current(self, name: str, held: Mapping[str, HeldOnNode]) -> tuple[_Source, PresentedNode]:
        view = self._view
        source = _Source(
            view.node_details[name],
            view.node_offers[name],
            view.node_devices.get(name, ()),
            held.get(name, NOTHING_HELD),
        )
        known = self._presented.get(name)
        if known is not None and source.equals(known[0]):
            return known
        return source, _presented(name, source.held, self._view, self._settings)


def _presented(
    name: str, held: HeldOnNode, view: ClusterView, settings: DeriveSettings
) -> PresentedNode:
    node = _node(name, held, view, settings)
    encoded = node_bytes(node)
    if len(encoded) > MAX_NODE_BYTES:
        brief = tuple(replace(each, message=None) for each in node.conditions[:10])
        node = replace(node, conditions=brief, taints=node.taints[:10], devices=())
        encoded = node_bytes(node)
    return PresentedNode(node, len(encoded), node_hash(encoded))


def _node(name: str, held: HeldOnNode, view: ClusterView, settings: DeriveSettings) -> ClusterNode:
    described = NodeDevices(product=held.product, mebibytes=held.mebibytes)
    labels, offer = device_labels(view.node_labels[name], described), view.node_offers[name]
    details = view.node_details[name]
    gpus = node_gpus(offer, labels, settings.gpu_resources, held)
    domain, _, clique = labels.get(CLIQUE_LABEL, "").rpartition(".")
    return ClusterNode(
        id=element_id(details.uid, settings.cluster_id),
        name=printable(name),
        status=_status(details),
        node_pool=printable(node_pool_of(labels, settings)),
        created_at=instant(details.created_at) or _LONG_AGO,
        node_pool_label=printable(settings.node_pool_label),
        is_in_default_pool=not labels.get(settings.node_pool_label),
        is_cordoned=offer.is_cordoned,
        capacity=_resources(offer.capacity, gpus.present),
        allocatable=_resources(offer.allocatable, gpus.offered),
        conditions=tuple(_conditions(details, settings))[:MAX_CONDITIONS],
        taints=tuple(_taints(details))[:MAX_TAINTS],
        gpu_info=_gpu_info(labels, gpus.present),
        gpu_memory_bytes=gpu_bytes(labels) if gpus.present else None,
        gpu_sharing=_sharing(offer, labels, settings) if gpus.present != 0 else None,
        nv_link_domain_uid=printable(domain) if domain else None,
        nv_link_clique_id=printable(clique) if domain and clique else None,
        devices=view.node_devices.get(name, ()),
    )


def _status(details: NodeDetails) -> NodeStatus:
    ready = [each.status for each in details.conditions if each.type == "Ready"]
    return _STATUSES.get(ready[-1], "Unknown") if ready else "Unknown"


def _conditions(details: NodeDetails, settings: DeriveSettings) -> list[NodeCondition]:
    nodes = []
    for each in details.conditions:
        message = sanitized_message(each.message, settings.redaction)
        nodes.append(
            NodeCondition(
                type=presented_word(each.type, settings.redaction),
                reason=presented_word(each.reason, settings.redaction),
                status=presented_word(each.status, settings.redaction),
                message=bounded(message, CONDITION_CHARACTERS) if message else None,
                last_transition_time=instant(each.last_transition_time),
            )
        )
    return nodes


def _taints(details: NodeDetails) -> list[NodeTaint]:
    return [
        NodeTaint(
            key=printable(each.key),
            effect=each.effect,  # type: ignore[arg-type]
            value=printable(each.value) if each.value else None,
        )
        for each in details.taints
        if each.effect in _EFFECTS
    ]


def _gpu_info(labels: Mapping[str, str], gpus: Fraction | None) -> GpuInfo | None:
    if not gpus:
        return None
    return GpuInfo(gpu_type=printable(gpu_model(labels)), gpu_count=int(gpus))


def _sharing(
    offer: NodeOffer, labels: Mapping[str, str], settings: DeriveSettings
) -> GpuSharing | None:
    """Only where the node offers units of such GPUs: labels alone may be left over."""
    offered = offer.capacity.keys() | offer.allocatable.keys()
    if is_node_cut(offered, labels, settings.gpu_resources):
        return "mig"
    return node_sharing(offered, labels, settings.gpu_resources)


def _resources(amounts: Mapping[str, Any], gpus: Fraction | None) -> NodeResources:
    cores, memory = parse_quantity(amounts.get("cpu")), parse_quantity(amounts.get("memory"))
    return NodeResources(
        gpus=None if gpus is None else float(gpus),
        cpu_cores=None if cores is None or not 0 <= cores <= _MAX_CORES else float(cores),
        cpu_memory_bytes=None if memory is None or not 0 <= memory <= _MAX_BYTES else int(memory),
    )


class PodsByNode:
    """UIDs of pods by their node: a node's change concerns its pods, not all."""

    def __init__(self) -> None:
        self._node_of: dict[str, str] = {}
        self._pods: dict[str, set[str]] = {}

    def put(self, uid: str, node: str) -> None:
        if self._node_of.get(uid, "") == node:
            return
        self.remove(uid)
        if node:
            self._node_of[uid] = node
            self._pods.setdefault(node, set()).add(uid)

    def remove(self, uid: str) -> None:
        node = self._node_of.pop(uid, None)
        if node is not None:
            self._pods[node].discard(uid)
            if not self._pods[node]:
                del self._pods[node]

    def pods(self, node: str) -> Iterable[str]:
        return self._pods.get(node, ())
