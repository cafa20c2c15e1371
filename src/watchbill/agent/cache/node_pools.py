"""The GPUs of nodes, and by node pool those that new pods can have.

Pure, except that what did not change is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from watchbill.agent.cache.cluster import ClusterView, NodeOffer
from watchbill.agent.cache.held_devices import NOTHING_HELD, HeldDevice, HeldOnNode, held_devices
from watchbill.background import TimeSlice
from watchbill.cluster_node import (
    MAX_NODE_GPUS,
)
from watchbill.kinds.derivation.placement import node_pool_of
from watchbill.kinds.objects.device_slices import NodeDevices, SharedDevices, SharedForm
from watchbill.kinds.objects.gpu_units import (
    GPU,
    GPU_MEMORY_LABEL,
    MEBIBYTE,
    accelerators,
    gpu_bytes,
    gpu_model,
    label_bytes,
    missing_gpus,
    physical_gpus,
    unit_bytes,
    unit_of,
    whole_number,
)
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import (
    MAX_GPUS,
    MAX_NODE_POOLS,
    MAX_POOL_BYTES,
    AcceleratorCount,
    NodePoolCapacity,
    UnusableGpus,
)
from watchbill.quantity import Amount

_SHOWN_NODES = 3

Amounts = tuple[tuple[str, Amount], ...]


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


class _NodeShare(NamedTuple):
    """What a share was reckoned from, the share, and which of the devices without a node it can use."""

    offer: NodeOffer
    labels: Mapping[str, str]
    shared: SharedDevices
    share: _Share | None
    reached: tuple[int, ...]


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
        reaching: dict[int, dict[str, bool]] = {}
        for offer, labels, _, share, reached in self._current().values():
            name = node_pool_of(labels, self._settings)
            pool = pools.setdefault(name, _Pool())
            pool.nodes += 1
            if share is not None:
                _add(pool, offer, share)
            for place in reached:
                usable = reaching.setdefault(place, {})
                usable[name] = usable.get(name, False) or _is_usable(offer)
        held = held_devices(self._view.shared_devices, self._view.holders)
        for place, usable in reaching.items():
            devices = self._view.shared_devices[place].devices
            if len(usable) > 1:
                free = self._add_held(held[place], devices, pools)
                unknown = NodeDevices(0 if free == 0 else None, 0 if free == 0 else None)
                for name in usable:
                    _add_shared(pools[name], unknown, is_usable=True)
                continue
            for name, is_usable in usable.items():
                _add_shared(pools[name], devices, is_usable=is_usable)
        return tuple(_capacity(name, pool) for name, pool in sorted(pools.items())[:MAX_NODE_POOLS])

    def _add_held(
        self, held: Iterable[HeldDevice], devices: NodeDevices, pools: dict[str, _Pool]
    ) -> int | None:
        """Devices that pools of nodes share, where they are now. Returns how many GPUs nobody holds."""
        number = 0
        for form, nodes in held:
            known = [name for name in nodes if name in self._view.node_offers]
            labels = self._view.node_labels
            names = {node_pool_of(labels[name], self._settings) for name in known}
            if len(names) != 1:
                continue
            offers = [self._view.node_offers[name] for name in known]
            offer = next(filter(_is_usable, offers), offers[0])
            _add_held(pools[names.pop()], offer, form, devices)
            number += not form.kind
        is_known = devices.present is not None and devices.offered is not None
        return (devices.present or 0) - number if is_known else None

    def impossible(self) -> str | None:
        """A sentence about nodes that state more GPUs, or more memory of one, than any has; None for none."""
        names = sorted(name for name, each in self._current().items() if each.share is None)
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
        shared = self._view.shared_devices
        if known and known.offer is offer and known.labels is labels and known.shared is shared:
            return known
        share = _share(offer, labels, self._settings.gpu_resources)
        places = (place for place, each in enumerate(shared) if each.reach.includes(name, labels))
        return _NodeShare(offer, labels, shared, share, tuple(places))


def node_gpus(
    offer: NodeOffer,
    labels: Mapping[str, str],
    gpu_resources: tuple[str, ...],
    held: HeldOnNode = NOTHING_HELD,
) -> NodeGpus:
    """Of a node that states what cannot be, nothing is known. `held`: what its pods hold of nodes together."""
    if not _is_possible(offer, labels, gpu_resources):
        return NodeGpus(None, None)
    present, lost = _present_and_lost(offer, labels, gpu_resources)
    if present is None or held.present is None or held.offered is None:
        return NodeGpus(None, None)
    offered = None if lost is None else present - lost + held.offered
    return NodeGpus(present + held.present, offered)


def _present_and_lost(
    offer: NodeOffer, labels: Mapping[str, str], gpu_resources: tuple[str, ...]
) -> tuple[Fraction | None, Fraction | None]:
    """Its kubelet's GPUs or those that drivers offer: the same ones, where it has both."""
    capacity, devices = _amounts(offer.capacity), offer.devices
    counted = physical_gpus(capacity.items(), labels, gpu_resources)
    lost = missing_gpus(_missing(capacity, _offered(offer, capacity)), labels, gpu_resources)
    if not devices.is_read and counted == 0 and _names_gpus(labels):
        return None, None
    if devices.present == 0 or (counted is not None and counted >= (devices.present or 0) > 0):
        return counted, lost
    if counted is None or devices.present is None or devices.offered is None:
        return None, None
    return Fraction(devices.present), Fraction(devices.present - devices.offered)


