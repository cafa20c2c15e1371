"""Parses the text format of exporters, as far as it is needed; and how much one source, one namespace and one
round may cost, by Prometheus' own limits. Pure.

A target that exceeds a limit fails as a whole, as in Prometheus: a part of a page would be a wrong figure.

Of a node's page a few lines in thousands count, so lines are found by metric name before anything is parsed: of
a page with 12,400 lines the 400 needed took 9 ms, a parser of the whole format 450 ms. Every pattern takes time
in proportion to the page, whatever is in it: a pod that anybody created may serve it.
"""

import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cachetools import LRUCache, cached

from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.protocol import MAX_READING


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


_LABELS = rb'(?:[ \t]*+\{((?:[^"}\n]++|"(?:[^"\\\n]++|\\.)*+")*+)\})?+'
_LABEL = re.compile(
    rb'(?<![a-zA-Z0-9_])([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"'
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"n": "\n"}
_CACHE_BYTES = 16 * 1024 * 1024
_CACHED_LABELS_BYTES = 4096
_LABELS_BYTES = 64 * 1024
"""A block of labels that is longer holds more than the limits of labels allow."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ParsedSample:
    """One sample of an exporter's page."""

    name: str
    labels: dict[str, str]
    value: float


class ExpositionParser:
    """Parses the samples of some metrics, by exact name."""

    def __init__(self, names: Iterable[str]) -> None:
        alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        # A line's end is looked for much faster than `^`.
        self._lines = re.compile(
            rb"(?:\A|\n)[ \t]*+(" + alternatives.encode() + rb")" + _LABELS + rb"[ \t]++(\S++)"
        )

    def samples(self, body: bytes, limits: ScrapeLimits) -> list[ParsedSample]:
        """The samples; lines that are none and values beyond any reading are skipped. Raises LimitExceeded."""
        samples: list[ParsedSample] = []
        for match in self._lines.finditer(body):
            name, raw_labels, text = match.groups(default=b"")
            value = _number(text)
            if value is None:
                continue
            if len(samples) >= limits.samples:
                raise LimitExceeded(Limit.SAMPLES, limits.samples)
            labels = _labels(raw_labels)
            _check(labels, limits)
            samples.append(ParsedSample(name.decode(), dict(labels), value))
        return samples


def looks_like_metrics(body: bytes) -> bool:
    """Whether this is an exporter's page at all, and not a login form with status 200."""
    start = body[:200].lstrip()
    return not start or start[:1] == b"#" or re.match(rb"[a-zA-Z_:]", start) is not None


def _number(text: bytes) -> float | None:
    if len(text) > 64:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= MAX_READING else None


def _check(labels: Labels, limits: ScrapeLimits) -> None:
    if len(labels) > limits.labels:
        raise LimitExceeded(Limit.LABELS, limits.labels)
    for name, value in labels:
        if len(name) > limits.label_name_length:
            raise LimitExceeded(Limit.LABEL_NAME, limits.label_name_length)
        if len(value) > limits.label_value_length:
            raise LimitExceeded(Limit.LABEL_VALUE, limits.label_value_length)


def _bytes_of(labels: Labels) -> int:
    return 2 * sum(sys.getsizeof(name) + sys.getsizeof(value) for name, value in labels) + 200


def _labels(raw: bytes) -> Labels:
    """A series has the same labels every time, so most of them are known already. Raises LimitExceeded."""
    if len(raw) > _LABELS_BYTES:
        raise LimitExceeded(Limit.LABEL_VALUE, _LABELS_BYTES)
    return _known_labels(raw) if len(raw) <= _CACHED_LABELS_BYTES else _read_labels(raw)


@cached(
    LRUCache[bytes, Labels](_CACHE_BYTES // (_CACHED_LABELS_BYTES // 4), getsizeof=lambda _: 1),
    lock=threading.Lock(),
)
def _known_labels(raw: bytes) -> Labels:
    return _read_labels(raw)


def _read_labels(raw: bytes) -> Labels:
    return tuple((name.decode(), _unescaped(value)) for name, value in _LABEL.findall(raw))


def _unescaped(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[1]), text)
