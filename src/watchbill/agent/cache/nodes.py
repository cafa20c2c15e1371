"""The nodes as they are reported to the server: one by one, and by node pool the GPUs that new pods can have.

Pure, except that what did not change is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, get_args

from msgspec.structs import replace

from watchbill.agent.cache.cluster import ClusterView, NodeDetails, NodeOffer
from watchbill.background import TimeSlice
from watchbill.cluster_node import (
    CONDITION_CHARACTERS,
    MAX_CONDITIONS,
    MAX_NODE_BYTES,
    MAX_NODE_GPUS,
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
from watchbill.kinds.objects.gpu_units import (
    GPU_MEMORY_LABEL,
    accelerators,
    gpu_bytes,
    gpu_model,
    is_node_cut,
    label_bytes,
    missing_gpus,
    node_sharing,
    physical_gpus,
    unit_bytes,
    unit_of,
    whole_number,
)
from watchbill.kinds.objects.json_access import instant
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import (
    MAX_GPUS,
    MAX_NODE_POOLS,
    MAX_POOL_BYTES,
    AcceleratorCount,
    NodePoolCapacity,
    UnusableGpus,
)
from watchbill.quantity import Amount, parse_quantity

_SHOWN_NODES = 3

Amounts = tuple[tuple[str, Amount], ...]
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
    devices: tuple[NodeDevice, ...]

    def equals(self, other: "_Source") -> bool:
        return self.details is other.details and self.devices == other.devices


class NodeReports:
    """Presents a node anew only when it was read anew, or its devices changed."""

    def __init__(self, view: ClusterView, settings: DeriveSettings) -> None:
        self._view = view
        self._settings = settings
        self._presented: dict[str, tuple[_Source, PresentedNode]] = {}

    def current(self) -> dict[str, PresentedNode]:
        """By name, in the order of names; of too many the first `MAX_NODES`."""
        names = self._names()
        self._presented = {name: self._current(name) for name in names}
        return {each.node.name: each for _, each in self._presented.values()}

    async def prepare(self) -> None:
        """Present those that changed, in slices: all of a large cluster at once take a third of a second."""
        work = TimeSlice()
        for name in self._names():
            if name in self._view.node_details:  # others had their turn meanwhile
                self._presented[name] = self._current(name)
            await work.rest()

    def _names(self) -> list[str]:
        return sorted(self._view.node_details)[:MAX_NODES]

    def _current(self, name: str) -> tuple[_Source, PresentedNode]:
        source = _Source(self._view.node_details[name], self._view.node_devices.get(name, ()))
        known = self._presented.get(name)
        if known is not None and source.equals(known[0]):
            return known
        return source, _presented(name, self._view, self._settings)


def _presented(name: str, view: ClusterView, settings: DeriveSettings) -> PresentedNode:
    node = _node(name, view, settings)
    encoded = node_bytes(node)
    if len(encoded) > MAX_NODE_BYTES:
        brief = tuple(replace(each, message=None) for each in node.conditions[:10])
        node = replace(node, conditions=brief, taints=node.taints[:10], devices=())
        encoded = node_bytes(node)
    return PresentedNode(node, len(encoded), node_hash(encoded))


def _node(name: str, view: ClusterView, settings: DeriveSettings) -> ClusterNode:
    labels, offer = view.node_labels[name], view.node_offers[name]
    details = view.node_details[name]
    gpus = node_gpus(offer, labels, settings.gpu_resources)
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


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """Physical GPUs of a node: those that are there, and of these the ones that it offers. None = not known."""

    present: Fraction | None
    offered: Fraction | None


@dataclass(slots=True)
class _Sum:
    """None = a part of it is not known."""

    gpus: Fraction | None = Fraction(0)

    def add(self, gpus: Fraction | None) -> None:
        self.gpus = None if self.gpus is None or gpus is None else self.gpus + gpus

    @property
    def number(self) -> float | None:
        return None if self.gpus is None or self.gpus > MAX_GPUS else float(self.gpus)


@dataclass(slots=True)
class _Pool:
    nodes: int = 0
    usable: _Sum = field(default_factory=_Sum)
    cordoned: _Sum = field(default_factory=_Sum)
    unreachable: _Sum = field(default_factory=_Sum)
    lost: _Sum = field(default_factory=_Sum)
    memory_bytes: int | None = 0
    accelerators: Counter[str] = field(default_factory=Counter)
    unusable_accelerators: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a node brings to its pool. `gpus`: physical ones; None = not known, of `lost` and the memory too."""

    gpus: Fraction | None
    lost: Fraction | None
    usable: Counter[str]
    unusable: Counter[str]
    memory_bytes: int | None


