"""The one catalogue of metric types: what each of them means and where it is known from.

A new type is one member and one row here, and one value of the contract's WorkloadMetricType.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from math import isnan

from watchbill.workload import GPU_MILLIONTHS, Usage

Figure = int | float | None
"""None = not stated at this time."""


EXPORTER_GROUP = "metrics"
"""The group under which a cluster's state lists kinds of exporters, beside groups of Kubernetes kinds."""
DCGM = "DCGM exporter"
KUBELET = "kubelet"
SERVER = "inference server"
"""Kinds of exporters, as agents name them in the cluster's state."""


MAX_DEVICES = 512
"""Of a workload with more GPUs no single device is reported, only the workload as a whole."""
MAX_DEVICE_SAMPLES = 100_000
"""Of one metric type in one answer: past it the devices are left out, and the workload as a whole remains."""


def devices_reported(number_of_samples: int) -> int:
    """The most devices of a workload that an answer with so many samples each reports one by one."""
    return min(MAX_DEVICES, MAX_DEVICE_SAMPLES // max(1, number_of_samples))


class MetricType(StrEnum):
    """The contract's WorkloadMetricType."""

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name

    GPU_UTILIZATION = auto()
    GPU_MEMORY_USAGE_BYTES = auto()
    GPU_MEMORY_REQUEST_BYTES = auto()
    CPU_USAGE_CORES = auto()
    CPU_REQUEST_CORES = auto()
    CPU_LIMIT_CORES = auto()
    CPU_MEMORY_USAGE_BYTES = auto()
    CPU_MEMORY_REQUEST_BYTES = auto()
    CPU_MEMORY_LIMIT_BYTES = auto()
    POD_COUNT = auto()
    RUNNING_POD_COUNT = auto()
    GPU_ALLOCATION = auto()
    NIM_NUM_REQUESTS_RUNNING = auto()
    NIM_NUM_REQUESTS_WAITING = auto()
    NIM_NUM_REQUEST_MAX = auto()
    NIM_REQUEST_SUCCESS_TOTAL = auto()
    NIM_REQUEST_FAILURE_TOTAL = auto()
    NIM_GPU_CACHE_USAGE_PERC = auto()
    NIM_TIME_TO_FIRST_TOKEN_SECONDS = auto()
    NIM_E2E_REQUEST_LATENCY_SECONDS = auto()
    NIM_TIME_TO_FIRST_TOKEN_SECONDS_PERCENTILES = auto()
    NIM_E2E_REQUEST_LATENCY_SECONDS_PERCENTILES = auto()
    NVLINK_BANDWIDTH_TOTAL = auto()


class MetricForm(StrEnum):
    """How a figure is computed from what an exporter reports."""

    GAUGE = "gauge"
    RATE = "rate"
    HISTOGRAM = "histogram"
    PERCENTILES = "percentiles"


@dataclass(frozen=True, slots=True)
class Metric:
    """`from_usage`: how it is computed from Kubernetes objects; None where an exporter is needed.

    `series`: the type whose samples it is computed from, if not its own.
    """

    unit: str
    meaning: str
    from_usage: Callable[[Usage], Figure] | None = None
    exporter: str = ""
    form: MetricForm = MetricForm.GAUGE
    series: str = ""


METRICS: dict[str, Metric] = {
    MetricType.GPU_UTILIZATION: Metric(
        "percent", "average over the workload's GPUs", exporter=DCGM
    ),
    MetricType.GPU_MEMORY_USAGE_BYTES: Metric("bytes", "framebuffer in use", exporter=DCGM),
    MetricType.GPU_MEMORY_REQUEST_BYTES: Metric(
        "bytes",
        "GPU memory requested; 0 where none was",
        lambda usage: usage.gpu_memory_request_bytes,
    ),
    MetricType.CPU_USAGE_CORES: Metric(
        "cores", "processor time in use", exporter=KUBELET, form=MetricForm.RATE
    ),
    MetricType.CPU_REQUEST_CORES: Metric(
        "cores", "requested", lambda usage: usage.cpu_request_cores
    ),
    MetricType.CPU_LIMIT_CORES: Metric("cores", "capped at", lambda usage: usage.cpu_limit_cores),
    MetricType.CPU_MEMORY_USAGE_BYTES: Metric("bytes", "memory in use", exporter=KUBELET),
    MetricType.CPU_MEMORY_REQUEST_BYTES: Metric(
        "bytes", "memory requested", lambda usage: usage.cpu_memory_request_bytes
    ),
    MetricType.CPU_MEMORY_LIMIT_BYTES: Metric(
        "bytes", "memory capped at", lambda usage: usage.cpu_memory_limit_bytes
    ),
    MetricType.POD_COUNT: Metric("pods", "that exist", lambda usage: usage.pod_count),
    MetricType.RUNNING_POD_COUNT: Metric("pods", "that run", lambda usage: usage.running_pod_count),
    MetricType.GPU_ALLOCATION: Metric(
        "GPUs",
        "held by pods that have a node",
        lambda usage: (
            None if usage.gpu_millionths is None else usage.gpu_millionths / GPU_MILLIONTHS
        ),
    ),
    MetricType.NIM_NUM_REQUESTS_RUNNING: Metric("requests", "being answered", exporter=SERVER),
    MetricType.NIM_NUM_REQUESTS_WAITING: Metric(
        "requests", "waiting for their turn", exporter=SERVER
    ),
    MetricType.NIM_NUM_REQUEST_MAX: Metric(
        "requests", "that can be answered at once", exporter=SERVER
    ),
    MetricType.NIM_REQUEST_SUCCESS_TOTAL: Metric("requests", "answered in full", exporter=SERVER),
    MetricType.NIM_REQUEST_FAILURE_TOTAL: Metric(
        "requests", "ended in any other way", exporter=SERVER
    ),
    MetricType.NIM_GPU_CACHE_USAGE_PERC: Metric(
        "share, 0 to 1", "of the key-value cache in use", exporter=SERVER
    ),
    MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS: Metric(
        "seconds", "histogram", exporter=SERVER, form=MetricForm.HISTOGRAM
    ),
    MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS: Metric(
        "seconds", "histogram", exporter=SERVER, form=MetricForm.HISTOGRAM
    ),
    MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS_PERCENTILES: Metric(
        "seconds",
        "percentiles",
        exporter=SERVER,
        form=MetricForm.PERCENTILES,
        series=MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS,
    ),
    MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS_PERCENTILES: Metric(
        "seconds",
        "percentiles",
        exporter=SERVER,
        form=MetricForm.PERCENTILES,
        series=MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS,
    ),
    MetricType.NVLINK_BANDWIDTH_TOTAL: Metric(
        "bytes per second", "sent and received over NVLink", exporter=DCGM
    ),
}

DEVICE_METRICS: dict[str, Metric] = {
    name: Metric(unit, meaning, exporter=DCGM)
    for name, unit, meaning in (
        ("GPU_ALLOCATION_PER_GPU", "GPUs", "of it held by pods"),
        ("GPU_IDLE_TIME_SECONDS_PER_GPU", "seconds", "since it last did something"),
        ("GPU_GRAPHICS_ENGINE_ACTIVITY_PER_GPU", "percent", "of the time any engine was active"),
        ("GPU_SM_ACTIVITY_PER_GPU", "percent", "of the time a multiprocessor had work"),
        ("GPU_SM_OCCUPANCY_PER_GPU", "percent", "of the warps that could be resident"),
        ("GPU_TENSOR_ACTIVITY_PER_GPU", "percent", "of the time the tensor pipe was active"),
        ("GPU_FP64_ENGINE_ACTIVITY_PER_GPU", "percent", "of the time the FP64 pipe was active"),
        ("GPU_FP32_ENGINE_ACTIVITY_PER_GPU", "percent", "of the time the FP32 pipe was active"),
        ("GPU_FP16_ENGINE_ACTIVITY_PER_GPU", "percent", "of the time the FP16 pipe was active"),
        ("GPU_MEMORY_BANDWIDTH_UTILIZATION_PER_GPU", "percent", "of the time memory was accessed"),
        ("GPU_NVLINK_TRANSMITTED_BANDWIDTH_PER_GPU", "bytes per second", "sent over NVLink"),
        ("GPU_NVLINK_RECEIVED_BANDWIDTH_PER_GPU", "bytes per second", "received over NVLink"),
        ("GPU_PCIE_TRANSMITTED_BANDWIDTH_PER_GPU", "bytes per second", "sent over PCIe"),
        ("GPU_PCIE_RECEIVED_BANDWIDTH_PER_GPU", "bytes per second", "received over PCIe"),
    )
}
"""The second contract's types of single devices, which are kept of nodes and of pods, not of workloads."""
SAMPLED_METRICS: dict[str, Metric] = METRICS | DEVICE_METRICS

HISTOGRAMS = frozenset(
    name for name, metric in METRICS.items() if metric.form is MetricForm.HISTOGRAM
)
"""Types whose samples are labelled with the upper bounds of buckets."""


def is_bound(label: str) -> bool:
    """Whether it is a bucket's upper bound, as Prometheus writes them."""
    try:
        return not isnan(float(label))
    except ValueError:
        return False


MEASURED_TYPES: frozenset[str] = frozenset(
    name for name, metric in METRICS.items() if metric.from_usage is None and not metric.series
)
"""Types whose samples agents read from exporters; all others follow from these or from objects."""
SAMPLED_TYPES: frozenset[str] = MEASURED_TYPES | DEVICE_METRICS.keys()
"""The same with those of single devices: everything of which samples are kept."""
