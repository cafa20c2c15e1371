"""What the nodes offer, by node pool. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from watchbill.agent.cluster import ClusterView
from watchbill.kinds.placement import node_pool_of
from watchbill.kinds.resources import whole_and_mig
from watchbill.kinds.settings import DeriveSettings
from watchbill.sync import NodePoolCapacity

_GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"
_MIB = 1024 * 1024


@dataclass(slots=True)
class _Pool:
    nodes: int = 0
    gpus: float = 0.0
    gpu_memory_bytes: int = 0
    is_memory_known: bool = True


def node_pools(view: ClusterView, settings: DeriveSettings) -> tuple[NodePoolCapacity, ...]:
    """Every pool with its nodes and the GPUs that they can give to pods, MIG slices as shares of one.

    The memory is stated only where every node with GPUs says how much one of them has.
    """
    pools: dict[str, _Pool] = {}
    for node, labels in view.node_labels.items():
        pool = pools.setdefault(node_pool_of(labels, settings), _Pool())
        gpus = _gpus(view.allocatable.get(node, {}), settings)
        pool.nodes += 1
        pool.gpus += gpus
        _add_memory(pool, gpus, labels)
    return tuple(
        NodePoolCapacity(
            node_pool=name,
            nodes=pool.nodes,
            gpus=pool.gpus,
            gpu_memory_bytes=pool.gpu_memory_bytes if pool.gpus and pool.is_memory_known else None,
        )
        for name, pool in sorted(pools.items())
    )


def _gpus(allocatable: Mapping[str, Any], settings: DeriveSettings) -> float:
    offered = tuple((name, _whole(text)) for name, text in sorted(allocatable.items()))
    devices, slices = whole_and_mig(offered, settings.gpu_resources)
    return devices + float(slices)


def _add_memory(pool: _Pool, gpus: float, labels: Mapping[str, str]) -> None:
    if not gpus:
        return
    mebibytes = _whole(labels.get(_GPU_MEMORY_LABEL))
    pool.gpu_memory_bytes += round(gpus * mebibytes * _MIB)
    pool.is_memory_known = pool.is_memory_known and mebibytes > 0


def _whole(text: Any) -> int:
    """Device counts are whole numbers; anything else offers nothing."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0
