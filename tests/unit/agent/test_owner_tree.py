"""Which workload each object belongs to, whatever the order of events."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.agent.cache import owner_lookup
from watchbill.agent.cache.owner_tree import MAX_OWNERS, OwnerKey, OwnerStatus, OwnerTree, TreeEntry
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference, Pod, read_pod

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEFINED = frozenset({GroupKind("apps", "Deployment"), GroupKind("apps", "ReplicaSet")})


@dataclass
class ListenerRecorder:
    changed: set[str] = field(default_factory=set)
    deleting: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    podless: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    def on_change(self, root: str) -> None:
        self.changed.add(root)

    def before_delete(self, root: str) -> None:
        self.deleting.append(root)

    def on_delete(self, root: str, at: datetime, not_before: datetime | None) -> None:
        self.deleted.append(root)

    def on_pods_gone(self, root: str, at: datetime, not_before: datetime | None) -> None:
        self.podless.append(root)

    def on_withdraw(self, root: str, at: datetime) -> None:
        self.withdrawn.append(root)


def new() -> tuple[OwnerTree, ListenerRecorder]:
    listener = ListenerRecorder()
    return OwnerTree(DEFINED, listener), listener


def owner(uid: str | None, kind: str = "ReplicaSet") -> OwnerReference | None:
    return None if uid is None else OwnerReference("apps", "v1", kind, uid, uid, True)


def key(uid: str, namespace: str = "ns") -> OwnerKey:
    return OwnerKey(namespace, uid)


def thing(
    uid: str, parent: str | None = None, kind: str = "ReplicaSet", namespace: str = "ns"
) -> TreeEntry:
    return TreeEntry(uid, GroupKind("apps", kind), namespace, uid, owner(parent), b"object")


def pod(uid: str, parent: str | None = None, namespace: str = "ns") -> TreeEntry:
    payload: Pod = read_pod({"metadata": {"uid": uid, "name": uid, "namespace": namespace}})
    return TreeEntry(uid, GroupKind("", "Pod"), namespace, uid, owner(parent), payload)


def deployment(uid: str) -> TreeEntry:
    return thing(uid, kind="Deployment")


def uids(tree: OwnerTree, root: str) -> set[str]:
    return {member.uid for member in tree.pods(root)}


@st.composite
def forests(draw: st.DrawFn) -> list[TreeEntry]:
    """Trees of up to four levels; pods may own, as leaders of a group do."""
    entries: list[TreeEntry] = []
    for number in range(draw(st.integers(1, 14))):
        parent = draw(st.none() | st.sampled_from([e.uid for e in entries])) if entries else None
        make = draw(st.sampled_from([pod, thing]))
        entries.append(make(f"u{number}", parent))
    return entries


def true_root(forest: list[TreeEntry], entry: TreeEntry) -> str:
    by_uid = {tree.uid: tree for tree in forest}
    while entry.parent is not None:
        entry = by_uid[entry.parent.uid]
    return entry.uid


def fresh(entry: TreeEntry) -> TreeEntry:
    return TreeEntry(entry.uid, entry.key, entry.namespace, entry.name, entry.parent, entry.payload)


@given(st.data(), forests())
@settings(max_examples=200)
def test_any_order_gives_the_same_groups(data: st.DataObject, forest: list[TreeEntry]) -> None:
    tree, _ = new()
    for entry in data.draw(st.permutations(forest)):
        tree.put(fresh(entry), NOW)
    assert not tree.missing
    for entry in forest:
        assert tree.root_of(key(entry.uid)) == true_root(forest, entry)
    for root in {true_root(forest, entry) for entry in forest}:
        expected = {e.uid for e in forest if e.is_pod and true_root(forest, e) == root}
        assert uids(tree, root) == expected
        assert tree.groups[root].pods == len(expected)


@given(st.data(), forests())
@settings(max_examples=200)
def test_any_order_of_removal_ends_every_workload_once(
    data: st.DataObject, forest: list[TreeEntry]
) -> None:
    tree, listener = new()
    for entry in forest:
        tree.put(fresh(entry), NOW)
    alive = {root for root in tree.groups if tree.is_alive(root)}
    roots = {entry.uid: tree.root_of(key(entry.uid)) for entry in forest}
    for entry in data.draw(st.permutations(forest)):
        tree.remove(entry.uid, NOW)
        for uid in tree.entries:
            assert tree.root_of(key(uid)) == roots[uid], "a broken chain moves nobody"
        remaining = {roots[uid] for uid, left in tree.entries.items() if left.is_pod}
        assert remaining <= {root for root in tree.groups if tree.is_alive(root)}
    assert sorted(listener.deleted) == sorted(set(listener.deleted))
    assert alive <= set(listener.deleted)
    assert set(listener.deleting) == alive
    assert not tree.entries
    assert not tree.groups
    assert not tree._children
    assert not tree._by_namespace


def test_background_deletion_removes_the_owner_first() -> None:
    tree, listener = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        tree.put(entry, NOW)
    tree.remove("d", NOW)
    tree.remove("rs", NOW)
    assert tree.is_alive("d")
    assert uids(tree, "d") == {"p"}
    assert tree.groups["d"].is_root_gone
    assert listener.deleted == []
    tree.remove("p", NOW)
    assert listener.deleted == ["d"]


def test_a_pod_born_during_the_cascade_joins_the_workload_of_its_owner() -> None:
    tree, _ = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        tree.put(entry, NOW)
    tree.remove("d", NOW)
    tree.put(pod("late", "rs"), NOW)
    assert uids(tree, "d") == {"p", "late"}
    assert not tree.missing


def test_orphans_become_a_workload_of_their_own() -> None:
    tree, listener = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        tree.put(entry, NOW)
    tree.put(thing("rs"), NOW)
    assert uids(tree, "rs") == {"p"}
    assert uids(tree, "d") == set()
    assert listener.deleted == [], "the Deployment itself is still there"
    tree.remove("d", NOW)
    assert listener.deleted == ["d"]
    assert tree.is_alive("rs")


def test_a_name_used_again_is_another_workload() -> None:
    tree, listener = new()
    for entry in (deployment("d1"), thing("rs1", "d1"), pod("p1", "rs1")):
        tree.put(entry, NOW)
    tree.remove("d1", NOW)
    for entry in (deployment("d2"), thing("rs2", "d2"), pod("p2", "rs2")):
        tree.put(entry, NOW)
    assert (uids(tree, "d1"), uids(tree, "d2")) == ({"p1"}, {"p2"})
    tree.remove("p1", NOW)
    assert listener.deleted == ["d1"]


def test_nobody_is_placed_before_a_missing_owner_is_resolved() -> None:
    tree, listener = new()
    tree.put(pod("p", "rs"), NOW)
    assert tree.root_of(key("p")) is None
    assert list(tree.missing) == [key("rs")]
    assert [entry.uid for entry in tree.waiting_for_owner()] == ["p"]
    tree.resolve(key("rs"), OwnerStatus.UNREADABLE, NOW)
    assert tree.root_of(key("p")) == "p"
    assert tree.groups["p"].is_truncated
    assert list(tree.waiting_for_owner()) == []
    tree.put(thing("rs"), NOW)
    assert tree.root_of(key("p")) == "rs"
    assert listener.withdrawn == ["p"], "it is no workload of its own any more"
    assert listener.deleted == [], "it never was one"
    assert not tree.groups["rs"].is_truncated


def test_those_below_an_owner_that_is_gone_wait_for_their_own_end() -> None:
    tree, listener = new()
    tree.put(pod("p", "rs"), NOW)
    tree.resolve(key("rs"), OwnerStatus.GONE, NOW)
    assert tree.root_of(key("p")) is None
    assert not tree.groups
    tree.resolve(key("rs"), OwnerStatus.ABANDONED, NOW)
    assert tree.root_of(key("p")) == "p"
    tree.remove("p", NOW)
    assert listener.deleted == ["p"]
    assert not tree.owner_statuses, "a status that concerns no entry is dropped"


def test_below_a_cluster_scoped_owner_the_pod_is_its_own_workload() -> None:
    tree, _ = new()
    tree.put(pod("p", "node"), NOW)
    tree.resolve(key("node"), OwnerStatus.OUTSIDE, NOW)
    assert tree.root_of(key("p")) == "p"
    assert not tree.groups["p"].is_truncated


def test_an_owner_looked_for_again_moves_nobody_meanwhile() -> None:
    tree, _ = new()
    tree.put(pod("p", "rs"), NOW)
    tree.resolve(key("rs"), OwnerStatus.UNREADABLE, NOW)
    assert tree.search_again(key("rs"))
    tree.put(pod("p", "rs"), NOW)
    assert tree.root_of(key("p")) == "p"
    assert tree.groups["p"].is_truncated
    assert list(tree.waiting_for_owner()) == []
    tree.remove("p", NOW)
    assert not tree.search_again(key("rs"))


def test_resolving_an_owner_moves_nothing_that_knew_it() -> None:
    tree, _ = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        tree.put(entry, NOW)
    tree.remove("d", NOW)
    tree.put(thing("late", "d"), NOW)
    tree.put(pod("q", "late"), NOW)
    tree.resolve(key("d"), OwnerStatus.UNREADABLE, NOW)
    tree.put(thing("rs", "d"), NOW)
    tree.put(pod("p", "rs"), NOW)
    assert uids(tree, "d") == {"p", "q"}, "what comes late joins what its owner left"
    assert not tree.groups["d"].is_truncated


@given(st.permutations(["a", "b", "c", "p"]))
def test_a_circle_of_owners_is_one_workload_whatever_the_order(order: list[str]) -> None:
    circle = {"a": "b", "b": "c", "c": "a"}
    tree, _ = new()
    for uid in order:
        tree.put(pod("p", "b") if uid == "p" else thing(uid, circle[uid]), NOW)
    assert {tree.root_of(key(uid)) for uid in "abcp"} == {"a"}
    assert uids(tree, "a") == {"p"}
    for uid in order:
        tree.remove(uid, NOW)
    assert not tree.groups


def test_references_changed_into_a_circle_leave_their_former_workload() -> None:
    tree, _ = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        tree.put(entry, NOW)
    tree.put(thing("rs", "p"), NOW)
    assert uids(tree, "d") == set()
    assert uids(tree, "p") == {"p"}


def test_an_owner_counts_in_its_own_namespace_alone() -> None:
    """A pod elsewhere that names a workload's UID neither joins it nor keeps it alive, whoever comes first."""
    for others_first in (True, False):
        tree, listener = new()
        claims = [pod("x", "d", namespace="other"), thing("y", "rs", namespace="other")]
        own = [deployment("d"), thing("rs", "d"), pod("p", "rs")]
        for entry in (*claims, *own) if others_first else (*own, *claims):
            tree.put(fresh(entry), NOW)
        tree.resolve(key("d", "other"), OwnerStatus.UNREADABLE, NOW)
        assert uids(tree, "d") == {"p"}
        assert tree.root_of(key("x", "other")) == "x"
        assert tree.root_of(key("d", "other")) is None
        for uid in ("p", "rs", "d"):
            tree.remove(uid, NOW)
        assert listener.deleted == ["d"]


