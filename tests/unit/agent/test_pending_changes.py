"""Changes that are still to be reported: nothing that matters is lost, nothing is sent twice in vain."""

from collections import Counter, OrderedDict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.fixtures.records import pod, workload
from watchbill.agent.stream import pending_changes as module
from watchbill.agent.stream.fair_share import Deleted, drop_deletions
from watchbill.agent.stream.pending_changes import PendingChanges, PreparedBatch
from watchbill.kinds.derive import Derived
from watchbill.protocol import (
    Delete,
    InventoryEntry,
    Record,
    RefusedItem,
    Upsert,
    Witness,
    record_hash,
)
from watchbill.workload import Phase, Transition, Usage

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ROOT = str(UUID(int=1))


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def step(phase: Phase, seconds: float, message: str | None = None) -> Transition:
    return Transition(phase=phase, at=at(seconds), message=message)


def record(phase: Phase, *, number: int = 1, name: str = "w") -> Record:
    return Record(
        workload=workload(number, phase=phase, name=name),
        witness=Witness(group="", kind="Pod", namespace="n"),
        usage=Usage(pod_count=1, running_pod_count=0, gpu_millionths=0, gpu_memory_request_bytes=0),
        pending_scheduling_messages=(),
        elements=(),
        elements_total=0,
        project_key="p",
        department_key="",
        gpu_millionths_by_node_pool={},
    )


def derived(phase: Phase, *history: Transition, number: int = 1, name: str = "w") -> Derived:
    result = record(phase, number=number, name=name)
    return Derived(result, history)


def batch(pending: PendingChanges, workloads: int = 100) -> PreparedBatch:
    return pending.next_batch(max_workloads=workloads, max_bytes=10**9, derive=lambda _: None)


def test_only_the_newest_record_travels_but_every_transition() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.PENDING, step(Phase.PENDING, -5)), NOW)
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -4)), NOW)
    pending.update(ROOT, derived(Phase.DEGRADED), at(1))
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert item.record.workload.phase is Phase.DEGRADED
    assert [transition.phase for transition in item.transitions] == [
        Phase.PENDING,
        Phase.RUNNING,
        Phase.DEGRADED,
    ]
    assert item.record_hash == record_hash(item.record)


@pytest.mark.parametrize("skew_seconds", [-7200, -5, 0, 5, 7200])
def test_a_history_is_reported_once_whatever_the_agents_clock_shows(skew_seconds: int) -> None:
    """The objects' times are the cluster's; a clock that is behind has not reached them."""
    pending = PendingChanges()
    steps = (step(Phase.CREATING, 0), step(Phase.PENDING, 1), step(Phase.RUNNING, 3))
    for seconds in (3, 4, 6, 20, 90):
        pending.update(ROOT, derived(Phase.RUNNING, *steps), at(seconds + skew_seconds))
    pending.update(
        ROOT, derived(Phase.FAILED, *steps, step(Phase.FAILED, 95)), at(95 + skew_seconds)
    )
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [transition.phase for transition in item.transitions] == [
        Phase.CREATING,
        Phase.PENDING,
        Phase.RUNNING,
        Phase.FAILED,
    ]
    times = [transition.at for transition in item.transitions]
    assert times == sorted(times)
    assert times[-1] <= at(95 + max(0, skew_seconds))


def test_a_batch_that_was_not_taken_is_reported_again_with_what_came_meanwhile() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.PENDING), NOW)
    outgoing = batch(pending)
    pending.update(ROOT, derived(Phase.RUNNING), at(1))
    pending.put_back(outgoing)
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [transition.phase for transition in item.transitions] == [Phase.PENDING, Phase.RUNNING]


def test_what_changes_while_a_batch_is_under_way_follows_it() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.PENDING), NOW)
    outgoing = batch(pending)
    pending.update(ROOT, derived(Phase.RUNNING), at(1))
    pending.acknowledge(outgoing, ())
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [transition.phase for transition in item.transitions] == [Phase.RUNNING]


