"""Watches of the simulated API server, and the faults that can be made to happen, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from simulator.apiserver.discovery import V1_20
from simulator.apiserver.store import Store
from simulator.resources import EVENTS, PODS, RAY_CLUSTERS
from tests.fixtures.kubernetes.demo_cluster import PARTIAL, Caller, calling, put_pod
from tests.fixtures.kubernetes.replay import recorded

PODS_PATH = "/api/v1/pods"
SOON = 60.0


class Stream:
    """One open watch, line by line."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self.response.content.readline(), SOON)
        if not line:
            raise EOFError
        event: dict[str, Any] = json.loads(line)
        return event

    async def rest(self) -> list[dict[str, Any]]:
        body = await asyncio.wait_for(self.response.read(), SOON)
        return [json.loads(line) for line in body.splitlines()]


@asynccontextmanager
async def watching(
    caller: Caller, query: str = "", *, path: str = PODS_PATH, accept: str = "application/json"
) -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {caller.cluster.token}", "Accept": accept}
    url = f"{caller.cluster.url}{path}?watch=1&{query}"
    async with caller.session.get(url, headers=headers) as response:
        assert response.status == 200
        yield Stream(response)


async def subscribed(caller: Caller, count: int = 1) -> None:
    """Wait until so many watches of pods are open."""
    table = caller.cluster.store.table("", "pods")
    assert table is not None
    for _ in range(200):
        if len(table.subscriptions) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no watch was opened")


async def test_a_watch_goes_on_from_its_revision() -> None:
    async with calling(pods=2) as caller:
        then = caller.cluster.store.revision
        put_pod(caller.cluster, "p000", phase="Failed")
        async with watching(caller, f"resourceVersion={then}") as stream:
            first = await stream.next()
            put_pod(caller.cluster, "new")
            second = await stream.next()
            caller.cluster.store.delete(PODS, "ns0", "new")
            third = await stream.next()
    assert [e["type"] for e in (first, second, third)] == ["MODIFIED", "ADDED", "DELETED"]
    assert first["object"]["kind"] == "Pod"
    revisions = [int(e["object"]["metadata"]["resourceVersion"]) for e in (first, second, third)]
    assert revisions == [then + 1, then + 2, then + 3]


@pytest.mark.parametrize("query", ["", "resourceVersion=0"])
async def test_a_watch_without_revision_begins_with_what_is_there(query: str) -> None:
    async with calling(pods=3) as caller, watching(caller, query) as stream:
        result = [await stream.next() for _ in range(3)]
        await subscribed(caller)
        put_pod(caller.cluster, "new")
        last = await stream.next()
    assert {event["type"] for event in result} == {"ADDED"}
    assert last["object"]["metadata"]["name"] == "new"


async def test_timeout_seconds_end_a_watch_cleanly_after_a_bookmark() -> None:
    async with calling() as caller:
        query = f"timeoutSeconds=2&allowWatchBookmarks=1&resourceVersion={caller.cluster.store.revision}"
        async with watching(caller, query) as stream:
            with_bookmarks = await stream.rest()
        async with watching(caller, query.replace("allowWatchBookmarks=1", "")) as stream:
            without = await stream.rest()
    theirs = recorded("1.36", "watch-bookmarks")[3].lines or ()
    expected = json.loads(theirs[-1])
    (bookmark,) = with_bookmarks
    assert without == []
    assert bookmark["type"] == expected["type"] == "BOOKMARK"
    assert set(bookmark["object"]) == set(expected["object"])
    assert set(bookmark["object"]["metadata"]) == {"resourceVersion"}


async def test_a_bookmark_never_overtakes_an_event() -> None:
    async with calling() as caller:
        store = caller.cluster.store
        query = f"timeoutSeconds=2&allowWatchBookmarks=1&resourceVersion={store.revision}"
        async with watching(caller, query) as stream:
            await subscribed(caller)
            caller.cluster.faults.stalls_watches = True
            await asyncio.sleep(0.7)
            put_pod(caller.cluster, "before")
            caller.cluster.faults.stalls_watches = False
            events = await stream.rest()
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]


async def test_events_know_no_bookmarks() -> None:
    async with calling() as caller:
        query = f"timeoutSeconds=2&allowWatchBookmarks=1&resourceVersion={caller.cluster.store.revision}"
        async with watching(caller, query, path="/api/v1/events") as stream:
            assert await stream.rest() == []


