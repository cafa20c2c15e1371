"""Which workload each object belongs to: owner references walked by UID, never by name. No I/O, no clock.

A workload is its root: the last owner that can be read. An object keeps its root while its references stay the
same, so a chain that breaks during a cascade of deletions moves nothing.

A reference is its author's claim. As for Kubernetes' garbage collector, an owner counts only in the dependent's
own namespace; a reference to an object elsewhere is one to an owner that does not exist. An object's place
follows from its owner's, so placing a chain costs as many steps as it has objects, whatever their order.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple, Protocol

from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference, Pod

MAX_OWNERS = 32
"""Levels of owners above an object; one that is deeper is a workload of its own, marked as truncated."""
MAX_WAIT = timedelta(minutes=2)
"""How long an object may wait for its owners, however often it names others."""


class OwnerKey(NamedTuple):
    """An owner as its dependents name it: it is sought in their namespace."""

    namespace: str
    uid: str


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


class Placement(NamedTuple):
    """Where an object stands. `root` None: its owners are not known yet; `depth`: owners up to its root."""

    root: str | None
    is_truncated: bool
    depth: int


@dataclass(slots=True)
class TreeEntry:
    """One object that owns or is owned. `payload`: a pod, or the pruned object as JSON."""

    uid: str
    key: GroupKind
    namespace: str
    name: str
    parent: OwnerReference | None
    payload: Pod | bytes
    is_looked_up: bool = False
    """Fetched by name as a missing owner; no watch reports its deletion."""
    is_assumed: bool = False
    """Known only by what its dependents say of it, because its kind cannot be read for now."""
    root: str | None = None
    resolved_parent_uid: str = ""
    """The parent's UID when `root` was found."""
    placement: Placement | None = None
    waiting_since: datetime | None = None
    """Since when it has no root."""

    @property
    def parent_key(self) -> OwnerKey | None:
        return None if self.parent is None else OwnerKey(self.namespace, self.parent.uid)

    @property
    def is_pod(self) -> bool:
        return isinstance(self.payload, Pod)


@dataclass(slots=True)
class OwnerGroup:
    """A root and all that belongs to it. `root` stays after its deletion, until the last pod is gone."""

    root: TreeEntry
    is_truncated: bool = False
    is_root_gone: bool = False
    members: set[str] = field(default_factory=set)
    pods: int = 0
    """Pods among the members, the root counted if it is one."""
    never_existed: bool = False
    """Its objects belong to another workload; it only looked like one before that was known."""


class OwnerListener(Protocol):
    """Called for everything that may change a workload's record."""

    def on_change(self, root: str) -> None: ...

    def before_delete(self, root: str) -> None:
        """The next removal deletes this workload; its objects can be read for the last time."""

    def on_delete(self, root: str, at: datetime, not_before: datetime | None) -> None:
        """`not_before`: when it was last known to exist, where nobody saw its last object go."""

    def on_pods_gone(self, root: str, at: datetime, not_before: datetime | None) -> None:
        """The last pod of an owner that cannot be read for now is gone; the owner itself may exist."""

    def on_withdraw(self, root: str, at: datetime) -> None:
        """It never was a workload: it only looked like one while an owner could not be read."""