def test_an_equal_record_is_not_sent_again() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -5)), NOW)
    pending.acknowledge(batch(pending), ())
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -5)), at(1))
    assert len(pending) == 0
    assert pending.workloads[ROOT].kept is None, "what is told is not kept"


def test_there_and_back_again_still_tells_both_transitions() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING), NOW)
    pending.acknowledge(batch(pending), ())
    pending.update(ROOT, derived(Phase.DEGRADED), at(1))
    pending.update(ROOT, derived(Phase.RUNNING), at(2))
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [transition.phase for transition in item.transitions] == [Phase.DEGRADED, Phase.RUNNING]


def test_a_life_never_acknowledged_is_reported_from_beginning_to_end() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -1)), NOW)
    pending.delete(ROOT, at(1))
    upsert, delete = batch(pending).items
    assert isinstance(upsert, Upsert)
    assert upsert.transitions == (step(Phase.RUNNING, -1),)
    assert isinstance(delete, Delete)
    assert delete.deleted_at == at(1)


def test_the_end_of_what_the_server_has_is_a_delete_alone() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING), NOW)
    pending.acknowledge(batch(pending), ())
    pending.delete(ROOT, at(1))
    assert batch(pending).items == [Delete(id=UUID(ROOT), deleted_at=at(1))]


def test_a_death_while_its_birth_is_under_way() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING), NOW)
    lost = batch(pending)
    pending.delete(ROOT, at(1))
    pending.put_back(lost)
    kinds = [type(item) for item in batch(pending).items]
    assert kinds == [Upsert, Delete], "nobody knows whether the birth arrived: both are told"


def test_ended_lives_keep_their_order_when_put_back() -> None:
    pending = PendingChanges()
    for number in (1, 2, 3):
        root = str(UUID(int=number))
        pending.update(root, derived(Phase.RUNNING, number=number), NOW)
        pending.delete(root, at(number))
    first = batch(pending, workloads=2)
    pending.put_back(first)
    result = [item.id.int for item in batch(pending).items if isinstance(item, Delete)]
    assert result == [1, 2, 3]


def refused(root: str, *, is_out_of_room: bool = False) -> tuple[RefusedItem]:
    return (RefusedItem(id=UUID(root), reason="", is_out_of_room=is_out_of_room),)


def test_what_there_was_no_room_for_is_sent_again_with_its_history_once_there_is() -> None:
    pending = PendingChanges()
    history = (step(Phase.PENDING, -5), step(Phase.RUNNING, 0))
    for number in (1, 2, 3):
        root = str(UUID(int=number))
        pending.update(root, derived(Phase.RUNNING, *history, number=number), NOW)
        pending.acknowledge(batch(pending), refused(root, is_out_of_room=number < 3))
    pending.retry_out_of_room(0)
    assert len(pending) == 0
    pending.retry_out_of_room(1)

    def derive(root: str) -> Derived:
        return derived(Phase.RUNNING, *history, number=UUID(root).int)

    (item,) = pending.next_batch(max_workloads=9, max_bytes=10**9, derive=derive).items
    assert isinstance(item, Upsert)
    assert (item.record.workload.id.int, item.transitions) == (1, history)
    pending.delete(str(UUID(int=2)), at(1))
    pending.retry_out_of_room(9)
    assert not pending.unsent, "the third was refused for another reason, the second is gone"


def test_a_refused_item_waits_until_it_changes() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING), NOW)
    pending.acknowledge(batch(pending), refused(ROOT))
    assert len(pending) == 0
    pending.update(ROOT, derived(Phase.RUNNING), at(1))
    assert len(pending) == 0
    pending.update(ROOT, derived(Phase.RUNNING, name="other"), at(2))
    assert len(pending) == 1