def _names_gpus(labels: Mapping[str, str]) -> bool:
    """A node without GPUs of its kubelet's may have them by a driver."""
    return bool(gpu_model(labels)) or labels.get(f"{GPU}.present") == "true"


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
    devices = offer.devices
    others = _accelerators(devices.others, capacity, labels, gpu_resources)
    if not _is_usable(offer):
        return _Share(gpus, Fraction(0), Counter(), others, 0)
    usable = _accelerators(devices.offered_others, dict(offered), labels, gpu_resources)
    unusable = Counter({kind: count - usable[kind] for kind, count in others.items()})
    memory = _memory_bytes(offered, labels, gpu_resources)
    if memory == 0 and gpus != 0:
        # No unit of its kubelet's, so those that drivers offer.
        size = gpu_bytes(labels)
        memory = None
        if size is not None and gpus is not None and lost is not None:
            memory = size * int(gpus - lost)
    return _Share(gpus, lost, usable, unusable, memory)


def _accelerators(
    offered_by_drivers: tuple[tuple[str, int], ...],
    amounts: Mapping[str, Amount],
    labels: Mapping[str, str],
    gpu_resources: tuple[str, ...],
) -> Counter[str]:
    counts = accelerators(amounts.items(), gpu_resources, labels)
    return Counter(counts) | Counter(dict(offered_by_drivers))


def _add(pool: _Pool, offer: NodeOffer, share: _Share) -> None:
    gpus, lost = share.gpus, share.lost
    pool.accelerators.update(share.usable)
    pool.unusable_accelerators.update(share.unusable)
    if not _is_usable(offer):
        (pool.cordoned if offer.is_ready else pool.unreachable).add(gpus)
        return
    pool.lost.add(lost)
    pool.usable.add(None if gpus is None or lost is None else gpus - lost)
    known, size = pool.memory_bytes, share.memory_bytes
    pool.memory_bytes = None if known is None or size is None else known + size


def _is_usable(offer: NodeOffer) -> bool:
    return offer.is_ready and not offer.is_cordoned


def _add_held(pool: _Pool, offer: NodeOffer, form: SharedForm, devices: NodeDevices) -> None:
    """A device that a pod on a node of this pool holds."""
    is_usable = _is_usable(offer) and not form.is_tainted
    if form.kind:
        (pool.accelerators if is_usable else pool.unusable_accelerators)[form.kind] += 1
    elif not _is_usable(offer):
        (pool.cordoned if offer.is_ready else pool.unreachable).add(Fraction(1))
    elif form.is_tainted:
        pool.lost.add(Fraction(1))
    else:
        pool.usable.add(Fraction(1))
        size, known = whole_number(devices.mebibytes), pool.memory_bytes
        pool.memory_bytes = None if known is None or size is None else known + size * MEBIBYTE


def _add_shared(pool: _Pool, devices: NodeDevices, *, is_usable: bool) -> None:
    """Devices that belong to no single node, of a pool of nodes that alone can use them."""
    if devices.present is None or devices.offered is None:
        if devices.present != 0:
            pool.usable.add(None)
            pool.memory_bytes = None
        return
    lost = devices.present - devices.offered
    pool.lost.add(Fraction(lost if is_usable else 0))
    (pool.usable if is_usable else pool.unreachable).add(
        Fraction(devices.offered if is_usable else devices.present)
    )
    usable = Counter(dict(devices.offered_others if is_usable else ()))
    pool.accelerators.update(usable)
    pool.unusable_accelerators.update(Counter(dict(devices.others)) - usable)
    if devices.offered and is_usable:
        size = whole_number(devices.mebibytes)
        known = pool.memory_bytes
        pool.memory_bytes = (
            None if known is None or size is None else known + size * MEBIBYTE * devices.offered
        )


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
