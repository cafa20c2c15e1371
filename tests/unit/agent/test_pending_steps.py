"""What an agent observed between two records that the server takes: told later, and no more than is kept."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.fixtures.records import record, workload
from watchbill.agent.stream import pending_changes as module
from watchbill.agent.stream.pending_changes import PendingChanges, PreparedBatch
from watchbill.kinds.derive import Derived
from watchbill.protocol import Delete, RefusedItem, Upsert
from watchbill.workload import Phase, Transition

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ROOT = str(UUID(int=1))


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def observe(pending: PendingChanges, minutes: float, gpus: float, **members: object) -> None:
    made = record(workload(1, gpus=gpus, created_at=NOW, **members))
    history = (Transition(phase=Phase.RUNNING, at=NOW),)
    pending.update(ROOT, Derived(made, history), at(minutes))


def batch(pending: PendingChanges) -> PreparedBatch:
    return pending.next_batch(max_workloads=100, max_bytes=10**9, derive=lambda _: None)


def acknowledged() -> PendingChanges:
    """The server has a record of eight GPUs."""
    pending = PendingChanges()
    observe(pending, 0, 8)
    pending.acknowledge(batch(pending), ())
    return pending


def steps(item: object) -> list[tuple[float, int | None]]:
    assert isinstance(item, Upsert)
    return [((step.at - NOW) / timedelta(minutes=1), step.allocated_gpu) for step in item.steps]


def test_there_and_back_again_is_told_with_its_times() -> None:
    """Eight, two and eight GPUs: the last record is the one that the server has."""
    pending = acknowledged()
    observe(pending, 10, 2)
    observe(pending, 20, 8)
    sent = batch(pending)
    (item,) = sent.items
    assert steps(item) == [(10, 2_000_000)]
    assert item.observed_at == at(20)
    pending.acknowledge(sent, ())
    assert (len(pending), pending.step_count) == (0, 0)


def test_what_changes_no_figure_is_no_step() -> None:
    pending = acknowledged()
    observe(pending, 10, 8, running_pods=2)
    observe(pending, 20, 8, running_pods=3)
    (item,) = batch(pending).items
    assert steps(item) == []


def test_an_owner_that_changes_is_a_step() -> None:
    pending = acknowledged()
    observe(pending, 10, 8, submitted_by="grace@example.com")
    observe(pending, 20, 8)
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [step.submitted_by for step in item.steps] == ["grace@example.com"]


def test_what_was_not_taken_is_told_again_with_what_came_meanwhile() -> None:
    pending = acknowledged()
    observe(pending, 10, 2)
    observe(pending, 20, 4)
    lost = batch(pending)
    observe(pending, 30, 1)
    pending.put_back(lost)
    pending.reset_acknowledged()
    sent = batch(pending)
    (item,) = sent.items
    assert steps(item) == [(10, 2_000_000), (20, 4_000_000)]
    pending.acknowledge(sent, ())
    assert pending.step_count == 0


def test_a_deleted_workload_tells_what_it_was_before() -> None:
    pending = acknowledged()
    observe(pending, 10, 2)
    observe(pending, 20, 4)
    pending.delete(ROOT, at(30))
    last, deletion = batch(pending).items
    assert steps(last) == [(10, 2_000_000)]
    assert isinstance(deletion, Delete)
    assert pending.step_count == 0


def test_a_record_that_is_refused_takes_its_steps_along() -> None:
    pending = acknowledged()
    observe(pending, 10, 2)
    observe(pending, 20, 4)
    sent = batch(pending)
    pending.acknowledge(sent, [RefusedItem(id=UUID(ROOT), reason="too large")])
    if len(pending):  # all of its pods are sent before a refusal counts
        pending.acknowledge(batch(pending), [RefusedItem(id=UUID(ROOT), reason="too large")])
    assert (len(pending), pending.step_count) == (0, 0)


@pytest.mark.parametrize("limit", ["MAX_STEPS", "MAX_KEPT_STEPS"])
def test_no_more_is_kept_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 3)
    pending = acknowledged()
    for minute in range(1, 8):
        observe(pending, minute, minute)
    (item,) = batch(pending).items
    assert steps(item) == [(4, 4_000_000), (5, 5_000_000), (6, 6_000_000)]
    assert (pending.step_count, pending.losses) == (3, 3)


def test_what_is_dropped_while_a_batch_is_on_its_way_takes_nothing_else_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three steps are sent; two more push the oldest two out before the answer comes."""
    monkeypatch.setattr(module, "MAX_STEPS", 3)
    pending = acknowledged()
    for minutes in range(1, 5):
        observe(pending, minutes, minutes)
    sent = batch(pending)
    observe(pending, 5, 5)
    observe(pending, 6, 6)
    pending.acknowledge(sent, ())
    (item,) = batch(pending).items
    assert steps(item) == [(4, 4_000_000), (5, 5_000_000)]
    assert pending.step_count == 2