def test_a_refused_difference_of_pods_is_followed_by_all_pods() -> None:
    """The server may hold other pods, or show the workload as deleted: nothing else brings it back."""
    pending = PendingChanges()
    pods = (pod(1), pod(2))
    pending.update(ROOT, Derived(record(Phase.PENDING), (step(Phase.PENDING, 0),), pods), NOW)
    pending.acknowledge(batch(pending), ())
    running = Derived(record(Phase.RUNNING), (step(Phase.RUNNING, 1),), (*pods, pod(3)))
    pending.update(ROOT, running, at(1))
    difference = batch(pending)
    (item,) = difference.items
    assert isinstance(item, Upsert)
    assert item.pods is not None
    assert (len(item.pods.changed), item.pods.since is None) == (1, False)
    pending.acknowledge(difference, refused(ROOT))
    whole = batch(pending)
    (again,) = whole.items
    assert isinstance(again, Upsert)
    assert again.pods is not None
    assert (len(again.pods.changed), again.pods.since) == (3, None)
    assert again.transitions == item.transitions
    pending.acknowledge(whole, refused(ROOT))
    assert len(pending) == 0, "what is refused as a whole waits until it changes"


def test_what_is_deleted_while_a_batch_is_on_its_way_is_sent_with_all_pods() -> None:
    """The server has another record by then, and nothing would repair a difference that it refuses."""
    pending = PendingChanges()
    pods = (pod(1), pod(2))
    pending.update(ROOT, Derived(record(Phase.PENDING), (step(Phase.PENDING, 0),), pods), NOW)
    pending.acknowledge(batch(pending), ())
    pending.update(ROOT, Derived(record(Phase.RUNNING), (step(Phase.RUNNING, 1),), pods), at(1))
    on_its_way = batch(pending)
    pending.update(ROOT, Derived(record(Phase.DELETING), (step(Phase.DELETING, 2),), pods), at(2))
    pending.delete(ROOT, at(3))
    pending.acknowledge(on_its_way, ())
    item, deletion = batch(pending).items
    assert isinstance(item, Upsert)
    assert item.pods is not None
    assert (item.pods.changed, item.pods.since) == (pods, None)
    assert isinstance(deletion, Delete)


def test_after_a_hello_the_inventory_says_what_is_lacking() -> None:
    pending = PendingChanges()
    roots = [str(UUID(int=number)) for number in (1, 2)]
    for number, root in enumerate(roots, 1):
        pending.update(root, derived(Phase.RUNNING, number=number), NOW)
    pending.acknowledge(batch(pending), ())
    pending.reset_acknowledged()
    entries = list(pending.inventory_entries([*roots, str(UUID(int=3)), "no-uuid"]))
    assert [entry.id.int for entry in entries] == [1, 2, 3]
    assert entries[2].record_hash == "", "what was never derived is there all the same"
    pending.apply_inventory(entries, [UUID(int=2), UUID(int=3)])
    assert list(pending.unsent) == [roots[1]]


def test_a_server_that_lost_a_record_gets_its_history_again() -> None:
    pending = PendingChanges()
    history = (step(Phase.PENDING, -9), step(Phase.RUNNING, -5))
    pending.update(ROOT, derived(Phase.RUNNING, *history), NOW)
    pending.acknowledge(batch(pending), ())
    pending.update(ROOT, derived(Phase.DEGRADED, *history), at(1))
    pending.acknowledge(batch(pending), ())
    pending.reset_acknowledged()
    pending.apply_inventory(list(pending.inventory_entries([ROOT])), [UUID(ROOT)])
    result = pending.next_batch(
        max_workloads=1, max_bytes=10**9, derive=lambda _: derived(Phase.DEGRADED, *history)
    )
    (item,) = result.items
    assert isinstance(item, Upsert)
    assert item.transitions == (*history, step(Phase.DEGRADED, 1))


