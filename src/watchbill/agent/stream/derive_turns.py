"""Whose workloads are derived next: namespaces take turns by the processor time that theirs have taken.

Whoever changes large objects, or thousands of them, without end has them derived while nobody else has anything
to derive, and for half of the time at most. Pure: times are given.
"""

import heapq
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

LONG_SECONDS = 0.1
"""A derivation that takes longer than this is followed by a pause of its namespace, as long as itself."""
BURST_SECONDS = 30.0
"""Of processor time that a namespace may take at once, as when everything in it changes; it regains a half
second each second. Beyond it every derivation is followed by such a pause."""
WINDOW_SECONDS = 300.0
BUSY_SHARE = 0.2
"""Of a window: more than this is reported with the cluster's state."""
MAX_REMEMBERED = 1_000
"""Namespaces, before those that took little are forgotten."""
_SHOWN_NAMESPACES = 10
AT_ONCE = 100
"""Of a namespace's workloads that are due: as many as a round of some milliseconds each has time for."""


class DueWorkloads:
    """Workloads that wait to be derived, by namespace in the order of due times.

    A look at them costs as much as there are namespaces, however many of one of them wait.
    """

    def __init__(self) -> None:
        self._namespaces: dict[str, str] = {}
        self._queues: dict[str, OrderedDict[str, float]] = {}

    def __contains__(self, root: str) -> bool:
        return root in self._namespaces

    def __len__(self) -> int:
        return len(self._namespaces)

    def __iter__(self) -> Iterator[str]:
        return iter(self._namespaces)

    def put(self, root: str, namespace: str, at: float) -> None:
        """One that does not wait yet. Times come in ascending order."""
        self._namespaces[root] = namespace
        self._queues.setdefault(namespace, OrderedDict())[root] = at

    def discard(self, root: str) -> None:
        namespace = self._namespaces.pop(root, None)
        if namespace is not None:
            queue = self._queues[namespace]
            del queue[root]
            if not queue:
                del self._queues[namespace]

    def due(self, until: float, may_begin: Callable[[str], bool]) -> list[str]:
        """The oldest of each namespace that may begin."""
        return [
            root
            for namespace, queue in self._queues.items()
            if may_begin(namespace)
            for root, at in islice(queue.items(), AT_ONCE)
            if at <= until
        ]

    def soonest(self) -> Iterator[tuple[str, float]]:
        """Each namespace, and when its first workload is due."""
        for namespace, queue in self._queues.items():
            yield namespace, next(iter(queue.values()))


class DeriveTurns:
    """Start-time fair queueing over namespaces: each begins where the one that is served now stands."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Processor time by namespace, since the start, of those that took `LONG_SECONDS` in a window."""
        self._virtual: dict[str, float] = {}
        """Up to where a namespace was served; absent = it is behind `_served`."""
        self._served = 0.0
        self._paused_until: dict[str, float] = {}
        self._burst: dict[str, tuple[float, float]] = {}
        """By namespace what it has taken of its burst, and when that was so."""
        self._window: defaultdict[str, float] = defaultdict(float)
        self._window_began = 0.0
        self._busy: tuple[str, ...] = ()

    def order(self, roots: Iterable[str], namespace_of: Callable[[str], str]) -> Iterator[str]:
        """The roots, one after the other; between two of them the first one's namespace is charged."""
        if len(self._virtual) > MAX_REMEMBERED:
            least = self._served + LONG_SECONDS
            self._virtual = {name: at for name, at in self._virtual.items() if at > least}
        queues: dict[str, deque[str]] = {}
        for root in roots:
            queues.setdefault(namespace_of(root), deque()).append(root)
        waiting = [
            (self._start(namespace), number, namespace) for number, namespace in enumerate(queues)
        ]
        heapq.heapify(waiting)
        while waiting:
            self._served, number, namespace = heapq.heappop(waiting)
            yield queues[namespace].popleft()
            if queues[namespace]:
                heapq.heappush(waiting, (self._start(namespace), number, namespace))

    def charge(self, namespace: str, seconds: float, now: float) -> None:
        """A workload of the namespace was derived: `seconds` of processor time, until `now`."""
        self._virtual[namespace] = self._start(namespace) + seconds
        self._window[namespace] += seconds
        if namespace in self.seconds:
            self.seconds[namespace] += seconds
        elif self._window[namespace] >= LONG_SECONDS:
            self.seconds[namespace] = self._window[namespace]
        taken = self._taken(namespace, now) + seconds
        self._burst[namespace] = (taken, now)
        if seconds > LONG_SECONDS or taken > BURST_SECONDS:
            self._paused_until[namespace] = now + seconds

    def resumes_at(self, namespace: str) -> float:
        """When the namespace's next workload may be derived; in the past where it may be now."""
        return self._paused_until.get(namespace, 0.0)

    def busy(self, now: float) -> str | None:
        """A sentence about namespaces that take much time; None without any."""
        if now - self._window_began >= WINDOW_SECONDS:
            most = BUSY_SHARE * (now - self._window_began)
            self._busy = tuple(
                sorted(name for name, seconds in self._window.items() if seconds > most)
            )
            self._window, self._window_began = defaultdict(float), now
            self._paused_until = {
                name: until for name, until in self._paused_until.items() if until > now
            }
            self._burst = {
                name: last for name, last in self._burst.items() if self._taken(name, now) > 0.0
            }
        if not self._busy:
            return None
        shown = ", ".join(self._busy[:_SHOWN_NAMESPACES])
        return (
            f"large objects that keep changing take more than {BUSY_SHARE:.0%} of the agent's time in "
            f"{len(self._busy)} namespaces, whose records may be late: {shown}"
        )

    def _start(self, namespace: str) -> float:
        return max(self._served, self._virtual.get(namespace, 0.0))

    def _taken(self, namespace: str, now: float) -> float:
        seconds, at = self._burst.get(namespace, (0.0, now))
        return max(0.0, seconds - (now - at) / 2)