def test_what_is_known_of_an_owner_in_one_namespace_says_nothing_in_another() -> None:
    """Somebody names an owner that others wait for, as of a kind that does not exist."""
    tree, _ = new()
    tree.put(pod("x", "d", namespace="other"), NOW)
    tree.resolve(key("d", "other"), OwnerStatus.UNREADABLE, NOW)
    tree.put(pod("p", "d"), NOW)
    assert tree.root_of(key("p")) is None, "it waits for its own owner"
    assert list(tree.missing) == [key("d")]
    tree.put(deployment("d"), NOW)
    assert uids(tree, "d") == {"p"}


class CountingEntries(dict[str, TreeEntry]):
    """Counts how often anything is looked up among the entries."""

    reads = 0

    def get(self, *args: Any) -> Any:
        self.reads += 1
        return super().get(*args)

    def __getitem__(self, uid: str) -> TreeEntry:
        self.reads += 1
        return super().__getitem__(uid)

    def __contains__(self, uid: object) -> bool:
        self.reads += 1
        return super().__contains__(uid)


@pytest.mark.parametrize("order", ["owners first", "owners last", "shuffled"])
def test_a_long_chain_costs_as_many_steps_as_it_has_objects(order: str) -> None:
    reads: dict[int, int] = {}
    for length in (400, 1_600):
        tree, _ = new()
        tree.entries = entries = CountingEntries()
        chain = [thing("u0"), *(thing(f"u{n}", f"u{n - 1}") for n in range(1, length))]
        if order == "owners last":
            chain.reverse()
        elif order == "shuffled":
            Random(7).shuffle(chain)
        for entry in chain:
            tree.put(entry, NOW)
        reads[length] = entries.reads
        roots = [tree.root_of(key(f"u{n}")) for n in range(length)]
        assert roots == [f"u{n - n % MAX_OWNERS}" for n in range(length)]
    assert reads[1_600] < 5 * reads[400]
    assert reads[1_600] < 1_600 * 4 * MAX_OWNERS


