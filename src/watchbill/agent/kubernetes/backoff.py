"""How long to wait before trying again: full jitter under a doubling bound."""

import random
from collections.abc import Callable


class Backoff:
    """Waits of a random length up to a bound that doubles with every failure in a row."""

    def __init__(
        self,
        *,
        first_seconds: float = 1.0,
        most_seconds: float = 60.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._draw = draw
        self.failures = 0

    def next_seconds(self, *, at_least_seconds: float | None = None) -> float:
        """The next wait; never shorter than the other side asked for (up to ten times our own bound)."""
        bound = min(self._most_seconds, self._first_seconds * 2.0 ** min(self.failures, 30))
        self.failures += 1
        wait = bound * self._draw()
        if at_least_seconds is None:
            return wait
        return min(at_least_seconds, 10 * self._most_seconds) + wait

    def reset(self) -> None:
        self.failures = 0


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds`, give or take a share, so that many agents do not act at once."""
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311 - no secret
