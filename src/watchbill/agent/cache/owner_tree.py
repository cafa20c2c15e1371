"""Who belongs to which workload: owner references walked by UID, never by name. No I/O, no clock.

A workload is its root: the last owner that can be read. What once belonged to a root stays with it while its
references stay the same, so a chain that breaks during a cascade of deletions moves nobody.
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
    """It may exist; the agent may not read it. The chain stops below it."""
    GONE = "gone"
    """It does not exist. Those below will go too, so they wait."""
    ABANDONED = "abandoned"
    """It does not exist and those below live on: the chain stops below it."""
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
    """Fetched as an unknown owner; no watch tells of its end."""
    root: str | None = None
    vouched: str = ""
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
    """Told of everything that may change a record."""

    def touched(self, root: str) -> None: ...

    def ending(self, root: str) -> None:
        """The next removal ends this workload; its objects can be read for the last time."""

    def ended(self, root: str, at: datetime) -> None: ...


class OwnerTree:
    """Entries, their families, the owners that are missing. `defined`: kinds that are roots without pods."""

    def __init__(self, defined: Iterable[GroupKind], listener: OwnerListener) -> None:
        self.entries: dict[str, Entry] = {}
        self.families: dict[str, OwnerGroup] = {}
        self.missing: dict[str, tuple[OwnerReference, str]] = {}
        """Owners named by someone whom nobody has read: the reference and its namespace."""
        self.verdicts: dict[str, OwnerStatus] = {}
        self._children: dict[str, set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._defined = frozenset(defined)
        self._listener = listener

    def put(self, entry: Entry, at: datetime) -> None:
        """Add or replace. What waited for this UID finds its root now."""
        before = self.entries.get(entry.uid)
        if before is None:
            self._add(entry, at)
            return
        before.payload, before.is_looked_up = entry.payload, entry.is_looked_up
        if _uid(before.parent) != _uid(entry.parent):
            self._unlink(before)
            before.parent = entry.parent
            self._link(before)
            self._attach_all(before, at)
        if before.root is not None:
            self._listener.touched(before.root)

    def remove(self, uid: str, at: datetime) -> None:
        """The object is gone. Its family outlives it while one of its pods does."""
        entry = self.entries.get(uid)
        if entry is None:
            return
        if entry.root is not None and self._is_last(entry, entry.root):
            self._listener.ending(entry.root)
        del self.entries[uid]
        self._unlink(entry)
        family = self.families.get(uid)
        if family is not None:
            family.is_root_gone = True
            family.pods -= entry.is_pod
            self._settle(uid, at)
        if entry.root is not None and entry.root != uid:
            self._leave(entry, entry.root)
            self._settle(entry.root, at)

    def judge(self, uid: str, verdict: OwnerStatus, at: datetime) -> None:
        """A missing owner was looked for: those below it are placed accordingly."""
        if uid in self.entries:
            return
        self.verdicts[uid] = verdict
        self.missing.pop(uid, None)
        for child in tuple(self._children.get(uid, ())):
            self._attach_all(self.entries[child], at)

    def search_again(self, uid: str) -> bool:
        """Ask for this owner once more if anyone still names it; its verdict stands meanwhile."""
        for child in self._children.get(uid, ()):
            entry = self.entries[child]
            if entry.parent is not None:
                self.missing[uid] = (entry.parent, entry.namespace)
                return True
        return False

    def is_alive(self, root: str) -> bool:
        """Whether this root is a workload now."""
        family = self.families.get(root)
        if family is None:
            return False
        return family.pods > 0 or self._stands_alone(root)

    def pods(self, root: str) -> list[Pod]:
        family = self.families[root]
        found = [family.root] if root in self.entries else []
        found += [self.entries[uid] for uid in family.members]
        return [entry.payload for entry in found if isinstance(entry.payload, Pod)]

    def between(self, root: str) -> Iterator[Entry]:
        """Members that are no pods."""
        for uid in self.families[root].members:
            entry = self.entries[uid]
            if not entry.is_pod:
                yield entry

    def waiting(self) -> Iterator[Entry]:
        """Entries that cannot be placed before their missing owner is found or judged."""
        for owner in self.missing.keys() - self.verdicts.keys():
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
        self.verdicts.pop(entry.uid, None)
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
                self.verdicts.pop(entry.parent.uid, None)

    def _attach_all(self, entry: Entry, at: datetime) -> None:
        """Place the entry and everyone below it; then end the families that this emptied."""
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
            self._settle(root, at)

    def _attach(self, entry: Entry) -> set[str]:
        root, is_truncated = self._walk(entry)
        if root is None:
            return set()
        before = entry.root
        entry.vouched = _uid(entry.parent)
        family = self._family(root)
        if root == entry.uid:
            family.is_truncated = is_truncated
        if before == root:
            return set()
        entry.root = root
        if root == entry.uid:
            family.pods += entry.is_pod
        else:
            family.members.add(entry.uid)
            family.pods += entry.is_pod
        self._listener.touched(root)
        if before is None:
            return set()
        self._leave(entry, before)
        self._listener.touched(before)
        return {before}

    def _family(self, root: str) -> OwnerGroup:
        family = self.families.get(root)
        if family is None:
            entry = self.entries[root]
            family = self.families[root] = OwnerGroup(root=entry)
            self._by_namespace.setdefault(entry.namespace, set()).add(root)
        elif root in self.entries:
            family.root = self.entries[root]
        return family

    def _leave(self, entry: Entry, root: str) -> None:
        family = self.families.get(root)
        if family is None:
            return
        if root == entry.uid:
            family.pods -= entry.is_pod
        elif entry.uid in family.members:
            family.members.discard(entry.uid)
            family.pods -= entry.is_pod

    def _walk(self, entry: Entry) -> tuple[str | None, bool]:
        """The root above, and whether an owner above that cannot be read; None while that is unknown."""
        seen = {entry.uid}
        while entry.parent is not None:
            above = self.entries.get(entry.parent.uid)
            if above is None:
                return self._beyond(entry, entry.parent)
            if above.uid in seen:
                break  # references in a circle: nobody made that with a right to be anyone's owner
            seen.add(above.uid)
            entry = above
        return entry.uid, False

    def _beyond(self, last: Entry, parent: OwnerReference) -> tuple[str | None, bool]:
        verdict = self.verdicts.get(parent.uid)
        if verdict is OwnerStatus.OUTSIDE:
            return last.uid, False
        known = self._known_root(last, parent)
        if known is not None and known != last.uid:
            return known, False
        if verdict in (OwnerStatus.UNREADABLE, OwnerStatus.ABANDONED):
            return last.uid, True
        if verdict is None and known is None:
            self.missing[parent.uid] = (parent, last.namespace)
        return known, False

    def _known_root(self, last: Entry, parent: OwnerReference) -> str | None:
        """Where the entry belonged while this same owner could be read."""
        if last.root is not None and last.vouched == parent.uid and last.root in self.families:
            return last.root
        return None

    def _is_last(self, entry: Entry, root: str) -> bool:
        """Whether the workload ends with this entry."""
        family = self.families.get(root)
        if family is None:
            return False
        if family.pods - entry.is_pod > 0:
            return False
        return root == entry.uid or not self._stands_alone(root)

    def _stands_alone(self, root: str) -> bool:
        """Whether the root is a workload even without pods."""
        entry = self.entries.get(root)
        if entry is None or entry.root != root:
            return False
        return entry.key in self._defined or entry.is_looked_up

    def _settle(self, root: str, at: datetime) -> None:
        """After something left: end the workload, or say that it changed."""
        family = self.families.get(root)
        if family is None:
            return
        if self.is_alive(root):
            self._listener.touched(root)
            return
        self._listener.ended(root, at)
        self._dissolve(root, family)

    def _dissolve(self, root: str, family: OwnerGroup) -> None:
        del self.families[root]
        namespace = self._by_namespace.get(family.root.namespace)
        if namespace is not None:
            namespace.discard(root)
            if not namespace:
                del self._by_namespace[family.root.namespace]


def _uid(owner: OwnerReference | None) -> str:
    return owner.uid if owner is not None else ""
