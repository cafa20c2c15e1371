"""What a pod asks for, by the scheduler's own rule, and what its GPUs amount to.

Containers and native sidecars add up, init containers need only the largest of theirs, overhead
comes on top.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from watchbill.kinds.objects.gpu_units import (
    GPU,
    MAX_UNITS,
    MEBIBYTE,
    VOLCANO_GPU,
    gpu_bytes,
    gpus_of,
    split_label,
    unit_bytes,
    unit_of,
)
from watchbill.kinds.objects.json_access import at, mapping, objects, text
from watchbill.kinds.objects.virtual_gpus import VirtualGpus, virtual_gpus
from watchbill.quantity import Amount, exact, parse_quantity

GPU_FRACTION = "gpu-fraction"
GPU_FRACTION_DEVICES = "gpu-fraction-num-devices"
GPU_MEMORY = "gpu-memory"
ALLOCATED_GPUS = "runai-allocated-gpus"
ALLOCATED_GPU_MEMORY = "runai-allocated-gpu-memory"
ALLOCATED_MIG_GPUS = "runai-allocated-mig-gpus"
GPU_ANNOTATIONS = frozenset(
    {
        GPU_FRACTION,
        GPU_FRACTION_DEVICES,
        GPU_MEMORY,
        ALLOCATED_GPUS,
        ALLOCATED_GPU_MEMORY,
        ALLOCATED_MIG_GPUS,
    }
)
_CACHED_LENGTH = 4_096
_MAX_CONTAINERS = 1_000
_MAX_NAMES = 100
"""Resources of one container."""
_NAME_LENGTH = 316

Amounts = tuple[tuple[str, Amount], ...]


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a pod's containers; None = no container states it. `extended`: `domain/name` ones.

    `virtual`: the GPUs among them of which containers ask for a part.
    """

    cpu_request: Amount | None = None
    cpu_limit: Amount | None = None
    memory_request: Amount | None = None
    memory_limit: Amount | None = None
    extended: Amounts = ()
    virtual: tuple[VirtualGpus, ...] = ()

    @property
    def units(self) -> Amounts:
        """The extended resources without the GPUs of which a part was asked for."""
        counts: dict[str, int] = {}
        for each in self.virtual:
            counts[each.resource] = counts.get(each.resource, 0) + each.count
        return tuple((name, exact(amount - counts.get(name, 0))) for name, amount in self.extended)


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs as asked for. `portion` None = a share of a size that only a node can tell.

    `memory_bytes` is set where memory, not a share, was asked for, of `devices` devices together.
    """

    portion: Fraction | None = Fraction(0)
    devices: int = 0
    memory_bytes: int | None = None


NO_RESOURCES = Resources()
NO_GPUS = Gpus()

_Container = tuple[bool, bool, tuple[tuple[str, Any], ...], tuple[tuple[str, Any], ...]]


def pod_resources(spec: Any) -> Resources:
    """The resources of a pod spec; equal specs share one object."""
    containers = tuple(islice(_containers(spec), _MAX_CONTAINERS))
    overhead = _flat(at(spec, "overhead"))
    whole_pod = (
        _flat(at(spec, "resources", "requests")),
        _flat(at(spec, "resources", "limits")),
    )
    is_small = (
        sum(_length(part) for part in (*containers, ((), overhead), whole_pod)) <= _CACHED_LENGTH
    )
    return (_shared_sums if is_small else _summed)(containers, overhead, whole_pod)


def _length(part: Iterable[Any]) -> int:
    """Characters of all names and values of a container, or of the pod's own."""
    amounts = [pair for pairs in part if isinstance(pairs, tuple) for pair in pairs]
    return sum(len(name) + len(str(value)) for name, value in amounts)


def _containers(spec: Any) -> Iterable[_Container]:
    for init in objects(at(spec, "initContainers")):
        resources = init.get("resources")
        yield (
            True,
            init.get("restartPolicy") == "Always",
            _flat(at(resources, "requests")),
            _flat(at(resources, "limits")),
        )
    for container in objects(at(spec, "containers")):
        resources = container.get("resources")
        yield False, False, _flat(at(resources, "requests")), _flat(at(resources, "limits"))


def _flat(amounts: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, value)
        for name, value in islice(mapping(amounts).items(), _MAX_NAMES)
        if isinstance(name, str)
        and len(name) <= _NAME_LENGTH
        and isinstance(value, str | int | float)
        and len(str(value)) <= _NAME_LENGTH
    )