def test_a_restarted_agent_does_not_tell_again_what_the_server_has() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -5)), NOW)
    pending.apply_inventory(list(pending.inventory_entries([ROOT])), [])
    assert len(pending) == 0


def test_a_restarted_agent_tells_what_it_saw_before_the_server_answered() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -5)), NOW)
    pending.update(ROOT, derived(Phase.DEGRADED), at(1))
    pending.update(ROOT, derived(Phase.RUNNING, step(Phase.RUNNING, -5)), at(2))
    pending.apply_inventory(list(pending.inventory_entries([ROOT])), [])
    (item,) = batch(pending).items
    assert isinstance(item, Upsert)
    assert [transition.phase for transition in item.transitions] == [Phase.DEGRADED, Phase.RUNNING]


def test_an_inventory_of_an_older_hash_leaves_the_newer_one_unsent() -> None:
    pending = PendingChanges()
    pending.update(ROOT, derived(Phase.RUNNING), NOW)
    entries = [InventoryEntry(UUID(ROOT), pending.workloads[ROOT].hash)]
    pending.update(ROOT, derived(Phase.FAILED), at(1))
    pending.apply_inventory(entries, [])
    assert list(pending.unsent) == [ROOT]


@pytest.mark.parametrize("most_bytes", [0, 3_000, 10**9], ids=["none", "some", "all"])
def test_what_is_kept_compressed_is_sent_as_what_is_kept_as_it_is(
    monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    """A record of this test has more than 1,500 and less than 3,000 bytes with its pod."""
    monkeypatch.setattr(module, "MAX_LOOSE_BYTES", most_bytes)
    pending = PendingChanges()
    updates = {}
    for number in range(1, 5):
        root = str(UUID(int=number))
        updates[root] = Derived(record(Phase.RUNNING, number=number), (), (pod(number),))
        pending.update(root, updates[root], NOW)
    kept = [state.kept for state in pending.workloads.values()]
    loose = {0: 0, 3_000: 1, 10**9: 4}[most_bytes]
    assert sum(each is not None and each.loose_bytes > 0 for each in kept) == loose
    result = batch(pending)
    assert all(isinstance(item, Upsert) for item in result.items)
    sent = {str(item.record.workload.id): item for item in result.items if isinstance(item, Upsert)}
    assert {root: item.record for root, item in sent.items()} == {
        root: each.record for root, each in updates.items()
    }
    for root, item in sent.items():
        assert item.pods is not None
        assert item.pods.changed == updates[root].pods
    pending.acknowledge(result, [])
    assert pending.kept_bytes == 0


def test_records_beyond_the_bound_are_read_again(monkeypatch: object) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1)  # type: ignore[attr-defined]
    pending = PendingChanges()
    kept = {}
    for number in range(1, 5):
        root = str(UUID(int=number))
        kept[root] = derived(Phase.RUNNING, number=number)
        pending.update(root, kept[root], NOW)
    assert sum(workload.kept is not None for workload in pending.workloads.values()) == 1
    result = pending.next_batch(max_workloads=10, max_bytes=10**9, derive=lambda root: kept[root])
    assert len(result.items) == 4


