"""Node pools and nodes of a simulated cluster, and what each node has free. No Kubernetes objects here."""

import bisect
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from simulator.model.model import DeviceGrant, Shape

ONE_GPU: Final = 100
"""One GPU, in hundredths."""


@dataclass(frozen=True, slots=True)
class NodePool:
    """One kind of machine; MIG machines are cut as `mig` says."""

    name: str
    product: str
    gpus: int
    gpu_memory_mib: int
    cpu_millis: int
    memory_mib: int
    mig: tuple[tuple[str, int], ...] = ()


POOLS: Final = (
    NodePool("h100", "NVIDIA-H100-80GB-HBM3", 8, 81559, 192_000, 2_000_000),
    NodePool("a100", "NVIDIA-A100-SXM4-40GB", 8, 40960, 128_000, 1_000_000),
    NodePool("l40s", "NVIDIA-L40S", 4, 46068, 96_000, 750_000),
    NodePool(
        "mig",
        "NVIDIA-A100-SXM4-80GB",
        4,
        81920,
        96_000,
        750_000,
        mig=(("1g.10gb", 8), ("2g.20gb", 4), ("3g.40gb", 4)),
    ),
    NodePool("cpu", "", 0, 0, 64_000, 512_000),
)
EXAMPLE_PRICES: Final = """\
# Made up, so that the demo can say what GPU-hours cost. Change them and start the demo again.
currency: EUR
note: examples made up for the demo
gpuModels:
  NVIDIA-H100-80GB-HBM3: 2.90
  NVIDIA-A100-SXM4-80GB: 1.90
  NVIDIA-A100-SXM4-40GB: 1.60
  NVIDIA-L40S: 1.10
"""
"""Of the models above, as `WATCHBILL_PRICES_FILE` names them."""
POOLS_BY_NAME: Final = {pool.name: pool for pool in POOLS}


