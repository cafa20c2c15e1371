"""Pods that nothing owns but that name one pod group are one workload: the first of them stands for all.

The first is the oldest, among equals by name. It stays the root after its deletion, as long as another pod of
the group is there: an agent that starts anew hears from the server which pod that was.
"""

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from watchbill.kinds.objects.pod import OwnerReference, PlainGroup, Pod, plain_group, read_pod
from watchbill.protocol import PodGroupRoot

_EPOCH = datetime.fromtimestamp(0, UTC)


class _Age(NamedTuple):
    created_at: datetime
    name: str
    uid: str


@dataclass(slots=True)
class _Members:
    """`root`: the UID of the pod that stands for the group; it may be gone."""

    root: str
    ages: dict[str, _Age] = field(default_factory=dict)
    parents: dict[str, OwnerReference] = field(default_factory=dict)
    """For each pod but the root the pod that it was placed below."""

    def place_below(self, first: _Age) -> tuple[str, ...]:
        """All but the first below it; returns these."""
        others = tuple(uid for uid in self.ages if uid != first.uid)
        self.root = first.uid
        self.parents = {uid: _reference(first) for uid in others}
        return others


class PlainPods:
    """The members of each pod group, and below which of them each stands."""

    def __init__(self) -> None:
        self._groups: dict[PlainGroup, _Members] = {}
        self._group_of: dict[str, PlainGroup] = {}
        self._is_listed = False
        self._known: dict[str, PodGroupRoot] = {}
        """Of pods that the server knows the workload of which they were part."""

    def remember(self, known: Iterable[PodGroupRoot]) -> None:
        self._known = {str(pod): root for root in known for pod in (root.id, *root.pods)}

    def arrange(self, alive: Container[str]) -> tuple[tuple[str, ...], list[Pod]]:
        """All pods are known: those that stand elsewhere from now on, and firsts that are gone.

        The first is who the server knows as such, else the oldest. `alive`: all objects that are there.
        """
        was_listed, self._is_listed = self._is_listed, True
        known = self._known_roots()
        moved: list[str] = []
        gone: list[Pod] = []
        for group, members in self._groups.items():
            first, root = min(members.ages.values()), known.get(group)
            if root is not None and str(root.id) in members.ages:
                first = members.ages[str(root.id)]
            elif root is not None and str(root.id) not in alive:
                first = _Age(root.created_at, root.name, str(root.id))
                gone.append(_read_gone(first, group.namespace))
            elif was_listed:
                continue  # below the first that it had then, which may have gone since
            if first.uid != members.root or len(members.parents) < len(members.ages) - 1:
                moved += [first.uid] if first.uid in members.parents else []
                moved += members.place_below(first)
        return tuple(moved), gone

    def _known_roots(self) -> dict[PlainGroup, PodGroupRoot]:
        """The workload of which most of a group's pods were; each is that of one group alone."""
        votes = Counter(
            (str(self._known[pod].id), group)
            for pod, group in self._group_of.items()
            if pod in self._known
        )
        roots: dict[PlainGroup, PodGroupRoot] = {}
        placed: set[str] = set()
        for (uid, group), _ in votes.most_common():
            if uid not in placed and group not in roots:
                placed.add(uid)
                roots[group] = self._known[uid]
        return roots

    def put(self, pod: Pod, *, may_lead: bool = True) -> tuple[str, ...]:
        """Add or update a pod; returns others that now stand below it.

        Before all pods were listed none stands below another: a list has them in no order of age. `may_lead`:
        an older pod comes first. One that was there before and names the group later does not: whoever may
        change its labels would take over what the group was so far.
        """
        group = plain_group(pod)
        if self._group_of.get(pod.uid) != group:
            self.remove(pod.uid)
        if group is None:
            return ()
        self._group_of[pod.uid] = group
        members = self._groups.setdefault(group, _Members(root=pod.uid))
        age = members.ages[pod.uid] = _Age(pod.created_at or _EPOCH, pod.name, pod.uid)
        if not self._is_listed or pod.uid == members.root or pod.uid in members.parents:
            return ()
        root_age = members.ages.get(members.root)
        if may_lead and root_age is not None and age < root_age:
            return members.place_below(age)
        below = root_age or min((members.ages[uid] for uid in members.parents), default=age)
        if below == age:
            members.root = pod.uid
        else:
            members.parents[pod.uid] = _reference(below)
        return ()

    def remove(self, uid: str) -> None:
        group = self._group_of.pop(uid, None)
        if group is None:
            return
        members = self._groups[group]
        del members.ages[uid]
        members.parents.pop(uid, None)
        if not members.ages:
            del self._groups[group]

    def is_grouped(self, uid: str) -> bool:
        return uid in self._group_of

    def parent(self, uid: str) -> OwnerReference | None:
        """The pod below which this one stands; None for a root and for pods without a group."""
        group = self._group_of.get(uid)
        return None if group is None else self._groups[group].parents.get(uid)

    def oldest(self, uids: list[str]) -> str | None:
        """Of these pods the oldest that is in a group."""
        ages = [
            self._groups[group].ages[uid]
            for uid in uids
            if (group := self._group_of.get(uid)) is not None
        ]
        return min(ages).uid if ages else None


def _reference(age: _Age) -> OwnerReference:
    return OwnerReference("", "v1", "Pod", age.name, age.uid, is_controller=True)


def _read_gone(age: _Age, namespace: str) -> Pod:
    """A pod of which no more is known than which it was."""
    created_at = age.created_at.isoformat()
    meta = {"uid": age.uid, "name": age.name, "namespace": namespace}
    return read_pod({"metadata": meta | {"creationTimestamp": created_at}})
