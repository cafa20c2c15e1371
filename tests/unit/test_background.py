"""Background loops: kept alive whatever happens, due by the clock, honest about their last success."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from watchbill import maintenance
from watchbill.api.http.call import Services
from watchbill.background import (
    SLICE_SECONDS,
    STALE_GRACE,
    UNHURRIED_SECONDS,
    Background,
    TimeSlice,
    log_failure,
)
from watchbill.errors import Unavailable
from watchbill.store.postgres.clock import RetentionClock
from watchbill.store.postgres.database import Database

START = datetime(2026, 11, 29, 12, 0, 40, tzinfo=UTC)


class FakeTime:
    """A clock that only sleeping moves. `early_seconds`: how much too early each sleep ends."""

    def __init__(self, *, early_seconds: float = 0.0) -> None:
        self.now = START
        self.early = timedelta(seconds=early_seconds)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(timedelta(seconds=seconds) - self.early, timedelta(milliseconds=1))
        await asyncio.sleep(0)


FULL = Unavailable("The database's disk is full.")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FULL, str(FULL)),
        (
            ExceptionGroup("2 steps of a round failed", [FULL, ExceptionGroup("", [FULL])]),
            str(FULL),
        ),
        (ValueError("a bug"), None),
        (ExceptionGroup("2 steps of a round failed", [FULL, ValueError("a bug")]), None),
    ],
)
def test_only_what_nobody_expected_is_logged_with_where_it_came_from(
    error: Exception, reason: str | None
) -> None:
    with capture_logs() as lines:
        log_failure("background work failed", error, task="fleet recording")
    (line,) = lines
    assert (line.get("reason"), line.get("exc_info")) == (reason, None if reason else error)


async def rounds(background: Background, done: list[datetime], number: int) -> None:
    while len(done) < number:
        await asyncio.sleep(0)
    await background.close()


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), Unavailable("no database"), OSError("disk")]
)
async def test_whatever_fails_is_tried_again(error: Exception) -> None:
    time, done = FakeTime(), []
    background = Background(lambda: time.now, time.sleep)

    async def work(due_at: datetime) -> None:
        done.append(due_at)
        if len(done) <= 3:
            raise error

    background.start("work", 60, work)
    await rounds(background, done, 6)
    state = background.states["work"]
    assert (state.failures, state.last_error) == (3, "")
    assert time.slept[:5] == [5, 10, 20, 60, 60], "soon again, then less often, then as planned"
    assert state.last_success_at == done[-1]


async def test_an_aligned_loop_is_never_early() -> None:
    """The event loop's sleep may end before its time: then the instant has not come."""
    time, done, seen_at = FakeTime(early_seconds=0.0007), [], []
    background = Background(lambda: time.now, time.sleep)

    async def work(due_at: datetime) -> None:
        seen_at.append(time.now)
        done.append(due_at)

    background.start("work", 300, work, is_aligned=True)
    await rounds(background, done, 3)
    assert done == [START.replace(minute=minute, second=0) for minute in (5, 10, 15)]
    assert all(seen >= due for seen, due in zip(seen_at, done, strict=True))


async def test_an_instant_that_was_slept_through_is_left_out() -> None:
    time, done = FakeTime(), []
    background = Background(lambda: time.now, time.sleep)

    async def work(due_at: datetime) -> None:
        done.append(due_at)
        time.now += timedelta(minutes=11)

    background.start("work", 300, work, is_aligned=True)
    await rounds(background, done, 2)
    assert done == [START.replace(minute=minute, second=0) for minute in (5, 20)]


async def test_it_says_what_stands_still() -> None:
    time, done = FakeTime(), []
    background = Background(lambda: time.now, time.sleep)

    async def work(due_at: datetime) -> None:
        done.append(due_at)
        if len(done) > 1:
            raise ValueError("a bug")

    background.start("work", 60, work)
    await rounds(background, done, 2)
    assert background.stale() == []
    time.now = done[0] + 3 * timedelta(seconds=60) + STALE_GRACE
    assert background.stale() == []
    time.now += timedelta(seconds=1)
    assert [state.name for state in background.stale()] == ["work"]
    assert background.states["work"].last_error == "ValueError: a bug"


