"""Long work lets others run: how often depends on how long it takes, not on how much it is."""

import asyncio

from watchbill.background import SLICE_SECONDS, TimeSlice


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


async def test_others_run_after_every_slice() -> None:
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS * 1.01) == 100
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS / 9.9) == 10
    assert await turns_of_others(100, seconds_each=SLICE_SECONDS / 1_000) == 0
