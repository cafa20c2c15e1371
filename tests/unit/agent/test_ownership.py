"""Who belongs to which workload, whatever the order in which the cluster tells."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.agent.cache.owner_tree import Entry, OwnerStatus, OwnerTree
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import OwnerReference, Pod, read_pod

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DEFINED = frozenset({GroupKind("apps", "Deployment"), GroupKind("apps", "ReplicaSet")})


@dataclass
class Heard:
    touched_roots: set[str] = field(default_factory=set)
    ending_roots: list[str] = field(default_factory=list)
    ended_roots: list[str] = field(default_factory=list)

    def touched(self, root: str) -> None:
        self.touched_roots.add(root)

    def ending(self, root: str) -> None:
        self.ending_roots.append(root)

    def ended(self, root: str, at: datetime) -> None:
        self.ended_roots.append(root)


def new() -> tuple[OwnerTree, Heard]:
    heard = Heard()
    return OwnerTree(DEFINED, heard), heard


def owner(uid: str | None, kind: str = "ReplicaSet") -> OwnerReference | None:
    return None if uid is None else OwnerReference("apps", "v1", kind, uid, uid, True)


def thing(uid: str, parent: str | None = None, kind: str = "ReplicaSet") -> Entry:
    return Entry(uid, GroupKind("apps", kind), "ns", uid, owner(parent), b"object")


def pod(uid: str, parent: str | None = None) -> Entry:
    found: Pod = read_pod({"metadata": {"uid": uid, "name": uid, "namespace": "ns"}})
    return Entry(uid, GroupKind("", "Pod"), "ns", uid, owner(parent), found)


def deployment(uid: str) -> Entry:
    return thing(uid, kind="Deployment")


def uids(found: OwnerTree, root: str) -> set[str]:
    return {member.uid for member in found.pods(root)}


@st.composite
def forests(draw: st.DrawFn) -> list[Entry]:
    """Trees of up to four levels; pods may own, as leaders of a group do."""
    entries: list[Entry] = []
    for number in range(draw(st.integers(1, 14))):
        parent = draw(st.none() | st.sampled_from([e.uid for e in entries])) if entries else None
        make = draw(st.sampled_from([pod, thing]))
        entries.append(make(f"u{number}", parent))
    return entries


def true_root(forest: list[Entry], entry: Entry) -> str:
    by_uid = {found.uid: found for found in forest}
    while entry.parent is not None:
        entry = by_uid[entry.parent.uid]
    return entry.uid


def fresh(entry: Entry) -> Entry:
    return Entry(entry.uid, entry.key, entry.namespace, entry.name, entry.parent, entry.payload)


@given(st.data(), forests())
@settings(max_examples=200)
def test_any_order_gives_the_same_families(data: st.DataObject, forest: list[Entry]) -> None:
    found, _ = new()
    for entry in data.draw(st.permutations(forest)):
        found.put(fresh(entry), NOW)
    assert not found.missing
    for entry in forest:
        assert found.root_of(entry.uid) == true_root(forest, entry)
    for root in {true_root(forest, entry) for entry in forest}:
        expected = {e.uid for e in forest if e.is_pod and true_root(forest, e) == root}
        assert uids(found, root) == expected
        assert found.families[root].pods == len(expected)


@given(st.data(), forests())
@settings(max_examples=200)
def test_any_order_of_removal_ends_every_workload_once(
    data: st.DataObject, forest: list[Entry]
) -> None:
    found, heard = new()
    for entry in forest:
        found.put(fresh(entry), NOW)
    alive = {root for root in found.families if found.is_alive(root)}
    roots = {entry.uid: found.root_of(entry.uid) for entry in forest}
    for entry in data.draw(st.permutations(forest)):
        found.remove(entry.uid, NOW)
        for uid in found.entries:
            assert found.root_of(uid) == roots[uid], "a broken chain moves nobody"
        remaining = {roots[uid] for uid, left in found.entries.items() if left.is_pod}
        assert remaining <= {root for root in found.families if found.is_alive(root)}
    assert sorted(heard.ended_roots) == sorted(set(heard.ended_roots))
    assert alive <= set(heard.ended_roots)
    assert set(heard.ending_roots) == alive
    assert not found.entries
    assert not found.families
    assert not found._children
    assert not found._by_namespace


def test_background_deletion_removes_the_owner_first() -> None:
    found, heard = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        found.put(entry, NOW)
    found.remove("d", NOW)
    found.remove("rs", NOW)
    assert found.is_alive("d")
    assert uids(found, "d") == {"p"}
    assert found.families["d"].is_root_gone
    assert heard.ended_roots == []
    found.remove("p", NOW)
    assert heard.ended_roots == ["d"]


def test_a_pod_born_during_the_cascade_joins_the_workload_of_its_owner() -> None:
    found, _ = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        found.put(entry, NOW)
    found.remove("d", NOW)
    found.put(pod("late", "rs"), NOW)
    assert uids(found, "d") == {"p", "late"}
    assert not found.missing


def test_orphans_become_a_workload_of_their_own() -> None:
    found, heard = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        found.put(entry, NOW)
    found.put(thing("rs"), NOW)
    assert uids(found, "rs") == {"p"}
    assert uids(found, "d") == set()
    assert heard.ended_roots == [], "the Deployment itself is still there"
    found.remove("d", NOW)
    assert heard.ended_roots == ["d"]
    assert found.is_alive("rs")


def test_a_name_used_again_is_another_workload() -> None:
    found, heard = new()
    for entry in (deployment("d1"), thing("rs1", "d1"), pod("p1", "rs1")):
        found.put(entry, NOW)
    found.remove("d1", NOW)
    for entry in (deployment("d2"), thing("rs2", "d2"), pod("p2", "rs2")):
        found.put(entry, NOW)
    assert (uids(found, "d1"), uids(found, "d2")) == ({"p1"}, {"p2"})
    found.remove("p1", NOW)
    assert heard.ended_roots == ["d1"]


def test_nobody_is_placed_before_a_missing_owner_is_judged() -> None:
    found, heard = new()
    found.put(pod("p", "rs"), NOW)
    assert found.root_of("p") is None
    assert list(found.missing) == ["rs"]
    assert [entry.uid for entry in found.waiting()] == ["p"]
    found.judge("rs", OwnerStatus.UNREADABLE, NOW)
    assert found.root_of("p") == "p"
    assert found.families["p"].is_truncated
    assert list(found.waiting()) == []
    found.put(thing("rs"), NOW)
    assert found.root_of("p") == "rs"
    assert heard.ended_roots == ["p"], "it is no workload of its own any more"
    assert not found.families["rs"].is_truncated


def test_those_below_an_owner_that_is_gone_wait_for_their_own_end() -> None:
    found, heard = new()
    found.put(pod("p", "rs"), NOW)
    found.judge("rs", OwnerStatus.GONE, NOW)
    assert found.root_of("p") is None
    assert not found.families
    found.judge("rs", OwnerStatus.ABANDONED, NOW)
    assert found.root_of("p") == "p"
    found.remove("p", NOW)
    assert heard.ended_roots == ["p"]
    assert not found.verdicts, "a verdict that concerns nobody is forgotten"


def test_below_a_cluster_scoped_owner_the_pod_is_its_own_workload() -> None:
    found, _ = new()
    found.put(pod("p", "node"), NOW)
    found.judge("node", OwnerStatus.OUTSIDE, NOW)
    assert found.root_of("p") == "p"
    assert not found.families["p"].is_truncated


def test_an_owner_looked_for_again_moves_nobody_meanwhile() -> None:
    found, _ = new()
    found.put(pod("p", "rs"), NOW)
    found.judge("rs", OwnerStatus.UNREADABLE, NOW)
    assert found.search_again("rs")
    found.put(pod("p", "rs"), NOW)
    assert found.root_of("p") == "p"
    assert found.families["p"].is_truncated
    assert list(found.waiting()) == []
    found.remove("p", NOW)
    assert not found.search_again("rs")


def test_a_verdict_on_an_owner_moves_nobody_who_knew_it() -> None:
    found, _ = new()
    for entry in (deployment("d"), thing("rs", "d"), pod("p", "rs")):
        found.put(entry, NOW)
    found.remove("d", NOW)
    found.put(thing("late", "d"), NOW)
    found.put(pod("q", "late"), NOW)
    found.judge("d", OwnerStatus.UNREADABLE, NOW)
    found.put(thing("rs", "d"), NOW)
    found.put(pod("p", "rs"), NOW)
    assert uids(found, "d") == {"p"}
    assert uids(found, "late") == {"q"}
    assert found.families["late"].is_truncated


def test_a_circle_of_owners_ends() -> None:
    found, _ = new()
    found.put(thing("a", "b"), NOW)
    found.put(thing("b", "a"), NOW)
    found.put(pod("p", "a"), NOW)
    assert found.root_of("p") in ("a", "b")
    for uid in ("a", "b", "p"):
        found.remove(uid, NOW)
    assert not found.families


def test_a_kind_without_definition_lives_as_long_as_its_pods() -> None:
    found, heard = new()
    found.put(thing("r", kind="Rollout"), NOW)
    assert not found.is_alive("r")
    found.put(pod("p", "r"), NOW)
    assert found.is_alive("r")
    found.remove("p", NOW)
    assert heard.ending_roots == heard.ended_roots == ["r"]
