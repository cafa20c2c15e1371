"""What is kept for a server that does not answer, fewer where it is too much: of the namespaces that have most.

Two steps of usage become one that lasts as long, with their means over time: what was held in all stays the
same, only the times are less exact. So whoever changes a workload without end takes nothing from others, and
leaves no time of which nothing is known. Pure.
"""

import heapq
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from watchbill.protocol import BatchItem, Delete, Upsert
from watchbill.workload import WorkloadStep

DROPPED_SHARE = 0.1
"""Of the most bytes of deletions, what is dropped at once: who has most is looked for among all of them."""

_END_BYTES = 600
"""Of memory, about, of a deletion without its last record."""

KEPT_SHARE = 0.75
"""Of the most that may be kept, what stays once it is exceeded: thinning out looks at every workload."""


class WithSteps(Protocol):
    """A workload: `step` of its present record, `steps` of earlier ones, the oldest first.

    `steps_on_their_way`: so many of these, the first, may have come to the server, which keeps what it has of
    a time: joined with a later one they would hide that.
    """

    namespace: str
    steps: list[WorkloadStep]
    step: WorkloadStep | None
    steps_on_their_way: int


def thin_out(workload: WithSteps) -> None:
    """About half of its steps stay, and those on their way. Of a single other one nothing does: what was before
    it counts for its time."""
    sent = workload.steps[: workload.steps_on_their_way]
    steps, present = workload.steps[len(sent) :], workload.step
    ends = [step.at for step in steps[2::2]]
    if present is not None:
        ends.append(present.at)
    joined = [
        _joined(first, second, until)
        for first, second, until in zip(steps[::2], steps[1::2], ends, strict=False)
    ]
    if len(steps) % 2 and len(steps) > 1:
        joined.append(steps[-1])
    workload.steps = sent + joined


def joinable_count(workload: WithSteps) -> int:
    """How many of its steps are not on their way."""
    return max(0, len(workload.steps) - workload.steps_on_their_way)


def thin_out_largest(workloads: Iterable[WithSteps], most: int) -> None:
    """Of all together fewer than `most` stay, if no more are on their way: the namespaces that have most other
    steps give theirs up first."""
    by_namespace: dict[str, list[WithSteps]] = defaultdict(list)
    left = 0
    for workload in workloads:
        joinable = joinable_count(workload)
        left += len(workload.steps) - joinable
        if joinable:
            by_namespace[workload.namespace].append(workload)
    largest: list[tuple[int, str]] = []
    for namespace, having in by_namespace.items():
        count = _count(having)
        left += count
        heapq.heappush(largest, (-count, namespace))
    while left > most * KEPT_SHARE and largest and largest[0][0]:
        negative, namespace = heapq.heappop(largest)
        for workload in by_namespace[namespace]:
            thin_out(workload)
        count = _count(by_namespace[namespace])
        left += negative + count
        heapq.heappush(largest, (-count, namespace))


def _count(workloads: Iterable[WithSteps]) -> int:
    return sum(map(joinable_count, workloads))


def _joined(first: WorkloadStep, second: WorkloadStep, until: datetime) -> WorkloadStep:
    """One from `first.at` to `until`: its names are the longer one's, idle hours go on as they began."""
    seconds = (until - first.at).total_seconds()
    before_second = (second.at - first.at).total_seconds()
    share = min(1.0, max(0.0, before_second / seconds)) if seconds > 0 else 0.5

    def mean(before: float, after: float) -> float:
        return before * share + after * (1 - share)

    longer = first if share >= 0.5 else second
    allocated = None
    if first.allocated_gpu is not None or second.allocated_gpu is not None:
        allocated = round(mean(first.allocated_gpu or 0, second.allocated_gpu or 0))
    models = {
        name: gpus
        for name in first.gpu_by_model | second.gpu_by_model
        if (gpus := round(mean(*(step.gpu_by_model.get(name, 0) for step in (first, second)))))
    }
    is_divided = abs(sum(models.values()) - (allocated or 0)) <= len(models)
    return replace(
        longer,
        at=first.at,
        requested_gpu=round(mean(first.requested_gpu, second.requested_gpu)),
        allocated_gpu=allocated,
        idle_gpu=None if first.idle_gpu is None else min(first.idle_gpu, allocated or 0),
        idle_hours=first.idle_hours,
        idle_mean_since=first.idle_mean_since,
        cpu_cores=mean(first.cpu_cores, second.cpu_cores),
        memory_bytes=round(mean(first.memory_bytes, second.memory_bytes)),
        gpu_by_model=models if is_divided else {},
    )


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deleted workload: its last record, compressed, if the server does not have it, and its deletion.

    `may_be_known`: whether the server may have an earlier record."""

    namespace: str
    compressed: bytes | None
    delete: Delete
    may_be_known: bool

    def size_bytes(self) -> int:
        """Of memory, about."""
        return _END_BYTES + len(self.compressed or b"") + 100 * len(self.delete.transitions)

    def without_record(self) -> "Deleted":
        """When it ended, and nothing else."""
        return Deleted(
            self.namespace, None, replace(self.delete, transitions=()), self.may_be_known
        )

    def items(self) -> Iterator[BatchItem]:
        """What is sent."""
        if self.compressed is not None:
            yield msgspec.json.decode(zlib.decompress(self.compressed), type=Upsert)
        yield self.delete


def drop_deletions(deleted: "OrderedDict[int, tuple[str, Deleted]]", most_bytes: int) -> int:
    """Fewer than so many bytes stay: the oldest go, of the namespace that has most.

    First the last records, and all of workloads that the server does not know: of the others their ends stay,
    which are small, and no more than the server has live workloads. Only where these are too many, they go.
    Returns of how many workloads the server is not told what it lacks; of those that it does not know it has
    nothing."""
    target = most_bytes * (1 - DROPPED_SHARE)
    return _drop(deleted, target, keeps_ends=True) + _drop(deleted, target, keeps_ends=False)


def _drop(
    deleted: "OrderedDict[int, tuple[str, Deleted]]", target_bytes: float, *, keeps_ends: bool
) -> int:
    """Until there is room, or only ends are left; one by one, each of the namespace that has most then."""
    numbers: defaultdict[str, deque[int]] = defaultdict(deque)
    sizes: Counter[str] = Counter()
    left = 0
    for number, (_, each) in deleted.items():
        left += each.size_bytes()
        if freed := _freed(each, keeps_ends=keeps_ends):
            numbers[each.namespace].append(number)
            sizes[each.namespace] += freed
    largest = [(-size, namespace) for namespace, size in sizes.items()]
    heapq.heapify(largest)
    dropped = 0
    while left > target_bytes and largest:
        _, namespace = heapq.heappop(largest)
        number = numbers[namespace].popleft()
        root, each = deleted[number]
        if keeps_ends and each.may_be_known:
            deleted[number] = (root, each.without_record())
        else:
            del deleted[number]
        freed = _freed(each, keeps_ends=keeps_ends)
        dropped += each.may_be_known
        left -= freed
        sizes[namespace] -= freed
        if numbers[namespace]:
            heapq.heappush(largest, (-sizes[namespace], namespace))
    return dropped


def _freed(each: Deleted, *, keeps_ends: bool) -> int:
    return each.size_bytes() - (_END_BYTES if keeps_ends and each.may_be_known else 0)