async def test_a_revision_that_is_too_old_is_an_error_event() -> None:
    theirs = recorded("1.36", "watch-too-old")[0].lines or ()
    async with calling(pods=2) as caller:
        caller.cluster.store.compact()
        put_pod(caller.cluster, "new")
        async with watching(caller, "resourceVersion=3") as stream:
            (event,) = await stream.rest()
        async with watching(caller, "resourceVersion=3", path="/api/v1/events") as stream:
            (uncached,) = await stream.rest()
    expected = json.loads(theirs[0])
    expected["object"]["message"] = event["object"]["message"]
    assert event == expected
    assert event["object"]["message"].startswith("too old resource version: 3 (")
    assert uncached["object"]["code"] == 410


async def test_the_revision_of_the_compaction_itself_is_not_too_old() -> None:
    async with calling(pods=2) as caller:
        caller.cluster.store.compact()
        then = caller.cluster.store.revision
        put_pod(caller.cluster, "new")
        async with watching(caller, f"resourceVersion={then}&timeoutSeconds=1") as stream:
            assert [event["type"] for event in await stream.rest()] == ["ADDED"]


INITIAL = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"


async def test_a_streamed_list_ends_with_a_marked_bookmark() -> None:
    async with calling(pods=2) as caller:
        async with watching(caller, f"{INITIAL}&allowWatchBookmarks=true") as stream:
            result = [await stream.next() for _ in range(3)]
        async with watching(caller, f"{INITIAL}&timeoutSeconds=1") as stream:
            unmarked = await stream.rest()
    assert [event["type"] for event in result] == ["ADDED", "ADDED", "BOOKMARK"]
    assert result[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert [event["type"] for event in unmarked] == ["ADDED", "ADDED"]


async def test_old_servers_know_no_streamed_lists() -> None:
    async with calling(pods=1, version=V1_20) as caller:
        refused = await caller.get(f"{PODS_PATH}?watch=1&{INITIAL}")
        async with watching(caller, "sendInitialEvents=true&timeoutSeconds=1") as stream:
            ignored = await stream.rest()
    assert refused.status == 422
    assert [event["type"] for event in ignored] == ["ADDED"]


async def test_leaving_a_selection_is_deleted_with_the_last_matching_state() -> None:
    async with calling() as caller:
        put_pod(caller.cluster, "p", tier="gold")
        then = caller.cluster.store.revision
        query = f"labelSelector=tier%3Dgold&resourceVersion={then}"
        async with watching(caller, query) as stream:
            put_pod(caller.cluster, "p", tier="silver")
            left = await stream.next()
            put_pod(caller.cluster, "p", tier="gold")
            back = await stream.next()
    assert (left["type"], back["type"]) == ("DELETED", "ADDED")
    head = left["object"]["metadata"]
    assert head["labels"]["tier"] == "gold"
    assert head["resourceVersion"] == str(then + 1)
    assert "deletionTimestamp" not in head


async def test_a_namespaced_watch_hears_of_its_namespace_alone() -> None:
    async with calling() as caller:
        then = caller.cluster.store.revision
        put_pod(caller.cluster, "p", namespace="ns1")
        put_pod(caller.cluster, "p", namespace="ns0")
        path = "/api/v1/namespaces/ns0/pods"
        query = f"resourceVersion={then}&timeoutSeconds=1"
        async with watching(caller, query, path=path) as stream:
            result = await stream.rest()
    assert [event["object"]["metadata"]["namespace"] for event in result] == ["ns0"]


async def test_a_watch_can_carry_metadata_alone() -> None:
    async with calling(pods=1) as caller, watching(caller, accept=PARTIAL) as stream:
        event = await stream.next()
    assert set(event["object"]) == {"kind", "apiVersion", "metadata"}


async def test_a_varied_watch_tears_its_lines_and_keeps_their_content() -> None:
    async with calling(seed=11) as caller, watching(caller, "timeoutSeconds=2") as stream:
        await subscribed(caller)
        for number in range(150):
            put_pod(caller.cluster, f"q{number}")
            if number % 10 == 0:
                await asyncio.sleep(0.002)
        events = await stream.rest()
    names = [e["object"]["metadata"]["name"] for e in events if e["type"] == "ADDED"]
    assert names == [f"q{number}" for number in range(150)]
    assert {e["type"] for e in events} <= {"ADDED", "SIMULATED"}


async def test_a_kind_that_is_removed_says_so_object_by_object_and_is_unknown_then() -> None:
    path = "/apis/ray.io/v1/rayclusters"
    async with calling() as caller:
        cluster = caller.cluster
        cluster.store.put(RAY_CLUSTERS, {"metadata": {"name": "r", "namespace": "a", "uid": "u"}})
        async with watching(
            caller, f"resourceVersion={cluster.store.revision}", path=path
        ) as stream:
            await cluster.remove_kind(RAY_CLUSTERS)
            events = await stream.rest()
        listed = await caller.get(path)
        discovered = await caller.get("/apis/ray.io/v1")
    assert [event["type"] for event in events] == ["DELETED"]
    assert (listed.status, listed.body) == (404, b"404 page not found\n")
    assert discovered.status == 200, "other kinds of the group stay"
    assert b"rayjobs" in discovered.body
    assert b"rayclusters" not in discovered.body


# Faults


async def test_cut_watches_end_without_a_proper_end() -> None:
    async with calling(pods=1) as caller, watching(caller) as stream:
        await stream.next()
        await subscribed(caller)
        caller.cluster.faults.cut_watches()
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.rest()


async def test_ended_watches_end_properly_and_expired_ones_say_why() -> None:
    async with calling(pods=1) as caller:
        async with watching(caller) as stream:
            await stream.next()
            await subscribed(caller)
            caller.cluster.faults.end_watches()
            assert await stream.rest() == []
        async with watching(caller) as stream:
            await stream.next()
            await subscribed(caller)
            caller.cluster.faults.expire_watches()
            (event,) = await stream.rest()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_a_forbidden_kind_ends_its_watches_and_answers_403_until_allowed() -> None:
    async with calling(pods=1) as caller:
        faults = caller.cluster.faults
        async with watching(caller) as stream:
            await stream.next()
            await subscribed(caller)
            faults.forbid(PODS)
            assert await stream.rest() == []
        refused = await caller.get(PODS_PATH)
        other = await caller.get("/api/v1/nodes")
        faults.allow(PODS)
        allowed = await caller.get(PODS_PATH)
    assert (refused.status, other.status, allowed.status) == (403, 200, 200)
    assert 'cannot list resource "pods"' in refused.json["message"]


async def test_overload_and_outage_pass_after_so_many_requests() -> None:
    theirs = next(e for e in recorded("1.36", "errors-429") if e.status == 429)
    async with calling() as caller:
        caller.cluster.faults.too_many_requests = 1
        caller.cluster.faults.unavailable_requests = 1
        answers = [await caller.get(PODS_PATH) for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 503, 200]
    assert answers[0].body.decode() == theirs.body
    assert answers[0].headers["Retry-After"] == theirs.headers["Retry-After"]
    assert answers[0].headers["Content-Type"] == theirs.headers["Content-Type"]


async def test_a_page_break_refuses_one_token() -> None:
    async with calling(pods=5) as caller:
        token = (await caller.get(f"{PODS_PATH}?limit=2")).json["metadata"]["continue"]
        caller.cluster.faults.page_breaks = 1
        answers = [await caller.get(f"{PODS_PATH}?limit=2&continue={token}") for _ in range(2)]
    assert [answer.status for answer in answers] == [410, 200]


async def test_a_mute_watch_delivers_late_and_a_deaf_one_never() -> None:
    async with calling() as caller:
        faults = caller.cluster.faults
        then = caller.cluster.store.revision
        async with watching(caller, f"resourceVersion={then}") as stream:
            await subscribed(caller)
            faults.stalls_watches = True
            put_pod(caller.cluster, "late")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.response.content.readline(), 0.3)
            faults.stalls_watches = False
            late = await stream.next()
            faults.loses_events = lambda resource: resource == PODS
            put_pod(caller.cluster, "lost")
            await asyncio.sleep(0.2)
            faults.loses_events = None
            put_pod(caller.cluster, "heard")
            event = await stream.next()
    assert late["object"]["metadata"]["name"] == "late"
    assert event["object"]["metadata"]["name"] == "heard"