def test_naming_ever_new_owners_hides_no_pod() -> None:
    tree, _ = new()
    for minute in range(10):
        at = NOW + timedelta(seconds=60 * minute)
        tree.put(pod("p", f"nobody-{minute}"), at)
        assert (tree.root_of(key("p")) == "p") == (minute >= 2)
    tree.put(deployment("nobody-9"), NOW + timedelta(minutes=10))
    assert uids(tree, "nobody-9") == {"p"}


def test_a_kind_without_definition_lives_as_long_as_its_pods() -> None:
    tree, listener = new()
    tree.put(thing("r", kind="Rollout"), NOW)
    assert not tree.is_alive("r")
    tree.put(pod("p", "r"), NOW)
    assert tree.is_alive("r")
    tree.remove("p", NOW)
    assert listener.deleting == listener.deleted == ["r"]


def test_many_missing_owners_in_one_namespace_do_not_delay_those_of_another() -> None:
    flood = [key(f"f{number}", "flood") for number in range(1_000)]
    chosen = owner_lookup._in_turn([*flood, key("a", "own"), key("b", "own")])
    assert len(chosen) == owner_lookup._CONCURRENT_REQUESTS
    assert {key("a", "own"), key("b", "own")} <= set(chosen)


def assumed(uid: str, namespace: str = "ns") -> TreeEntry:
    entry = thing(uid, namespace=namespace)
    entry.is_looked_up = entry.is_assumed = True
    return entry


