"""What an agent tells while its first lists arrive, however long they take."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from simulator.apiserver.discovery import V1_20, V1_36, ServerVersion
from tests.fixtures.agents import agent, until
from tests.fixtures.kubernetes.agent_objects import deployment, made, pod, short_waits, uid
from tests.fixtures.kubernetes.kube_api import KubeApi, kube_api
from tests.fixtures.receiver import receiver
from watchbill.agent.stream.tracker import Tracker

__all__ = ["short_waits"]


def hold_pages_of_pods(api: KubeApi, *, after: int) -> asyncio.Event:
    """The first pages of the pods' list arrive, the next one when the event is set."""
    released = asyncio.Event()
    pages = 0

    async def intercept(request: web.Request) -> web.StreamResponse | None:
        nonlocal pages
        is_metadata = "PartialObjectMetadataList" in request.headers.get("Accept", "")
        is_list = request.path.endswith("/api/v1/pods") and "limit" in request.query
        if is_list and not is_metadata:
            pages += 1
            if pages > after:
                await released.wait()
        return await api.intercept(request)

    api.cluster.intercept = intercept
    return released


async def test_namespaces_whose_pods_are_all_listed_are_reported_before_the_list_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that never gets to the end of a list still records what it knows for certain, and no more."""
    monkeypatch.setattr("watchbill.agent.kubernetes.client.PAGE_OBJECTS", 2)
    async with kube_api() as api, receiver() as server:
        first, second = pod("a", namespace="alpha"), pod("b", namespace="alpha")
        root = deployment("web", namespace="beta")
        middle = made("ReplicaSet", "web-1", root, group="apps", namespace="beta", spec={})
        members = [pod(f"web-1-{name}", middle, namespace="beta") for name in "xyz"]
        for obj in (first, second, root, middle, *members, pod("c", namespace="gamma")):
            api.put(obj)
        hold_pages_of_pods(api, after=2)
        async with agent(tmp_path, api, server):
            await until(lambda: len(server.rows) == 2)
            assert server.rows.keys() == {uid(first), uid(second)}
            assert not server.inventories or not server.commits, "nothing is proven yet"
        assert server.rows.keys() == {uid(first), uid(second)}
        released = hold_pages_of_pods(api, after=2)
        async with agent(tmp_path, api, server):
            released.set()
            await until(lambda: len(server.rows) == 4)
            assert server.rows[uid(root)].record.usage.pod_count == 3
            assert not any(row.deletions for row in server.rows.values())


async def test_of_a_single_namespace_whatever_is_complete_is_reported_before_the_list_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pods' metadata, listed beside them, tells which workloads have all of their pods."""
    monkeypatch.setattr("watchbill.agent.kubernetes.client.PAGE_OBJECTS", 2)
    monkeypatch.setattr("watchbill.agent.run.LONG_LIST_SECONDS", 0.0)
    async with kube_api() as api, receiver() as server:
        roots = {name: deployment(name, namespace="alpha") for name in ("one", "two")}
        for name, root in roots.items():
            middle = made("ReplicaSet", f"{name}-1", root, group="apps", namespace="alpha", spec={})
            api.put(root)
            api.put(middle)
            for number in range(2):
                api.put(pod(f"{name}-1-{number}", middle, namespace="alpha"))
        api.put(pod("two-2-late", middle, namespace="alpha"))
        released = hold_pages_of_pods(api, after=2)
        async with agent(tmp_path, api, server):
            await until(lambda: len(server.rows) == 1)
            assert server.rows.keys() == {uid(roots["one"])}, "of the other a pod is still to come"
            assert not server.commits, "nothing is proven yet"
            released.set()
            await until(lambda: len(server.rows) == 2)
            assert server.rows[uid(roots["two"])].record.usage.pod_count == 3
            assert not any(row.deletions for row in server.rows.values())


@pytest.mark.parametrize("version", [V1_36, V1_20])
async def test_the_first_record_needs_three_answers_one_after_the_other_at_most(
    tmp_path: Path, version: ServerVersion
) -> None:
    """Where each answer takes seconds, an agent that does not live long tells nothing with more."""
    async with kube_api() as api, receiver() as server:
        api.cluster.version = version
        middle = made("ReplicaSet", "web-1", root := deployment("web"), group="apps", spec={})
        for obj in (root, middle, pod("web-1-x", middle)):
            api.put(obj)
        kinds = {table.resource for table in api.cluster.store.tables()}
        groups = {f"/apis/{each.group}/v1" for each in kinds if each.group} | {"/api/v1"}
        turns = [
            {"/version", "/api", "/apis", "/api/v1/namespaces/kube-system"},
            *([] if version.has_aggregated_discovery else [groups]),
            {
                f"/{'apis/' + each.group if each.group else 'api'}/v1/{each.plural}"
                for each in kinds
            },
        ]
        released: set[str] = set()
        asked: set[str] = set()

        async def intercept(request: web.Request) -> web.StreamResponse | None:
            asked.add(request.path)
            while request.path not in released:
                await asyncio.sleep(0.01)
            return await api.intercept(request)

        api.cluster.intercept = intercept
        async with agent(tmp_path, api, server):
            for paths in turns:
                await until(lambda paths=paths: paths <= asked)
                released |= paths
            await until(lambda: server.rows)
            assert server.rows.keys() == {uid(root)}


async def test_what_went_while_no_agent_was_there_is_proven_before_the_rest_is_derived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long twenty thousand derivations take: that something is not listed shows without any."""
    async with kube_api() as api, receiver() as server:
        root = deployment("changes")
        middle = made("ReplicaSet", "changes-1", root, group="apps", spec={})
        gone, *others = (pod(name) for name in "abcde")
        for obj in (root, middle, pod("changes-1-x", middle), gone, *others):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until(lambda: len(server.rows) == 6 and server.commits > 0)
        api.delete(gone)
        api.put(pod("changes-1-y", middle))
        may_derive, derive_all, roots = asyncio.Event(), Tracker.derive_all, []

        async def held(tracker: Tracker) -> None:
            roots.extend(tracker._dirty)
            await may_derive.wait()
            await derive_all(tracker)

        async def nothing(tracker: Tracker) -> None:
            await may_derive.wait()

        async def none_known(tracker: Tracker, is_known: object) -> None: ...

        monkeypatch.setattr(Tracker, "derive_all", held)
        monkeypatch.setattr(Tracker, "_derive_due", nothing)
        monkeypatch.setattr(Tracker, "derive_known", none_known)
        async with agent(tmp_path, api, server):
            await until(lambda: server.rows[uid(gone)].deleted_at is not None)
            assert roots[0] == str(uid(root)), "what changed last is looked at first"
            assert server.rows[uid(root)].record.usage.pod_count == 1
            assert [server.rows[uid(obj)].changes for obj in others] == [1] * 4
            may_derive.set()
            await until(lambda: server.rows[uid(root)].record.usage.pod_count == 2)
            assert not any(server.rows[uid(obj)].deletions for obj in (root, *others))
            assert [server.rows[uid(obj)].changes for obj in others] == [1] * 4