@dataclass(slots=True)
class Node:
    """`devices` holds, per GPU, the hundredths still free; `groups` the shared ones' names."""

    name: str
    pool: NodePool
    zone: str
    block: str
    rack: str
    uid: str
    address: str
    cpu_millis: int = field(init=False)
    memory_mib: int = field(init=False)
    devices: list[int] = field(init=False)
    free_migs: dict[str, list[int]] = field(init=False)
    """Free instances of each MIG profile, by number."""
    groups: dict[str, int] = field(init=False, default_factory=dict)
    """Shared device's name → its index."""
    _uuids: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.cpu_millis = self.pool.cpu_millis
        self.memory_mib = self.pool.memory_mib
        self.devices = [] if self.pool.mig else [ONE_GPU] * self.pool.gpus
        self.free_migs = {profile: list(range(count)) for profile, count in self.pool.mig}

    def gpu_share(self, shape: Shape) -> int:
        """Hundredths of one device that the shape takes here."""
        if shape.gpu_memory_mib:
            return -(-shape.gpu_memory_mib * ONE_GPU // self.pool.gpu_memory_mib)
        return shape.fraction_percent

    def shortage(self, shape: Shape) -> str | None:
        """The resource that is short, or None where the shape fits."""
        if shape.gpus and self.devices.count(ONE_GPU) < shape.gpus:
            return "nvidia.com/gpu"
        portion = self.gpu_share(shape) if self.devices else ONE_GPU + 1
        if (shape.fraction_percent or shape.gpu_memory_mib) and not any(
            free >= portion for free in self.devices
        ):
            return "nvidia.com/gpu"
        if shape.mig and not self.free_migs.get(shape.mig):
            return f"nvidia.com/mig-{shape.mig}"
        if self.cpu_millis < shape.cpu_millis:
            return "cpu"
        return "memory" if self.memory_mib < shape.memory_mib else None

    def allocate(self, shape: Shape) -> DeviceGrant:
        """Allocate; says which devices were given."""
        grant = self._choose(shape)
        self.reallocate(shape, grant)
        return grant

    def reallocate(self, shape: Shape, grant: DeviceGrant) -> None:
        """Allocate exactly what was given once."""
        self.cpu_millis -= shape.cpu_millis
        self.memory_mib -= shape.memory_mib
        if shape.mig:
            self.free_migs[shape.mig].remove(grant.instance)
        portion = self.gpu_share(shape) if grant.group else ONE_GPU
        for device in grant.devices:
            self.devices[device] -= portion
        if grant.group:
            self.groups[grant.group] = grant.devices[0]

    def release(self, shape: Shape, grant: DeviceGrant) -> None:
        self.cpu_millis += shape.cpu_millis
        self.memory_mib += shape.memory_mib
        if shape.mig:
            bisect.insort(self.free_migs[shape.mig], grant.instance)
        portion = self.gpu_share(shape) if grant.group else ONE_GPU
        for device in grant.devices:
            self.devices[device] += portion
        if grant.group and self.devices[grant.devices[0]] == ONE_GPU:
            del self.groups[grant.group]

    def _choose(self, shape: Shape) -> DeviceGrant:
        if shape.mig:
            return DeviceGrant(instance=self.free_migs[shape.mig][0])
        if shape.fraction_percent or shape.gpu_memory_mib:
            portion = self.gpu_share(shape)
            _, device = min((free, i) for i, free in enumerate(self.devices) if free >= portion)
            known = next((name for name, i in self.groups.items() if i == device), "")
            return DeviceGrant(group=known or self._new_group(device), devices=(device,))
        free = (index for index, free in enumerate(self.devices) if free == ONE_GPU)
        return DeviceGrant(devices=tuple(itertools.islice(free, shape.gpus)))

    def _new_group(self, device: int) -> str:
        name = str(uuid.uuid5(uuid.UUID(self.uid), f"gpu-{device}"))
        while name in self.groups:
            name = str(uuid.uuid5(uuid.UUID(self.uid), name))
        return name

    def device_uuid(self, device: int) -> str:
        """As the driver names it."""
        if device not in self._uuids:
            self._uuids[device] = f"GPU-{uuid.uuid5(uuid.UUID(self.uid), f'device-{device}')}"
        return self._uuids[device]

    @property
    def free_gpus(self) -> int:
        return self.devices.count(ONE_GPU)

    @property
    def free_hundredths(self) -> int:
        return sum(self.devices)


class NodeIndex:
    """All nodes of a cluster, by how many whole GPUs they have free: the fullest that fits comes first.

    Allocation goes through here, so that the order stays true without sorting.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._pools: dict[str, list[Node]] = {pool.name: [] for pool in POOLS}
        self._levels: dict[str, list[dict[str, Node]]] = {
            pool.name: [{} for _ in range(pool.gpus + 1)] for pool in POOLS
        }
        for node in nodes.values():
            self._pools[node.pool.name].append(node)
            self._levels[node.pool.name][node.free_gpus][node.name] = node

    def pool(self, name: str) -> list[Node]:
        return self._pools[name]

    def racks(self, pool: str) -> list[list[Node]]:
        racks: dict[tuple[str, str], list[Node]] = {}
        for node in self._pools[pool]:
            racks.setdefault((node.block, node.rack), []).append(node)
        return list(racks.values())

    def find(self, pool: str, shape: Shape) -> Node | None:
        """A node of the pool where the shape fits."""
        for level in self._levels[pool][shape.gpus :]:
            for node in level.values():
                if node.shortage(shape) is None:
                    return node
        return None

    def allocate(self, node: Node, shape: Shape) -> DeviceGrant:
        before = node.free_gpus
        grant = node.allocate(shape)
        self._move(node, before)
        return grant

    def reallocate(self, node: Node, shape: Shape, grant: DeviceGrant) -> None:
        before = node.free_gpus
        node.reallocate(shape, grant)
        self._move(node, before)

    def release(self, node: Node, shape: Shape, grant: DeviceGrant) -> None:
        before = node.free_gpus
        node.release(shape, grant)
        self._move(node, before)

    def _move(self, node: Node, before: int) -> None:
        levels, now = self._levels[node.pool.name], node.free_gpus
        if now != before:
            del levels[before][node.name]
            levels[now][node.name] = node


def build_nodes(counts: Mapping[str, int], *, prefix: str) -> dict[str, Node]:
    """So many nodes of each pool, spread over zones, blocks and racks of four."""
    nodes: dict[str, Node] = {}
    for pool in POOLS:
        for index in range(counts[pool.name]):
            name = f"{prefix}-{pool.name}-{index:03d}"
            number = len(nodes)
            nodes[name] = Node(
                name=name,
                pool=pool,
                zone=f"zone-{'abc'[index // 16 % 3]}",
                block=f"block-{index // 16 + 1}",
                rack=f"rack-{index // 4 % 4 + 1}",
                uid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
                address=f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}",
            )
    return nodes


def count_nodes(
    shapes: Iterable[tuple[str, Shape]], *, capacity: Mapping[str, float]
) -> dict[str, int]:
    """How many nodes of each pool hold that part (`capacity`) of what is asked for in it, at least two."""
    requested = {pool.name: [0.0, 0.0, 0.0] for pool in POOLS}
    migs: Counter[str] = Counter()
    for name, shape in shapes:
        pool = POOLS_BY_NAME[name]
        devices = shape.gpus + shape.fraction_percent / ONE_GPU
        if pool.gpu_memory_mib:
            devices += shape.gpu_memory_mib / pool.gpu_memory_mib
        requested[name][0] += devices / (pool.gpus or 1)
        requested[name][1] += shape.cpu_millis / pool.cpu_millis
        requested[name][2] += shape.memory_mib / pool.memory_mib
        if shape.mig:
            migs[shape.mig] += 1
    counts = {name: max(2, round(max(needs) * capacity[name])) for name, needs in requested.items()}
    sliced = max((migs[p] / n for p, n in POOLS_BY_NAME["mig"].mig), default=0.0)
    counts["mig"] = max(counts["mig"], round(sliced * capacity["mig"]))
    return counts


def total_gpus(nodes: Iterable[Node]) -> int:
    return sum(node.pool.gpus for node in nodes)
