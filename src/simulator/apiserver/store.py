"""The simulated cluster's store: objects by kind under one global revision, with the changes that led here.

It owns revisions, generations, history, compaction and watch queues. It knows neither HTTP nor what the objects
mean: they are kept as encoded JSON in three parts, so that tens of thousands stay small and an unchanged object
is recognised by its bytes.
"""

import asyncio
import bisect
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from simulator.apiserver.discovery import definition_document
from simulator.resources import BUILT_IN, CUSTOM_RESOURCE_DEFINITIONS, ResourceType


class StoredObject(msgspec.Struct, frozen=True, array_like=True):
    """One object at one revision. `head` is its metadata without revision, generation and last brace."""

    path: str
    uid: str
    head: bytes
    spec: bytes
    rest: bytes
    revision: int
    generation: int

    @property
    def metadata(self) -> bytes:
        generation = b',"generation":%d' % self.generation if self.generation else b""
        return b'%b,"resourceVersion":"%d"%b}' % (self.head, self.revision, generation)

    def decode(self) -> dict[str, Any]:
        """The object as JSON, without kind and apiVersion."""
        spec = b',"spec":' + self.spec if self.spec else b""
        document: dict[str, Any] = msgspec.json.decode(
            b'{"metadata":%b%b%b}' % (self.metadata, spec, self.rest)
        )
        return document


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """`type` is the watch event; `new` is the object after it (of a deletion: its last state, new revision)."""

    revision: int
    type: str
    new: StoredObject
    old: StoredObject | None


_BACKLOG = 20_000
"""A subscriber that lags this far behind is ended, as an API server ends a slow watch."""


class Ending(Enum):
    """How a subscription ends: with a proper end of stream, in mid-air, or with an ERROR event (410)."""

    CLEAN = "clean"
    CUT = "cut"
    EXPIRED = "expired"


class WatchQueue:
    """Changes of one kind from now on, in order."""

    __slots__ = ("changes", "ending", "signal")

    def __init__(self) -> None:
        self.changes: deque[ObjectChange] = deque()
        self.ending: Ending | None = None
        self.signal = asyncio.Event()

    def push(self, change: ObjectChange) -> None:
        if len(self.changes) >= _BACKLOG:
            self.changes.clear()
            self.end(Ending.CLEAN)
            return
        self.changes.append(change)
        self.signal.set()

    def end(self, ending: Ending) -> None:
        self.ending = self.ending or ending
        self.signal.set()


HISTORY = 4000
"""Changes kept per kind; what is older cannot be watched or listed again."""
_SNAPSHOTS = 4
_encode = msgspec.json.Encoder().encode


class Expired(Exception):
    """That revision is no longer known."""


@dataclass(slots=True)
class ResourceTable:
    """One kind: its objects, its recent changes, and who listens."""

    resource: ResourceType
    history: int
    floor: int = 0
    """Changes after this revision are known completely."""
    objects: dict[str, StoredObject] = field(default_factory=dict)
    changes: deque[ObjectChange] = field(default_factory=deque)
    subscriptions: set[WatchQueue] = field(default_factory=set)
    watches: int = 0
    """How many watches were opened so far."""
    loses_changes: bool = False
    """Changes are made, but neither watches nor history ever learn of them."""
    snapshots: "OrderedDict[int, TableView]" = field(default_factory=OrderedDict)
    present: "TableView | None" = None

    def record(self, change: ObjectChange) -> None:
        self.present = None
        if self.loses_changes:
            return
        self.changes.append(change)
        if len(self.changes) > self.history:
            self.floor = self.changes.popleft().revision
        for subscription in self.subscriptions:
            subscription.push(change)

    def forget(self, revision: int) -> None:
        """Drop the changes up to `revision`."""
        while self.changes and self.changes[0].revision <= revision:
            self.changes.popleft()
        self.snapshots.clear()
        self.floor = max(self.floor, revision)

    def view(self) -> "TableView":
        if self.present is None:
            self.present = TableView(dict(self.objects))
        return self.present

    def view_at(self, revision: int) -> "TableView":
        """The kind as it was at `revision`. Raises Expired."""
        if revision < self.floor:
            raise Expired
        if not self.changes or self.changes[-1].revision <= revision:
            return self.view()
        if revision not in self.snapshots:
            objects = dict(self.objects)
            for change in reversed(self.changes):
                if change.revision <= revision:
                    break
                _undo(objects, change)
            self.snapshots[revision] = TableView(objects)
            while len(self.snapshots) > _SNAPSHOTS:
                self.snapshots.popitem(last=False)
        return self.snapshots[revision]


def _undo(objects: dict[str, StoredObject], change: ObjectChange) -> None:
    if change.old is None:
        objects.pop(change.new.path, None)
    else:
        objects[change.new.path] = change.old


class TableView:
    """Objects of one kind in key order, for listing in pages."""

    __slots__ = ("_objects", "_paths")

    def __init__(self, objects: dict[str, StoredObject]) -> None:
        self._objects = objects
        self._paths = sorted(objects)

    def between(self, prefix: str, start: str) -> list[StoredObject]:
        """Objects under `prefix` whose path is not before `start`."""
        first = bisect.bisect_left(self._paths, max(prefix, start))
        last = bisect.bisect_left(self._paths, prefix[:-1] + "0") if prefix else len(self._paths)
        return [self._objects[path] for path in self._paths[first:last]]


