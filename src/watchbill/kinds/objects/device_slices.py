"""ResourceSlices (resource.k8s.io): the devices that a driver offers on a node, beside what its kubelet counts.

A driver offers one GPU in several forms, of which only one can be given at a time: whole, as each MIG slice
that it can be cut into, for a virtual machine. So GPUs are counted by what they physically are, not by devices.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from watchbill.kinds.objects.gpu_units import (
    DRIVERS_OF_OTHERS,
    GPU,
    GPU_MEMORY_LABEL,
    MEBIBYTE,
    PROFILE_IN_NAME,
)
from watchbill.kinds.objects.json_access import at, mapping, objects, text, whole
from watchbill.kinds.objects.objects import Object
from watchbill.quantity import parse_quantity

_PARTITION = " partition"
_KEEPING_BACK = ("NoSchedule", "NoExecute")
MAX_SLICES = 128
"""Of a node or pool that are looked at together, each of at most 128 devices: every change of one sums up all
of them. A driver has a few for each GPU at most. Of a slice whose devices name their nodes each node counts."""
MAX_DEVICES = 2_048
"""Of a node, in all forms in which they are offered."""
_MAX_REQUIREMENTS, _MAX_VALUES, _MAX_REACHES = 16, 1_024, 16
"""Of one reach, and reaches: each is held against every node. Kubernetes takes one term a slice."""
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_WORD = re.compile(r"[\w.:()/+ -]{1,128}", re.ASCII)

PoolKey = tuple[str, str]
"""Driver and pool: a pool's slices are one list, told in pieces."""
DeviceKey = tuple[str, str, str]
"""Driver, pool and name."""
_PartKey = tuple[str, int]


class OfferedDevice(NamedTuple):
    """A form in which a GPU is offered; `uuid`, else its place on the bus, tells which GPU it is.

    `kind`: the type of an accelerator that is no NVIDIA GPU, else "".
    """

    name: str
    kind: str
    uuid: str
    bus: str
    profile: str
    product: str
    memory: str
    is_tainted: bool


class Requirement(NamedTuple):
    """Of a node's labels, or by `is_field` of its name."""

    key: str
    operator: str
    values: frozenset[str]
    is_field: bool

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        value = name if self.is_field else labels.get(self.key)
        if self.operator in ("In", "Exists"):
            return value is not None and (self.operator == "Exists" or value in self.values)
        if self.operator in ("NotIn", "DoesNotExist"):
            return value is None or (self.operator == "NotIn" and value not in self.values)
        bound = next(iter(self.values), "")
        if value is None or not (_NUMBER.fullmatch(value) and _NUMBER.fullmatch(bound)):
            return False
        return int(value) > int(bound) if self.operator == "Gt" else int(value) < int(bound)


class Reach(NamedTuple):
    """The nodes that can use devices which belong to none: all, or those of which a term holds.

    `is_known`: else there is more to it than is held against nodes, and it may be any of them."""

    terms: tuple[tuple[Requirement, ...], ...] = ()
    is_all: bool = False
    is_known: bool = True

    def includes(self, name: str, labels: Mapping[str, str]) -> bool:
        return self.is_all or any(
            bool(term) and all(each.holds(name, labels) for each in term) for term in self.terms
        )


class DeviceSlice(NamedTuple):
    """What a slice of a pool, of so many, has for one node; `node` "" where its devices belong to none."""

    driver: str
    pool: str
    generation: int
    slices: int
    node: str
    reach: Reach
    devices: tuple[OfferedDevice, ...]

    @property
    def key(self) -> PoolKey:
        return self.driver, self.pool


class TaintRule(NamedTuple):
    """A DeviceTaintRule that keeps new pods from devices; None = of any.

    `is_open`: it also selects in a way that is not followed, as the first versions could.
    """

    driver: str | None
    pool: str | None
    device: str | None
    is_open: bool

    def concerns(self, key: PoolKey) -> bool:
        return self.driver in (None, key[0]) and self.pool in (None, key[1])


class NodeDevices(NamedTuple):
    """Devices that drivers offer on a node. None = not known. `offered`: those that no taint keeps back."""

    present: int | None = 0
    offered: int | None = 0
    product: str = ""
    mebibytes: str = ""
    others: tuple[tuple[str, int], ...] = ()
    offered_others: tuple[tuple[str, int], ...] = ()
    is_read: bool = True


