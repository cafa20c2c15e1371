"""What an agent may claim: one that was taken over can lie, but not so that anybody else's answers break.

Pure. A single impossible time or number costs its member, not the workload: `repair` leaves it out and names
it. `violation` names what cannot be stored at all. Every number that is summed has an upper bound here.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from watchbill.protocol import (
    BATCH_READINGS,
    MAX_BYTES,
    MAX_COUNT,
    MAX_GPUS,
    MAX_MODEL_CHARACTERS,
    MAX_READING,
    BatchItem,
    Delete,
    Measured,
    PodChanges,
    Reading,
    Record,
    Scrape,
)
from watchbill.workload import (
    GPU_MILLIONTHS,
    MAX_STEPS,
    Transition,
    Workload,
    WorkloadEvent,
    WorkloadStep,
    idle_hours,
)
from watchbill.workload_pod import WorkloadPod

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Of what may lie in the future."""
CLOCK_AHEAD = timedelta(days=1)
MAX_RECORD_ELEMENTS = 2_000
MAX_TRANSITIONS = 1_000
MAX_BATCH_TRANSITIONS = 5_000
"""Of all items of a batch: each is worked on while everybody else waits."""
MAX_BATCH_STEPS = 20_000
MAX_BATCH_READINGS = 2 * BATCH_READINGS
"""An agent fills a batch up to `BATCH_READINGS`, and one workload may not fit any better."""
MAX_NESTING = 32
"""Of what the contract leaves open: writers and readers of JSON go down one call a level."""
MAX_GPU_MODELS = 100
MAX_NODE_POOLS = 100
"""Of one workload: each is a group of answers."""
TEXT_CHARACTERS = 1024 * 1024
"""Of all messages of an item's transitions, and of all names of its elements."""
MAX_DOCUMENT_BYTES = 256 * 1024

TOO_LARGE = "The record is larger than 256 KiB."

MAX_CORES = 1e9
MAX_LABEL_CHARACTERS = 200
_INT32 = 2**31 - 1

_USAGE_BOUNDS: Mapping[str, float] = {
    "pod_count": MAX_COUNT,
    "running_pod_count": MAX_COUNT,
    "gpu_millionths": MAX_GPUS * GPU_MILLIONTHS,
    "gpu_memory_request_bytes": MAX_BYTES,
    "cpu_request_cores": MAX_CORES,
    "cpu_limit_cores": MAX_CORES,
    "cpu_memory_request_bytes": MAX_BYTES,
    "cpu_memory_limit_bytes": MAX_BYTES,
}
_WORKLOAD_BOUNDS: Mapping[str, float] = {
    "running_pods": MAX_COUNT,
    "idle_allocated_gpus": MAX_GPUS,
    "idle_gpus": MAX_GPUS,
}
_REQUIRED = frozenset(
    {"pod_count", "running_pod_count", "gpu_memory_request_bytes", "running_pods"}
)
"""These become 0 where they are impossible; every other one becomes unknown."""

_S = TypeVar("_S", bound=Struct)


def violation(item: BatchItem) -> str | None:
    """Why the item cannot be stored; None where nothing prevents it."""
    transitions = item.transitions
    if len(transitions) > MAX_TRANSITIONS or _characters(transitions) > TEXT_CHARACTERS:
        return "The record lists too many phases at once."
    if isinstance(item, Delete):
        return None
    if _is_nested_deeper(item.record.workload.additional_fields, MAX_NESTING):
        return f"The record is nested more than {MAX_NESTING} levels deep."
    elements = item.record.elements
    if len(elements) > MAX_RECORD_ELEMENTS:
        return f"The record has more than {MAX_RECORD_ELEMENTS} elements."
    if sum(len(element.name) for element in elements) > TEXT_CHARACTERS:
        return "The names of the record's elements are too long."
    return None


def newest_transitions(item: BatchItem, most: int) -> tuple[BatchItem, str | None]:
    """The item with at most so many transitions, the last ones, and a sentence where some were left out."""
    if len(item.transitions) <= most:
        return item, None
    kept = item.transitions[len(item.transitions) - most :]
    reason = f"The batch lists more than {MAX_BATCH_TRANSITIONS} phases: earlier ones are left out."
    return replace(item, transitions=kept), reason


def newest_steps(item: BatchItem, most: int) -> tuple[BatchItem, str | None]:
    """The same for what was observed before the record."""
    if isinstance(item, Delete) or len(item.steps) <= most:
        return item, None
    kept = item.steps[len(item.steps) - most :]
    reason = (
        f"The batch lists more than {MAX_STEPS} steps of usage of a workload, or {MAX_BATCH_STEPS} in all: "
        "earlier ones are left out."
    )
    return replace(item, steps=kept), reason


