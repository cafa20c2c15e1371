"""What an agent may claim: an agent that was taken over can lie, but not so that anybody else's answers break.

Pure; says in our words why an item is not taken. The rest of its batch is.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from watchbill.protocol import (
    MAX_BYTES,
    MAX_COUNT,
    MAX_GPUS,
    Item,
    Measured,
    Reading,
    Scrape,
    Upsert,
)
from watchbill.workload import GPU_MILLIONTHS, Transition

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Of what may lie ahead."""
CLOCK_AHEAD = timedelta(days=1)
MAX_RECORD_ELEMENTS = 2_000
MAX_TRANSITIONS = 10_000
TEXT_CHARACTERS = 1024 * 1024
"""Of all messages of an item's transitions, and of all names of its elements."""
DOCUMENT_BYTES = 256 * 1024
MAX_CORES = 1e9
MAX_READING = 1e18
"""Bytes, requests or seconds counted up; sums of millions of them stay finite."""
MAX_LABEL_CHARACTERS = 200

TOO_LARGE = "The record is larger than 256 KiB."


def violation(item: Item, now: datetime) -> str | None:
    """Why the item cannot be true or cannot be kept; None where nothing is against it."""
    transitions = item.transitions
    happened = [transition.at for transition in transitions]
    if isinstance(item, Upsert):
        workload = item.record.workload
        happened += [item.observed_at, workload.created_at]
        happened += [workload.completed_at] if workload.completed_at else []
        if not _are_between(_given(workload.guaranteed_runtime_ends_at), LATEST):
            return "A time in the record is none that can be."
        reason = _why_not_record(item)
    else:
        happened.append(item.deleted_at)
        reason = None
    if not _are_between(happened, now + CLOCK_AHEAD):
        return "A time in the record has no offset, is too long ago or still to come."
    if len(transitions) > MAX_TRANSITIONS or _characters(transitions) > TEXT_CHARACTERS:
        return "The record tells of too many phases at once."
    return reason


def _why_not_record(item: Upsert) -> str | None:
    record, workload = item.record, item.record.workload
    usage = record.usage
    bounded: tuple[tuple[float | None, float], ...] = (
        *((count, MAX_COUNT) for count in (usage.pod_count, usage.running_pod_count)),
        *((count, MAX_COUNT) for count in (record.elements_total, workload.running_pods)),
        (usage.gpu_millionths, MAX_GPUS * GPU_MILLIONTHS),
        *(
            (held, MAX_GPUS * GPU_MILLIONTHS)
            for held in record.gpu_millionths_by_node_pool.values()
        ),
        (workload.allocated_resources.gpu, MAX_GPUS),
        (workload.idle_allocated_gpus, MAX_GPUS),
        (workload.idle_gpus, MAX_GPUS),
        (usage.gpu_memory_request_bytes, MAX_BYTES),
        (usage.cpu_memory_request_bytes, MAX_BYTES),
        (usage.cpu_memory_limit_bytes, MAX_BYTES),
        (usage.cpu_request_cores, MAX_CORES),
        (usage.cpu_limit_cores, MAX_CORES),
    )
    for value, most in bounded:
        if value is not None and value < 0:
            return "A quantity in the record is negative."
        if value is not None and value > most:
            return "A quantity in the record is larger than any cluster's."
    if len(record.elements) > MAX_RECORD_ELEMENTS:
        return f"The record has more than {MAX_RECORD_ELEMENTS} elements."
    if sum(len(element.name) for element in record.elements) > TEXT_CHARACTERS:
        return "The names of the record's elements are too long."
    return None


def plausible_scrape(scrape: Scrape, now: datetime) -> Scrape | None:
    """The scrape without figures that cannot be; None where its time cannot be."""
    if not _are_between((scrape.at, scrape.counted_since), now + CLOCK_AHEAD):
        return None
    return msgspec.structs.replace(
        scrape,
        workloads=tuple(
            Measured(measured.id, tuple(filter(_is_plausible, measured.readings)))
            for measured in scrape.workloads
        ),
    )


def _is_plausible(reading: Reading) -> bool:
    return 0 <= reading.value <= MAX_READING and len(reading.label) <= MAX_LABEL_CHARACTERS


def _given(at: datetime | None) -> Sequence[datetime]:
    return () if at is None else (at,)


def _are_between(times: Iterable[datetime], latest: datetime) -> bool:
    return all(at.tzinfo is not None and EARLIEST <= at <= latest for at in times)


def _characters(transitions: Sequence[Transition]) -> int:
    return sum(len(transition.message or "") for transition in transitions)