def test_an_owner_that_cannot_be_read_for_now_keeps_its_pods_together() -> None:
    tree, listener = new()
    for name in ("p1", "p2"):
        tree.put(pod(name, "rs"), NOW)
    tree.assume(assumed("rs"), NOW)
    assert uids(tree, "rs") == {"p1", "p2"}
    assert tree.groups["rs"].is_truncated
    tree.put(thing("rs"), NOW)
    assert not tree.groups["rs"].is_truncated
    assert listener.deleted == listener.withdrawn == []


def test_what_only_looked_like_a_workload_is_withdrawn_not_deleted() -> None:
    tree, listener = new()
    tree.put(deployment("d"), NOW)
    tree.put(pod("p1", "rs"), NOW)
    tree.put(pod("p2", "unknown"), NOW)
    tree.assume(assumed("rs"), NOW)
    tree.resolve(key("unknown"), OwnerStatus.UNREADABLE, NOW)
    assert {root for root in tree.groups if tree.is_alive(root)} == {"d", "rs", "p2"}
    tree.put(thing("rs", "d"), NOW)
    tree.put(thing("unknown", "d"), NOW)
    assert uids(tree, "d") == {"p1", "p2"}
    assert listener.deleted == []
    assert sorted(listener.withdrawn) == ["p2", "rs"]


def test_an_assumed_owner_lives_as_long_as_its_pods() -> None:
    tree, listener = new()
    tree.put(pod("p1", "rs"), NOW)
    tree.assume(assumed("rs"), NOW)
    tree.remove("p1", NOW)
    assert (listener.podless, listener.deleted) == (["rs"], []), "the owner itself may exist"
    assert tree.entries == tree.groups == {}


def test_what_is_assumed_of_an_owner_that_is_gone_hides_nothing_that_was_read_of_it() -> None:
    tree, listener = new()
    for entry in (thing("rs"), pod("p1", "rs")):
        tree.put(entry, NOW)
    tree.remove("rs", NOW)
    tree.put(pod("p2", "rs"), NOW)
    assert uids(tree, "rs") == {"p1", "p2"}
    assert not tree.missing, "nobody looks for an owner that was seen to go"
    tree.assume(assumed("rs"), NOW)
    assert not tree.groups["rs"].root.is_assumed
    for uid in ("p1", "p2"):
        tree.remove(uid, NOW)
    assert (listener.podless, listener.deleted) == ([], ["rs"])


def test_an_assumption_about_an_object_of_another_namespace_is_refuted() -> None:
    tree, listener = new()
    tree.put(pod("p1", "rs", namespace="claimer"), NOW)
    tree.assume(assumed("rs", "claimer"), NOW)
    tree.put(thing("rs", namespace="owner"), NOW)
    tree.put(pod("p2", "rs", namespace="owner"), NOW)
    assert uids(tree, "rs") == {"p2"}
    assert uids(tree, "p1") == {"p1"}
    tree.put(pod("p3", "rs", namespace="claimer"), NOW)
    tree.assume(assumed("rs", "claimer"), NOW)
    assert uids(tree, "rs") == {"p2"}
    assert listener.deleted == []