def _is_nested_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


def repair(item: BatchItem, now: datetime) -> tuple[BatchItem, str | None]:
    """The item without what is impossible, and a sentence that names it; None where nothing was left out."""
    left_out: list[str] = []
    latest = now + CLOCK_AHEAD
    transitions = tuple(entry for entry in item.transitions if _is_time(entry.at, latest))
    if len(transitions) < len(item.transitions):
        left_out.append("times of phases")
    if isinstance(item, Delete):
        deleted_at = item.deleted_at
        if not _is_time(deleted_at, latest):
            left_out.append("deletedAt")
            deleted_at = now
        not_before = item.not_before
        if not_before is not None and not _is_time(not_before, deleted_at):
            left_out.append("notBefore")
            not_before = None
        repaired: BatchItem = replace(
            item, transitions=transitions, deleted_at=deleted_at, not_before=not_before
        )
    else:
        observed_at = item.observed_at
        if not _is_time(observed_at, latest):
            left_out.append("observedAt")
            observed_at = now
        record = _repair_record(item.record, observed_at, latest, left_out)
        repaired = replace(
            item,
            transitions=transitions,
            observed_at=observed_at,
            record=record,
            pods=_repair_pods(item.pods, observed_at, latest, left_out),
            steps=_possible_steps(item.steps, latest, left_out),
        )
    if not left_out:
        return item, None
    return repaired, f"The record is stored without what is impossible: {', '.join(left_out)}."


def _repair_record(
    record: Record, observed_at: datetime, latest: datetime, left_out: list[str]
) -> Record:
    workload = _repair_workload(record.workload, observed_at, latest, left_out)
    usage = _bounded(record.usage, _USAGE_BOUNDS, left_out)
    shares = record.gpu_millionths_by_node_pool
    if (
        len(shares) > MAX_NODE_POOLS
        or usage.gpu_millionths != record.usage.gpu_millionths
        or not all(0 <= share <= _USAGE_BOUNDS["gpu_millionths"] for share in shares.values())
    ):
        left_out.append("GPUs by node pool")
        shares = {}
    models = record.gpu_millionths_by_model
    if models and not _is_division(models, usage.gpu_millionths):
        left_out.append("GPUs by model")
        models = {}
    total = record.elements_total
    if not 0 <= total <= MAX_COUNT:
        left_out.append("number of elements")
        total = len(record.elements)
    return replace(
        record,
        workload=workload,
        usage=usage,
        gpu_millionths_by_node_pool=shares,
        gpu_millionths_by_model=models,
        elements_total=total,
    )


def _repair_pods(
    changes: PodChanges | None, observed_at: datetime, latest: datetime, left_out: list[str]
) -> PodChanges | None:
    """Without times that cannot be, and without amounts that nothing has."""
    if changes is None:
        return None
    pods = tuple(_repair_pod(pod, observed_at, latest) for pod in changes.changed)
    if pods == changes.changed:
        return changes
    left_out.append("times and amounts of pods")
    return replace(changes, changed=pods)


def _repair_pod(pod: WorkloadPod, observed_at: datetime, latest: datetime) -> WorkloadPod:
    wrong: dict[str, Any] = {
        name: None
        for name in ("completed_at", "k8s_phase_updated_at")
        if (at := getattr(pod, name)) is not None and not _is_time(at, latest)
    }
    if not _is_time(pod.created_at, latest):
        wrong["created_at"] = observed_at
    held = pod.allocated_resources
    if held is not None and held.gpu is not None and not _is_number(held.gpu, MAX_GPUS):
        wrong["allocated_resources"] = None
    return replace(pod, **wrong) if wrong else pod


def _possible_steps(
    steps: tuple[WorkloadStep, ...], latest: datetime, left_out: list[str]
) -> tuple[WorkloadStep, ...]:
    possible = tuple(step for step in steps if _is_step(step, latest))
    if len(possible) < len(steps):
        left_out.append("steps of usage")
    return possible


