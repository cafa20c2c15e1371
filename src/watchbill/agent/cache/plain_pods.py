"""Pods that nothing owns but that name one pod group are one workload: the first of them stands for all.

The first is the oldest, among equals by name, so that an agent that starts anew finds the same one. It stays
the root after its deletion, as long as another pod of the group is there.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from watchbill.kinds.objects.pod import OwnerReference, PlainGroup, Pod, plain_group

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

    def mark_listed(self) -> tuple[str, ...]:
        """All pods are known, so each group's first is: the others, which have a parent from now on."""
        self._is_listed = True
        moved: list[str] = []
        for members in self._groups.values():
            moved += members.place_below(min(members.ages.values()))
        return tuple(moved)

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
