"""What an agent observed between two records that the server takes: sent later, and no more than is kept."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import msgspec
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


def test_there_and_back_again_is_reported_with_its_times() -> None:
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


def test_back_again_for_a_while_is_a_step_though_the_server_has_such_a_record() -> None:
    """Eight, two, eight and four GPUs."""
    pending = acknowledged()
    for minutes, gpus in ((10, 2), (20, 8), (30, 4)):
        observe(pending, minutes, gpus)
    (item,) = batch(pending).items
    assert steps(item) == [(10, 2_000_000), (20, 8_000_000)]


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


def test_what_was_not_taken_is_reported_again_with_what_came_meanwhile() -> None:
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


def gpu_minutes(pending: PendingChanges, until: float, root: str = ROOT) -> float:
    """What is reported of the time from the first step on."""
    reported = [
        *pending.workloads[root].steps,
        msgspec.structs.replace(pending.workloads[root].step, at=at(until)),
    ]
    return sum(
        (step.allocated_gpu or 0) / 1_000_000 * ((following.at - step.at) / timedelta(minutes=1))
        for step, following in pairwise(reported)
    )


def test_too_many_steps_of_a_workload_become_fewer_that_hold_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 3)
    pending = acknowledged()
    for minute in range(1, 8):
        observe(pending, minute, minute)
    (item,) = batch(pending).items
    assert steps(item) == [(1, 2_500_000), (5, 5_500_000)]
    assert pending.step_count == 2
    assert gpu_minutes(pending, 7) == 1 + 2 + 3 + 4 + 5 + 6
    pending.acknowledge(batch(pending), ())


def observe_model(pending: PendingChanges, minutes: float, gpus: float, model: str) -> None:
    models = {model: int(gpus * 1_000_000)} if gpus else {}
    made = record(workload(1, gpus=gpus, created_at=NOW), gpu_millionths_by_model=models)
    pending.update(ROOT, Derived(made, (Transition(phase=Phase.RUNNING, at=NOW),)), at(minutes))


def test_whatever_is_joined_the_sums_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 10)
    draw = random.Random(11)
    pending = acknowledged()
    now, held, sums = 10.0, 3.0, 0.0
    observe_model(pending, now, held, "A")
    for _ in range(500):
        after = now + draw.uniform(0.01, 9)
        sums += held * (after - now)
        now, held = after, (held + draw.randint(1, 7)) % 9
        observe_model(pending, now, held, draw.choice("AB"))
    assert len(pending.workloads[ROOT].steps) <= 10
    assert gpu_minutes(pending, now) == pytest.approx(sums, rel=1e-4)
    for step in pending.workloads[ROOT].steps:
        assert sum(step.gpu_by_model.values()) == pytest.approx(step.allocated_gpu, abs=2)


def test_who_changes_without_end_gives_up_steps_first_and_no_time_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workloads of another namespace with few changes keep each of theirs."""
    monkeypatch.setattr(module, "MAX_KEPT_STEPS", 100)
    pending = PendingChanges()
    pending.is_synced = True

    def change(number: int, minutes: float, gpus: float, namespace: str) -> None:
        made = record(workload(number, gpus=gpus, created_at=NOW, namespace=namespace))
        history = (Transition(phase=Phase.RUNNING, at=NOW),)
        pending.update(str(UUID(int=number)), Derived(made, history), at(minutes))

    for minute in range(11):
        change(1, minute, minute, "quiet")
        change(2, minute, 2 * minute, "quiet")
    quiet = [tuple(pending.workloads[str(UUID(int=number))].steps) for number in (1, 2)]
    for minute in range(11, 200):
        for number in range(3, 13):
            change(number, minute, minute % 8 + 1, "flood")
    assert [len(each) for each in quiet] == [10, 10]
    assert [tuple(pending.workloads[str(UUID(int=number))].steps) for number in (1, 2)] == quiet
    assert pending.step_count == sum(len(each.steps) for each in pending.workloads.values()) <= 100
    assert pending.dropped_deletions == 0