class OwnerTree:
    """Entries, their groups, the missing owners. `root_kinds`: kinds that are workloads even without pods."""

    def __init__(self, root_kinds: Iterable[GroupKind], listener: OwnerListener) -> None:
        self.entries: dict[str, TreeEntry] = {}
        self.groups: dict[str, OwnerGroup] = {}
        self.missing: dict[OwnerKey, OwnerReference] = {}
        """Owners that entries name and that have not been read."""
        self.owner_statuses: dict[OwnerKey, OwnerStatus] = {}
        self._children: dict[OwnerKey, set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._root_kinds = frozenset(root_kinds)
        self._listener = listener

    def put(self, entry: TreeEntry, at: datetime) -> None:
        """Add or replace. Entries that waited for this owner are placed now."""
        stored = self.entries.get(entry.uid)
        if stored is not None and stored.is_assumed and stored.namespace != entry.namespace:
            self._refute(stored, at)
            stored = None
        if stored is None:
            self._add(entry, at)
            return
        is_confirmed = stored.is_assumed and not entry.is_assumed
        stored.key, stored.name, stored.is_assumed = entry.key, entry.name, entry.is_assumed
        stored.payload, stored.is_looked_up = entry.payload, entry.is_looked_up
        if is_confirmed or _uid(stored.parent) != _uid(entry.parent):
            self._unlink(stored)
            stored.parent = entry.parent
            self._link(stored)
            self._attach_all(stored, at)
        if stored.root is not None:
            self._listener.on_change(stored.root)

    def remove(self, uid: str, at: datetime, not_before: datetime | None = None) -> None:
        """The object is gone, `at` the latest. Its group outlives it while one of its pods does."""
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
            self._delete_if_empty(uid, at, not_before)
        if entry.root is not None and entry.root != uid:
            self._leave(entry, entry.root)
            self._delete_if_empty(entry.root, at, not_before)

    def resolve(self, owner: OwnerKey, status: OwnerStatus, at: datetime) -> None:
        """A missing owner was looked up: its dependents are placed accordingly."""
        if self.entry_of(owner) is not None:
            return
        self.owner_statuses[owner] = status
        self.missing.pop(owner, None)
        for child in tuple(self._children.get(owner, ())):
            self._attach_all(self.entries[child], at)

    def assume(self, entry: TreeEntry, at: datetime) -> None:
        """A missing owner cannot be read for now: its dependents belong to it as they say, under its UID."""
        owner = OwnerKey(entry.namespace, entry.uid)
        if entry.uid in self.entries or owner not in self._children:
            self.resolve(owner, OwnerStatus.UNREADABLE, at)
        else:
            self._add(entry, at)

    def search_again(self, owner: OwnerKey) -> bool:
        """Look up this owner once more if an entry still names it; its status stands meanwhile."""
        for child in self._children.get(owner, ()):
            parent = self.entries[child].parent
            if parent is not None:
                self.missing[owner] = parent
                return True
        return False

    def entry_of(self, owner: OwnerKey) -> TreeEntry | None:
        """The object that dependents mean by this key: none of another namespace."""
        entry = self.entries.get(owner.uid)
        return entry if entry is not None and entry.namespace == owner.namespace else None

    def disown(self, root: str) -> None:
        """The workload's objects are about to move to another: then this one never existed."""
        group = self.groups.get(root)
        if group is not None:
            group.never_existed = True

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

    def intermediates(self, root: str) -> Iterator[TreeEntry]:
        """Members that are not pods."""
        for uid in self.groups[root].members:
            entry = self.entries[uid]
            if not entry.is_pod:
                yield entry

    def waiting_for_owner(self) -> Iterator[TreeEntry]:
        """Entries that cannot be placed before their missing owner is found or resolved."""
        for owner in self.missing.keys() - self.owner_statuses.keys():
            for uid in self._children.get(owner, ()):
                yield self.entries[uid]

    def in_namespace(self, namespace: str) -> Iterable[str]:
        return tuple(self._by_namespace.get(namespace, ()))

    def root_of(self, object_key: OwnerKey) -> str | None:
        """The workload of an object that something in its namespace names by UID."""
        entry = self.entry_of(object_key)
        return entry.root if entry is not None else None

    def _add(self, entry: TreeEntry, at: datetime) -> None:
        self.entries[entry.uid] = entry
        key = OwnerKey(entry.namespace, entry.uid)
        self.missing.pop(key, None)
        self.owner_statuses.pop(key, None)
        self._link(entry)
        self._attach_all(entry, at)

    def _refute(self, assumed: TreeEntry, at: datetime) -> None:
        """The assumed owner lives in another namespace, so its dependents here named what is not theirs."""
        owner = OwnerKey(assumed.namespace, assumed.uid)
        del self.entries[assumed.uid]
        group = self.groups.get(assumed.uid)
        if group is not None:
            self._listener.on_withdraw(assumed.uid, at)
            self._delete_group(assumed.uid, group)
        self.owner_statuses[owner] = OwnerStatus.UNREADABLE
        for child in tuple(self._children.get(owner, ())):
            self._attach_all(self.entries[child], at)

    def _link(self, entry: TreeEntry) -> None:
        owner = entry.parent_key
        if owner is not None:
            self._children.setdefault(owner, set()).add(entry.uid)

    def _unlink(self, entry: TreeEntry) -> None:
        owner = entry.parent_key
        if owner is None:
            return
        siblings = self._children.get(owner)
        if siblings is not None:
            siblings.discard(entry.uid)
            if not siblings:
                del self._children[owner]
                self.missing.pop(owner, None)
                self.owner_statuses.pop(owner, None)

    def _attach_all(self, entry: TreeEntry, at: datetime) -> None:
        """Place the entry and the dependents that move with it; then delete the groups that this emptied."""
        left: set[str] = set()
        queue = [(entry, self._place(entry, self._circle(entry), at))]
        seen = {entry.uid}
        while queue:
            current, placement = queue.pop()
            has_moved = placement != current.placement
            current.placement = placement
            left |= self._attach(current, placement)
            if not has_moved:
                continue
            for uid in self._children.get(OwnerKey(current.namespace, current.uid), ()):
                if uid not in seen:
                    seen.add(uid)
                    queue.append((self.entries[uid], self._place(self.entries[uid], (), at)))
        for root in left:
            self._delete_if_empty(root, at)

    def _attach(self, entry: TreeEntry, placement: Placement) -> set[str]:
        root = placement.root
        if root is None:
            return set()
        previous = entry.root
        entry.resolved_parent_uid = _uid(entry.parent)
        group = self._group(root)
        if root == entry.uid:
            group.is_truncated = placement.is_truncated
        if previous == root and (root == entry.uid or entry.uid in group.members):
            return set()
        entry.root = root
        if root == entry.uid:
            group.pods += entry.is_pod
        else:
            group.members.add(entry.uid)
            group.pods += entry.is_pod
        self._listener.on_change(root)
        if previous is None or previous == root:
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
        elif root in self.entries and not self.entries[root].is_assumed:
            group.root = self.entries[root]
        return group

    def _leave(self, entry: TreeEntry, root: str) -> None:
        group = self.groups.get(root)
        if group is None:
            return
        if root == entry.uid:
            group.pods -= entry.is_pod
        elif entry.uid in group.members:
            group.members.discard(entry.uid)
            group.pods -= entry.is_pod

    def _place(self, entry: TreeEntry, circle: Collection[str], at: datetime) -> Placement:
        """The entry's placement; on its own where it has waited for owners too long."""
        placement = self._placement(entry, circle)
        if placement.root is not None:
            entry.waiting_since = None
            return placement
        entry.waiting_since = entry.waiting_since or at
        return placement if at - entry.waiting_since < MAX_WAIT else _cut_off(entry)

    def _placement(self, entry: TreeEntry, circle: Collection[str]) -> Placement:
        """Below its owner's place. `circle`: the objects, itself among them, whose references form a circle."""
        if circle:
            smallest = min(circle)
            return Placement(smallest, is_truncated=False, depth=int(smallest != entry.uid))
        current, depth = entry, 0
        while current.parent is not None and depth < MAX_OWNERS:
            owner = self.entry_of(OwnerKey(current.namespace, current.parent.uid))
            if owner is None:
                root, is_truncated = self._root_below_missing(current, current.parent)
                return _WAITING if root is None else Placement(root, is_truncated, depth)
            depth += 1
            above = owner.placement
            if above is not None and above.root is not None and self._exists(above.root):
                if above.root == entry.uid:
                    return Placement(entry.uid, is_truncated=False, depth=0)
                depth += above.depth
                if depth >= MAX_OWNERS:
                    break
                return Placement(above.root, above.is_truncated, depth)
            current = owner
        if depth >= MAX_OWNERS:
            return _cut_off(entry)
        return Placement(current.uid, is_truncated=current.is_assumed, depth=depth)

    def _exists(self, root: str) -> bool:
        return root in self.entries or root in self.groups

    def _circle(self, entry: TreeEntry) -> list[str]:
        """The UIDs of a circle of references that the entry is part of; empty where there is none."""
        uids = [entry.uid]
        current = entry
        while current.parent is not None and len(uids) <= MAX_OWNERS:
            owner = self.entry_of(OwnerKey(current.namespace, current.parent.uid))
            if owner is None:
                return []
            if owner.uid == entry.uid:
                return uids
            uids.append(owner.uid)
            current = owner
        return []

    def _root_below_missing(
        self, last: TreeEntry, parent: OwnerReference
    ) -> tuple[str | None, bool]:
        key = OwnerKey(last.namespace, parent.uid)
        status = self.owner_statuses.get(key)
        if status is OwnerStatus.OUTSIDE:
            return last.uid, False
        previous = self._previous_root(last, parent)
        if previous is not None and previous != last.uid:
            return previous, False
        left = self.groups.get(parent.uid)
        if left is not None and left.root.namespace == last.namespace:
            return parent.uid, False
        if status in (OwnerStatus.UNREADABLE, OwnerStatus.ABANDONED):
            return last.uid, True
        if status is None and previous is None:
            self.missing[key] = parent
        return previous, False

    def _previous_root(self, last: TreeEntry, parent: OwnerReference) -> str | None:
        """The entry's root while this same owner could be read."""
        if (
            last.root is not None
            and last.resolved_parent_uid == parent.uid
            and last.root in self.groups
        ):
            return last.root
        return None

    def _is_last_member(self, entry: TreeEntry, root: str) -> bool:
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
        if entry is None or entry.root != root or entry.is_assumed:
            return False
        return entry.key in self._root_kinds or entry.is_looked_up

    def _delete_if_empty(self, root: str, at: datetime, not_before: datetime | None = None) -> None:
        """After something left: delete the workload, or report that it changed."""
        group = self.groups.get(root)
        if group is None:
            return
        if self.is_alive(root):
            self._listener.on_change(root)
            return
        entry = self.entries.get(root)
        is_misread = group.is_truncated and entry is not None and entry.root != root
        if is_misread or group.never_existed:
            self._listener.on_withdraw(root, at)
        elif entry is not None and entry.is_assumed and not group.is_root_gone:
            self._listener.on_pods_gone(root, at, not_before)
        else:
            self._listener.on_delete(root, at, not_before)
        self._delete_group(root, group)
        if entry is not None and entry.is_assumed and not self._has_children(entry):
            del self.entries[root]

    def _has_children(self, entry: TreeEntry) -> bool:
        return bool(self._children.get(OwnerKey(entry.namespace, entry.uid)))

    def _delete_group(self, root: str, group: OwnerGroup) -> None:
        del self.groups[root]
        namespace = self._by_namespace.get(group.root.namespace)
        if namespace is not None:
            namespace.discard(root)
            if not namespace:
                del self._by_namespace[group.root.namespace]


_WAITING = Placement(None, is_truncated=False, depth=0)


def _cut_off(entry: TreeEntry) -> Placement:
    """A workload of its own, though there are owners above it."""
    return Placement(entry.uid, is_truncated=True, depth=0)


def _uid(owner: OwnerReference | None) -> str:
    return owner.uid if owner is not None else ""