def _summed(
    containers: tuple[_Container, ...],
    overhead: tuple[tuple[str, Any], ...],
    whole_pod: tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, Any], ...]],
) -> Resources:
    requests = _effective(containers, is_limit=False)
    limits = _effective(containers, is_limit=True)
    requests.update(_amounts(whole_pod[0]))
    limits.update(_amounts(whole_pod[1]))
    for name, amount in _amounts(overhead).items():
        requests[name] = exact(requests.get(name, 0) + amount)
        if name in limits:
            limits[name] = exact(limits[name] + amount)
    return Resources(
        cpu_request=requests.get("cpu"),
        cpu_limit=limits.get("cpu"),
        memory_request=requests.get("memory"),
        memory_limit=limits.get("memory"),
        extended=tuple(
            sorted((name, amount) for name, amount in requests.items() if "/" in name and amount)
        ),
        virtual=tuple(
            each
            for is_init, is_sidecar, requested, limited in containers
            if not is_init or is_sidecar
            for each in virtual_gpus(_amounts(limited) | _amounts(requested))
        ),
    )


_shared_sums = lru_cache(maxsize=4096)(_summed)


def _effective(containers: Iterable[_Container], *, is_limit: bool) -> dict[str, Amount]:
    """max(containers + sidecars, each init container + the sidecars before it), by resource."""
    sidecars: dict[str, Amount] = {}
    largest_init: dict[str, Amount] = {}
    together: dict[str, Amount] = {}
    for is_init, is_sidecar, requests, limits in containers:
        # A request not stated is the limit: the API server does so for pods, not for templates.
        stated = _amounts(limits)
        if not is_limit:
            stated |= _amounts(requests)
        if is_sidecar:
            _add(sidecars, stated)
        elif is_init:
            for name in stated.keys() | sidecars.keys():
                amount = stated.get(name, 0) + sidecars.get(name, 0)
                largest_init[name] = max(largest_init.get(name, 0), amount)
        else:
            _add(together, stated)
    _add(together, sidecars)
    return {
        name: exact(max(together.get(name, 0), largest_init.get(name, 0)))
        for name in together.keys() | largest_init.keys()
    }


def _amounts(flat: Iterable[tuple[str, Any]]) -> dict[str, Amount]:
    return {
        name: amount
        for name, value in flat
        if (amount := parse_quantity(value)) is not None and amount >= 0
    }