_NodeShare = tuple[NodeOffer, Mapping[str, str], _Share | None]
"""What a share was reckoned from, and the share."""


class NodePools:
    """Capacity by node pool. A node's share is reckoned anew only when the node was read anew."""

    def __init__(self, view: ClusterView, settings: DeriveSettings) -> None:
        self._view = view
        self._settings = settings
        self._shares: dict[str, _NodeShare] = {}

    def capacities(self) -> tuple[NodePoolCapacity, ...]:
        """Every pool with its nodes. The memory is stated only if every usable node with GPUs tells it.

        The GPUs of nodes that state what cannot be are not counted: `impossible` names these.
        """
        pools: dict[str, _Pool] = {}
        for offer, labels, share in self._current().values():
            pool = pools.setdefault(node_pool_of(labels, self._settings), _Pool())
            pool.nodes += 1
            if share is not None:
                _add(pool, offer, share)
        return tuple(_capacity(name, pool) for name, pool in sorted(pools.items())[:MAX_NODE_POOLS])

    def impossible(self) -> str | None:
        """A sentence about nodes that state more GPUs, or more memory of one, than any has; None for none."""
        names = sorted(name for name, (*_, share) in self._current().items() if share is None)
        if not names:
            return None
        shown = ", ".join(names[:_SHOWN_NODES]) + (", …" if len(names) > _SHOWN_NODES else "")
        return f"{len(names)} nodes state impossible GPUs, which are not counted: {shown}"

    async def prepare(self) -> None:
        """Reckon those that changed, in slices: all of a large cluster at once take a fifth of a second."""
        work = TimeSlice()
        for name in list(self._view.node_labels):
            if name in self._view.node_labels:  # others had their turn meanwhile
                self._shares[name] = self._share(name)
            await work.rest()

    def _current(self) -> dict[str, _NodeShare]:
        self._shares = {name: self._share(name) for name in self._view.node_labels}
        return self._shares

    def _share(self, name: str) -> _NodeShare:
        offer, labels = self._view.node_offers[name], self._view.node_labels[name]
        known = self._shares.get(name)
        if known is not None and known[0] is offer and known[1] is labels:
            return known
        return offer, labels, _share(offer, labels, self._settings.gpu_resources)


