"""Kubernetes events that are to be sent, each with the workload that it is about. No I/O.

An event is kept until its workload is known to the server, then sent once, and again when it was repeated.
However many there are, they take bounded room and are sent at a bounded rate: an event is no part of a record,
so losing one falsifies nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from watchbill.agent.cache.owner_tree import OwnerKey, OwnerTree
from watchbill.kinds.derivation.elements import element_id
from watchbill.kinds.derivation.presentation import presented_word, printable, sanitized_message
from watchbill.kinds.objects.json_access import at, instant, metadata, text, whole
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.workload import InvolvedObject, WorkloadEvent

MAX_UNSENT = 5_000
MAX_UNSENT_OF_NAMESPACE = 1_000
MAX_GONE = 20_000
"""Objects that were deleted and whose workload is remembered: their last events come after them."""
EVENTS_PER_TURN = 100
TURN_SECONDS = 1.0
_NOWHERE = UUID(int=0)


class _Unsent(NamedTuple):
    about: OwnerKey
    event: WorkloadEvent
    """Its workload is not filled in yet."""


class EventLog:
    """What is unsent, by namespace; the namespace with most of them loses its oldest first."""

    def __init__(
        self, owner_tree: OwnerTree, settings: DeriveSettings, clock: Callable[[], float]
    ) -> None:
        self.dropped = 0
        """Events that were never sent."""
        self._owner_tree = owner_tree
        self._settings = settings
        self._clock = clock
        self._unsent: dict[str, OrderedDict[UUID, _Unsent]] = {}
        self._gone: OrderedDict[OwnerKey, str] = OrderedDict()
        self._next_turn_at = clock()

    def __len__(self) -> int:
        return sum(map(len, self._unsent.values()))

    @property
    def is_due(self) -> bool:
        """Whether there is something, and the last turn is long enough ago."""
        return bool(self._unsent) and self._clock() >= self._next_turn_at

    def put(self, uid: str, namespace: str, obj: dict[str, Any]) -> None:
        """An event that is new or was repeated. One without a time or a reason says nothing."""
        last_at = _last_at(obj)
        if last_at is None or not text(obj.get("reason")):
            return
        event = self._event(uid, namespace, obj, last_at)
        about = OwnerKey(namespace, text(at(obj, "involvedObject", "uid"))[:128])
        events = self._unsent.setdefault(namespace, OrderedDict())
        events[event.id] = _Unsent(about, event)
        events.move_to_end(event.id)
        if len(events) > MAX_UNSENT_OF_NAMESPACE:
            self._drop_oldest(namespace)
        elif len(self) > MAX_UNSENT:
            self._drop_oldest(max(self._unsent, key=lambda name: len(self._unsent[name])))

    def object_gone(self, about: OwnerKey, root: str) -> None:
        self._gone[about] = root
        self._gone.move_to_end(about)
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def take(self, is_known: Callable[[str], bool]) -> tuple[WorkloadEvent, ...]:
        """A turn's events, of workloads that the server knows; namespaces in turn, their oldest first."""
        self._next_turn_at = self._clock() + TURN_SECONDS
        taken: list[WorkloadEvent] = []
        for namespace in list(self._unsent):
            if len(taken) == EVENTS_PER_TURN:
                break
            events = self._unsent.pop(namespace)
            for event_id in list(events):
                if len(taken) == EVENTS_PER_TURN:
                    break
                about, event = events[event_id]
                root = self._owner_tree.root_of(about) or self._gone.get(about)
                if root is not None and is_known(root):
                    del events[event_id]
                    workload_id = element_id(root, self._settings.cluster_id)
                    taken.append(replace(event, workload_id=workload_id))
            if events:
                self._unsent[namespace] = events  # last in the next turn
        return tuple(taken)

    def put_back(self, events: Iterable[WorkloadEvent]) -> None:
        """They were not applied. What was repeated meanwhile is newer."""
        for event in events:
            involved = event.involved_object
            unsent = self._unsent.setdefault(involved.namespace, OrderedDict())
            if event.id not in unsent:
                about = OwnerKey(involved.namespace, str(involved.uid))
                unsent[event.id] = _Unsent(about, event)
                unsent.move_to_end(event.id, last=False)

    def _drop_oldest(self, namespace: str) -> None:
        self._unsent[namespace].popitem(last=False)
        self.dropped += 1

    def _event(
        self, uid: str, namespace: str, obj: dict[str, Any], last_at: datetime
    ) -> WorkloadEvent:
        settings = self._settings
        first_at = instant(obj.get("firstTimestamp")) or instant(obj.get("eventTime")) or last_at
        involved = at(obj, "involvedObject")
        source = text(at(obj, "source", "component")) or text(obj.get("reportingComponent"))
        count = whole(obj.get("count")) or whole(at(obj, "series", "count")) or 1
        return WorkloadEvent(
            id=element_id(uid, settings.cluster_id),
            workload_id=_NOWHERE,
            type=presented_word(text(obj.get("type")) or "Normal", settings.redaction),
            reason=presented_word(text(obj.get("reason")), settings.redaction),
            message=sanitized_message(text(obj.get("message")), settings.redaction) or "",
            source=presented_word(source, settings.redaction),
            count=min(max(1, count), 2**31 - 1),
            first_at=min(first_at, last_at),
            last_at=last_at,
            involved_object=InvolvedObject(
                uid=element_id(text(at(involved, "uid")), settings.cluster_id),
                kind=printable(text(at(involved, "kind"))),
                name=printable(text(at(involved, "name"))),
                namespace=printable(namespace),
            ),
        )


def _last_at(obj: dict[str, Any]) -> datetime | None:
    """Events of the newer API lack the old members, and count repetitions in a series."""
    times = (
        at(obj, "series", "lastObservedTime"),
        obj.get("lastTimestamp"),
        obj.get("eventTime"),
        metadata(obj).get("creationTimestamp"),
    )
    return next((time for time in map(instant, times) if time is not None), None)
