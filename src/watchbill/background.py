"""Background work of a process: every loop is kept alive, and says when it last succeeded.

A loop that fails is logged, waits and goes on, whatever the error was: no loop ends unlogged. Whoever
asks for readiness or metrics reads `Background.states`. It knows nothing of what the loops do. Long work goes
in slices (`TimeSlice`), so that the event loop's other tasks are never kept waiting for long.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from watchbill.errors import WatchbillError

RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 60.0
STALE_INTERVALS = 3
STALE_GRACE = timedelta(seconds=60)
SLICE_SECONDS = 0.02
UNHURRIED_SECONDS = 0.002
MAX_SLEEP_SECONDS = 300.0
"""The wall clock may be set while a loop sleeps: it is looked at again after so long."""

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
Work = Callable[[datetime], Awaitable[None]]
"""One round. It is given the moment that it is due at, aware UTC."""

log = structlog.get_logger(__name__)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where it is; as asyncio's own loop its clock shows the present, also within a step."""
    if sys.platform == "win32":
        return None
    import uvloop

    class Loop(uvloop.Loop):
        def time(self) -> float:
            return time.monotonic()

    return Loop


def utc_now() -> datetime:
    return datetime.now(UTC)


def log_failure(event: str, error: Exception, **names: str) -> None:
    """What was to be expected in a sentence, anything else with where it came from."""
    reason = _expected(error)
    if reason is not None:
        log.warning(event, reason=reason, **names)
    else:
        log.error(event, exc_info=error, **names)


def _expected(error: Exception) -> str | None:
    """What it says, where it is an error of ours, or a group of nothing else: each reason once."""
    if isinstance(error, WatchbillError):
        return str(error)
    if not isinstance(error, ExceptionGroup):
        return None
    reasons = dict.fromkeys(_expected(each) for each in error.exceptions)
    known = [reason for reason in reasons if reason is not None]
    return " ".join(known) if len(known) == len(reasons) else None


@dataclass(slots=True)
class LoopState:
    """How one loop is doing. `last_success_at` None = it has not succeeded since the start."""

    name: str
    interval: timedelta
    started_at: datetime
    last_success_at: datetime | None = None
    failures: int = 0
    """Since the start."""
    last_error: str = ""
    """Why the last round failed; empty where it succeeded."""
    is_required: bool = True
    """A server whose required loops stand still is not ready."""

    def succeed(self, now: datetime) -> None:
        self.last_success_at = now
        self.last_error = ""

    def fail(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = f"{type(error).__name__}: {error}"
        log_failure("background work failed; trying again", error, task=self.name)

    def is_stale(self, now: datetime) -> bool:
        """Three rounds in a row brought nothing."""
        since = self.last_success_at or self.started_at
        return now - since > STALE_INTERVALS * self.interval + STALE_GRACE


@dataclass(slots=True)
class Background:
    """The loops of one process. `clock` and `sleep` are the machine's, but in tests."""

    clock: Clock = utc_now
    sleep: Sleep = asyncio.sleep
    states: dict[str, LoopState] = field(default_factory=dict)
    is_draining: bool = False
    """The process is about to end: it serves what comes, and asks for nothing more."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(
        self,
        name: str,
        seconds: float,
        work: Work,
        *,
        is_aligned: bool = False,
        is_required: bool = True,
    ) -> None:
        """Run `work` now and then every `seconds`, until `close`.

        `is_aligned`: first at the next multiple of `seconds` since 1970, and at every later one; a multiple
        that passed while a round took longer, or while the machine slept, is left out. `is_required`: a server
        whose loop fails is not ready.
        """
        state = LoopState(
            name, timedelta(seconds=seconds), started_at=self.clock(), is_required=is_required
        )
        self.include(state)
        loop = self._run_aligned(state, work) if is_aligned else self._run(state, work)
        self._tasks.append(asyncio.create_task(loop, name=name))

    def include(self, state: LoopState) -> None:
        """Tell of a loop that somebody else runs."""
        self.states[state.name] = state

    def stale(self) -> list[LoopState]:
        """The required loops that should have succeeded by now."""
        now = self.clock()
        return [s for s in self.states.values() if s.is_required and s.is_stale(now)]

    async def close(self) -> None:
        """End all loops, wherever they are."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def _run(self, state: LoopState, work: Work) -> None:
        retry_seconds = RETRY_SECONDS
        interval_seconds = state.interval.total_seconds()
        while True:
            if await self._round(state, work, self.clock()):
                retry_seconds = RETRY_SECONDS
                await self.sleep(interval_seconds)
            else:
                await self.sleep(min(retry_seconds, interval_seconds))
                retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)

    async def _run_aligned(self, state: LoopState, work: Work) -> None:
        while True:
            due_at = _next_multiple(self.clock(), state.interval)
            while (seconds := (due_at - self.clock()).total_seconds()) > 0:
                await self.sleep(min(seconds, MAX_SLEEP_SECONDS))
            if self.clock() - due_at < state.interval:
                await self._round(state, work, due_at)

    async def _round(self, state: LoopState, work: Work, due_at: datetime) -> bool:
        """Whether the work succeeded."""
        try:
            await work(due_at)
        except Exception as error:
            state.fail(error)
            return False
        state.succeed(self.clock())
        return True


def _next_multiple(now: datetime, interval: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((now - epoch) // interval + 1) * interval


class TimeSlice:
    """Counts the time that a task has worked; `rest` lets others run once that is enough."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Sleep = asyncio.sleep,
        *,
        is_in_no_hurry: bool = False,
    ) -> None:
        """`is_in_no_hurry`: beside requests, which come to the loop several times each; it works in short
        slices and rests for as long after each."""
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self._seconds = UNHURRIED_SECONDS if is_in_no_hurry else SLICE_SECONDS
        self._pause = self._seconds if is_in_no_hurry else 0.0

    async def rest(self) -> None:
        if self._clock() - self._began >= self._seconds:
            await self._sleep(self._pause)
            self._began = self._clock()
