"""How much one source, one namespace and one round may cost: Prometheus' own limits. Pure.

A target that exceeds a limit fails as a whole, as in Prometheus: a part of a page would be a wrong figure.
"""

from dataclasses import dataclass
from enum import StrEnum

from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind


class Limit(StrEnum):
    """The names that Prometheus gives them."""

    BODY_SIZE = "body_size_limit"
    SAMPLES = "sample_limit"
    LABELS = "label_limit"
    LABEL_NAME = "label_name_length_limit"
    LABEL_VALUE = "label_value_length_limit"
    TARGETS = "target_limit"
    NAMESPACE_SAMPLES = "namespace_sample_limit"
    NAMESPACE_BODY_SIZE = "namespace_body_size_limit"
    TIMEOUT = "scrape_timeout"
    BUCKETS = "bucket_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeLimits:
    """`samples`: of the metrics that are read. Lengths are in characters."""

    body_bytes: int
    samples: int
    labels: int = 64
    label_name_length: int = 256
    label_value_length: int = 1024
    targets_per_namespace: int | None = None
    samples_per_namespace: int | None = None
    bytes_per_namespace: int | None = None
    target_seconds: float = 10.0


INFRASTRUCTURE = ScrapeLimits(body_bytes=32 * 1024 * 1024, samples=50_000)
"""Kubelets, and exporters in trusted namespaces."""
WORKLOADS = ScrapeLimits(
    body_bytes=4 * 1024 * 1024,
    samples=2_000,
    targets_per_namespace=500,
    samples_per_namespace=50_000,
    bytes_per_namespace=64 * 1024 * 1024,
)
"""Pods that anybody may create."""


class LimitExceeded(ApiFailure):
    """A target was not measured because it, or its namespace, exceeds a limit."""

    def __init__(self, limit: Limit, allowed: float) -> None:
        super().__init__(ErrorKind.REFUSED, f"{limit} of {allowed:g} exceeded")
        self.limit = limit
