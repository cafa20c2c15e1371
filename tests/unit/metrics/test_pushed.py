"""Arithmetic on samples: what a rate, a histogram and a quantile are, across gaps and an agent's restarts."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from watchbill.metrics.figures import quantile
from watchbill.metrics.pushed import MAX_BUCKETS, _outcomes, _View
from watchbill.metrics.source import (
    FailedType,
    Histogram,
    Measurement,
    MetricsQuery,
    Reason,
    WorkloadContext,
)
from watchbill.store.metrics.measured import Point

START = datetime(2026, 11, 20, 8, tzinfo=UTC)
CPU, TTFT = "CPU_USAGE_CORES", "NIM_TIME_TO_FIRST_TOKEN_SECONDS"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def outcomes(
    kind: str, points: list[Point], *, minutes: float = 10, samples: int = 2, **observed: str
) -> list[Measurement | Histogram | FailedType]:
    query = MetricsQuery(
        types=(kind,), start=START, end=at(60 * minutes), number_of_samples=samples
    )
    about = WorkloadContext(
        workload_id=UUID(int=1),
        namespace="n",
        cluster_name="c",
        known=tuple(query.instants()),
        observed={name.replace("_", " "): state for name, state in observed.items()},
    )
    return _outcomes(kind, _View(points, query, about), about)


def values(kind: str, points: list[Point], **options: float) -> list[str]:
    (result,) = outcomes(kind, points, **options)  # type: ignore[arg-type]
    assert isinstance(result, Measurement)
    return [sample.value for sample in result.samples]


def counted(
    kind: str, *reported: tuple[float, float], since: float = 0, label: str = ""
) -> list[Point]:
    return [Point(at(second), at(since), {(kind, label): value}) for second, value in reported]


def test_a_rate_is_what_was_counted_over_the_time_it_took() -> None:
    reported = [(second, second * 1.5) for second in range(0, 601, 30)]
    assert values(CPU, counted(CPU, *reported)) == ["1.5", "1.5"]


def test_a_rate_of_a_young_workload_is_over_its_own_time() -> None:
    reported = [(second, (second - 240) * 2) for second in range(240, 301, 30)]
    assert values(CPU, counted(CPU, *reported)) == ["2"]


def test_counts_of_two_lives_of_an_agent_are_never_compared() -> None:
    points = counted(CPU, (0, 900), (150, 1000)) + counted(CPU, (180, 0), (300, 120), since=180)
    assert values(CPU, points, minutes=5, samples=1) == ["1"]


def test_a_figure_older_than_two_minutes_is_none() -> None:
    memory = "CPU_MEMORY_USAGE_BYTES"
    assert values(memory, counted(memory, (181, 7.0))) == ["7"]
    assert values(memory, counted(memory, (180, 7.0))) == []
    assert values(memory, counted(memory, (301, 7.0))) == []


@pytest.mark.parametrize(
    ("devices", "samples", "series"),
    [(2, 20, 3), (64, 240, 65), (512, 195, 513), (512, 196, 1), (101, 1000, 1), (100, 1000, 101)],
)
def test_devices_are_reported_one_by_one_as_far_as_an_answer_holds_them(
    devices: int, samples: int, series: int
) -> None:
    """100,000 samples of one metric type at most, and the workload as a whole in any case."""
    kind = "GPU_UTILIZATION"
    figures = {(kind, ""): 50.0} | {(kind, f"GPU-{number}"): 50.0 for number in range(devices)}
    result = outcomes(kind, [Point(at(1), START, figures)], samples=samples)
    assert len(result) == series
    assert isinstance(result[0], Measurement)
    assert result[0].labels == {}


def test_histograms_hold_each_request_once() -> None:
    points = []
    for second in range(0, 601, 30):
        figures = {(TTFT, "0.5"): second / 10, (TTFT, "+Inf"): second / 5}
        points.append(Point(at(second), START, figures))
    (result,) = outcomes(TTFT, points)
    assert isinstance(result, Histogram)
    assert [spread.counts for spread in result.spreads] == [{"0.5": "30", "+Inf": "60"}] * 2


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.5, {"1": 10, "+Inf": 10}, 0.5),
        (0.5, {"1": 5, "2": 10, "+Inf": 10}, 1.0),
        (0.75, {"1": 5, "2": 10, "+Inf": 10}, 1.5),
        (0.99, {"1": 5, "2": 6, "+Inf": 10}, 2.0),
        (0.9, {"1": 0, "2": 0, "+Inf": 0}, None),
        (0.9, {"1": 5}, None),
        (0.9, {"1": 10, "2": 9, "+Inf": 10}, 0.9),
    ],
)
def test_quantiles(share: float, counts: dict[str, float], expected: float | None) -> None:
    result = quantile(share, counts)
    assert result == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("state", "is_there"),
    [("complete", True), ("failing", True), ("absent", False), ("forbidden", False)],
)
def test_nothing_measured_and_nothing_to_measure_are_two_things(state: str, is_there: bool) -> None:
    (result,) = outcomes("GPU_UTILIZATION", [], DCGM_exporter=state)
    if is_there:
        assert result == Measurement(type="GPU_UTILIZATION", samples=())
    else:
        assert result == FailedType(type="GPU_UTILIZATION", reason=Reason.UNSUPPORTED)
    (unheard,) = outcomes("GPU_UTILIZATION", [])
    assert isinstance(unheard, FailedType)


@pytest.mark.parametrize("name", [TTFT, f"{TTFT}_PERCENTILES"])
def test_what_is_no_bound_is_no_bucket(name: str) -> None:
    """As agents could store it once."""
    bounds = {"0.5": 1.0, "+Inf": 2.0, "half": 1.0, "": 1.0, "nan": 1.0, "1\x000": 1.0}
    points = [
        Point(at(second), at(0), {(TTFT, text): n * second for text, n in bounds.items()})
        for second in range(0, 601, 30)
    ]
    for outcome in outcomes(name, points):
        assert not isinstance(outcome, FailedType)
        if isinstance(outcome, Histogram):
            assert [list(spread.counts) for spread in outcome.spreads] == [["0.5", "+Inf"]] * 2
        else:
            assert len(outcome.samples) == 2


def test_a_histogram_has_so_many_buckets() -> None:
    points = [
        Point(at(second), at(0), {(TTFT, f"{n}"): float(second) for n in range(2_000)})
        for second in range(0, 601, 30)
    ]
    (result,) = outcomes(TTFT, points)
    assert isinstance(result, Histogram)
    assert list(result.spreads[0].counts) == [*map(str, range(MAX_BUCKETS - 1)), "1999"]