@pytest.mark.parametrize("kept_bytes", [4_000, 1_400])
def test_beyond_the_bound_of_what_the_server_knows_records_go_before_ends(
    monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    monkeypatch.setattr(module, "MAX_DELETED_BYTES", kept_bytes)
    pending = PendingChanges()
    for number in range(1, 6):
        pending.is_synced = number > 3
        root = str(UUID(int=number))
        pending.update(root, derived(Phase.RUNNING, number=number), NOW)
        pending.delete(root, at(number))
    ends = {
        delete.id.int: delete.deleted_at
        for delete in batch(pending).items
        if isinstance(delete, Delete)
    }
    assert sum(each.size_bytes() for _, each in pending.deleted.values()) <= kept_bytes
    if kept_bytes == 4_000:
        assert {number: ends.get(number) for number in (1, 2, 3)} == {n: at(n) for n in (1, 2, 3)}
    else:
        assert ends.keys() == {2, 3}, "the oldest goes, once there is nothing but ends"
    assert pending.dropped_deletions


def test_records_that_have_no_room_cost_the_same_whatever_the_number_of_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = 0
    size_bytes = Deleted.size_bytes

    def counted(each: Deleted) -> int:
        nonlocal seen
        seen += 1
        return size_bytes(each)

    monkeypatch.setattr(Deleted, "size_bytes", counted)
    count, namespaces = 2_000, 500
    deleted = OrderedDict(
        (
            number,
            (
                str(number),
                Deleted(f"team-{number % namespaces}", b"x" * 600, end, may_be_known=True),
            ),
        )
        for number in range(count)
        for end in [Delete(UUID(int=number + 1), NOW)]
    )
    assert drop_deletions(deleted, 1_000 * count)
    assert len(deleted) == count, "the server learns every end"
    assert seen < 5 * count
    kept = Counter(each.namespace for _, each in deleted.values() if each.compressed is not None)
    assert max(kept.values()) - min(kept.values()) <= 1, "each namespace gives as much as others"


def test_a_batch_is_bounded_in_bytes() -> None:
    pending = PendingChanges()
    for number in range(1, 11):
        pending.update(str(UUID(int=number)), derived(Phase.RUNNING, number=number), NOW)
    result = pending.next_batch(max_workloads=100, max_bytes=10_000, derive=lambda _: None)
    assert 1 <= len(result.items) < 10
    assert len(pending.unsent) == 10 - len(result.items)


PHASES = st.sampled_from([Phase.PENDING, Phase.RUNNING, Phase.DEGRADED, Phase.FAILED])


class LossyServer(RuleBasedStateMachine):
    """A server that takes batches, loses replies or never sees them; what it ends up with is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = PendingChanges()
        self.clock = 0
        self.true: dict[str, list[Phase]] = {}
        self.dead: set[str] = set()
        self.reported: dict[str, list[Transition]] = {}
        self.ends: set[str] = set()

    @rule(number=st.integers(1, 4), phase=PHASES)
    def change(self, number: int, phase: Phase) -> None:
        root = str(UUID(int=number))
        if root in self.dead:
            return
        phases = self.true.setdefault(root, [])
        if phases[-1:] != [phase]:
            phases.append(phase)
        self.clock += 1
        self.pending.update(root, derived(phase, number=number), at(self.clock))

    @rule(number=st.integers(1, 4))
    def delete(self, number: int) -> None:
        root = str(UUID(int=number))
        if root in self.true and root not in self.dead:
            self.dead.add(root)
            self.clock += 1
            self.pending.delete(root, at(self.clock))

    @rule(workloads=st.integers(1, 3), arrives=st.booleans(), is_answered=st.booleans())
    def send(self, workloads: int, arrives: bool, is_answered: bool) -> None:
        if not len(self.pending):
            return
        outgoing = batch(self.pending, workloads)
        if arrives:
            self.take(outgoing)
        if arrives and is_answered:
            self.pending.acknowledge(outgoing, ())
        else:
            self.pending.put_back(outgoing)

    def take(self, outgoing: PreparedBatch) -> None:
        for item in outgoing.items:
            is_upsert = isinstance(item, Upsert)
            root = str(item.record.workload.id if is_upsert else item.id)
            known = self.reported.setdefault(root, [])
            known += [transition for transition in item.transitions if transition not in known]
            if not is_upsert:
                self.ends.add(root)

    def teardown(self) -> None:
        while len(self.pending):
            outgoing = batch(self.pending)
            self.take(outgoing)
            self.pending.acknowledge(outgoing, ())
        phases = {root: [step.phase for step in steps] for root, steps in self.reported.items()}
        assert phases == self.true
        assert self.ends == self.dead


LossyServer.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestLossyServer = LossyServer.TestCase
