"""Usage by day: values by hand, and what must hold for every history."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from watchbill.accounting import (
    MILLIONTH_MS_PER_HOUR,
    SUMS,
    UsageHistory,
    UsageKey,
    UsageStep,
    UsageSums,
    UtilizationSample,
    account_usage,
)
from watchbill.workload import Phase

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
GPU = 1_000_000


def at(hours: float) -> datetime:
    return MIDNIGHT + hours * HOUR


def step(
    hours: float, gpus: float, *, requested: float | None = None, **members: object
) -> UsageStep:
    values: dict[str, object] = {
        "at": at(hours),
        "project_id": 1,
        "department_id": None,
        "requested_gpu": round(GPU * (gpus if requested is None else requested)),
        "allocated_gpu": round(GPU * gpus),
        "idle_gpu": 0,
    }
    return UsageStep(**(values | members))  # type: ignore[arg-type]


def gpu_hours(usage: dict[UsageKey, UsageSums], name: str) -> dict[tuple[int, int], float]:
    """By day of the month and project."""
    return {
        (key.day.day, key.project_id): round(getattr(sums, name) / MILLIONTH_MS_PER_HOUR, 9)
        for key, sums in usage.items()
        if getattr(sums, name)
    }


def test_days_are_cut_at_midnight_in_utc() -> None:
    result = account_usage(UsageHistory(start=at(22), end=at(27), steps=[step(22, 2.5)]))
    assert gpu_hours(result, "allocated_gpu") == {(20, 1): 5.0, (21, 1): 7.5}


def test_a_move_to_another_project_splits_the_day() -> None:
    steps = [step(0, 4), step(6, 4, project_id=2)]
    result = account_usage(UsageHistory(start=at(0), end=at(8), steps=steps))
    assert gpu_hours(result, "allocated_gpu") == {(20, 1): 24.0, (20, 2): 8.0}


def test_a_gap_is_no_use() -> None:
    gaps = [(at(2), at(4)), (at(3), at(5))]
    result = account_usage(UsageHistory(start=at(0), end=at(8), steps=[step(0, 2)], gaps=gaps))
    assert gpu_hours(result, "allocated_gpu") == {(20, 1): 10.0}
    assert gpu_hours(result, "gap_gpu") == {(20, 1): 6.0}


def test_pending_counts_what_was_asked_for() -> None:
    steps = [step(0, 0, requested=8), step(3, 8)]
    phases = [(at(0), Phase.PENDING), (at(3), Phase.RUNNING)]
    result = account_usage(UsageHistory(start=at(0), end=at(5), steps=steps, phases=phases))
    assert gpu_hours(result, "pending_gpu") == {(20, 1): 24.0}
    assert gpu_hours(result, "requested_gpu") == {(20, 1): 40.0}


def test_idle_reaches_back_to_when_the_gpu_fell_idle() -> None:
    """It fell idle at 23:58, which was known at 00:04: two minutes count for the day before."""
    fell_idle = at(24) - timedelta(minutes=2)
    steps = [
        step(20, 1),
        step(24 + 4 / 60, 1, idle_gpu=GPU, idle_mean_since=fell_idle),
        step(26, 1, idle_hours=2 + 2 / 60),
    ]
    result = account_usage(UsageHistory(start=at(20), end=at(28), steps=steps))
    assert gpu_hours(result, "idle_gpu") == {(20, 1): round(2 / 60, 9), (21, 1): 2.0}


def test_a_second_gpu_that_falls_idle_changes_the_mean() -> None:
    """One since 10:00, another since 10:55, known at 11:00: 1 h, 5 min, then two for an hour."""
    steps = [
        step(10, 2, idle_gpu=GPU, idle_mean_since=at(10)),
        step(11, 2, idle_gpu=2 * GPU, idle_mean_since=at(10) + timedelta(minutes=27.5)),
    ]
    result = account_usage(UsageHistory(start=at(10), end=at(12), steps=steps))
    assert gpu_hours(result, "idle_gpu") == {(20, 1): round(1 + 5 / 60 + 2, 9)}


def test_unmeasured_is_not_busy() -> None:
    result = account_usage(UsageHistory(start=at(0), end=at(2), steps=[step(0, 3, idle_gpu=None)]))
    assert gpu_hours(result, "unmeasured_gpu") == {(20, 1): 6.0}
    assert gpu_hours(result, "idle_gpu") == gpu_hours(result, "sampled_gpu") == {}


def test_busy_is_utilization_over_the_time_that_samples_speak_for() -> None:
    samples = [
        UtilizationSample(at(0) + timedelta(minutes=minute), 0.5) for minute in (0, 1, 2, 3, 33)
    ]
    result = account_usage(
        UsageHistory(start=at(0), end=at(2), steps=[step(0, 4)], samples=samples)
    )
    assert gpu_hours(result, "sampled_gpu") == {(20, 1): round(4 * 8 / 60, 9)}, "3 and 5 minutes"
    assert gpu_hours(result, "busy_gpu") == {(20, 1): round(2 * 8 / 60, 9)}


def test_hours_of_several_models_are_divided_as_the_gpus_are() -> None:
    """Six A100 and two H100 for three hours, a quarter of them idle; before, eight are asked for."""
    models = {"A100": 6 * GPU, "H100": 2 * GPU}
    steps = [
        step(0, 0, requested=8),
        step(1, 8, idle_gpu=2 * GPU, idle_mean_since=at(1), gpu_by_model=models),
        step(4, 8, gpu_by_model={"": 8 * GPU}, idle_hours=6.0),
    ]
    result = account_usage(UsageHistory(start=at(0), end=at(5), steps=steps))
    by_model = {
        (key.gpu_model, name): getattr(sums, name) / MILLIONTH_MS_PER_HOUR
        for key, sums in result.items()
        for name in ("requested_gpu", "allocated_gpu", "idle_gpu")
        if getattr(sums, name)
    }
    assert by_model == {
        ("A100", "requested_gpu"): 18.0,
        ("A100", "allocated_gpu"): 18.0,
        ("A100", "idle_gpu"): 4.5,
        ("H100", "requested_gpu"): 6.0,
        ("H100", "allocated_gpu"): 6.0,
        ("H100", "idle_gpu"): 1.5,
        ("", "requested_gpu"): 16.0,
        ("", "allocated_gpu"): 8.0,
    }


GPUS = st.sampled_from([0, 250_000, 1_000_000, 1_333_333, 8_000_000])


@st.composite
def histories(draw: st.DrawFn) -> UsageHistory:
    seconds = st.floats(0, 3 * 86_400, allow_nan=False)
    times = sorted(draw(st.sets(seconds, min_size=1, max_size=8)))
    steps = []
    for moment in times:
        allocated = draw(GPUS)
        is_idle = draw(st.booleans())
        steps.append(
            UsageStep(
                at=MIDNIGHT + timedelta(seconds=moment),
                project_id=draw(st.integers(1, 2)),
                department_id=draw(st.sampled_from([None, 5])),
                requested_gpu=draw(GPUS),
                allocated_gpu=allocated,
                idle_gpu=draw(st.sampled_from([None, 0, allocated])),
                idle_hours=draw(st.floats(0, 5)),
                idle_mean_since=MIDNIGHT + timedelta(seconds=moment - 300) if is_idle else None,
                cpu_cores=draw(st.sampled_from([0.0, 0.1, 7.5])),
                memory_bytes=draw(st.sampled_from([0, 2**30])),
                gpu_by_model=draw(st.dictionaries(st.sampled_from(["", "A", "B"]), GPUS)),
            )
        )
    gaps = draw(st.lists(st.tuples(seconds, seconds), max_size=3))
    phases = draw(st.lists(st.sampled_from(list(Phase)), min_size=len(times), max_size=len(times)))
    samples = sorted(draw(st.sets(seconds, max_size=20)))
    return UsageHistory(
        start=steps[0].at,
        end=MIDNIGHT + timedelta(days=3),
        steps=steps,
        phases=list(zip((step.at for step in steps), phases, strict=True)),
        gaps=[
            (MIDNIGHT + timedelta(seconds=min(pair)), MIDNIGHT + timedelta(seconds=max(pair)))
            for pair in gaps
        ],
        samples=[UtilizationSample(MIDNIGHT + timedelta(seconds=t), 0.25) for t in samples],
    )


def total(usage: dict[UsageKey, UsageSums], name: str) -> int:
    return sum(getattr(sums, name) for sums in usage.values())


@given(histories())
def test_the_days_add_up_to_the_integral(history: UsageHistory) -> None:
    """Allocated and gap together are the step function's integral, in whole milliseconds."""
    result = account_usage(history)
    edges = [(step.at - MIDNIGHT) // timedelta(milliseconds=1) for step in history.steps]
    edges.append((history.end - MIDNIGHT) // timedelta(milliseconds=1))
    integral = sum(
        step.allocated_gpu * (end - start)
        for step, start, end in zip(history.steps, edges[:-1], edges[1:], strict=True)
    )
    assert total(result, "allocated_gpu") + total(result, "gap_gpu") == integral
    assert total(result, "sampled_gpu") <= total(result, "allocated_gpu")
    assert total(result, "pending_gpu") <= total(result, "requested_gpu")


@given(histories(), st.floats(0.01, 0.99))
def test_pieces_add_up_to_the_whole(history: UsageHistory, share: float) -> None:
    """Except for rounding, and for idle time that became known only behind the cut."""
    cut = history.start + (history.end - history.start) * share
    first = UsageHistory(
        start=history.start,
        end=cut,
        steps=[step for step in history.steps if step.at < cut],
        phases=[entry for entry in history.phases if entry[0] < cut],
        gaps=history.gaps,
        samples=history.samples,
    )
    before = sum(step.at <= cut for step in history.steps) - 1
    second = UsageHistory(
        start=cut,
        end=history.end,
        steps=history.steps[before:],
        phases=history.phases[before:],
        gaps=history.gaps,
        samples=history.samples,
    )
    whole, pieces = account_usage(history), [account_usage(first), account_usage(second)]
    exact = [name for name in SUMS if name not in ("idle_gpu", "busy_gpu")]
    for name in exact:
        assert total(whole, name) == sum(total(piece, name) for piece in pieces), name
    days = {date(2026, 11, 20 + n) for n in range(3)}
    assert {key.day for key in whole} <= days