def test_what_is_joined_while_a_batch_is_on_its_way_takes_nothing_else_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two steps and the record after them are sent; two more changes come before the answer."""
    monkeypatch.setattr(module, "MAX_STEPS", 2)
    pending = acknowledged()
    for minutes in range(1, 4):
        observe(pending, minutes, minutes)
    sent = batch(pending)
    observe(pending, 4, 4)
    observe(pending, 5, 5)
    pending.acknowledge(sent, ())
    (item,) = batch(pending).items
    first = sent.items[0]
    assert isinstance(first, Upsert)
    assert [minute for minute, _ in steps(first)] == [1, 2]
    assert first.observed_at == at(3)
    assert steps(item)[-1] == (4, 4_000_000)
    assert pending.step_count == len(pending.workloads[ROOT].steps)


@pytest.mark.parametrize("most", [2, 3, 5, 10])
@pytest.mark.parametrize("before", range(5))
def test_what_the_server_may_have_is_joined_with_nothing_after_it(
    monkeypatch: pytest.MonkeyPatch, before: int, most: int
) -> None:
    """It keeps the first of two steps of one time; a batch is on its way while the agent is cut off."""
    monkeypatch.setattr(module, "MAX_STEPS", most)
    monkeypatch.setattr(module, "MAX_KEPT_STEPS", 12)
    pending = acknowledged()
    stored = {at(0): 8.0}
    held = [minute % 7 for minute in range(1, 100)]

    def take(sent: PreparedBatch) -> None:
        for item in sent.items:
            assert isinstance(item, Upsert)
            for step in (*item.steps, item.record.step(item.observed_at)):
                stored.setdefault(step.at, (step.allocated_gpu or 0) / 1_000_000)
        pending.acknowledge(sent, ())

    for minute, gpus in enumerate(held, 1):
        observe(pending, minute, gpus)
        if minute == before + 1:
            sent = batch(pending)
    take(sent)
    take(batch(pending))
    assert (len(pending), pending.step_count) == (0, 0)
    accounted = sum(
        gpus * ((until - since) / timedelta(minutes=1))
        for (since, gpus), (until, _) in pairwise(sorted(stored.items()))
    )
    assert accounted == pytest.approx(8 + sum(held[:-1]), rel=1e-4)


def test_joining_ends_where_all_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_STEPS", 10)
    pending = acknowledged()
    for minute in range(1, 6):
        observe(pending, minute, minute)
    sent = batch(pending)
    monkeypatch.setattr(module, "MAX_KEPT_STEPS", 2)
    for minute in range(9, 20):
        observe(pending, minute, minute)
    assert len(pending.workloads[ROOT].steps) == 5
    pending.acknowledge(sent, ())
    assert pending.step_count == 0


def test_what_was_observed_while_cut_off_is_told_though_changes_go_on() -> None:
    """One workload that never comes to rest leaves nobody's gap open."""
    pending = PendingChanges()
    for number in range(1, 4):
        made = record(workload(number, created_at=NOW))
        pending.update(str(UUID(int=number)), Derived(made, ()), NOW)
    server_is_back = pending.next_number
    assert not pending.has_sent(server_is_back)
    for minute in range(3):
        sent = batch(pending)
        observe(pending, minute + 1, minute)
        if minute == 0:
            pending.put_back(sent)
            assert not pending.has_sent(server_is_back)
            continue
        pending.acknowledge(sent, ())
        assert len(pending)
        assert pending.has_sent(server_is_back)


def test_deletions_are_dropped_of_the_namespace_whose_records_are_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few thousand pods with long texts, deleted at once, would else end an agent for want of memory."""
    monkeypatch.setattr(module, "MAX_DELETED_BYTES", 100_000)
    pending = PendingChanges()
    pending.is_synced = True
    for number in range(1, 60):
        namespace = "quiet" if number <= 5 else "flood"
        image = "" if namespace == "quiet" else random.Random(number).randbytes(4_000).hex()
        made = record(workload(number, created_at=NOW, namespace=namespace, images=(image,)))
        pending.update(str(UUID(int=number)), Derived(made, ()), NOW)
        pending.delete(str(UUID(int=number)), at(1))
        sizes = [each.size_bytes() for _, each in pending.deleted.values()]
        assert pending.deleted_bytes == sum(sizes) <= 100_000
    kept = [root for root, _ in pending.deleted.values()]
    assert {str(UUID(int=number)) for number in (1, 2, 3, 4, 5, 59)} <= set(kept)
    pending.put_back(batch(pending))
    assert pending.deleted_bytes == sum(sizes)
    pending.acknowledge(batch(pending), ())
    assert (pending.deleted_bytes, len(pending)) == (0, 0)


def test_deletions_are_dropped_of_the_namespace_that_has_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of workloads of which the server never knew nothing is missing that was anybody else's."""
    monkeypatch.setattr(module, "MAX_DELETED_BYTES", 50_000)
    pending = PendingChanges()
    pending.is_synced = True
    for number in range(1, 200):
        namespace = "quiet" if number <= 5 else "flood"
        made = record(workload(number, created_at=NOW, namespace=namespace))
        pending.update(str(UUID(int=number)), Derived(made, ()), NOW)
        pending.delete(str(UUID(int=number)), at(1))
    kept = [root for root, _ in pending.deleted.values()]
    assert {str(UUID(int=number)) for number in range(1, 6)} <= set(kept)
    assert str(UUID(int=199)) in kept
    assert (pending.deleted_bytes <= 50_000, pending.dropped_deletions) == (True, 0)


def test_what_is_derived_during_a_comparison_waits_for_the_next_one() -> None:
    pending = PendingChanges()
    roots = [str(UUID(int=number)) for number in (1, 2, 3)]
    for number, root in enumerate(roots, start=1):
        pending.update(root, Derived(record(workload(number)), ()), NOW)
    entries = tuple(pending.inventory_entries(pending.uncompared(2)))
    pending.apply_inventory(entries, [entries[1].id])
    assert (list(pending.unsent), pending.compared_count(9)) == (roots[1:], 1)


def test_what_nobody_can_compare_holds_up_nothing() -> None:
    """An aggregated API may call its objects what it likes; inventories know UUIDs alone."""
    pending = PendingChanges()
    roots = ["made-up", str(UUID(int=2))]
    for number, root in enumerate(roots, start=1):
        pending.update(root, Derived(record(workload(number)), ()), NOW)
    assert pending.uncompared(9) == roots[1:]
    entries = tuple(pending.inventory_entries(roots))
    pending.apply_inventory(entries, [entry.id for entry in entries])
    assert pending.uncompared(9) == []
    assert pending.compared_count(9) == 2
    pending.delete(roots[0], NOW)
    pending.withdraw(roots[1], NOW)
    assert [root for root, _ in pending.deleted.values()] == roots[1:]