NO_DEVICES = NodeDevices()
UNREAD_DEVICES = NodeDevices(is_read=False)
"""Of a node while slices cannot be read."""


class SharedForm(NamedTuple):
    """A form in which a device is offered that belongs to no single node.

    `physical` tells which GPU it is, "" where nothing does; of other accelerators each device is one.
    """

    key: DeviceKey
    kind: str
    physical: str
    is_tainted: bool


class SharedReach(NamedTuple):
    reach: Reach
    devices: NodeDevices
    forms: tuple[SharedForm, ...]


SharedDevices = tuple[SharedReach, ...]
"""Devices that belong to no single node, by the nodes that can use them."""


def read_slice(obj: Object) -> tuple[DeviceSlice, ...]:
    """What a slice says of GPUs and other accelerators, by node; nothing where its driver offers none."""
    spec = mapping(obj.get("spec"))
    driver, pool = text(spec.get("driver")), mapping(spec.get("pool"))
    if "gpu" not in driver.lower() and driver not in DRIVERS_OF_OTHERS:
        return ()
    parts: dict[tuple[str, Reach], list[OfferedDevice]] = {}
    is_by_device = spec.get("perDeviceNodeSelection") is True
    if not is_by_device:
        parts[_place(spec)] = []
    for device in objects(spec.get("devices")):
        place = _place(mapping(device.get("basic")) or device) if is_by_device else _place(spec)
        parts.setdefault(place, []).append(_offered(device, driver))
    return tuple(
        DeviceSlice(
            driver=driver,
            pool=text(pool.get("name")),
            generation=whole(pool.get("generation")) or 0,
            slices=whole(pool.get("resourceSliceCount")) or 1,
            node=node,
            reach=reach,
            devices=tuple(devices),
        )
        for (node, reach), devices in parts.items()
    )


def _place(part: Mapping[str, Any]) -> tuple[str, Reach]:
    """The node that devices belong to, else those that can use them."""
    if node := text(part.get("nodeName")):
        return node, Reach()
    terms = [
        tuple(_requirements(term))
        for term in islice(
            objects(at(part, "nodeSelector", "nodeSelectorTerms")), _MAX_REQUIREMENTS + 1
        )
    ]
    requirements = [each for term in terms for each in term]
    values = sum(len(each.values) for each in requirements)
    if max(len(requirements), len(terms)) > _MAX_REQUIREMENTS or values > _MAX_VALUES:
        return "", Reach(is_all=True, is_known=False)
    return "", Reach(tuple(terms), is_all=part.get("allNodes") is True)


def _requirements(term: Mapping[str, Any]) -> Iterator[Requirement]:
    """One more than may be, and of its values as well."""
    for member in ("matchExpressions", "matchFields"):
        for each in islice(objects(term.get(member)), _MAX_REQUIREMENTS + 1):
            values = each.get("values")
            listed = values[: _MAX_VALUES + 1] if isinstance(values, list) else ()
            yield Requirement(
                text(each.get("key")),
                text(each.get("operator")),
                frozenset(text(value) for value in listed),
                member == "matchFields",
            )


def read_taint_rule(obj: Object) -> TaintRule | None:
    """None where it keeps no pod from any device."""
    selector, effect = at(obj, "spec", "deviceSelector"), at(obj, "spec", "taint", "effect")
    if effect not in _KEEPING_BACK or not isinstance(selector, Mapping):
        return None
    driver, pool, device = (
        text(selector.get(name)) or None for name in ("driver", "pool", "device")
    )
    is_open = bool(selector.get("selectors") or selector.get("deviceClassName"))
    return TaintRule(driver, pool, device, is_open)


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


def _offered(device: Mapping[str, Any], driver: str) -> OfferedDevice:
    attributes = _Attributes(device, driver)
    type_, name, is_tainted = attributes.word("type"), text(device.get("name")), _is_tainted(device)
    if driver in DRIVERS_OF_OTHERS:
        part = _PARTITION if type_.endswith("-partition") else ""
        return OfferedDevice(name, DRIVERS_OF_OTHERS[driver] + part, "", "", "", "", "", is_tainted)
    is_cut = type_.lower().startswith("mig")
    is_passed = type_.lower() == "vfio"
    bus = attributes.word("resource.kubernetes.io/pciBusID") or attributes.word("pciBusID")
    return OfferedDevice(
        name=name,
        kind="",
        uuid="" if is_passed else attributes.word("parentUUID" if is_cut else "uuid"),
        bus=bus,
        profile=attributes.word("profile").lower() if is_cut else "",
        product=attributes.word("productName").replace(" ", "-"),
        memory="" if is_cut else attributes.mebibytes,
        is_tainted=is_tainted,
    )


