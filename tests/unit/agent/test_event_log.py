"""Events on their way: each to its workload, once, however many there are."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from watchbill.agent.cache import event_log as module
from watchbill.agent.cache.event_log import EventLog
from watchbill.agent.cache.owner_tree import OwnerKey

ROOT = str(UUID(int=1))
POD = str(UUID(int=2))


class Tree:
    """Which workload an object belongs to."""

    def __init__(self) -> None:
        self.roots = {OwnerKey("vision", POD): ROOT}

    def root_of(self, about: OwnerKey) -> str | None:
        return self.roots.get(about)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def event(about: str = POD, **members: Any) -> dict[str, Any]:
    plain = {
        "reason": "FailedScheduling",
        "type": "Warning",
        "message": "0/3 nodes are available",
        "firstTimestamp": "2026-11-20T08:00:00Z",
        "lastTimestamp": "2026-11-20T08:05:00Z",
        "count": 4,
        "source": {"component": "default-scheduler"},
        "involvedObject": {"uid": about, "kind": "Pod", "name": "w-0", "namespace": "other"},
    }
    return plain | members


@pytest.fixture
def log() -> EventLog:
    return EventLog(Tree(), SETTINGS, Clock())  # type: ignore[arg-type]


def uid(number: int) -> str:
    return str(UUID(int=0xE << 64 | number))


def test_an_event_finds_its_workload(log: EventLog) -> None:
    log.put(uid(1), "vision", event())
    (result,) = log.take(lambda _: True)
    assert (result.id, result.workload_id) == (UUID(uid(1)), UUID(ROOT))
    assert (result.reason, result.type, result.count) == ("FailedScheduling", "Warning", 4)
    assert result.first_at == datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
    assert result.last_at == datetime(2026, 11, 20, 8, 5, tzinfo=UTC)
    assert result.source == "default-scheduler"
    # The namespace is the event's own: what it says of its object is its author's claim.
    assert result.involved_object.namespace == "vision"
    assert len(log) == 0


def test_no_part_of_an_event_shows_an_address_with_a_password(log: EventLog) -> None:
    address = "https://ada:a1B2@h.example.com"
    log.put(uid(1), "vision", event(type=address, reason=address, source={"component": address}))
    (result,) = log.take(lambda _: True)
    shown = "https://***@h.example.com"
    assert (result.type, result.reason, result.source) == (shown, shown, shown)


def test_another_namespace_s_object_is_not_its_own(log: EventLog) -> None:
    log.put(uid(1), "speech", event())
    assert log.take(lambda _: True) == ()


def test_it_waits_until_the_server_knows_the_workload(log: EventLog) -> None:
    log.put(uid(1), "vision", event())
    assert log.take(lambda _: False) == ()
    assert len(log.take(lambda _: True)) == 1


def test_what_is_repeated_is_one_event_with_its_newest_count(log: EventLog) -> None:
    for count in (1, 2, 3):
        log.put(uid(1), "vision", event(count=count))
    (result,) = log.take(lambda _: True)
    assert result.count == 3


def test_events_of_the_newer_api(log: EventLog) -> None:
    series = {"count": 9, "lastObservedTime": "2026-11-20T08:09:00.000000Z"}
    newer = event(eventTime="2026-11-20T08:01:00.000000Z", series=series)
    newer |= {"reportingComponent": "kubelet"}
    for member in ("firstTimestamp", "lastTimestamp", "count", "source"):
        del newer[member]
    log.put(uid(1), "vision", newer)
    (result,) = log.take(lambda _: True)
    assert (result.count, result.source) == (9, "kubelet")
    assert result.first_at == datetime(2026, 11, 20, 8, 1, tzinfo=UTC)
    assert result.last_at == datetime(2026, 11, 20, 8, 9, tzinfo=UTC)


def test_the_last_events_of_an_object_come_after_it(log: EventLog) -> None:
    log._owner_tree.roots.clear()  # type: ignore[attr-defined]
    log.object_gone(OwnerKey("vision", POD), ROOT)
    log.put(uid(1), "vision", event(reason="Killing"))
    assert len(log.take(lambda _: True)) == 1


def test_what_was_not_applied_comes_again_unless_something_newer_did(log: EventLog) -> None:
    log.put(uid(1), "vision", event(count=1))
    log.put(uid(2), "vision", event(count=1))
    taken = log.take(lambda _: True)
    log.put(uid(1), "vision", event(count=2))
    log.put_back(taken)
    again = {entry.id: entry.count for entry in log.take(lambda _: True)}
    assert again == {UUID(uid(1)): 2, UUID(uid(2)): 1}


def test_a_storm_takes_bounded_room_and_time_and_spares_other_namespaces(log: EventLog) -> None:
    for number in range(3_000):
        log.put(uid(number), "storm", event())
    log.put(uid(10_000), "vision", event())
    assert len(log) == module.MAX_UNSENT_OF_NAMESPACE + 1
    assert log.dropped == 3_000 - module.MAX_UNSENT_OF_NAMESPACE
    log._owner_tree.roots[OwnerKey("storm", POD)] = ROOT  # type: ignore[attr-defined]
    first = log.take(lambda _: True)
    assert len(first) == module.EVENTS_PER_TURN
    assert not log.is_due
    log._clock.now += module.TURN_SECONDS  # type: ignore[attr-defined]
    assert log.is_due
    assert UUID(uid(10_000)) in {entry.id for entry in log.take(lambda _: True)}


@pytest.mark.parametrize(
    "members",
    [
        {"reason": ""},
        {"reason": 7},
        {"lastTimestamp": None, "firstTimestamp": None},
        {"lastTimestamp": "yesterday"},
        {"involvedObject": None},
        {"involvedObject": "w-0", "message": {"a": 1}, "count": "x", "source": []},
    ],
)
def test_hostile_events_harm_nobody(log: EventLog, members: dict[str, Any]) -> None:
    log.put("not-a-uuid", "vision", event(**members))
    log.take(lambda _: True)


def test_secrets_are_hidden(log: EventLog) -> None:
    log.put(uid(1), "vision", event(message="cannot pull https://ada:hunter2@registry.example.com"))
    (result,) = log.take(lambda _: True)
    assert "hunter2" not in result.message
