"""The metric types that can be asked for: what each of them means and where it is known from.

A new type is one row here and one value of the contract's WorkloadMetricType.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from watchbill.workload import Usage

GPU_MILLIONTHS = 1_000_000

Figure = int | float | None
"""None = not stated at this time."""


DCGM = "DCGM exporter"
KUBELET = "kubelet"
SERVER = "inference server"
"""Kinds of exporters, as agents name them in the cluster's state."""


class MetricForm(StrEnum):
    """How a figure is made of what an exporter tells."""

    GAUGE = "gauge"
    RATE = "rate"
    HISTOGRAM = "histogram"
    PERCENTILES = "percentiles"


@dataclass(frozen=True, slots=True)
class Metric:
    """`from_usage`: how Kubernetes objects alone tell it; None where only an exporter can.

    `series`: the type whose samples it is made of, where that is not its own.
    """

    unit: str
    meaning: str
    from_usage: Callable[[Usage], Figure] | None = None
    exporter: str = ""
    form: MetricForm = MetricForm.GAUGE
    series: str = ""


METRICS: dict[str, Metric] = {
    "GPU_UTILIZATION": Metric("percent", "average over the workload's GPUs", exporter=DCGM),
    "GPU_MEMORY_USAGE_BYTES": Metric("bytes", "framebuffer in use", exporter=DCGM),
    "GPU_MEMORY_REQUEST_BYTES": Metric(
        "bytes",
        "GPU memory asked for; 0 where none was",
        lambda usage: usage.gpu_memory_request_bytes,
    ),
    "CPU_USAGE_CORES": Metric(
        "cores", "processor time in use", exporter=KUBELET, form=MetricForm.RATE
    ),
    "CPU_REQUEST_CORES": Metric("cores", "asked for", lambda usage: usage.cpu_request_cores),
    "CPU_LIMIT_CORES": Metric("cores", "capped at", lambda usage: usage.cpu_limit_cores),
    "CPU_MEMORY_USAGE_BYTES": Metric("bytes", "memory in use", exporter=KUBELET),
    "CPU_MEMORY_REQUEST_BYTES": Metric(
        "bytes", "memory asked for", lambda usage: usage.cpu_memory_request_bytes
    ),
    "CPU_MEMORY_LIMIT_BYTES": Metric(
        "bytes", "memory capped at", lambda usage: usage.cpu_memory_limit_bytes
    ),
    "POD_COUNT": Metric("pods", "that exist", lambda usage: usage.pod_count),
    "RUNNING_POD_COUNT": Metric("pods", "that run", lambda usage: usage.running_pod_count),
    "GPU_ALLOCATION": Metric(
        "GPUs",
        "held by pods that have a node",
        lambda usage: usage.gpu_millionths / GPU_MILLIONTHS,
    ),
    "NIM_NUM_REQUESTS_RUNNING": Metric("requests", "being answered", exporter=SERVER),
    "NIM_NUM_REQUESTS_WAITING": Metric("requests", "waiting for their turn", exporter=SERVER),
    "NIM_NUM_REQUEST_MAX": Metric("requests", "that can be answered at once", exporter=SERVER),
    "NIM_REQUEST_SUCCESS_TOTAL": Metric("requests", "answered in full", exporter=SERVER),
    "NIM_REQUEST_FAILURE_TOTAL": Metric("requests", "ended in any other way", exporter=SERVER),
    "NIM_GPU_CACHE_USAGE_PERC": Metric(
        "share, 0 to 1", "of the key-value cache in use", exporter=SERVER
    ),
    "NIM_TIME_TO_FIRST_TOKEN_SECONDS": Metric(
        "seconds", "histogram", exporter=SERVER, form=MetricForm.HISTOGRAM
    ),
    "NIM_E2E_REQUEST_LATENCY_SECONDS": Metric(
        "seconds", "histogram", exporter=SERVER, form=MetricForm.HISTOGRAM
    ),
    "NIM_TIME_TO_FIRST_TOKEN_SECONDS_PERCENTILES": Metric(
        "seconds",
        "percentiles",
        exporter=SERVER,
        form=MetricForm.PERCENTILES,
        series="NIM_TIME_TO_FIRST_TOKEN_SECONDS",
    ),
    "NIM_E2E_REQUEST_LATENCY_SECONDS_PERCENTILES": Metric(
        "seconds",
        "percentiles",
        exporter=SERVER,
        form=MetricForm.PERCENTILES,
        series="NIM_E2E_REQUEST_LATENCY_SECONDS",
    ),
    "NVLINK_BANDWIDTH_TOTAL": Metric(
        "bytes per second", "sent and received over NVLink", exporter=DCGM
    ),
}