def _is_tainted(device: Mapping[str, Any]) -> bool:
    taints = device.get("taints") or at(device, "basic", "taints")
    return any(taint.get("effect") in _KEEPING_BACK for taint in objects(taints))


class SlicePools:
    """Slices by pool and node, and the rules that keep new pods from devices.

    A pool is but a name: what a driver says of its node counts, whatever those of other nodes say in the pool
    of that name. Only where it is not the whole pool do these count.
    """

    def __init__(self) -> None:
        self._slices: dict[str, tuple[DeviceSlice, ...]] = {}
        self._pools: dict[PoolKey, dict[str, dict[_PartKey, DeviceSlice]]] = {}
        self._counts: Counter[PoolKey] = Counter()
        self._pools_of_node: dict[str, set[PoolKey]] = {}
        self._counts_of_node: Counter[str] = Counter()
        self._rules: dict[str, TaintRule] = {}
        self.are_rules_read = True

    def put(self, uid: str, parts: tuple[DeviceSlice, ...]) -> set[str]:
        """The nodes that this concerns, "" among them if it concerns devices that belong to none."""
        before = self._slices.get(uid, ())
        if before == parts:
            return set()
        keys = {each.key for each in (*before, *parts)}
        nodes = {node for key in keys for node in self._concerned(key)}
        self._remove(uid, before)
        for place, part in enumerate(parts):
            self._pools.setdefault(part.key, {}).setdefault(part.node, {})[uid, place] = part
            self._pools_of_node.setdefault(part.node, set()).add(part.key)
            self._counts_of_node[part.node] += 1
        if parts:
            self._slices[uid] = parts
            self._counts[parts[0].key] += len(parts)
        own = {each.node for each in (*before, *parts)}
        return own | nodes | {node for key in keys for node in self._concerned(key)}

    def remove(self, uid: str) -> set[str]:
        return self.put(uid, ())

    def _remove(self, uid: str, parts: tuple[DeviceSlice, ...]) -> None:
        for place, part in enumerate(parts):
            nodes = self._pools[part.key]
            del nodes[part.node][uid, place]
            self._counts_of_node[part.node] -= 1
            if not nodes[part.node]:
                del nodes[part.node]
                self._pools_of_node[part.node].discard(part.key)
            if not nodes:
                del self._pools[part.key]
            if not self._counts_of_node[part.node]:
                del self._pools_of_node[part.node], self._counts_of_node[part.node]
        if parts:
            del self._slices[uid]
            self._counts[parts[0].key] -= len(parts)

    def put_rule(self, uid: str, rule: TaintRule | None) -> set[str]:
        """The nodes that a rule concerns, or concerned before; None removes it."""
        changed = filter(None, (self._rules.pop(uid, None), rule))
        if rule is not None:
            self._rules[uid] = rule
        rules = list(changed)
        return {
            node
            for key, nodes in self._pools.items()
            if any(each.concerns(key) for each in rules)
            for node in nodes
        }

    @property
    def keys(self) -> Iterable[PoolKey]:
        return self._pools.keys()

    def _concerned(self, key: PoolKey) -> Iterable[str]:
        """Whom a change concerns beside its own node. In a large pool nobody looks at what others say."""
        return () if self._counts[key] > MAX_SLICES + 1 else self._pools.get(key, ())

    def node_devices(self, node: str) -> NodeDevices:
        """What the pools that have slices of the node say of it, the newest generation of each."""
        if self._counts_of_node[node] > MAX_SLICES:
            return NodeDevices(None, None)
        total, keys = _Total(), self._pools_of_node.get(node, ())
        own = {key: self._pools[key][node].values() for key in keys}
        if sum(len(each.devices) for parts in own.values() for each in parts) > MAX_DEVICES:
            return NodeDevices(None, None)
        for key, parts in own.items():
            self._add(key, parts, total)
        return total.devices

    def shared_devices(self) -> SharedDevices:
        """Those that belong to no single node. Of too many nothing is known, but that they may be there."""
        if self._counts_of_node[""] > MAX_SLICES:
            return (_UNKNOWN_REACH,)
        totals: dict[Reach, _Total] = {}
        for key in self._pools_of_node.get("", ()):
            parts = self._pools[key][""].values()
            for reach in dict.fromkeys(each.reach for each in parts):
                own = [each for each in parts if each.reach == reach]
                self._add(key, own, totals.setdefault(reach, _Total(is_known=reach.is_known)))
        if len(totals) > _MAX_REACHES:
            return (_UNKNOWN_REACH,)
        shared = (SharedReach(reach, total.devices, total.forms) for reach, total in totals.items())
        return tuple(each for each in shared if each.devices != NO_DEVICES)

    def _add(self, key: PoolKey, parts: Iterable[DeviceSlice], total: "_Total") -> None:
        own = _newest(parts)
        if any(each.slices != len(own) for each in own):
            count = self._count(key, own[0].generation)
            own = [] if count == 0 else own
            total.is_known &= all(each.slices == count for each in own)
        rules = [rule for rule in self._rules.values() if rule.concerns(key)]
        names = {rule.device for rule in rules if not rule.is_open}
        open_names = {rule.device for rule in rules if rule.is_open}
        for device in (device for each in own for device in each.devices):
            is_tainted = device.is_tainted or None in names or device.name in names
            is_open = None in open_names or device.name in open_names
            total.are_taints_known &= is_tainted or (self.are_rules_read and not is_open)
            total.offered.append(device._replace(is_tainted=is_tainted))
            total.pools.append(key)

    def _count(self, key: PoolKey, generation: int) -> int | None:
        """Slices of that generation of a pool: 0 where a newer one replaces it, None where it is too large."""
        if self._counts[key] > MAX_SLICES:
            return None
        slices = {uid: each for own in self._pools[key].values() for (uid, _), each in own.items()}
        current = _newest(slices.values())
        return len(current) if current[0].generation == generation else 0

    def unnamed_profiles(self, key: PoolKey) -> dict[str, str]:
        """The profiles of MIG slices whose names do not tell them, by the device's name, as the node says whose
        name the pool bears, as is the custom."""
        nodes = self._pools.get(key, {})
        own = nodes.get(key[1])
        if own is None and self._counts[key] <= MAX_SLICES:
            own = {place: each for slices in nodes.values() for place, each in slices.items()}
        if own is None or len(own) > MAX_SLICES:
            return {}
        return {
            device.name: device.profile
            for each in _newest(own.values())
            for device in each.devices
            if device.profile and not PROFILE_IN_NAME.search(device.name)
        }


