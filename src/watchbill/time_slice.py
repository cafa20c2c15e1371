"""Long work in slices, so that the event loop's other tasks are never kept waiting for long."""

import asyncio
import time
from collections.abc import Callable

SLICE_SECONDS = 0.02


class TimeSlice:
    """Counts the time that a task has worked; `rest` lets others run once that is enough."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()

    async def rest(self) -> None:
        if self._clock() - self._began >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._began = self._clock()
