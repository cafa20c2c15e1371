"""What a pod asks for, by the scheduler's own rule, and what its GPUs amount to.

Containers and native sidecars add up, init containers need only the largest of theirs, overhead
comes on top.
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from watchbill.kinds.objects.json_access import at, mapping, objects, text
from watchbill.kinds.objects.quantity import Amount, exact, parse_quantity

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
MEBIBYTE = 1024**2
_MIG = re.compile(r"nvidia\.com/mig-([1-9]g\.[0-9]{1,4}gb)(?:\.me|\+[a-z.]{1,20})?", re.ASCII)
_PASSED_THROUGH = re.compile(r"nvidia\.com/[A-Z]{2}[0-9]{3}[A-Z0-9]{0,8}_[\w-]{1,100}", re.ASCII)
"""A whole GPU passed through to a virtual machine, by its chip: `nvidia.com/GA102GL_A10`; no `GRID_…` share."""
_MIG_SLICES = 7
# Profiles of GPUs that divide into four (A30, RTX PRO 6000): no other GPU has a profile of these names.
_QUARTERS = frozenset({"1g.6gb", "2g.12gb", "4g.24gb", "2g.48gb", "4g.96gb"})
_DEVICE_CLASS = "deviceclass.resource.kubernetes.io/"

_CACHED_LENGTH = 4_096
_MAX_CONTAINERS = 1_000
_MAX_NAMES = 100
"""Resources of one container."""
_NAME_LENGTH = 316

Amounts = tuple[tuple[str, Amount], ...]


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a pod's containers; None = no container states it. `extended`: `domain/name` ones."""

    cpu_request: Amount | None = None
    cpu_limit: Amount | None = None
    memory_request: Amount | None = None
    memory_limit: Amount | None = None
    extended: Amounts = ()


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs as asked for. `memory_bytes` is set where memory, not a share, was asked for."""

    portion: Fraction = Fraction(0)
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
    """Whole GPUs, MIG slices as their share of a GPU, and KAI's annotations for shared devices."""
    devices, mig = whole_and_mig(resources.extended, gpu_resources)
    fraction = _decimal(annotations.get(GPU_FRACTION))
    memory = _decimal(annotations.get(GPU_MEMORY))
    if not (devices or mig or fraction or memory):
        return NO_GPUS
    shared = int(min(_decimal(annotations.get(GPU_FRACTION_DEVICES)) or 1, 1024)) or 1
    portion = Fraction(devices) + mig
    memory_bytes = None
    if fraction and fraction < 1:
        # KAI itself works with hundredths.
        portion += Fraction(round(fraction * 100), 100) * shared
        devices += shared
    elif memory:
        memory_bytes = int(memory) * MEBIBYTE * shared
        devices += shared
    return Gpus(portion=portion, devices=devices, memory_bytes=memory_bytes)


@lru_cache(maxsize=4096)
def whole_and_mig(extended: Amounts, gpu_resources: tuple[str, ...]) -> tuple[int, Fraction]:
    """Whole GPUs, and MIG slices as the share of a GPU that they are."""
    devices = 0
    mig = Fraction(0)
    for name, amount in extended:
        if (
            name in gpu_resources
            or (name.startswith(_DEVICE_CLASS) and "gpu" in name)
            or _PASSED_THROUGH.fullmatch(name)
        ):
            devices += int(amount)
        elif match := _MIG.fullmatch(name):
            mig += mig_share(match[1]) * int(amount)
    return devices, mig


def mig_share(profile: str) -> Fraction:
    """How much of a GPU a slice is, by its profile, as `3g.40gb`."""
    slices = 4 if profile in _QUARTERS else _MIG_SLICES
    return Fraction(min(int(profile[0]), slices), slices)


def allocated_gpus(
    requested: Gpus, annotations: Mapping[str, Any], node: Mapping[str, Any]
) -> Fraction:
    """What a scheduled pod holds: what the binder wrote, else what was asked for, in GPUs."""
    written = _decimal(annotations.get(ALLOCATED_GPUS)) or _decimal(
        annotations.get(ALLOCATED_MIG_GPUS)
    )
    if written is not None:
        return written
    if requested.memory_bytes is None:
        return requested.portion
    size = node_gpu_bytes(node)
    if not size:
        return requested.portion
    devices = max(1, requested.devices)
    per_device = requested.memory_bytes // devices
    return requested.portion + Fraction(-(-per_device * 100 // size), 100) * devices


def allocated_gpu_bytes(
    requested: Gpus, annotations: Mapping[str, Any], node: Mapping[str, Any]
) -> int | None:
    """GPU memory of what a pod holds; None where neither the pod nor its node tells."""
    if requested.memory_bytes is not None:
        return requested.memory_bytes
    written = _decimal(annotations.get(ALLOCATED_GPU_MEMORY))
    if written is not None:
        return int(written * MEBIBYTE)
    size = node_gpu_bytes(node)
    return int(requested.portion * size) if size else None


def node_gpu_bytes(node: Mapping[str, Any]) -> int:
    """Memory of one GPU of a node, by `nvidia.com/gpu.memory`: MiB, or bytes on some clusters."""
    amount = _decimal(node.get("nvidia.com/gpu.memory"))
    if amount is None:
        return 0
    return int(amount) if amount > 100_000_000 else int(amount) * MEBIBYTE


def _decimal(value: Any) -> Fraction | None:
    """A non-negative decimal number as annotations write it."""
    amount = parse_quantity(text(value).strip()) if value is not None else None
    return Fraction(amount) if amount is not None and amount >= 0 else None