_UNKNOWN_REACH = SharedReach(Reach(is_all=True), NodeDevices(None, None), ())


class _Total:
    """Devices of several slices, of which some may be missing."""

    def __init__(self, *, is_known: bool = True) -> None:
        self.offered: list[OfferedDevice] = []
        self.pools: list[PoolKey] = []
        """Of each offered device."""
        self.is_known = is_known
        self.are_taints_known = True

    def _physical(self, gpus: Iterable[OfferedDevice]) -> list[str]:
        by_bus = {gpu.bus: gpu.uuid for gpu in self.offered if gpu.bus and gpu.uuid}
        return [gpu.uuid or by_bus.get(gpu.bus, gpu.bus) for gpu in gpus]

    @property
    def forms(self) -> tuple[SharedForm, ...]:
        named = zip(self.pools, self.offered, self._physical(self.offered), strict=True)
        return tuple(
            SharedForm(
                (*pool, each.name),
                each.kind,
                "/".join((*pool, each.name)) if each.kind else physical,
                each.is_tainted,
            )
            for pool, each, physical in named
        )

    @property
    def devices(self) -> NodeDevices:
        gpus = [each for each in self.offered if not each.kind]
        physical = self._physical(gpus)
        is_known = self.is_known and "" not in physical
        usable = {key for key, gpu in zip(physical, gpus, strict=True) if not gpu.is_tainted}
        return NodeDevices(
            present=len(set(physical)) if is_known else None,
            offered=len(usable) if is_known and self.are_taints_known else None,
            product=_same(gpu.product for gpu in gpus),
            mebibytes=_same(gpu.memory for gpu in gpus if not gpu.profile),
            others=_by_kind(self.offered),
            offered_others=_by_kind(each for each in self.offered if not each.is_tainted),
        )


def _by_kind(devices: Iterable[OfferedDevice]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(each.kind for each in devices if each.kind).items()))


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
