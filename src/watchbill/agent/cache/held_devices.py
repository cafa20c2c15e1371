"""Devices that belong to no single node: which pods hold them, and so where they are now.

A driver may offer devices to several nodes at a time. Those that claims were given are where their pods are;
nobody can tell of which node the others are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import NamedTuple

from watchbill.kinds.objects.device_slices import DeviceKey, SharedDevices, SharedForm
from watchbill.kinds.objects.json_access import at, objects, text
from watchbill.kinds.objects.objects import Object

_MAX_RESULTS = 128
"""Of one claim; Kubernetes takes 32."""


class Holders(NamedTuple):
    """Who holds devices: the claims that were given one, and the nodes of the live pods that may use one."""

    claims: Callable[[DeviceKey], Iterable[str]]
    nodes: Callable[[str], frozenset[str]]


NO_HOLDERS = Holders(lambda device: (), lambda claim: frozenset())


class GivenDevices:
    """Which claims were given which devices."""

    def __init__(self) -> None:
        self._given: dict[str, frozenset[DeviceKey]] = {}
        self._claims: dict[DeviceKey, set[str]] = {}

    def put(self, claim: str, obj: Object) -> None:
        results = objects(at(obj, "status", "allocation", "devices", "results"))
        self.drop(claim)
        self._given[claim] = frozenset(
            (text(each.get("driver")), text(each.get("pool")), text(each.get("device")))
            for each in islice(results, _MAX_RESULTS)
            if each.get("adminAccess") is not True
        )
        for key in self._given[claim]:
            self._claims.setdefault(key, set()).add(claim)

    def drop(self, claim: str) -> None:
        for key in self._given.pop(claim, ()):
            self._claims[key].discard(claim)
            if not self._claims[key]:
                del self._claims[key]

    def claims(self, key: DeviceKey) -> Iterable[str]:
        return self._claims.get(key, ())


class HeldDevice(NamedTuple):
    """A physical GPU, or another accelerator, that live pods on these nodes hold."""

    form: SharedForm
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class HeldOnNode:
    """GPUs, and of them those that no taint keeps back. None = one of them is held from several nodes."""

    present: int | None = 0
    offered: int | None = 0
    product: str = ""
    mebibytes: str = ""


NOTHING_HELD = HeldOnNode()


@dataclass(slots=True)
class _Count:
    present: int = 0
    offered: int = 0
    is_known: bool = True
    products: set[tuple[str, str]] = field(default_factory=set)


def held_devices(shared: SharedDevices, holders: Holders) -> tuple[tuple[HeldDevice, ...], ...]:
    """By their place among the shared devices, each physical one once. A claim's pods are looked up once,
    however many devices it was given."""
    looked_up = Holders(holders.claims, cache(holders.nodes))
    return tuple(tuple(_held(each.forms, looked_up)) for each in shared)


def _held(forms: Iterable[SharedForm], holders: Holders) -> list[HeldDevice]:
    nodes: dict[tuple[str, str], frozenset[str]] = {}
    kept: dict[tuple[str, str], SharedForm] = {}
    for form in forms:
        if not form.physical:
            continue
        key = (form.kind, form.physical)
        known = kept.setdefault(key, form)
        # Of a GPU that is offered in several forms one without a taint is enough.
        kept[key] = known if not known.is_tainted else form
        holding = map(holders.nodes, holders.claims(form.key))
        nodes[key] = nodes.get(key, frozenset()).union(*holding)
    return [HeldDevice(kept[key], where) for key, where in nodes.items() if where]


def held_by_node(shared: SharedDevices, holders: Holders) -> Mapping[str, HeldOnNode]:
    """GPUs alone: nodes tell nothing of other accelerators."""
    counts: dict[str, _Count] = {}
    for each, place in zip(held_devices(shared, holders), shared, strict=True):
        for form, nodes in each:
            for node in nodes if not form.kind else ():
                count = counts.setdefault(node, _Count())
                count.is_known &= len(nodes) == 1
                count.present += 1
                count.offered += not form.is_tainted
                count.products.add((place.devices.product, place.devices.mebibytes))
    return {node: _on_node(count) for node, count in counts.items()}


def _on_node(count: _Count) -> HeldOnNode:
    if not count.is_known:
        return HeldOnNode(None, None)
    product, size = count.products.pop() if len(count.products) == 1 else ("", "")
    return HeldOnNode(count.present, count.offered, product, size)
