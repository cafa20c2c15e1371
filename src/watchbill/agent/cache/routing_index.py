"""Services, inference pools and routes by what leads to them: owners, selected labels, backends. No I/O.

A workload gets those that may concern it, and a change of one reaches the workloads that it may concern:
neither costs more where others have more services and routes. Derivation looks at them again and picks those
that do lead to the workload.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.kinds.derivation.route_backends import (
    TARGET_KINDS,
    backends_of,
    label_pairs,
    selecting,
    selector_of,
)
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import Pod, owners

MAX_OF_WORKLOAD = 500
"""Services and pools, and as many routes, that one workload gets: the first by UID."""
_LEAST_PRUNED = 1_000


class _Key(NamedTuple):
    """By what objects are looked up in a namespace: an owner's UID and "", a label and its value, a backend's
    kind and name."""

    by: Literal["owner", "label", "backend"]
    namespace: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class _Placed:
    obj: Object
    namespaces: frozenset[str]
    keys: tuple[_Key, ...]
    selector: Mapping[str, Any]


@dataclass(slots=True)
class RoutingIndex:
    """Objects by UID within the namespaces that they concern."""

    _placed: dict[str, _Placed] = field(default_factory=dict)
    _uids: dict[_Key, list[str]] = field(default_factory=dict)
    """In ascending order."""
    _uses: dict[str, tuple[_Key, ...]] = field(default_factory=dict)
    """By workload, the services and pools that it got last."""
    _users: dict[_Key, set[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._placed)

    def put(self, uid: str, obj: Object, namespaces: frozenset[str]) -> bool:
        """Whether that is another object than before, or concerns other namespaces."""
        before = self._placed.get(uid)
        if before is not None and before.obj == obj and before.namespaces == namespaces:
            return False
        self.drop(uid)
        selector = selector_of(obj) if text(obj.get("kind")) in TARGET_KINDS else {}
        keys = tuple(dict.fromkeys(self._keys(obj, namespaces, selector)))
        self._placed[uid] = _Placed(obj, namespaces, keys, selector)
        for key in keys:
            insort(self._uids.setdefault(key, []), uid)
        return True

    def drop(self, uid: str) -> None:
        placed = self._placed.pop(uid, None)
        for key in () if placed is None else placed.keys:
            uids = self._uids[key]
            del uids[bisect_left(uids, uid)]
            if not uids:
                del self._uids[key]

    def get(self, uid: str) -> Object:
        return self._placed[uid].obj

    def _keys(
        self, obj: Object, namespaces: frozenset[str], selector: Mapping[str, Any]
    ) -> Iterator[_Key]:
        own = _namespace(obj)
        for owner in owners(obj):
            yield _Key("owner", own, owner.uid, "")
        labels = [_Key("label", own, name, value) for name, value in label_pairs(selector)]
        if labels:
            # A pod that it selects has all of them: one is enough, best one that few others have.
            yield min(labels, key=lambda key: (len(self._uids.get(key, ())), key))
        yield from (
            _Key("backend", backend.namespace, backend.kind, backend.name)
            for backend in backends_of(obj)
            if backend.namespace in namespaces
        )

    def of_workload(
        self, root: str, chain: Collection[OwnerKey], pods: Collection[Pod]
    ) -> list[Object]:
        """Services and pools that an object of the chain owns or that select one of the pods, and the routes
        that such an object owns or that lead to one of these."""
        owned = sorted(_Key("owner", owner.namespace, owner.uid, "") for owner in chain)
        labels = {
            _Key("label", pod.namespace, name, value)
            for pod in pods
            for name, value in label_pairs(pod.labels)
        }
        keys = sorted(labels & self._uids.keys())
        selectors = (self._placed[uid].selector for key in keys for uid in self._uids[key])
        is_selecting = selecting((pod.labels for pod in pods), selectors)
        of_chain = set(self._first(owned, lambda _: True))
        by_label = self._first(
            keys,
            lambda placed: is_selecting(placed.selector),
        )
        targets = [uid for uid in of_chain.union(by_label) if self._target(uid) is not None]
        names = sorted(filter(None, map(self._target, sorted(targets)[:MAX_OF_WORKLOAD])))
        self._remember(root, names)
        routes = of_chain.difference(targets).union(self._first(names, lambda _: True))
        chosen = (*sorted(targets)[:MAX_OF_WORKLOAD], *sorted(routes)[:MAX_OF_WORKLOAD])
        return [self._placed[uid].obj for uid in chosen]

    def _first(self, keys: Iterable[_Key], is_wanted: Callable[[_Placed], bool]) -> Iterator[str]:
        """Of all keys together as many as count."""
        left = MAX_OF_WORKLOAD
        for key in keys:
            for uid in self._uids.get(key, ()):
                if is_wanted(self._placed[uid]):
                    yield uid
                    left -= 1
                    if not left:
                        return

    def _target(self, uid: str) -> _Key | None:
        """By what routes name it; None for a route."""
        obj = self._placed[uid].obj
        kind = text(obj.get("kind"))
        if kind not in TARGET_KINDS:
            return None
        return _Key("backend", _namespace(obj), kind, text(metadata(obj).get("name")))

    def _remember(self, root: str, names: Iterable[_Key]) -> None:
        self.forget(root)
        uses = tuple(names)
        if uses:
            self._uses[root] = uses
        for key in uses:
            self._users.setdefault(key, set()).add(root)

    def forget(self, root: str) -> None:
        """The workload is gone."""
        for key in self._uses.pop(root, ()):
            users = self._users[key]
            users.discard(root)
            if not users:
                del self._users[key]

    def prune(self, groups: Container[str], count: int) -> None:
        """Forget workloads that are gone, once they are as many as the `count` that there are."""
        if len(self._uses) > 2 * count + _LEAST_PRUNED:
            for root in [root for root in self._uses if root not in groups]:
                self.forget(root)

    def concerned(self, uid: str) -> "Concerned":
        """What leads from an object to workloads; nothing for one that is not there."""
        placed = self._placed.get(uid)
        if placed is None:
            return Concerned()
        used = [key for key in placed.keys if key.by == "backend"]
        if (target := self._target(uid)) is not None:
            used.append(target)
        return Concerned(
            frozenset().union(*(self._users.get(key, ()) for key in used)),
            tuple(OwnerKey(key.namespace, key.name) for key in placed.keys if key.by == "owner"),
            _namespace(placed.obj),
            placed.selector,
        )


class Concerned(NamedTuple):
    """`roots`: workloads that use it or what it leads to. `owners`: its own. `selector`: of pods in
    `namespace`."""

    roots: frozenset[str] = frozenset()
    owners: tuple[OwnerKey, ...] = ()
    namespace: str = ""
    selector: Mapping[str, Any] = {}


def _namespace(obj: Object) -> str:
    return text(metadata(obj).get("namespace"))
