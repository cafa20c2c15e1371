"""What a kubelet's page says of the containers of its node, and of the node as a whole. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.agent.metrics.figures import ByContainer, by_container

RESOURCE_PAGE = "/metrics/resource"
CADVISOR_PAGE = "/metrics/cadvisor"
CPU_COUNTER = "container_cpu_usage_seconds_total"
MEMORY_GAUGE = "container_memory_working_set_bytes"
NODE_CPU_COUNTER = "node_cpu_usage_seconds_total"
NODE_MEMORY_GAUGE = "node_memory_working_set_bytes"
"""Of the whole node, whatever runs on it; on the resource page alone."""
KUBELET_METRICS = (CPU_COUNTER, MEMORY_GAUGE, NODE_CPU_COUNTER, NODE_MEMORY_GAUGE)


@dataclass(frozen=True, slots=True)
class KubeletPage:
    """`node_cpu` and `node_memory`: of the whole node; None where the page has them not."""

    cpu: ByContainer
    memory: ByContainer
    node_cpu: float | None
    node_memory: float | None


def read_kubelet(samples: Sequence[ParsedSample]) -> KubeletPage:
    return KubeletPage(
        by_container(sample for sample in samples if sample.name == CPU_COUNTER),
        by_container(sample for sample in samples if sample.name == MEMORY_GAUGE),
        max((sample.value for sample in samples if sample.name == NODE_CPU_COUNTER), default=None),
        max((sample.value for sample in samples if sample.name == NODE_MEMORY_GAUGE), default=None),
    )
