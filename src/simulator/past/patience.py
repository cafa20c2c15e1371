"""Work on the product's database that others work with, too: it is begun anew where that passes by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from watchbill.errors import Unavailable

TRIES: Final = 20


async def repeated(work: Callable[[], Awaitable[object]]) -> None:
    """Until it is done; so often at most. What was done in part is done as a whole the next time.

    Raises what it raised at last, or at once where a later moment would bring the same.
    """
    for _ in range(TRIES - 1):
        try:
            await work()
        except (Unavailable, ExceptionGroup) as error:
            seconds = _pause_seconds(error)
            if seconds is None:
                raise
            await asyncio.sleep(seconds)
        else:
            return
    await work()


def _pause_seconds(error: Unavailable | ExceptionGroup[Exception]) -> float | None:
    """None where a later moment would bring the same."""
    if isinstance(error, Unavailable):
        return error.retry_after_seconds
    pauses = [
        _pause_seconds(each) if isinstance(each, Unavailable | ExceptionGroup) else None
        for each in error.exceptions
    ]
    return None if None in pauses else max(filter(None, pauses), default=None)
