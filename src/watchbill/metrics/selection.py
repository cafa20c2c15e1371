"""Which series of what was sampled answer a type of nodes or of pods. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from watchbill.metrics.figures import decimal_text
from watchbill.metrics.source import (
    FailedType,
    Histogram,
    Measurement,
    MetricPoint,
    Outcome,
)

GPU_LABEL = "gpu"


@dataclass(frozen=True, slots=True)
class SampledMetric:
    """`sampled`: the type whose samples it is read from. `is_per_gpu`: by device, not as a whole."""

    sampled: str
    is_per_gpu: bool = False


def per_gpu(name: str, sampled: str | None = None) -> dict[str, SampledMetric]:
    """The type of single devices beside that of all; `sampled` None = it has samples of its own."""
    return {name: SampledMetric(sampled or name, is_per_gpu=True)}


def selected(
    name: str, metric: SampledMetric, answered: Sequence[Outcome], factor: float | None = None
) -> Iterator[Outcome]:
    """What answers the type: at least one outcome. `factor`: what values are multiplied by."""
    own = [outcome for outcome in answered if outcome.type == metric.sampled]
    failed = [outcome for outcome in own if isinstance(outcome, FailedType)]
    if failed:
        yield replace(failed[0], type=name)
        return
    histograms = [outcome for outcome in own if isinstance(outcome, Histogram)]
    yield from (replace(each, type=name) for each in histograms)
    series = _chosen([each for each in own if isinstance(each, Measurement)], metric)
    if not series and not histograms:
        series = [Measurement(type=name, samples=())]
    for each in series:
        yield replace(each, type=name, samples=tuple(_scaled(each.samples, factor)))


def _chosen(series: Sequence[Measurement], metric: SampledMetric) -> Sequence[Measurement]:
    if metric.is_per_gpu:  # of a single device there is only the whole
        return [each for each in series if GPU_LABEL in each.labels] or series
    return [each for each in series if GPU_LABEL not in each.labels]


def _scaled(samples: Iterable[MetricPoint], factor: float | None) -> Iterator[MetricPoint]:
    for sample in samples:
        text = sample.value if factor is None else decimal_text(factor * float(sample.value))
        if text is not None:
            yield MetricPoint(sample.at, text)
