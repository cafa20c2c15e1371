"""Which target is scraped next: of the namespace that took least time. Pure.

Where turns were counted, a namespace of targets that answer just before they time out would take nearly all of
a round, and targets of others would never be asked.
"""

import heapq
from collections.abc import Mapping, Sequence


class ScrapeTurns:
    """`waiting`: targets by namespace, in their order. `spent`: seconds that each namespace took in the round
    before. A target is charged with `most_seconds` until it is known how long it took.
    """

    def __init__(
        self,
        waiting: Mapping[str, Sequence[str]],
        spent: Mapping[str, float],
        *,
        most_seconds: float,
    ) -> None:
        self.spent = dict.fromkeys(waiting, 0.0)
        """Seconds, of this round alone."""
        self._most = most_seconds
        self._before = spent
        self._waiting = {namespace: iter(names) for namespace, names in waiting.items()}
        self._in_work = dict.fromkeys(waiting, 0)
        self._heap: list[tuple[float, str]] = []
        for namespace in waiting:
            self._queue(namespace)

    def take(self) -> tuple[str, str] | None:
        """Namespace and target; None where none is left."""
        while self._heap:
            charge, namespace = heapq.heappop(self._heap)
            if charge != self._charge(namespace):
                continue
            name = next(self._waiting[namespace], None)
            if name is not None:
                self._in_work[namespace] += 1
                self._queue(namespace)
                return namespace, name
        return None

    def give_back(self, namespace: str, seconds: float) -> None:
        """A target of the namespace took so long."""
        self._in_work[namespace] -= 1
        self.spent[namespace] += seconds
        self._queue(namespace)

    def _queue(self, namespace: str) -> None:
        heapq.heappush(self._heap, (self._charge(namespace), namespace))

    def _charge(self, namespace: str) -> float:
        return (
            self._before.get(namespace, 0.0)
            + self.spent[namespace]
            + self._most * self._in_work[namespace]
        )
