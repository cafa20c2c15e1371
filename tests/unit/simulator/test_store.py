"""The simulated cluster's store: revisions, generations, history and what is forgotten."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.apiserver.store import (
    Ending,
    Expired,
    ResourceTable,
    Store,
    StoredObject,
    WatchQueue,
)
from simulator.resources import BUILT_IN, DEPLOYMENTS, PODS, RAY_CLUSTERS


def pod(name: str, *, namespace: str = "a", uid: str = "", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}"},
        "spec": {"nodeName": "n1"},
        "status": status,
    }


def pods_of(store: Store) -> ResourceTable:
    table = store.table("", "pods")
    assert table is not None
    return table


def names(objects: list[StoredObject]) -> list[str]:
    return [stored.path for stored in objects]


def test_revision_is_one_counter_for_all_kinds() -> None:
    store = Store()
    first = store.put(PODS, pod("p"))
    deployment = {"metadata": {"name": "d", "namespace": "a", "uid": "u"}, "spec": {}}
    second = store.put(DEPLOYMENTS, deployment)
    assert (first.revision, second.revision) == (2, 3)


def test_a_write_that_changes_nothing_keeps_the_revision() -> None:
    store = Store()
    first = store.put(PODS, pod("p", phase="Running"))
    assert store.put(PODS, pod("p", phase="Running")) is first
    assert store.put(PODS, pod("p", phase="Failed")).revision == first.revision + 1


def test_generation_grows_with_spec_and_deletion_mark_only() -> None:
    store = Store()
    document = {
        "metadata": {"name": "d", "namespace": "a", "uid": "u"},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 0},
    }
    assert store.put(DEPLOYMENTS, document).generation == 1
    document["status"] = {"observedGeneration": 0, "replicas": 1}
    assert store.put(DEPLOYMENTS, document).generation == 1
    document["spec"] = {"replicas": 2}
    scaled = store.put(DEPLOYMENTS, document)
    assert scaled.generation == 2
    assert scaled.decode()["status"]["observedGeneration"] == 2
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert store.put(DEPLOYMENTS, document).generation == 3
    assert store.put(DEPLOYMENTS, document).generation == 3


def test_kinds_without_generation_have_none() -> None:
    stored = Store().put(
        next(r for r in BUILT_IN if r.plural == "services"),
        {"metadata": {"name": "s", "namespace": "a", "uid": "u"}, "spec": {"type": "ClusterIP"}},
    )
    assert "generation" not in stored.decode()["metadata"]


def test_one_name_cannot_change_its_uid_without_a_deletion() -> None:
    store = Store()
    store.put(PODS, pod("p", uid="one"))
    with pytest.raises(ValueError, match="another uid"):
        store.put(PODS, pod("p", uid="two"))
    assert store.delete(PODS, "a", "p")
    assert not store.delete(PODS, "a", "p")
    assert store.put(PODS, pod("p", uid="two")).generation == 1


def test_lists_come_in_the_order_of_keys() -> None:
    store = Store()
    for namespace, name in (("b", "x"), ("a-b", "x"), ("a", "z"), ("a", "b")):
        store.put(PODS, pod(name, namespace=namespace, uid=namespace + name))
    view = pods_of(store).view()
    assert names(view.between("", "")) == ["a-b/x", "a/b", "a/z", "b/x"]
    assert names(view.between("a/", "")) == ["a/b", "a/z"]
    assert names(view.between("a/", "a/b\0")) == ["a/z"]


Operation = tuple[str, int]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(("put", "touch", "delete")), st.integers(0, 5)), max_size=40
)


@given(OPERATIONS, st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_every_past_revision_lists_what_was_there(
    operations: list[Operation], touched: int
) -> None:
    store = Store()
    pasts: dict[int, dict[str, int]] = {store.revision: {}}
    present: dict[str, int] = {}
    for number, (action, index) in enumerate(operations):
        name = f"p{index}"
        if action == "delete":
            store.delete(PODS, "a", name)
            present.pop(name, None)
        else:
            step = number if action == "touch" else touched
            present[name] = store.put(PODS, pod(name, step=step)).revision
        pasts[store.revision] = dict(present)
    for revision, past in pasts.items():
        result = pods_of(store).view_at(revision).between("", "")
        assert {stored.path[2:]: stored.revision for stored in result} == past


def test_a_full_history_forgets_its_beginning() -> None:
    store = Store(history=3)
    for number in range(6):
        store.put(PODS, pod("p", number=number))
    table = pods_of(store)
    assert table.floor == 4
    assert table.view_at(4).between("", "")[0].decode()["status"]["number"] == 2
    with pytest.raises(Expired):
        table.view_at(3)


def test_compaction_forgets_all_history_and_keeps_what_is_there() -> None:
    store = Store()
    store.put(PODS, pod("p"))
    before = store.revision
    store.put(PODS, pod("q"))
    store.compact()
    with pytest.raises(Expired):
        pods_of(store).view_at(before)
    assert names(pods_of(store).view_at(store.revision).between("", "")) == ["a/p", "a/q"]


def test_compaction_up_to_a_revision_keeps_what_came_after() -> None:
    store = Store()
    revisions = [store.put(PODS, pod(name)).revision for name in "pqr"]
    store.compact(revisions[1])
    table = pods_of(store)
    with pytest.raises(Expired):
        table.view_at(revisions[0])
    assert names(table.view_at(revisions[1]).between("", "")) == ["a/p", "a/q"]
    assert [change.revision for change in table.changes] == [revisions[2]]


def test_subscribers_hear_changes_in_order() -> None:
    store = Store()
    subscription = WatchQueue()
    pods_of(store).subscriptions.add(subscription)
    store.put(PODS, pod("p"))
    store.put(PODS, pod("p", phase="Running"))
    store.delete(PODS, "a", "p")
    assert [c.type for c in subscription.changes] == ["ADDED", "MODIFIED", "DELETED"]
    last = subscription.changes[-1]
    assert last.new.revision == store.revision
    assert last.new.decode()["status"] == {"phase": "Running"}


def test_a_removed_kind_takes_its_definition_and_ends_its_watches() -> None:
    store = Store()
    store.add_resource(RAY_CLUSTERS)
    definitions = store.table("apiextensions.k8s.io", "customresourcedefinitions")
    assert definitions is not None
    first_uid = definitions.objects["rayclusters.ray.io"].uid
    subscription = WatchQueue()
    table = store.table("ray.io", "rayclusters")
    assert table is not None
    table.subscriptions.add(subscription)
    store.put(RAY_CLUSTERS, {"metadata": {"name": "r", "namespace": "a", "uid": "u"}})
    store.empty_resource(RAY_CLUSTERS)
    store.remove_resource(RAY_CLUSTERS)
    assert [change.type for change in subscription.changes] == ["ADDED", "DELETED"]
    assert subscription.ending is Ending.CLEAN
    assert store.table("ray.io", "rayclusters") is None
    assert definitions.objects == {}
    store.add_resource(RAY_CLUSTERS)
    assert definitions.objects["rayclusters.ray.io"].uid != first_uid


def test_a_restored_store_goes_on_later_than_the_one_that_was_kept() -> None:
    store = Store()
    kept = store.put(PODS, pod("p", phase="Running"))
    dump = store.dump()
    lost = store.put(PODS, pod("q")).revision
    again = Store()
    again.restore(dump)
    assert again.revision > lost
    assert again.get(PODS, "a", "p") == kept
    assert again.get(PODS, "a", "q") is None
    with pytest.raises(Expired):
        pods_of(again).view_at(lost)
