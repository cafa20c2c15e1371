"""What becomes of samples in the agent: counted up, put together from servers, kept until they are sent."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.fixtures import measured
from watchbill.agent.metrics import figures as figures_module
from watchbill.agent.metrics.exposition import ParsedSample
from watchbill.agent.metrics.figures import CounterTotals, combine, read_server, shown_pods
from watchbill.agent.stream import additions
from watchbill.agent.stream.additions import SampleQueue
from watchbill.kinds.objects.pod import Pod, read_pod
from watchbill.protocol import Measured, Reading, Scrape

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TOTAL = ("w", "CPU_USAGE_CORES", "")


def test_counters_count_on_over_restarts_and_successors() -> None:
    totals = CounterTotals()
    for pod, value, expected in (
        ("pod-1", 100.0, 0.0),
        ("pod-1", 130.0, 30.0),
        ("pod-1", 5.0, 35.0),
        ("pod-2", 1000.0, 35.0),
        ("pod-2", 1001.0, 36.0),
        ("pod-1", 6.0, 37.0),
    ):
        totals.count(pod, "cpu", {"main": (TOTAL, value)})
        assert totals.of("w", "CPU_USAGE_CORES") == {"": expected}
    totals.forget({"pod-1"}, {"w"})
    totals.count("pod-2", "cpu", {"main": (TOTAL, 5000.0)})
    assert totals.of("w", "CPU_USAGE_CORES") == {"": 37.0}, "what comes back is new"
    totals.forget(set(), set())
    totals.count("pod-1", "cpu", {"main": (TOTAL, 9.0)})
    assert totals.of("w", "CPU_USAGE_CORES") == {"": 0.0}


def test_totals_are_bounded_whatever_a_server_invents() -> None:
    totals = CounterTotals()
    for number in range(1000):
        counters = {number: (("w", "NIM_E2E", str(number)), float(number))}
        totals.count("pod", "server", counters)
    assert len(totals.of("w", "NIM_E2E")) == figures_module.MAX_LABELS
    assert sum(map(len, totals._last.values())) == 1


def served(*samples: tuple[str, float, dict[str, str]]) -> list[ParsedSample]:
    return [ParsedSample(name, labels, value) for name, value, labels in samples]


def test_a_pod_that_speaks_both_tongues_is_counted_once() -> None:
    samples = read_server(
        served(("num_requests_running", 3, {}), ("vllm:num_requests_running", 4, {}))
    )
    assert samples.figures == {"NIM_NUM_REQUESTS_RUNNING": 3}


def test_ends_other_than_stop_and_length_are_failures() -> None:
    ends = {"stop": 10.0, "length": 5.0, "abort": 2.0}
    samples = read_server(
        served(
            *(("vllm:request_success_total", n, {"finished_reason": e}) for e, n in ends.items())
        )
    )
    assert samples.figures["NIM_REQUEST_SUCCESS_TOTAL"] == 15
    assert samples.figures["NIM_REQUEST_FAILURE_TOTAL"] == 2


def test_replicas_add_up_and_shares_are_averaged() -> None:
    pods = [
        read_server(served(("num_requests_waiting", n, {}), ("gpu_cache_usage_perc", n / 10, {})))
        for n in (2.0, 4.0)
    ]
    result = combine(pods)
    assert result["NIM_NUM_REQUESTS_WAITING"] == 6
    assert round(result["NIM_GPU_CACHE_USAGE_PERC"], 9) == 0.3


def test_bounds_are_written_one_way() -> None:
    name = "time_to_first_token_seconds_bucket"
    samples = read_server(
        served(*((name, 1, {"le": le}) for le in ("1.0", "0.50", "+Inf", "x", "")))
    )
    assert [bucket.bound for bucket in samples.buckets] == ["1", "0.5", "+Inf"]


@pytest.mark.parametrize("le", ["NaN", "nan", "-1", "-Inf", "1e999", "1_0", " 1", "٣", "9" * 400])
def test_bounds_that_no_duration_has_are_left_out(le: str) -> None:
    name = "time_to_first_token_seconds_bucket"
    assert read_server(served((name, 1, {"le": le}))).buckets == []


def test_a_bound_is_as_short_as_a_label_may_be() -> None:
    name = "time_to_first_token_seconds_bucket"
    samples = read_server(served(*((name, 1, {"le": le}) for le in ("0." + "1" * 19, "1e300"))))
    assert [bucket.bound for bucket in samples.buckets] == ["0.111111", "1e+300"]


def living(number: int, *, gpus: int = 0, day: int = 1) -> Pod:
    limits = {measured.GPU: str(gpus)} if gpus else {}
    made = measured.pod(number, f"p{number}", limits=limits)
    made["metadata"]["creationTimestamp"] = f"2026-11-{day:02}T00:00:00Z"
    return read_pod(made)


def test_the_only_pod_of_a_workload_tells_what_no_workload_has(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pods = {
        "lone": ("w1", living(1, day=9)),
        "gpu": ("w2", living(2, gpus=1, day=8)),
        "old": ("w2", living(3, day=2)),
        "new": ("w2", living(4, day=3)),
    }
    figures = {
        uid: {("CPU_MEMORY_USAGE_BYTES", ""): 5.0, ("GPU_SM_ACTIVITY_PER_GPU", "GPU-1"): 7.0}
        for uid in ("lone", "gpu")
    } | {uid: {("CPU_MEMORY_USAGE_BYTES", ""): 5.0} for uid in ("old", "new", "ended")}
    counts = {"w1": 1, "w2": 3}
    shown = shown_pods(figures, pods, counts)
    assert shown["lone"] == {("GPU_SM_ACTIVITY_PER_GPU", "GPU-1"): 7.0}
    assert shown["gpu"] == figures["gpu"]
    assert list(shown) == ["gpu", "old", "new", "lone"], "GPUs first, then the oldest"
    monkeypatch.setattr(figures_module, "MEASURED_PODS", 2)
    assert list(shown_pods(figures, pods, counts)) == ["gpu", "old"]


def scrape(workloads: int, readings: int = 10) -> Scrape:
    reading = Reading("GPU_UTILIZATION", 1.0)
    return Scrape(
        at=NOW,
        counted_since=NOW,
        workloads=tuple(Measured(UUID(int=n), (reading,) * readings) for n in range(workloads)),
    )


def readings(scrapes: tuple[Scrape, ...]) -> int:
    return sum(len(workload.readings) for part in scrapes for workload in part.workloads)


def test_samples_leave_in_order_and_come_back_in_order() -> None:
    box = SampleQueue()
    box.put(scrape(1200))
    assert len(box) == 3
    taken = box.take(10_000)
    assert readings(taken) == 10_000
    box.put_back(taken)
    assert readings(box.take(1)) == 5_000, "at least one part goes"
    assert readings(box.take(100_000)) == 7_000
    assert len(box) == 0
    assert box.dropped == 0


def test_the_oldest_are_given_up_where_nobody_takes_them(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(additions, "MAX_READINGS", 12_000)
    box = SampleQueue()
    for _ in range(4):
        box.put(scrape(500))
    assert box.dropped == 10_000
    assert readings(box.take(100_000)) == 10_000