def _is_step(step: WorkloadStep, latest: datetime) -> bool:
    gpus = (step.requested_gpu, step.allocated_gpu or 0, step.idle_gpu or 0)
    mean_since = step.idle_mean_since
    return (
        _is_time(step.at, latest)
        and (mean_since is None or mean_since.tzinfo is not None)
        and all(0 <= amount <= _USAGE_BOUNDS["gpu_millionths"] for amount in gpus)
        and idle_hours(step.idle_hours) is not None
        and _is_number(step.cpu_cores, MAX_CORES)
        and _is_number(step.memory_bytes, MAX_BYTES)
        and (not step.gpu_by_model or _is_division(step.gpu_by_model, step.allocated_gpu))
    )


def _is_division(shares: Mapping[str, int], total: int | None) -> bool:
    """A few names, each with a part of the total, which is about what they add up to."""
    return (
        len(shares) <= MAX_GPU_MODELS
        and all(len(name) <= MAX_MODEL_CHARACTERS for name in shares)
        and all(0 < share <= _USAGE_BOUNDS["gpu_millionths"] for share in shares.values())
        and total is not None
        and abs(sum(shares.values()) - total) <= MAX_NODE_POOLS
    )


def _repair_workload(
    workload: Workload, observed_at: datetime, latest: datetime, left_out: list[str]
) -> Workload:
    changes: dict[str, Any] = {}
    if not _is_time(workload.created_at, latest):
        changes["created_at"] = observed_at
    if workload.completed_at is not None and not _is_time(workload.completed_at, latest):
        changes["completed_at"] = None
    ends_at = workload.guaranteed_runtime_ends_at
    if ends_at is not None and not _is_time(ends_at, LATEST):
        changes["guaranteed_runtime_ends_at"] = None
    if workload.priority is not None and abs(workload.priority) > _INT32:
        changes["priority"] = None
    allocated = workload.allocated_resources
    if allocated.gpu is not None and not _is_number(allocated.gpu, MAX_GPUS):
        changes["allocated_resources"] = replace(allocated, gpu=None)
    for name in ("current_node_pools", "requested_node_pools"):
        if len(getattr(workload, name)) > MAX_NODE_POOLS:
            changes[name] = getattr(workload, name)[:MAX_NODE_POOLS]
    left_out += [_camel(name) for name in changes]
    return _bounded(replace(workload, **changes), _WORKLOAD_BOUNDS, left_out)


def _bounded(struct: _S, bounds: Mapping[str, float], left_out: list[str]) -> _S:
    changes = {
        name: 0 if name in _REQUIRED else None
        for name, bound in bounds.items()
        if (value := getattr(struct, name)) is not None and not _is_number(value, bound)
    }
    left_out += [_camel(name) for name in changes]
    return replace(struct, **changes) if changes else struct


def valid_events(events: Iterable[WorkloadEvent], now: datetime) -> Iterator[WorkloadEvent]:
    """Those that can have happened."""
    latest = now + CLOCK_AHEAD
    for event in events:
        if _is_time(event.last_at, latest) and _is_time(event.first_at, event.last_at):
            yield event


def valid_scrapes(scrapes: Iterable[Scrape], now: datetime) -> Iterator[Scrape]:
    """As `valid_scrape`, and of all together no more readings than a batch may have."""
    left = MAX_BATCH_READINGS
    for scrape in scrapes:
        kept: list[Measured] = []
        for measured in scrape.workloads:
            if left < len(measured.readings):
                return
            left -= max(1, len(measured.readings))
            kept.append(measured)
        valid = valid_scrape(replace(scrape, workloads=tuple(kept)), now)
        if valid is not None:
            yield valid


def valid_scrape(scrape: Scrape, now: datetime) -> Scrape | None:
    """The scrape without figures that cannot be; None where its time cannot be."""
    if not all(_is_time(at, now + CLOCK_AHEAD) for at in (scrape.at, scrape.counted_since)):
        return None
    return replace(
        scrape,
        workloads=tuple(
            replace(measured, readings=tuple(filter(_is_valid, measured.readings)))
            for measured in scrape.workloads
        ),
    )


def _is_valid(reading: Reading) -> bool:
    return 0 <= reading.value <= MAX_READING and len(reading.label) <= MAX_LABEL_CHARACTERS


def _is_time(at: datetime, latest: datetime) -> bool:
    return at.tzinfo is not None and EARLIEST <= at <= latest


def possible_time(at: datetime | None) -> datetime | None:
    """None for one that cannot be, which a column might not even hold."""
    return at if at is not None and _is_time(at, LATEST) else None


def _is_number(value: float, bound: float) -> bool:
    return 0 <= value <= bound and isfinite(value)


def _characters(transitions: Iterable[Transition]) -> int:
    return sum(len(transition.message or "") for transition in transitions)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)