def node_gpus(
    offer: NodeOffer, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> NodeGpus:
    """Of a node that states what cannot be, nothing is known."""
    if not _is_possible(offer, labels, gpu_resources):
        return NodeGpus(None, None)
    present, lost = _present_and_lost(offer, labels, gpu_resources)
    return NodeGpus(present, None if present is None or lost is None else present - lost)


def _present_and_lost(
    offer: NodeOffer, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> tuple[Fraction | None, Fraction | None]:
    """Its kubelet's GPUs or those that drivers offer: the same ones, where it has both."""
    capacity, devices = _amounts(offer.capacity), offer.devices
    counted = physical_gpus(capacity.items(), labels, gpu_resources)
    lost = missing_gpus(_missing(capacity, _offered(offer, capacity)), labels, gpu_resources)
    if devices.present == 0 or (counted is not None and counted >= (devices.present or 0) > 0):
        return counted, lost
    if counted is None or devices.present is None or devices.offered is None:
        return None, None
    return Fraction(devices.present), Fraction(devices.present - devices.offered)


def _offered(offer: NodeOffer, capacity: Mapping[str, Amount]) -> dict[str, Amount]:
    """Of what a node has, it cannot offer more than that."""
    return {
        name: min(amount, capacity.get(name, 0))
        for name, amount in _amounts(offer.allocatable).items()
    }


def _missing(capacity: Mapping[str, Amount], offered: Mapping[str, Amount]) -> Amounts:
    return tuple((name, amount - offered.get(name, 0)) for name, amount in capacity.items())


def _is_possible(
    offer: NodeOffer, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> bool:
    units = _amounts(offer.capacity)
    for name, amount in _amounts(offer.allocatable).items():
        units[name] = max(amount, units.get(name, 0))
    if any(
        amount > MAX_GPUS and unit_of(name, labels, gpu_resources) for name, amount in units.items()
    ):
        return False
    gpus = physical_gpus(units.items(), labels, gpu_resources)
    if max(gpus or 0, offer.devices.present or 0) > MAX_NODE_GPUS:
        return False
    stated = labels.get(GPU_MEMORY_LABEL, "")
    is_number = stated.isascii() and stated.isdigit() and stated.strip("0")
    return not is_number or label_bytes(labels, GPU_MEMORY_LABEL) is not None


def _share(
    offer: NodeOffer, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> _Share | None:
    """None for a node that states what cannot be."""
    if not _is_possible(offer, labels, gpu_resources):
        return None
    capacity = _amounts(offer.capacity)
    offered = tuple(_offered(offer, capacity).items())
    gpus, lost = _present_and_lost(offer, labels, gpu_resources)
    others = _accelerators(offer, capacity, labels, gpu_resources)
    if not offer.is_ready or offer.is_cordoned:
        return _Share(gpus, Fraction(0), Counter(), others, 0)
    usable = _accelerators(offer, dict(offered), labels, gpu_resources)
    unusable = Counter({kind: count - usable[kind] for kind, count in others.items()})
    memory = _memory_bytes(offered, labels, gpu_resources)
    if memory == 0 and gpus and lost is not None:
        # No unit of its kubelet's, so those that drivers offer.
        size = gpu_bytes(labels)
        memory = None if size is None else size * int(gpus - lost)
    return _Share(gpus, lost, usable, unusable, memory)


def _accelerators(
    offer: NodeOffer,
    amounts: Mapping[str, Amount],
    labels: Mapping[str, str],
    gpu_resources: tuple[str, ...],
) -> Counter[str]:
    counts = accelerators(amounts.items(), gpu_resources, labels)
    return Counter(counts) | Counter(dict(offer.devices.others))


def _add(pool: _Pool, offer: NodeOffer, share: _Share) -> None:
    gpus, lost = share.gpus, share.lost
    pool.accelerators.update(share.usable)
    pool.unusable_accelerators.update(share.unusable)
    if not offer.is_ready or offer.is_cordoned:
        (pool.cordoned if offer.is_ready else pool.unreachable).add(gpus)
        return
    pool.lost.add(lost)
    pool.usable.add(None if gpus is None or lost is None else gpus - lost)
    known, size = pool.memory_bytes, share.memory_bytes
    pool.memory_bytes = None if known is None or size is None else known + size


def _capacity(name: str, pool: _Pool) -> NodePoolCapacity:
    unusable = UnusableGpus(
        cordoned=pool.cordoned.number, unreachable=pool.unreachable.number, lost=pool.lost.number
    )
    memory = pool.memory_bytes
    types = sorted(pool.accelerators.keys() | pool.unusable_accelerators.keys())
    return NodePoolCapacity(
        node_pool=name,
        nodes=pool.nodes,
        gpus=pool.usable.number,
        unusable_gpus=None
        if unusable == UnusableGpus(cordoned=0, unreachable=0, lost=0)
        else unusable,
        accelerators=tuple(
            AcceleratorCount(
                type=kind,
                usable=min(pool.accelerators[kind], MAX_GPUS),
                unusable=min(pool.unusable_accelerators[kind], MAX_GPUS),
            )
            for kind in types
        ),
        gpu_memory_bytes=memory if memory and memory <= MAX_POOL_BYTES else None,
    )


def _amounts(resources: Mapping[str, Any]) -> dict[str, Amount]:
    """Device counts are whole numbers; anything else is more than any node has."""
    return {
        name: MAX_GPUS + 1 if (count := whole_number(value)) is None else count
        for name, value in sorted(resources.items())
        if "/" in name
    }


def _memory_bytes(
    offered: Amounts, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> int | None:
    total = 0
    for resource, amount in offered:
        unit = unit_of(resource, labels, gpu_resources) if amount else None
        if unit is not None:
            size = unit_bytes(resource, unit, labels)
            if size is None:
                return None
            total += size * int(amount) // unit.split
    return total


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
