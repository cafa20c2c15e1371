"""The devices of each node as they are reported to the server: who holds them, and which do nothing. Pure."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from watchbill.agent.metrics.devices import Device, DeviceShare, Key
from watchbill.cluster_node import (
    MAX_DEVICE_WORKLOADS,
    MAX_NODE_DEVICES,
    DeviceWorkload,
    NodeDevice,
)
from watchbill.kinds.derivation.presentation import printable

_NAME_CHARACTERS = 100


def node_devices(
    by_node: Mapping[str, Iterable[Device]],
    shares: Mapping[str, Iterable[DeviceShare]],
    idle: Mapping[Key, bool],
) -> dict[str, tuple[NodeDevice, ...]]:
    """By node. Of a GPU that is cut into instances only these are reported. `shares`: by workload."""
    holders = _holders(shares)
    by_name: dict[str, tuple[NodeDevice, ...]] = {}
    for node, devices in by_node.items():
        present = sorted(devices, key=_place)
        cut = {each.key[0] for each in present if each.key[1]}
        by_name[node] = tuple(
            _device(each, holders.get(each.key, ()), idle.get(each.key))
            for each in present
            if each.key[1] or each.key[0] not in cut
        )[:MAX_NODE_DEVICES]
    return by_name


def _place(device: Device) -> tuple[int, str, int, str]:
    """In the order of their numbers, those without one last."""
    uuid, instance = device.key
    index = int(device.index) if device.index.isdecimal() else MAX_NODE_DEVICES
    return index, uuid, int(instance) if instance.isdecimal() else 0, instance


def _device(device: Device, workload_ids: Iterable[UUID], is_idle: bool | None) -> NodeDevice:
    return NodeDevice(
        id=printable(device.name[:_NAME_CHARACTERS]),
        index=printable(device.index[:_NAME_CHARACTERS]) or None,
        profile=printable(device.profile[:_NAME_CHARACTERS]) or None,
        is_idle=is_idle,
        workloads=tuple(map(_workload, sorted(workload_ids)[:MAX_DEVICE_WORKLOADS])),
    )


def _workload(workload_id: UUID) -> DeviceWorkload:
    return DeviceWorkload(id=workload_id)


def _holders(shares: Mapping[str, Iterable[DeviceShare]]) -> dict[Key, set[UUID]]:
    holders: dict[Key, set[UUID]] = {}
    for root, parts in shares.items():
        try:
            workload_id = UUID(root)
        except ValueError:
            continue
        for part in parts:
            holders.setdefault(part.device.key, set()).add(workload_id)
    return holders
