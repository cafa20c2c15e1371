"""GPUs shared by software, as HAMi and Volcano do: a container gets devices, and a part of each.

A node of theirs offers each GPU several times over, so its units are counted by what it registered in an
annotation. What is not limited is all of a device: without an amount of memory nobody else fits beside it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from watchbill.kinds.objects.gpu_units import (
    GPU,
    GPU_MEMORY_LABEL,
    MAX_UNITS,
    MEBIBYTE,
    VOLCANO_GPU,
    split_label,
)
from watchbill.kinds.objects.json_access import text
from watchbill.quantity import Amount

_MAX_REGISTER = 64 * 1024
"""Characters of a node's register: some hundred devices."""
_LABEL_VALUE = re.compile(r"[\w.()/+-]{0,128}", re.ASCII)
"""About what a label may be: an annotation holds any text, half characters and NUL too."""


class _Family(NamedTuple):
    """The resources that belong together: how many devices, and of each how much."""

    devices: str
    memory: str
    memory_percentage: str
    cores: str


_FAMILIES = (
    *(
        _Family(count, f"{GPU}mem", f"{GPU}mem-percentage", f"{GPU}cores")
        for count in (GPU, "nvidia.com/vgpu")
    ),
    _Family(
        VOLCANO_GPU,
        "volcano.sh/vgpu-memory",
        "volcano.sh/vgpu-memory-percentage",
        "volcano.sh/vgpu-cores",
    ),
)
_REGISTERS = {
    "hami.io/node-nvidia-register": GPU,
    "4pd.io/node-nvidia-register": GPU,
    "volcano.sh/node-vgpu-register": VOLCANO_GPU,
}
"""A node's annotations that list its devices, and the resource by which they are asked for."""
_EMPTY_REGISTERS = frozenset({"", "[]"})


class VirtualGpus(msgspec.Struct, frozen=True, kw_only=True):
    """What one container asks for: `count` devices of `resource`, of each so much.

    `memory_bytes` and `memory_percentage` None = not limited; `cores`: percent of a GPU's time.
    """

    resource: str
    count: int
    memory_bytes: int | None = None
    memory_percentage: Amount | None = None
    cores: Amount | None = None

    @property
    def cores_share(self) -> Fraction:
        return min(Fraction(self.cores or 0) / 100, Fraction(1))

    def share(self, device_bytes: int | None) -> Fraction | None:
        """The part of one GPU, the larger of memory's and of cores'; None where its size is not known."""
        memory = self._memory_share(device_bytes)
        if memory is None:
            return Fraction(1) if self.cores_share == 1 else None
        return max(memory, self.cores_share)

    def bytes_of(self, device_bytes: int | None) -> int | None:
        """Memory of one device that it may use."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return None if device_bytes is None else int((self._memory_share(None) or 0) * device_bytes)

    def _memory_share(self, device_bytes: int | None) -> Fraction | None:
        if self.memory_bytes is not None:
            return (
                None
                if not device_bytes
                else min(Fraction(self.memory_bytes, device_bytes), Fraction(1))
            )
        if self.memory_percentage is not None:
            return min(Fraction(self.memory_percentage) / 100, Fraction(1))
        return Fraction(1)


def virtual_gpus(amounts: Mapping[str, Amount]) -> Iterator[VirtualGpus]:
    """The devices that a container asks for in parts; none where it asks for whole ones alone."""
    for family in _FAMILIES:
        count = amounts.get(family.devices, 0)
        memory, percentage, cores = (amounts.get(name) or None for name in family[1:])
        is_limited = memory is not None or percentage is not None or cores is not None
        if 0 < count <= MAX_UNITS and (is_limited or family.devices == VOLCANO_GPU):
            yield VirtualGpus(
                resource=family.devices,
                count=int(count),
                memory_bytes=None if memory is None else int(memory) * MEBIBYTE,
                memory_percentage=percentage,
                cores=cores,
            )
            return


def registered_labels(
    labels: Mapping[str, str], annotations: Mapping[str, Any]
) -> Mapping[str, str]:
    """A node's labels, and what its register says of its devices in the words of labels.

    Where devices differ, or the register cannot be read, how many units stand for one of them is not known.
    """
    added: dict[str, str] = {}
    for annotation, resource in _REGISTERS.items():
        register = text(annotations.get(annotation))
        devices = list(_devices(register))
        if not devices and register in _EMPTY_REGISTERS:
            continue
        added[split_label(resource)] = _same(device.units for device in devices)
        described = {
            GPU_MEMORY_LABEL: _same(device.mebibytes for device in devices),
            f"{GPU}.product": _same(device.model for device in devices),
        }
        added |= {name: value for name, value in described.items() if value and name not in labels}
    return {**labels, **added} if added else labels


class _Device(NamedTuple):
    """`units`: how often the node offers it."""

    units: str
    mebibytes: str
    model: str


def _devices(register: str) -> Iterator[_Device]:
    """By HAMi of today a list as JSON; else `uuid,count,MiB,…:` for each, with the model among what follows."""
    if len(register) > _MAX_REGISTER:
        return
    if register.startswith("["):
        try:
            listed = json.loads(register)
        except (ValueError, RecursionError):
            return
        for each in listed:
            if isinstance(each, dict):
                model = _model([text(each.get("type"))])
                yield _Device(str(each.get("count")), str(each.get("devmem")), model)
        return
    for entry in register.split(":"):
        uuid, *rest = entry.split(",")
        if uuid and len(rest) >= 2:
            yield _Device(rest[0], rest[1], _model(rest[2:]))


def _model(parts: Iterable[str]) -> str:
    """As GPU Feature Discovery writes it: `NVIDIA-Tesla V100` is a Tesla-V100."""
    named = next((part for part in parts if part.startswith("NVIDIA")), "")
    return named.removeprefix("NVIDIA-").replace(" ", "-")


def _same(values: Iterable[str]) -> str:
    """What all of them say; "" where they differ, or where no label could say it."""
    different = set(values)
    value = different.pop() if len(different) == 1 else ""
    return value if _LABEL_VALUE.fullmatch(value) else ""