async def test_closing_ends_a_round_in_the_middle() -> None:
    entered = asyncio.Event()
    background = Background()
    others = asyncio.all_tasks()

    async def work(_: datetime) -> None:
        entered.set()
        await asyncio.Event().wait()

    background.start("work", 60, work)
    await entered.wait()
    await background.close()
    assert asyncio.all_tasks() == others


async def test_accounting_works_for_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a past to account answers meanwhile: three steps of a second, at a fifth, rest twelve."""
    time, rested = [0.0], []

    class Cluster:
        tenant_id, cluster_id, began_at, is_elsewhere = 1, UUID(int=1), datetime.now(UTC), False
        left = 3

        async def step(self, _: object) -> bool:
            time[0] += 1.0
            self.left -= 1
            return self.left > 0

    async def tenants(_: object) -> list[int]:
        return [1]

    async def begin(*_: object) -> list[Cluster]:
        return [Cluster()]

    async def last(*_: object) -> None:
        return None

    async def finish(*_: object) -> None:
        rested.append("all accounted")

    async def sleep(seconds: float) -> None:
        rested.append(round(seconds, 9))

    monkeypatch.setattr(maintenance, "tenant_list", tenants)
    monkeypatch.setattr(maintenance, "usage_last_round", last)
    monkeypatch.setattr(maintenance, "usage_begin", begin)
    monkeypatch.setattr(maintenance, "usage_finish", finish)
    monkeypatch.setattr(maintenance, "asyncio", SimpleNamespace(sleep=sleep))
    rounds = maintenance.UsageRounds(share=0.2, elapsed=lambda: time[0])
    await rounds.run(cast("Database", None), datetime.now(UTC))
    assert rested == [4.0, 4.0, 4.0, "all accounted"]


async def test_what_cannot_be_measured_is_purged_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full may refuse the sizes; what is dropped from it makes room."""
    works: dict[str, Callable[[datetime], Awaitable[None]]] = {}
    done: list[str] = []

    async def purge(*_: object, **__: object) -> None:
        done.append("purged")

    async def no_room(*_: object) -> None:
        raise Unavailable("The database's disk is full.")

    async def now(_: object, at: datetime) -> datetime:
        return at

    monkeypatch.setattr(maintenance, "purge_old", purge)
    monkeypatch.setattr(maintenance, "table_size_record", no_room)
    monkeypatch.setattr(RetentionClock, "purge_time", now)
    background = SimpleNamespace(
        states={},
        include=lambda _: None,
        start=lambda name, _, work, **__: works.update({name: work}),
    )
    services = SimpleNamespace(
        db=None,
        background=background,
        retention=None,
        settings=SimpleNamespace(database_url="postgres://"),
    )
    maintenance.start_maintenance(cast("Services", services))
    with pytest.raises(Unavailable):
        await works["purge"](START)
    assert done == ["purged"]


async def turns_of_others(items: int, *, seconds_each: float) -> int:
    """How often another task runs while one works on so many items, by a clock that only work moves."""
    now, turns = 0.0, 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    work = TimeSlice(lambda: now)
    for _ in range(items):
        now += seconds_each
        await work.rest()
    task.cancel()
    return turns


async def test_who_is_in_no_hurry_rests_for_as_long_as_it_worked() -> None:
    now, pauses = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    work = TimeSlice(lambda: now, sleep, is_in_no_hurry=True)
    for _ in range(100):
        now += UNHURRIED_SECONDS * 0.26
        await work.rest()
    assert pauses == [UNHURRIED_SECONDS] * 25


async def test_others_run_after_every_slice() -> None:
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS * 1.01) == 100
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS / 9.9) == 10
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS / 1_000) == 0
