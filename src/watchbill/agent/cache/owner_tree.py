"""Which workload each object belongs to: owner references walked by UID, never by name. No I/O, no clock.

A workload is its root: the last owner that can be read. An object keeps its root while its
references stay the same, so a chain that breaks during a cascade of deletions moves nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol

from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference, Pod


class OwnerStatus(Enum):
    """What is known of an owner that is not among the entries."""

    UNREADABLE = "unreadable"
    """It may exist, but the agent cannot read it. The chain stops below it."""
    GONE = "gone"
    """It does not exist. Its dependents will be garbage-collected too, so they wait."""
    ABANDONED = "abandoned"
    """It does not exist and its dependents live on: the chain stops below it."""
    OUTSIDE = "outside"
    """It is cluster-scoped: workloads begin below it."""


@dataclass(slots=True)
class Entry:
    """One object that owns or is owned. `payload`: a pod, or the pruned object as JSON."""

    uid: str
    key: GroupKind
    namespace: str
    name: str
    parent: OwnerReference | None
    payload: Pod | bytes
    is_looked_up: bool = False
    """Fetched by name as a missing owner; no watch reports its deletion."""
    root: str | None = None
    resolved_parent_uid: str = ""
    """The parent's UID when `root` was found."""

    @property
    def is_pod(self) -> bool:
        return isinstance(self.payload, Pod)


@dataclass(slots=True)
class OwnerGroup:
    """A root and all that belongs to it. `root` stays after its deletion, until the last pod is gone."""

    root: Entry
    is_truncated: bool = False
    is_root_gone: bool = False
    members: set[str] = field(default_factory=set)
    pods: int = 0
    """Pods among the members, the root counted if it is one."""


class OwnerListener(Protocol):
    """Called for everything that may change a workload's record."""

    def on_change(self, root: str) -> None: ...

    def before_delete(self, root: str) -> None:
        """The next removal deletes this workload; its objects can be read for the last time."""

    def on_delete(self, root: str, at: datetime) -> None: ...


