"""ResourceSlices (resource.k8s.io): the devices that a driver offers on a node, beside what its kubelet counts.

A driver offers one GPU in several forms, of which only one can be given at a time: whole, as each MIG slice
that it can be cut into, for a virtual machine. So GPUs are counted by what they physically are, not by devices.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from watchbill.kinds.objects.device_classes import PROFILE_IN_NAME
from watchbill.kinds.objects.gpu_units import GPU, GPU_MEMORY_LABEL, MEBIBYTE
from watchbill.kinds.objects.json_access import at, mapping, objects, text, whole
from watchbill.kinds.objects.objects import Object
from watchbill.quantity import parse_quantity

_OTHERS = {"gpu.amd.com": "AMD GPU", "gpu.intel.com": "Intel GPU"}
"""Drivers of accelerators that are no NVIDIA GPUs, by the type that node pools count them by."""
_PARTITION = "-partition"
MAX_SLICES = 128
"""Of a node or pool that are looked at together, each of at most 128 devices: every change of one sums up all
of them. A driver has a few for each GPU at most."""
_WORD = re.compile(r"[\w.:()/+ -]{1,128}", re.ASCII)

PoolKey = tuple[str, str]
"""Driver and pool: a pool's slices are one list, told in pieces."""


class OfferedGpu(NamedTuple):
    """A form in which a GPU is offered; `uuid`, else its place on the bus, tells which GPU it is."""

    name: str
    uuid: str
    bus: str
    profile: str
    product: str
    memory: str
    is_tainted: bool


class DeviceSlice(NamedTuple):
    """A slice of a pool, of so many; `node` "" where its devices belong to none."""

    driver: str
    pool: str
    generation: int
    slices: int
    node: str
    gpus: tuple[OfferedGpu, ...]
    others: tuple[tuple[str, int], ...]

    @property
    def key(self) -> PoolKey:
        return self.driver, self.pool


class NodeDevices(NamedTuple):
    """GPUs that drivers offer on a node; None = not known. `offered`: those that no taint keeps back."""

    present: int | None = 0
    offered: int | None = 0
    product: str = ""
    mebibytes: str = ""
    others: tuple[tuple[str, int], ...] = ()


NO_DEVICES = NodeDevices()


def read_slice(obj: Object) -> DeviceSlice | None:
    """What a slice says of GPUs and other accelerators; None where its driver offers none."""
    spec = mapping(obj.get("spec"))
    driver, pool = text(spec.get("driver")), mapping(spec.get("pool"))
    if "gpu" not in driver.lower():
        return None
    devices = list(objects(spec.get("devices")))
    own = [(device, _Attributes(device, driver)) for device in devices]
    return DeviceSlice(
        driver=driver,
        pool=text(pool.get("name")),
        generation=whole(pool.get("generation")) or 0,
        slices=whole(pool.get("resourceSliceCount")) or 1,
        node=text(spec.get("nodeName")),
        gpus=() if driver in _OTHERS else tuple(_forms(own)),
        others=_counted(_OTHERS[driver], own) if driver in _OTHERS else (),
    )


class _Attributes:
    """A device's own, one level deeper before v1beta2; a name may have its driver before it."""

    def __init__(self, device: Mapping[str, Any], driver: str) -> None:
        basic = mapping(device.get("basic"))
        self._attributes = mapping(device.get("attributes") or basic.get("attributes"))
        self._capacity = mapping(device.get("capacity") or basic.get("capacity"))
        self._driver = driver

    def word(self, name: str) -> str:
        attribute = self._attributes.get(name) or self._attributes.get(f"{self._driver}/{name}")
        value = text(at(attribute, "string"))
        return value if _WORD.fullmatch(value) else ""

    @property
    def mebibytes(self) -> str:
        held = self._capacity.get("memory") or self._capacity.get(f"{self._driver}/memory")
        amount = parse_quantity(at(held, "value"))
        return "" if amount is None or amount < MEBIBYTE else str(int(amount) // MEBIBYTE)


def _forms(devices: Iterable[tuple[Mapping[str, Any], _Attributes]]) -> Iterator[OfferedGpu]:
    for device, attributes in devices:
        kind, name = attributes.word("type").lower(), text(device.get("name"))
        is_cut = kind.startswith("mig")
        bus = attributes.word("resource.kubernetes.io/pciBusID") or attributes.word("pciBusID")
        yield OfferedGpu(
            name=name,
            uuid="" if kind == "vfio" else attributes.word("parentUUID" if is_cut else "uuid"),
            bus=bus,
            profile=attributes.word("profile").lower() if is_cut else "",
            product=attributes.word("productName").replace(" ", "-"),
            memory="" if is_cut else attributes.mebibytes,
            is_tainted=_is_tainted(device),
        )


def _is_tainted(device: Mapping[str, Any]) -> bool:
    taints = device.get("taints") or at(device, "basic", "taints")
    return any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in objects(taints))


def _counted(
    kind: str, devices: Iterable[tuple[Mapping[str, Any], _Attributes]]
) -> tuple[tuple[str, int], ...]:
    counts = Counter(
        f"{kind} partition" if attributes.word("type").endswith(_PARTITION) else kind
        for device, attributes in devices
        if not _is_tainted(device)
    )
    return tuple(sorted(counts.items()))