async def test_slow_answers_come() -> None:
    async with calling() as caller:
        caller.cluster.faults.delay_seconds = 0.2
        before = asyncio.get_running_loop().time()
        answer = await caller.get(PODS_PATH)
    assert answer.status == 200
    assert asyncio.get_running_loop().time() - before >= 0.2


async def test_compaction_sends_everybody_back_to_a_list() -> None:
    async with calling(pods=1) as caller:
        then = caller.cluster.store.revision
        async with watching(caller, f"resourceVersion={then}") as stream:
            await subscribed(caller)
            put_pod(caller.cluster, "new")
            caller.cluster.faults.compact()
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.rest()
        async with watching(caller, f"resourceVersion={then}") as stream:
            (event,) = await stream.rest()
    assert event["object"]["reason"] == "Expired"


def test_a_subscriber_that_lags_too_far_is_ended() -> None:
    from simulator.apiserver import store as subscription

    store = Store()
    slow = subscription.WatchQueue()
    table = store.table("", "events")
    assert table is not None
    table.subscriptions.add(slow)
    for number in range(subscription._BACKLOG + 1):
        store.put(
            EVENTS, {"metadata": {"name": f"e{number}", "namespace": "a", "uid": str(number)}}
        )
    assert slow.ending is subscription.Ending.CLEAN
    assert not slow.changes