class Store:
    """All kinds of one cluster, written by scenarios and tests, read by the protocol. One thread, no locks."""

    def __init__(
        self, resources: Iterable[ResourceType] = BUILT_IN, *, history: int = HISTORY
    ) -> None:
        self.revision = 1
        self.compacted = 0
        self._history = history
        self._tables: dict[tuple[str, str], ResourceTable] = {}
        for resource in resources:
            self._tables[resource.group, resource.plural] = ResourceTable(resource, history)

    def tables(self) -> list[ResourceTable]:
        return list(self._tables.values())

    def table(self, group: str, plural: str) -> ResourceTable | None:
        return self._tables.get((group, plural))

    def put(self, resource: ResourceType, document: Mapping[str, Any]) -> StoredObject:
        """Create or update; an object that does not differ keeps its revision.

        `observedGeneration: 0` stands for the generation that results. A document that brings a generation of
        its own keeps it; a resource version of its own is replaced.
        """
        table = self._tables[resource.group, resource.plural]
        metadata = dict(document["metadata"])
        metadata.pop("resourceVersion", None)
        own_generation = metadata.pop("generation", None)
        path = path_of(resource, metadata.get("namespace"), metadata["name"])
        head = _encode(metadata)[:-1]
        spec = _encode(document["spec"]) if "spec" in document else b""
        rest = _rest(document)
        old = table.objects.get(path)
        if old is not None and old.uid != metadata["uid"]:
            raise ValueError(f"{resource.kind} {path} exists under another uid")
        generation = own_generation or _generation(resource, old, head, spec)
        rest = rest.replace(b'"observedGeneration":0', b'"observedGeneration":%d' % generation)
        parts = (head, spec, rest, generation)
        if old is not None and (old.head, old.spec, old.rest, old.generation) == parts:
            return old
        self.revision += 1
        stored = StoredObject(
            path=path,
            uid=metadata["uid"],
            head=head,
            spec=spec,
            rest=rest,
            revision=self.revision,
            generation=generation,
        )
        table.objects[path] = stored
        kind_of_change = "ADDED" if old is None else "MODIFIED"
        table.record(ObjectChange(self.revision, kind_of_change, stored, old))
        return stored

    def delete(self, resource: ResourceType, namespace: str | None, name: str) -> bool:
        """False where there is no such object."""
        table = self._tables[resource.group, resource.plural]
        old = table.objects.pop(path_of(resource, namespace, name), None)
        if old is None:
            return False
        self.revision += 1
        last = msgspec.structs.replace(old, revision=self.revision)
        table.record(ObjectChange(self.revision, "DELETED", last, old))
        return True

    def get(self, resource: ResourceType, namespace: str | None, name: str) -> StoredObject | None:
        table = self._tables[resource.group, resource.plural]
        return table.objects.get(path_of(resource, namespace, name))

    def add_resource(self, resource: ResourceType) -> None:
        """Install a kind (with its CustomResourceDefinition object, where it is custom)."""
        self._tables[resource.group, resource.plural] = ResourceTable(
            resource, self._history, floor=self.revision
        )
        if resource.is_custom:
            self.put(CUSTOM_RESOURCE_DEFINITIONS, definition_document(resource, self.revision))

    def empty_resource(self, resource: ResourceType) -> None:
        """Delete every object of a kind, as deleting its definition does."""
        for path in list(self._tables[resource.group, resource.plural].objects):
            namespace, _, name = path.rpartition("/")
            self.delete(resource, namespace or None, name)

    def remove_resource(self, resource: ResourceType) -> None:
        """The kind is no longer served; its watches end cleanly."""
        table = self._tables.pop((resource.group, resource.plural))
        if resource.is_custom:
            self.delete(CUSTOM_RESOURCE_DEFINITIONS, None, resource.full_name)
        for subscription in table.subscriptions:
            subscription.end(Ending.CLEAN)

    def compact(self, revision: int | None = None) -> None:
        """Forget history up to `revision` (None = all): what is older can be neither watched nor listed.

        Open watches go on.
        """
        self.compacted = self.revision if revision is None else revision
        for table in self._tables.values():
            table.forget(self.compacted)

    def dump(self) -> bytes:
        """Everything but history."""
        tables = [
            (table.resource.group, table.resource.plural, list(table.objects.values()))
            for table in self._tables.values()
        ]
        return msgspec.msgpack.encode((self.revision, tables))

    def restore(self, dump: bytes) -> None:
        """Continue from `dump`, at a later revision than any that was given out since it was taken."""
        revision, tables = msgspec.msgpack.decode(
            dump, type=tuple[int, list[tuple[str, str, list[StoredObject]]]]
        )
        self.revision = revision + 1_000_000
        for group, plural, objects in tables:
            table = self._tables[group, plural]
            table.objects = {stored.path: stored for stored in objects}
            table.present = None
        self.compact()


def path_of(resource: ResourceType, namespace: str | None, name: str) -> str:
    """Key below the kind; its order is the order of lists."""
    return f"{namespace}/{name}" if resource.is_namespaced else name


def _rest(document: Mapping[str, Any]) -> bytes:
    others = {
        key: value
        for key, value in document.items()
        if key not in ("metadata", "spec", "kind", "apiVersion")
    }
    return b"," + _encode(others)[1:-1] if others else b""


def _generation(resource: ResourceType, old: StoredObject | None, head: bytes, spec: bytes) -> int:
    if not resource.has_generation:
        return 0
    if old is None:
        return 1
    mark = b'"deletionTimestamp"'
    is_new = old.spec != spec or (mark in head and mark not in old.head)
    return old.generation + is_new