class OwnerTree:
    """Entries, their groups, the missing owners. `root_kinds`: kinds that are workloads even without pods."""

    def __init__(self, root_kinds: Iterable[GroupKind], listener: OwnerListener) -> None:
        self.entries: dict[str, Entry] = {}
        self.groups: dict[str, OwnerGroup] = {}
        self.missing: dict[str, tuple[OwnerReference, str]] = {}
        """Owners that entries name and that have not been read: the reference and its namespace."""
        self.owner_statuses: dict[str, OwnerStatus] = {}
        self._children: dict[str, set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._root_kinds = frozenset(root_kinds)
        self._listener = listener

    def put(self, entry: Entry, at: datetime) -> None:
        """Add or replace. Entries that waited for this owner are placed now."""
        stored = self.entries.get(entry.uid)
        if stored is None:
            self._add(entry, at)
            return
        stored.payload, stored.is_looked_up = entry.payload, entry.is_looked_up
        if _uid(stored.parent) != _uid(entry.parent):
            self._unlink(stored)
            stored.parent = entry.parent
            self._link(stored)
            self._attach_all(stored, at)
        if stored.root is not None:
            self._listener.on_change(stored.root)

    def remove(self, uid: str, at: datetime) -> None:
        """The object is gone. Its group outlives it while one of its pods does."""
        entry = self.entries.get(uid)
        if entry is None:
            return
        if entry.root is not None and self._is_last_member(entry, entry.root):
            self._listener.before_delete(entry.root)
        del self.entries[uid]
        self._unlink(entry)
        group = self.groups.get(uid)
        if group is not None:
            group.is_root_gone = True
            group.pods -= entry.is_pod
            self._delete_if_empty(uid, at)
        if entry.root is not None and entry.root != uid:
            self._leave(entry, entry.root)
            self._delete_if_empty(entry.root, at)

    def resolve(self, uid: str, status: OwnerStatus, at: datetime) -> None:
        """A missing owner was looked up: its dependents are placed accordingly."""
        if uid in self.entries:
            return
        self.owner_statuses[uid] = status
        self.missing.pop(uid, None)
        for child in tuple(self._children.get(uid, ())):
            self._attach_all(self.entries[child], at)

    def search_again(self, uid: str) -> bool:
        """Look up this owner once more if an entry still names it; its status stands meanwhile."""
        for child in self._children.get(uid, ()):
            entry = self.entries[child]
            if entry.parent is not None:
                self.missing[uid] = (entry.parent, entry.namespace)
                return True
        return False

    def is_alive(self, root: str) -> bool:
        """Whether this root is a workload now."""
        group = self.groups.get(root)
        if group is None:
            return False
        return group.pods > 0 or self._needs_no_pods(root)

    def pods(self, root: str) -> list[Pod]:
        group = self.groups[root]
        members = [group.root] if root in self.entries else []
        members += [self.entries[uid] for uid in group.members]
        return [entry.payload for entry in members if isinstance(entry.payload, Pod)]

    def intermediates(self, root: str) -> Iterator[Entry]:
        """Members that are not pods."""
        for uid in self.groups[root].members:
            entry = self.entries[uid]
            if not entry.is_pod:
                yield entry

    def waiting_for_owner(self) -> Iterator[Entry]:
        """Entries that cannot be placed before their missing owner is found or resolved."""
        for owner in self.missing.keys() - self.owner_statuses.keys():
            for uid in self._children.get(owner, ()):
                yield self.entries[uid]

    def in_namespace(self, namespace: str) -> Iterable[str]:
        return tuple(self._by_namespace.get(namespace, ()))

    def root_of(self, uid: str) -> str | None:
        entry = self.entries.get(uid)
        return entry.root if entry is not None else None

    def _add(self, entry: Entry, at: datetime) -> None:
        self.entries[entry.uid] = entry
        self.missing.pop(entry.uid, None)
        self.owner_statuses.pop(entry.uid, None)
        self._link(entry)
        self._attach_all(entry, at)

    def _link(self, entry: Entry) -> None:
        if entry.parent is not None:
            self._children.setdefault(entry.parent.uid, set()).add(entry.uid)

    def _unlink(self, entry: Entry) -> None:
        if entry.parent is None:
            return
        siblings = self._children.get(entry.parent.uid)
        if siblings is not None:
            siblings.discard(entry.uid)
            if not siblings:
                del self._children[entry.parent.uid]
                self.missing.pop(entry.parent.uid, None)
                self.owner_statuses.pop(entry.parent.uid, None)

    def _attach_all(self, entry: Entry, at: datetime) -> None:
        """Place the entry and its dependents; then delete the groups that this emptied."""
        left: set[str] = set()
        queue = [entry]
        seen: set[str] = set()
        while queue:
            current = queue.pop()
            if current.uid in seen:
                continue
            seen.add(current.uid)
            left |= self._attach(current)
            queue += [self.entries[uid] for uid in self._children.get(current.uid, ())]
        for root in left:
            self._delete_if_empty(root, at)

    def _attach(self, entry: Entry) -> set[str]:
        root, is_truncated = self._walk(entry)
        if root is None:
            return set()
        previous = entry.root
        entry.resolved_parent_uid = _uid(entry.parent)
        group = self._group(root)
        if root == entry.uid:
            group.is_truncated = is_truncated
        if previous == root:
            return set()
        entry.root = root
        if root == entry.uid:
            group.pods += entry.is_pod
        else:
            group.members.add(entry.uid)
            group.pods += entry.is_pod
        self._listener.on_change(root)
        if previous is None:
            return set()
        self._leave(entry, previous)
        self._listener.on_change(previous)
        return {previous}

    def _group(self, root: str) -> OwnerGroup:
        group = self.groups.get(root)
        if group is None:
            entry = self.entries[root]
            group = self.groups[root] = OwnerGroup(root=entry)
            self._by_namespace.setdefault(entry.namespace, set()).add(root)
        elif root in self.entries:
            group.root = self.entries[root]
        return group

    def _leave(self, entry: Entry, root: str) -> None:
        group = self.groups.get(root)
        if group is None:
            return
        if root == entry.uid:
            group.pods -= entry.is_pod
        elif entry.uid in group.members:
            group.members.discard(entry.uid)
            group.pods -= entry.is_pod

    def _walk(self, entry: Entry) -> tuple[str | None, bool]:
        """The root, and whether an owner of it cannot be read; no root while that is unknown."""
        seen = {entry.uid}
        while entry.parent is not None:
            owner = self.entries.get(entry.parent.uid)
            if owner is None:
                return self._root_below_missing(entry, entry.parent)
            if owner.uid in seen:
                break  # references in a circle own nothing
            seen.add(owner.uid)
            entry = owner
        return entry.uid, False

    def _root_below_missing(self, last: Entry, parent: OwnerReference) -> tuple[str | None, bool]:
        status = self.owner_statuses.get(parent.uid)
        if status is OwnerStatus.OUTSIDE:
            return last.uid, False
        previous = self._previous_root(last, parent)
        if previous is not None and previous != last.uid:
            return previous, False
        if status in (OwnerStatus.UNREADABLE, OwnerStatus.ABANDONED):
            return last.uid, True
        if status is None and previous is None:
            self.missing[parent.uid] = (parent, last.namespace)
        return previous, False

    def _previous_root(self, last: Entry, parent: OwnerReference) -> str | None:
        """The entry's root while this same owner could be read."""
        if (
            last.root is not None
            and last.resolved_parent_uid == parent.uid
            and last.root in self.groups
        ):
            return last.root
        return None

    def _is_last_member(self, entry: Entry, root: str) -> bool:
        """Whether the workload is deleted with this entry."""
        group = self.groups.get(root)
        if group is None:
            return False
        if group.pods - entry.is_pod > 0:
            return False
        return root == entry.uid or not self._needs_no_pods(root)

    def _needs_no_pods(self, root: str) -> bool:
        """Whether the root is a workload even without pods."""
        entry = self.entries.get(root)
        if entry is None or entry.root != root:
            return False
        return entry.key in self._root_kinds or entry.is_looked_up

    def _delete_if_empty(self, root: str, at: datetime) -> None:
        """After something left: delete the workload, or report that it changed."""
        group = self.groups.get(root)
        if group is None:
            return
        if self.is_alive(root):
            self._listener.on_change(root)
            return
        self._listener.on_delete(root, at)
        self._delete_group(root, group)

    def _delete_group(self, root: str, group: OwnerGroup) -> None:
        del self.groups[root]
        namespace = self._by_namespace.get(group.root.namespace)
        if namespace is not None:
            namespace.discard(root)
            if not namespace:
                del self._by_namespace[group.root.namespace]


def _uid(owner: OwnerReference | None) -> str:
    return owner.uid if owner is not None else ""
