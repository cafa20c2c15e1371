"""Metrics read from a step function: where a value is known, and that nothing is made up elsewhere."""

from datetime import UTC, datetime, timedelta

import pytest

from watchbill.api.http.contract import contract_document
from watchbill.metric_types import MEASURED_TYPES, METRICS
from watchbill.metrics.figures import decimal_text, steps, usage_measurement
from watchbill.metrics.source import MetricsQuery, Reason
from watchbill.store.workloads.usage_steps import UsagePoint, UsageSeries
from watchbill.workload import Usage

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
NOW = START + timedelta(days=1)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def usage(pods: int, **members: object) -> Usage:
    made = {"pod_count": pods, "running_pod_count": 0, "gpu_millionths": 0}
    return Usage(**(made | {"gpu_memory_request_bytes": 0} | members))  # type: ignore[arg-type]


def query(samples: int, minutes: float = 60) -> MetricsQuery:
    return MetricsQuery(
        types=("POD_COUNT",), start=START, end=at(minutes), number_of_samples=samples
    )


def pods(series: UsageSeries, samples: int, now: datetime = NOW) -> list[tuple[datetime, int]]:
    return [(when, step.pod_count) for when, step in steps(series, query(samples).instants(), now)]


def test_the_table_knows_every_type_of_the_contract() -> None:
    types = contract_document()["components"]["schemas"]["WorkloadMetricType"]["enum"]
    assert set(METRICS) == set(types)


def test_instants_are_the_ends_of_equal_steps() -> None:
    assert query(4).instants() == [at(15), at(30), at(45), at(60)]
    assert query(1).instants() == [at(60)]
    assert query(0).instants() == []
    many = query(1000, minutes=1).instants()
    assert len(many) == 1000
    assert many[-1] == at(1)
    assert many[0] > START


def test_a_value_holds_from_its_point_until_the_next() -> None:
    series = UsageSeries([UsagePoint(at(-10), usage(1)), UsagePoint(at(30), usage(2))], at(600))
    assert pods(series, 4) == [(at(15), 1), (at(30), 2), (at(45), 2), (at(60), 2)]


def test_nothing_is_known_before_the_first_point() -> None:
    series = UsageSeries([UsagePoint(at(31), usage(3))], at(600))
    assert pods(series, 4) == [(at(45), 3), (at(60), 3)]


def test_nothing_is_known_after_the_end() -> None:
    series = UsageSeries([UsagePoint(at(0), usage(3))], at(30))
    assert pods(series, 4) == [(at(15), 3), (at(30), 3)]


def test_nothing_is_known_of_the_future() -> None:
    series = UsageSeries([UsagePoint(at(0), usage(3))], None)
    assert pods(series, 4, now=at(40)) == [(at(15), 3), (at(30), 3)]


def test_no_points_no_samples() -> None:
    assert pods(UsageSeries([], at(600)), 10) == []


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (None, None),
        (0, "0"),
        (3, "3"),
        (2**60, str(2**60)),
        (0.5, "0.5"),
        (0.0, "0"),
        (1e-7, "0"),
        (1 / 3, "0.333333"),
        (4.0, "4"),
        (100.0, "100"),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_figures_are_plain_decimals(figure: float | None, text: str | None) -> None:
    assert decimal_text(figure) == text


def test_zero_is_a_value_and_unstated_is_none() -> None:
    known = [(at(1), usage(0)), (at(2), usage(1, cpu_request_cores=2.5))]
    counted = usage_measurement("POD_COUNT", known)
    cores = usage_measurement("CPU_REQUEST_CORES", known)
    assert [sample.value for sample in counted.samples] == ["0", "1"]
    assert [(sample.at, sample.value) for sample in cores.samples] == [(at(2), "2.5")]


def test_gpus_are_reported_in_gpus() -> None:
    outcome = usage_measurement("GPU_ALLOCATION", [(at(1), usage(1, gpu_millionths=1_500_000))])
    assert outcome.samples[0].value == "1.5"


def test_every_type_is_known_from_objects_or_from_one_exporter() -> None:
    from_exporters = {name for name, metric in METRICS.items() if metric.from_usage is None}
    assert len(METRICS) - len(from_exporters) == 8
    assert all(METRICS[name].exporter for name in from_exporters)
    series = {METRICS[name].series or name for name in from_exporters}
    assert series == MEASURED_TYPES, "the agent sends exactly what these are made of"


def test_only_what_may_pass_is_worth_another_try() -> None:
    assert not Reason.UNSUPPORTED.may_pass
    assert Reason.TIMEOUT.may_pass