def _add(total: dict[str, Amount], amounts: Mapping[str, Amount]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def requested_gpus(
    resources: Resources, annotations: Mapping[str, Any], gpu_resources: tuple[str, ...]
) -> Gpus:
    """What a pod asks for wherever it may be placed: there a unit of a cut GPU may turn out to be less."""
    asked = _gpus(resources, annotations, {}, gpu_resources)
    for each in resources.virtual:
        share = each.share(None)
        part = each.cores_share if share is None else share
        memory = None if each.memory_bytes is None else each.memory_bytes * each.count
        asked = Gpus(
            portion=None if asked.portion is None else asked.portion + part * each.count,
            devices=asked.devices + each.count,
            memory_bytes=asked.memory_bytes
            if memory is None
            else (asked.memory_bytes or 0) + memory,
        )
    return asked


def allocated_gpus(
    resources: Resources,
    annotations: Mapping[str, Any],
    labels: Mapping[str, Any],
    gpu_resources: tuple[str, ...],
) -> Fraction | None:
    """What a scheduled pod holds: what the binder wrote, else what was asked for, in GPUs.

    Where a node does not share its GPUs in parts, a pod has all of each: who names the node passes by the
    scheduler, and a kubelet looks over resources that its node does not know.

    `labels`: of its node. None where these do not tell what a unit is, or how much memory a GPU has.
    """
    names_gpus = resources.extended or resources.virtual
    if not names_gpus and GPU_ANNOTATIONS.isdisjoint(annotations):
        return NO_GPUS.portion
    written = _decimal(annotations.get(ALLOCATED_GPUS)) or _decimal(
        annotations.get(ALLOCATED_MIG_GPUS)
    )
    if written is not None and written <= MAX_UNITS:
        return written
    resources = _as_offered(resources, labels)
    held = _gpus(resources, annotations, labels, gpu_resources)
    size = gpu_bytes(labels)
    parts = [(each.share(size), each.count) for each in resources.virtual]
    if held.portion is None or any(share is None for share, _ in parts):
        return None
    portion = held.portion + sum((share * count for share, count in parts if share), Fraction(0))
    if held.memory_bytes is None:
        return portion
    if size is None:
        return None
    devices = max(1, held.devices)
    return portion + Fraction(-(-held.memory_bytes // devices * 100 // size), 100) * devices


def allocated_gpu_bytes(
    resources: Resources,
    annotations: Mapping[str, Any],
    labels: Mapping[str, Any],
    gpu_resources: tuple[str, ...],
) -> int | None:
    """GPU memory of what a pod holds; None where neither the pod nor its node tells."""
    resources = _as_offered(resources, labels)
    held = _gpus(resources, annotations, labels, gpu_resources)
    if held.memory_bytes is not None:
        return held.memory_bytes
    written = _decimal(annotations.get(ALLOCATED_GPU_MEMORY))
    if written is not None:
        return int(written * MEBIBYTE)
    total, size = 0, gpu_bytes(labels)
    for resource, amount in resources.units:
        unit = unit_of(resource, labels, gpu_resources) if amount else None
        if unit is not None:
            unit_size = unit_bytes(resource, unit, labels)
            if unit_size is None:
                return None
            total += unit_size * int(amount)
    for each in resources.virtual:
        part = each.bytes_of(size)
        if part is None:
            return None
        total += part * each.count
    fraction = _fraction(annotations)
    if fraction and size is None:
        return None
    return (total + int(fraction * (size or 0))) or None


def _as_offered(resources: Resources, labels: Mapping[str, Any]) -> Resources:
    """Without parts of GPUs where the node is known and registered no device to be shared so."""
    if not resources.virtual or not labels:
        return resources
    is_split = any(split_label(resource) in labels for resource in (GPU, VOLCANO_GPU))
    return resources if is_split else msgspec.structs.replace(resources, virtual=())


def held_units(
    resources: Resources, labels: Mapping[str, Any], gpu_resources: tuple[str, ...]
) -> int:
    """How many units of GPUs a pod holds, whatever each of them is."""
    return sum(
        int(amount)
        for resource, amount in resources.extended
        if unit_of(resource, labels, gpu_resources) is not None
    )


def _gpus(
    resources: Resources,
    annotations: Mapping[str, Any],
    labels: Mapping[str, Any],
    gpu_resources: tuple[str, ...],
) -> Gpus:
    """Units by what they are on a node with these labels, and KAI's annotations for shared devices."""
    if not resources.extended and GPU_MEMORY not in annotations and GPU_FRACTION not in annotations:
        return NO_GPUS
    units = gpus_of(resources.units, labels, gpu_resources)
    memory = _decimal(annotations.get(GPU_MEMORY))
    fraction = _fraction(annotations)
    devices = sum(
        int(amount)
        for resource, amount in resources.units
        if (unit := unit_of(resource, labels, gpu_resources)) is not None and not unit.is_slice
    )
    if fraction:
        devices += _devices(annotations)
        return Gpus(portion=None if units is None else units + fraction, devices=devices)
    if memory:
        shared = _devices(annotations)
        requested_bytes = int(memory) * MEBIBYTE * shared
        return Gpus(portion=units, devices=devices + shared, memory_bytes=requested_bytes)
    return Gpus(portion=units, devices=devices) if units != 0 or devices else NO_GPUS


def _fraction(annotations: Mapping[str, Any]) -> Fraction:
    """By KAI's annotation, over all devices; 0 where there is none that can be. KAI works with hundredths."""
    fraction = _decimal(annotations.get(GPU_FRACTION))
    if not fraction or fraction >= 1:
        return Fraction(0)
    return Fraction(round(fraction * 100), 100) * _devices(annotations)


def _devices(annotations: Mapping[str, Any]) -> int:
    return int(min(_decimal(annotations.get(GPU_FRACTION_DEVICES)) or 1, 1024)) or 1


def _decimal(value: Any) -> Fraction | None:
    """A non-negative decimal number as annotations write it."""
    amount = parse_quantity(text(value).strip()) if value is not None else None
    return Fraction(amount) if amount is not None and amount >= 0 else None
