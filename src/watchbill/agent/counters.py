"""Counters of containers and servers, counted up per workload whatever begins anew or goes away. Pure.

A counter seen for the first time adds nothing: what it counted before was not observed. One that is smaller
than before began anew, so all of it is new.
"""

from collections.abc import Iterable

Counter = tuple[str, ...]
"""One series of one pod, the pod's UID first."""
Total = tuple[str, str, str]
"""Workload, metric type, label."""


class Totals:
    """What has been counted since the start."""

    def __init__(self) -> None:
        self._last: dict[Counter, float] = {}
        self._totals: dict[Total, float] = {}

    def count(self, total: Total, counter: Counter, value: float) -> None:
        before = self._last.get(counter)
        self._last[counter] = value
        added = 0.0 if before is None else value - before if value >= before else value
        self._totals[total] = self._totals.get(total, 0.0) + added

    def of(self, total: Total) -> float:
        return self._totals[total]

    def forget(self, pods: Iterable[str], workloads: Iterable[str]) -> None:
        """Keep only what concerns these pods and these workloads."""
        living, known = set(pods), set(workloads)
        self._last = {key: value for key, value in self._last.items() if key[0] in living}
        self._totals = {key: value for key, value in self._totals.items() if key[0] in known}
