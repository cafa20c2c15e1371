"""From DCGM samples to devices, and from devices to the workloads that they are allocated to. Pure.

A device is known by its UUID, a MIG instance by its GPU's UUID and its own number. Several series of one
device are one device: the largest value counts. A shared device carries the name of the pod that reserves it.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from fractions import Fraction
from uuid import UUID

from watchbill.agent.cache.targets import Reservation, device_id, groups_of
from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.cluster_node import (
    MAX_DEVICE_WORKLOADS,
    MAX_NODE_DEVICES,
    DeviceWorkload,
    NodeDevice,
)
from watchbill.kinds.derivation.presentation import printable
from watchbill.kinds.objects.gpu_units import gpu_model, mig_slice_of_gpu, unit_of
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import allocated_gpus, held_units, requested_gpus

_NAME_CHARACTERS = 100
UTILIZATION = "DCGM_FI_DEV_GPU_UTIL"
ENGINE_ACTIVE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"
NVLINK_SENT = "DCGM_FI_PROF_NVLINK_TX_BYTES"
NVLINK_RECEIVED = "DCGM_FI_PROF_NVLINK_RX_BYTES"
PCIE_SENT = "DCGM_FI_PROF_PCIE_TX_BYTES"
PCIE_RECEIVED = "DCGM_FI_PROF_PCIE_RX_BYTES"
_PERCENT = 100.0
PROFILE: Mapping[str, tuple[str, float]] = {
    "GPU_GRAPHICS_ENGINE_ACTIVITY_PER_GPU": (ENGINE_ACTIVE, _PERCENT),
    "GPU_SM_ACTIVITY_PER_GPU": ("DCGM_FI_PROF_SM_ACTIVE", _PERCENT),
    "GPU_SM_OCCUPANCY_PER_GPU": ("DCGM_FI_PROF_SM_OCCUPANCY", _PERCENT),
    "GPU_TENSOR_ACTIVITY_PER_GPU": ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", _PERCENT),
    "GPU_FP64_ENGINE_ACTIVITY_PER_GPU": ("DCGM_FI_PROF_PIPE_FP64_ACTIVE", _PERCENT),
    "GPU_FP32_ENGINE_ACTIVITY_PER_GPU": ("DCGM_FI_PROF_PIPE_FP32_ACTIVE", _PERCENT),
    "GPU_FP16_ENGINE_ACTIVITY_PER_GPU": ("DCGM_FI_PROF_PIPE_FP16_ACTIVE", _PERCENT),
    "GPU_MEMORY_BANDWIDTH_UTILIZATION_PER_GPU": ("DCGM_FI_PROF_DRAM_ACTIVE", _PERCENT),
    "GPU_NVLINK_TRANSMITTED_BANDWIDTH_PER_GPU": (NVLINK_SENT, 1.0),
    "GPU_NVLINK_RECEIVED_BANDWIDTH_PER_GPU": (NVLINK_RECEIVED, 1.0),
    "GPU_PCIE_TRANSMITTED_BANDWIDTH_PER_GPU": (PCIE_SENT, 1.0),
    "GPU_PCIE_RECEIVED_BANDWIDTH_PER_GPU": (PCIE_RECEIVED, 1.0),
}
"""Types of single devices: the metric that each is read from, and what it is multiplied by."""
DCGM_METRICS = tuple(
    dict.fromkeys((UTILIZATION, MEMORY_USED, *(metric for metric, _ in PROFILE.values())))
)

_MEBIBYTE = 1024 * 1024
_INT32_BLANK = float(0x7FFFFFF0)
_FP64_BLANK = 2.0**47
_BLANK_FROM = dict.fromkeys((NVLINK_SENT, NVLINK_RECEIVED, PCIE_SENT, PCIE_RECEIVED), _FP64_BLANK)
"""From here on DCGM means "not known", "not found", "not supported" or "no permission": the blanks of its
integers lie just below 2^31 and 2^63, those of its other numbers at 2^47. Only bytes a second may be large."""

Key = tuple[str, str]
"""UUID of the GPU; number of the MIG instance, or ""."""
PodName = tuple[str, str]
"""Namespace and name."""


@dataclass(slots=True)
class Device:
    """One GPU or one MIG instance, as of one scrape."""

    key: Key
    profile: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    index: str = ""
    """Its number on the node, as `nvidia-smi` counts."""
    pods: set[PodName] = field(default_factory=set)
    is_cut: bool = False
    """A GPU with MIG instances, or held as slices: its utilization as a whole means nothing."""
    is_shared: bool = False
    """Several compute on it by turns, so a figure of 0 counts only if the other one agrees."""

    @property
    def name(self) -> str:
        uuid, instance = self.key
        return f"{uuid}/{instance}" if instance else uuid

    @property
    def utilization(self) -> float | None:
        """Percent. On MIG it is how long the engine was active, or not known: GPU_UTIL means nothing there."""
        percent = self.figures.get(UTILIZATION)
        active = self.figures.get(ENGINE_ACTIVE)
        engine = None if active is None else 100 * active
        if self.key[1] or self.is_cut:
            value = engine
        elif self.is_shared and percent is not None and engine is not None:
            value = engine or percent
        else:
            value = engine if percent is None else percent
        return None if value is None else max(0.0, min(100.0, value))

    @property
    def memory_bytes(self) -> float | None:
        used = self.figures.get(MEMORY_USED)
        return None if used is None else used * _MEBIBYTE

    @property
    def nvlink_bytes_per_second(self) -> float | None:
        if NVLINK_SENT not in self.figures and NVLINK_RECEIVED not in self.figures:
            return None
        return self.figures.get(NVLINK_SENT, 0.0) + self.figures.get(NVLINK_RECEIVED, 0.0)

    def weight(self, product: str) -> Fraction | None:
        """Its fraction of a whole GPU of this product; None where its profile does not tell."""
        return mig_slice_of_gpu(self.profile, product) if self.key[1] else Fraction(1)


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """A workload's share of a device, in GPUs; None = not known.

    `is_alone`: its whole use is the workload's; never true of a device that is reserved for sharing, since the
    labels by which pods share it are their authors'.
    """

    device: Device
    share: float | None
    pod: Pod
    is_alone: bool


def read_devices(samples: Iterable[ParsedSample]) -> dict[Key, Device]:
    """Devices with the largest value of each metric, and every pod that any series names."""
    devices: dict[Key, Device] = {}
    for sample in samples:
        labels = sample.labels
        uuid = device_id(labels.get("UUID", ""))
        if not uuid or not 0 <= sample.value < _BLANK_FROM.get(sample.name, _INT32_BLANK):
            continue
        key = (uuid, labels.get("GPU_I_ID", ""))
        device = devices.get(key)
        if device is None:
            device = devices[key] = Device(key)
        device.profile = device.profile or labels.get("GPU_I_PROFILE", "")
        device.index = device.index or labels.get("gpu", "")
        device.figures[sample.name] = max(sample.value, device.figures.get(sample.name, 0.0))
        pod = labels.get("exported_pod") or labels.get("pod", "")
        namespace = labels.get("exported_namespace") or labels.get("namespace", "")
        if pod:
            device.pods.add((namespace, pod))
    for uuid, instance in tuple(devices):
        if instance and (uuid, "") in devices:
            # Whoever holds an instance does not hold the GPU around it, whatever its series are labelled.
            devices[uuid, ""].is_cut = True
            devices[uuid, ""].pods.clear()
    return devices


def device_shares(
    devices: Mapping[Key, Device],
    pods: Mapping[PodName, tuple[str, Pod]],
    reservations: Iterable[Reservation],
    *,
    nodes: Mapping[str, Mapping[str, str]],
    gpu_resources: tuple[str, ...],
) -> dict[str, list[DeviceShare]]:
    """By workload, the devices of its living pods. `pods`: workload and pod by name; `nodes`: labels."""
    sharers = _sharers(pods)
    by_device: dict[Key, dict[str, tuple[str, Pod]]] = {}
    shared: set[Key] = set()
    reserved = tuple(reservations)
    by_name = {(item.namespace, item.pod): item for item in reserved}
    by_uuid = {item.device: item for item in reserved if item.device}
    for key, device in devices.items():
        holders = by_device.setdefault(key, {})
        for name in device.pods:
            if name in pods:
                root, pod = pods[name]
                holders[pod.uid] = (root, pod)
        reservations_here = {by_name[name] for name in device.pods if name in by_name}
        if not key[1] and key[0] in by_uuid:
            reservations_here.add(by_uuid[key[0]])
        if reservations_here:
            shared.add(key)
        for reservation in reservations_here:
            for group in reservation.groups:
                holders.update({pod.uid: (root, pod) for root, pod in sharers.get(group, ())})
    return _split(devices, by_device, shared, nodes=nodes, gpu_resources=gpu_resources)


def _sharers(pods: Mapping[PodName, tuple[str, Pod]]) -> dict[str, list[tuple[str, Pod]]]:
    sharers: dict[str, list[tuple[str, Pod]]] = {}
    for root, pod in pods.values():
        for group in groups_of(pod.labels):
            sharers.setdefault(group, []).append((root, pod))
    return sharers


def _split(
    devices: Mapping[Key, Device],
    by_device: Mapping[Key, Mapping[str, tuple[str, Pod]]],
    shared: Set[Key],
    *,
    nodes: Mapping[str, Mapping[str, str]],
    gpu_resources: tuple[str, ...],
) -> dict[str, list[DeviceShare]]:
    seen: dict[str, int] = {}
    for holders in by_device.values():
        for uid in holders:
            seen[uid] = seen.get(uid, 0) + 1
    shares: dict[str, list[DeviceShare]] = {}
    for key, holders in by_device.items():
        device = devices[key]
        units = [
            unit
            for _, pod in holders.values()
            for resource, _ in pod.resources.extended
            if (unit := unit_of(resource, nodes.get(pod.node, {}), gpu_resources)) is not None
        ]
        device.is_cut = device.is_cut or (not key[1] and any(unit.is_slice for unit in units))
        device.is_shared = key in shared or any(unit.is_shared for unit in units)
        is_alone = not device.is_shared and len({root for root, _ in holders.values()}) == 1
        for uid, (root, pod) in holders.items():
            share = _share(pod, device, seen[uid], nodes.get(pod.node, {}), gpu_resources)
            shares.setdefault(root, []).append(DeviceShare(device, share, pod, is_alone))
    return shares


def _share(
    pod: Pod,
    device: Device,
    seen: int,
    labels: Mapping[str, str],
    gpu_resources: tuple[str, ...],
) -> float | None:
    """The pod's share of the device, in GPUs: its allocation spread over its devices, or the slice's share."""
    allocated = allocated_gpus(pod.resources, pod.annotations, labels, gpu_resources)
    if allocated is None:
        return None
    weight = device.weight(gpu_model(labels))
    if not allocated:
        # Held in a way that only the exporter sees, as by a claim.
        return None if weight is None else float(weight)
    units = held_units(pod.resources, labels, gpu_resources)
    annotated = requested_gpus(pod.resources, pod.annotations, gpu_resources).devices
    even = allocated / max(units, annotated, seen)
    if not device.key[1] or weight is None:
        return float(even)
    replicas = max(
        (
            unit.replicas
            for resource, _ in pod.resources.extended
            if (unit := unit_of(resource, labels, gpu_resources)) is not None
        ),
        default=1,
    )
    return float(min(allocated, weight / replicas))


def node_devices(
    by_node: Mapping[str, Iterable[Device]],
    shares: Mapping[str, Iterable[DeviceShare]],
    idle: Mapping[Key, bool],
) -> dict[str, tuple[NodeDevice, ...]]:
    """By node. Of a GPU that is cut into instances only these are reported. `shares`: by workload."""
    holders = _holders(shares)
    by_name: dict[str, tuple[NodeDevice, ...]] = {}
    for node, devices in by_node.items():
        present = sorted(devices, key=_device_order)
        cut = {each.key[0] for each in present if each.key[1]}
        by_name[node] = tuple(
            _reported_device(each, holders.get(each.key, ()), idle.get(each.key))
            for each in present
            if each.key[1] or each.key[0] not in cut
        )[:MAX_NODE_DEVICES]
    return by_name


def _device_order(device: Device) -> tuple[int, str, int, str]:
    """In the order of their numbers, those without one last."""
    uuid, instance = device.key
    index = int(device.index) if device.index.isdecimal() else MAX_NODE_DEVICES
    return index, uuid, int(instance) if instance.isdecimal() else 0, instance


def _reported_device(
    device: Device, workload_ids: Iterable[UUID], is_idle: bool | None
) -> NodeDevice:
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
