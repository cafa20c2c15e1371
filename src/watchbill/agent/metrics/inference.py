"""The metrics of NIM and vLLM servers as metric types. Pure.

NIM's metrics have no prefix, vLLM's have one. A pod that exports both is counted once, by NIM's.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.agent.metrics.scrape_limits import Limit, LimitExceeded
from watchbill.metric_types import MetricType

_SUCCESS_REASONS = frozenset({"stop", "length"})


@dataclass(frozen=True, slots=True)
class _Figure:
    """A metric type and its metric names; the first that a pod exports counts."""

    names: tuple[str, ...]
    counts: Callable[[ParsedSample], bool] = lambda _: True
    is_mean: bool = False


def _succeeded(sample: ParsedSample) -> bool:
    return sample.labels.get("finished_reason", "stop") in _SUCCESS_REASONS


FIGURES = {
    MetricType.NIM_NUM_REQUESTS_RUNNING: _Figure(
        ("num_requests_running", "vllm:num_requests_running")
    ),
    MetricType.NIM_NUM_REQUESTS_WAITING: _Figure(
        ("num_requests_waiting", "vllm:num_requests_waiting")
    ),
    MetricType.NIM_NUM_REQUEST_MAX: _Figure(("num_request_max",)),
    MetricType.NIM_REQUEST_SUCCESS_TOTAL: _Figure(
        ("request_success_total", "vllm:request_success_total"), _succeeded
    ),
    MetricType.NIM_REQUEST_FAILURE_TOTAL: _Figure(
        ("request_failure_total", "vllm:request_success_total"),
        lambda sample: sample.name == "request_failure_total" or not _succeeded(sample),
    ),
    MetricType.NIM_GPU_CACHE_USAGE_PERC: _Figure(
        ("gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        is_mean=True,
    ),
}
HISTOGRAMS = {
    MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS: (
        "time_to_first_token_seconds_bucket",
        "vllm:time_to_first_token_seconds_bucket",
    ),
    MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS: (
        "e2e_request_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_bucket",
    ),
}
INFERENCE_METRICS = (
    *dict.fromkeys(name for figure in FIGURES.values() for name in figure.names),
    *(name for names in HISTOGRAMS.values() for name in names),
)


MAX_BUCKETS = 100
_BOUND = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One series of a histogram; `key` tells it from the pod's others of the same bound."""

    type: str
    bound: str
    key: int
    count: float


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """The current figures of one pod's server."""

    figures: dict[str, float]
    buckets: list[Bucket]


def read_server(samples: Iterable[ParsedSample]) -> ServerFigures:
    """Raises LimitExceeded for a histogram with too many buckets."""
    by_name: dict[str, list[ParsedSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    figures: dict[str, float] = {}
    for kind, figure in FIGURES.items():
        samples_of_figure = _first(by_name, figure.names)
        if samples_of_figure:
            values = [sample.value for sample in samples_of_figure if figure.counts(sample)]
            figures[kind] = sum(values) / (len(values) or 1) if figure.is_mean else sum(values)
    buckets = [
        Bucket(kind, bound, hash(tuple(sorted(sample.labels.items()))), sample.value)
        for kind, names in HISTOGRAMS.items()
        for sample in _first(by_name, names)
        if (bound := _bound(sample)) is not None
    ]
    for kind in HISTOGRAMS:
        if len({bucket.bound for bucket in buckets if bucket.type == kind}) > MAX_BUCKETS:
            raise LimitExceeded(Limit.BUCKETS, MAX_BUCKETS)
    return ServerFigures(figures, buckets)


def combine(servers: Sequence[ServerFigures]) -> dict[str, float]:
    """One workload's figures from its pods': sums, and means where the figure is a share."""
    figures: dict[str, float] = {}
    for kind, figure in FIGURES.items():
        values = [server.figures[kind] for server in servers if kind in server.figures]
        if values:
            figures[kind] = sum(values) / len(values) if figure.is_mean else sum(values)
    return figures


def _first(by_name: dict[str, list[ParsedSample]], names: Iterable[str]) -> list[ParsedSample]:
    return next((by_name[name] for name in names if name in by_name), [])


def _bound(sample: ParsedSample) -> str | None:
    """The bucket's upper bound, written one way; None where it is no number, or none that a duration has."""
    text = sample.labels.get("le", "")
    if text in ("+Inf", "Inf"):
        return "+Inf"
    if _BOUND.fullmatch(text) is None:
        return None
    bound = float(text)
    return f"{bound:g}" if isfinite(bound) else None
