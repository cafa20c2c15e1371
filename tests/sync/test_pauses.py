"""Pauses of this process, and what is read after a silence."""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from tests.fixtures.agents import until
from watchbill.agent.kubernetes import pauses as pauses_module
from watchbill.agent.kubernetes import steady_clock
from watchbill.agent.kubernetes.pauses import Backlog, PauseDetector


async def test_what_is_read_after_a_pause_of_the_process_happened_during_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = PauseDetector()
    assert pauses.paused_since() is None
    before = datetime.now(UTC)
    monkeypatch.setattr(pauses_module, "PAUSE_SECONDS", -1.0)
    since = pauses.paused_since()
    assert since is not None
    assert since <= before
    monkeypatch.setattr(pauses_module, "PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(pauses_module, "CATCH_UP_SECONDS", 0.0)
    assert PauseDetector().paused_since() is None


async def test_who_asks_first_after_a_pause_learns_that_it_has_just_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A heartbeat may be due before the next tick: a pause must not count as observed because of that."""
    pauses = PauseDetector()
    began = pauses.resumed_at
    monkeypatch.setattr(pauses_module, "PAUSE_SECONDS", -1.0)
    await asyncio.sleep(0)
    assert pauses.resumed_at > began


async def test_a_machine_that_slept_is_a_pause_though_the_loops_clock_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = PauseDetector()
    began, woke = pauses.resumed_at, pauses_module.boot_seconds() + 3600
    await asyncio.sleep(0)
    monkeypatch.setattr(pauses_module, "boot_seconds", lambda: woke)
    assert pauses.resumed_at > began
    assert pauses.paused_since() is not None


async def test_what_comes_while_a_long_backlog_is_read_is_late_too() -> None:
    versions = iter(("10", "20", "made-up"))

    async def newest_version() -> str:
        return next(versions)

    async def answered() -> None:
        await until(lambda: backlog._asking is None)

    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    backlog = Backlog(PauseDetector(), newest_version)
    assert backlog.unseen_since("3") is None
    backlog.expect(datetime.now(UTC), after_seconds=5)
    assert backlog.unseen_since("4") is None
    backlog.expect(hour_ago, after_seconds=5)
    assert backlog.unseen_since("99") == hour_ago, "nobody has answered yet"
    await answered()
    assert backlog.unseen_since("10") == hour_ago
    asked_at = backlog._asked_at = hour_ago + timedelta(minutes=30)  # so long did reading take
    assert backlog.unseen_since("11") == asked_at
    await answered()
    assert backlog.unseen_since("20") == asked_at
    assert backlog.unseen_since("21") is None
    assert backlog.unseen_since("5") is None, "only once is it read"
    backlog.expect(hour_ago, after_seconds=5)
    await answered()
    assert backlog.unseen_since("22") == hour_ago, "versions that are no numbers tell nothing"
    backlog.end()
    assert backlog.unseen_since("23") is None


async def test_a_clock_that_is_set_moves_no_observation_unless_the_api_server_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour, ahead = timedelta(hours=1), timedelta()

    class SetDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + ahead

    monkeypatch.setattr(steady_clock, "datetime", SetDatetime)

    def is_off_by(seconds: timedelta) -> bool:
        return abs(clock.now() - datetime.now(UTC) - seconds) < timedelta(minutes=1)

    clock = steady_clock.SteadyClock()
    ahead = hour  # set wrong
    assert is_off_by(timedelta())
    clock.compare(datetime.now(UTC))
    assert is_off_by(timedelta())
    ahead = timedelta()  # and right again
    assert is_off_by(timedelta())
    ahead = -hour
    wrong_at_its_start = steady_clock.SteadyClock()
    clock, ahead = wrong_at_its_start, timedelta()  # set right
    assert is_off_by(-hour)
    clock.compare(datetime.now(UTC))
    assert is_off_by(timedelta())