class SlicePools:
    """Slices by pool and node.

    A pool is but a name: what a driver says of its node counts, whatever those of other nodes say in the pool
    of that name. Only where it is not the whole pool do these count.
    """

    def __init__(self) -> None:
        self._pools: dict[PoolKey, dict[str, dict[str, DeviceSlice]]] = {}
        self._counts: Counter[PoolKey] = Counter()
        self._pools_of_node: dict[str, set[PoolKey]] = {}
        self._counts_of_node: Counter[str] = Counter()

    def put(self, uid: str, added: DeviceSlice) -> None:
        self._pools.setdefault(added.key, {}).setdefault(added.node, {})[uid] = added
        self._counts[added.key] += 1
        self._pools_of_node.setdefault(added.node, set()).add(added.key)
        self._counts_of_node[added.node] += 1

    def remove(self, uid: str, removed: DeviceSlice) -> None:
        nodes = self._pools[removed.key]
        del nodes[removed.node][uid]
        self._counts[removed.key] -= 1
        self._counts_of_node[removed.node] -= 1
        if not nodes[removed.node]:
            del nodes[removed.node]
            self._pools_of_node[removed.node].discard(removed.key)
        if not nodes:
            del self._pools[removed.key], self._counts[removed.key]
        if not self._counts_of_node[removed.node]:
            del self._pools_of_node[removed.node], self._counts_of_node[removed.node]

    @property
    def keys(self) -> Iterable[PoolKey]:
        return self._pools.keys()

    def concerned(self, changed: DeviceSlice) -> set[str]:
        """The nodes that a change of a slice concerns. In a large pool nobody looks at what others say."""
        is_large = self._counts[changed.key] > MAX_SLICES + 1
        others = () if is_large else self._pools.get(changed.key, ())
        return {changed.node, *others} - {""}

    def node_devices(self, node: str) -> NodeDevices:
        """What the pools that have slices of the node say of it, the newest generation of each."""
        if self._counts_of_node[node] > MAX_SLICES:
            return NodeDevices(None, None)
        gpus: list[OfferedGpu] = []
        others: Counter[str] = Counter()
        is_known = True
        for key in self._pools_of_node.get(node, ()):
            own = _newest(self._pools[key][node].values())
            if any(each.slices != len(own) for each in own):
                count = self._count(key, own[0].generation)
                own = [] if count == 0 else own
                is_known &= all(each.slices == count for each in own)
            gpus += [gpu for each in own for gpu in each.gpus]
            for each in own:
                others.update(dict(each.others))
        return _summed_up(gpus, others, is_known=is_known)

    def _count(self, key: PoolKey, generation: int) -> int | None:
        """Slices of that generation of a pool: 0 where a newer one replaces it, None where it is too large."""
        if self._counts[key] > MAX_SLICES:
            return None
        slices = [each for own in self._pools[key].values() for each in own.values()]
        current = _newest(slices)
        return len(current) if current[0].generation == generation else 0

    def unnamed_profiles(self, key: PoolKey) -> dict[str, str]:
        """The profiles of MIG slices whose names do not tell them, by the device's name, as the node says whose
        name the pool bears, as is the custom."""
        nodes = self._pools.get(key, {})
        own = nodes.get(key[1])
        if own is None and self._counts[key] <= MAX_SLICES:
            own = {uid: each for slices in nodes.values() for uid, each in slices.items()}
        if own is None or len(own) > MAX_SLICES:
            return {}
        return {
            gpu.name: gpu.profile
            for each in _newest(own.values())
            for gpu in each.gpus
            if gpu.profile and not PROFILE_IN_NAME.search(gpu.name)
        }


def _summed_up(gpus: list[OfferedGpu], others: Counter[str], *, is_known: bool) -> NodeDevices:
    by_bus = {gpu.bus: gpu.uuid for gpu in gpus if gpu.bus and gpu.uuid}
    physical = [gpu.uuid or by_bus.get(gpu.bus, gpu.bus) for gpu in gpus]
    is_known &= "" not in physical
    present = set(physical)
    usable = {key for key, gpu in zip(physical, gpus, strict=True) if not gpu.is_tainted}
    return NodeDevices(
        present=len(present) if is_known else None,
        offered=len(usable) if is_known else None,
        product=_same(gpu.product for gpu in gpus),
        mebibytes=_same(gpu.memory for gpu in gpus if not gpu.profile),
        others=tuple(sorted(others.items())),
    )


def _newest(slices: Iterable[DeviceSlice]) -> list[DeviceSlice]:
    """Those of the newest generation: a driver writes the next one before it removes the last."""
    present = list(slices)
    last = max((each.generation for each in present), default=0)
    return [each for each in present if each.generation == last]


def device_labels(labels: Mapping[str, str], devices: NodeDevices) -> Mapping[str, str]:
    """A node's labels, and what its devices say of themselves in the words of labels."""
    described = {f"{GPU}.product": devices.product, GPU_MEMORY_LABEL: devices.mebibytes}
    added = {name: value for name, value in described.items() if value and name not in labels}
    return {**labels, **added} if added else labels


def _same(values: Iterable[str]) -> str:
    """What all of them say; "" where they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else ""
