"""Which items of a batch are written together. Pure."""

from collections.abc import Sequence
from uuid import UUID

from watchbill.protocol import BatchItem, Upsert

MAX_ROWS = 500
"""That are written together, about: while they are made ready everybody else waits."""


def runs_of(items: Sequence[BatchItem]) -> list[list[BatchItem]]:
    """Items of the same action one after the other; an id once, and so many rows, in each run."""
    runs: list[list[BatchItem]] = []
    seen: set[UUID] = set()
    rows = 0
    for item in items:
        is_other = not runs or type(item) is not type(runs[-1][0]) or item_id(item) in seen
        if is_other or rows + _rows(item) > MAX_ROWS:
            runs.append([])
            seen, rows = set(), 0
        runs[-1].append(item)
        seen.add(item_id(item))
        rows += _rows(item)
    return runs


def _rows(item: BatchItem) -> int:
    """What is written of it, about."""
    count = 1 + len(item.transitions)
    if isinstance(item, Upsert):
        pods = item.pods
        count += len(item.steps) + len(item.record.elements)
        count += 0 if pods is None else len(pods.changed) + len(pods.removed)
    return count


def item_id(item: BatchItem) -> UUID:
    return item.record.workload.id if isinstance(item, Upsert) else item.id
