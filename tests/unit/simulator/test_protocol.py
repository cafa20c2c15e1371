"""The simulated API server against what real ones were recorded to answer, over real HTTP."""

import gzip
import json
import re
from typing import Any

import pytest

from simulator.apiserver.discovery import V1_20, V1_36
from simulator.resources import DEPLOYMENTS, PODS, RAY_CLUSTERS
from tests.fixtures.kubernetes.demo_cluster import PARTIAL, PARTIAL_LIST, Caller, calling, put_pod
from tests.fixtures.kubernetes.replay import Exchange, recorded

RELEASES = {"1.36": V1_36, "1.20": V1_20}


def _status_exchanges(version: str) -> list[Exchange]:
    """Refused reads of the recordings, one per kind of refusal and path."""
    collected: dict[str, Exchange] = {}
    for name in ("errors", "list-variants", "list-paging", "watch-start-modes"):
        for exchange in recorded(version, name):
            is_read = exchange.method == "GET" and exchange.lines is None
            if is_read and exchange.status >= 400 and _is_ours(exchange):
                collected.setdefault(exchange.path + str(exchange.status), exchange)
    return list(collected.values())


def _is_ours(exchange: Exchange) -> bool:
    """Left out: rights by user, and formats that the simulated server does not offer."""
    return exchange.status not in (401, 403, 406) and "/log" not in exchange.path


def _without_numbers(body: str) -> Any:
    """A refusal without the figures that belong to its moment."""
    masked = re.sub(r"current: \d+", "current: N", body)
    masked = re.sub(r"(continue key is not valid: )[^\"]*", r"\1...", masked)
    return json.loads(masked) if masked.startswith("{") else masked


@pytest.mark.parametrize(
    "exchange", _status_exchanges("1.36"), ids=lambda exchange: str(exchange.path)
)
async def test_refusals_are_those_of_a_real_server(exchange: Exchange) -> None:
    async with calling() as caller:
        for name in ("tiny", "e", "w"):
            put_pod(caller.cluster, "solo-65f5d77746-fx54k", namespace=name)
        answer = await caller.get(exchange.path)
    assert answer.status == exchange.status
    assert answer.headers["Content-Type"] == exchange.headers["Content-Type"]
    assert answer.headers.get("Retry-After") == exchange.headers.get("Retry-After")
    assert _without_numbers(answer.body.decode()) == _without_numbers(exchange.body)


def test_the_recordings_hold_refusals_to_compare() -> None:
    assert len(_status_exchanges("1.36")) >= 20
    assert {410, 504} & {exchange.status for exchange in _status_exchanges("1.36")}


@pytest.mark.parametrize("version", RELEASES)
async def test_lists_have_the_shape_of_recorded_ones(version: str) -> None:
    page = recorded(version, "list-paging")[0]
    async with calling(version=RELEASES[version], pods=120) as caller:
        answer = await caller.get("/api/v1/pods?limit=50")
    theirs, ours = json.loads(page.body), answer.json
    assert list(ours) == list(theirs)
    assert set(ours["metadata"]) == set(theirs["metadata"])
    assert set(ours["items"][0]) <= set(theirs["items"][0])
    assert "kind" not in ours["items"][0]
    assert answer.headers["Transfer-Encoding"] == page.headers["Transfer-Encoding"]


async def test_custom_lists_name_the_kind_of_every_item_and_an_empty_continue() -> None:
    recorded_list = next(
        exchange
        for exchange in recorded("1.36", "list-variants")
        if exchange.note == "empty list of a custom resource"
    )
    async with calling() as caller:
        empty = await caller.get("/apis/ray.io/v1/rayclusters")
        caller.cluster.store.put(
            RAY_CLUSTERS, {"metadata": {"name": "r", "namespace": "a", "uid": "u"}, "spec": {}}
        )
        filled = await caller.get("/apis/ray.io/v1/rayclusters")
    theirs = json.loads(recorded_list.body)
    assert set(empty.json) == set(theirs)
    assert empty.json["metadata"]["continue"] == theirs["metadata"]["continue"] == ""
    assert filled.json["items"][0]["kind"] == "RayCluster"
    assert filled.json["items"][0]["apiVersion"] == "ray.io/v1"


async def test_pages_show_one_revision_whatever_happens_between() -> None:
    async with calling(pods=13) as caller:
        first = (await caller.get("/api/v1/pods?limit=5")).json
        put_pod(caller.cluster, "zz-late", namespace="ns2")
        caller.cluster.store.delete(PODS, "ns2", "p011")
        pages = [first]
        while token := pages[-1]["metadata"].get("continue"):
            pages.append((await caller.get(f"/api/v1/pods?limit=5&continue={token}")).json)
        names = [item["metadata"]["name"] for page in pages for item in page["items"]]
        revisions = {page["metadata"]["resourceVersion"] for page in pages}
        later = (await caller.get("/api/v1/pods")).json
    assert len(names) == len(set(names)) == 13
    assert "p011" in names
    assert "zz-late" not in names
    assert len(revisions) == 1
    assert [page["metadata"].get("remainingItemCount") for page in pages] == [8, 3, None]
    assert int(later["metadata"]["resourceVersion"]) > int(revisions.pop())


async def test_remaining_items_are_not_counted_with_a_selector_nor_by_old_servers_for_metadata() -> (
    None
):
    async with calling(pods=9) as caller:
        selected = await caller.get("/api/v1/pods?limit=2&labelSelector=app%3Dweb")
        partial = await caller.get("/api/v1/pods?limit=2", Accept=PARTIAL_LIST)
    async with calling(pods=9, version=V1_20) as caller:
        old = await caller.get("/api/v1/pods?limit=2", Accept=PARTIAL_LIST)
    assert "remainingItemCount" not in selected.json["metadata"]
    assert partial.json["metadata"]["remainingItemCount"] == 7
    assert "remainingItemCount" not in old.json["metadata"]


async def test_limit_is_ignored_at_resource_version_zero() -> None:
    async with calling(pods=9) as caller:
        answer = await caller.get("/api/v1/pods?limit=2&resourceVersion=0")
    assert len(answer.json["items"]) == 9
    assert "continue" not in answer.json["metadata"]


async def test_a_revision_with_limit_or_exact_is_that_revision_else_at_least_it() -> None:
    async with calling(pods=2) as caller:
        then = caller.cluster.store.revision
        put_pod(caller.cluster, "later")
        collected = {}
        for query in (
            "limit=9&",
            "resourceVersionMatch=Exact&",
            "resourceVersionMatch=NotOlderThan&",
            "",
        ):
            answer = await caller.get(f"/api/v1/pods?{query}resourceVersion={then}")
            collected[query] = (
                answer.json["metadata"]["resourceVersion"],
                len(answer.json["items"]),
            )
    exact, present = (str(then), 2), (str(then + 1), 3)
    assert list(collected.values()) == [exact, exact, present, present]


async def test_an_expired_token_offers_an_inconsistent_rest() -> None:
    theirs = next(e for e in recorded("1.36", "list-expired-after-compaction") if e.status == 410)
    async with calling(pods=6) as caller:
        token = (await caller.get("/api/v1/pods?limit=2")).json["metadata"]["continue"]
        put_pod(caller.cluster, "zz-late", namespace="ns2")
        caller.cluster.store.compact()
        refused = await caller.get(f"/api/v1/pods?limit=2&continue={token}")
        rest = refused.json["metadata"]["continue"]
        answer = await caller.get(f"/api/v1/pods?limit=9&continue={rest}")
    expected = json.loads(theirs.body)
    assert refused.status == 410
    assert {**refused.json, "metadata": 0} == {**expected, "metadata": 0}
    assert set(refused.json["metadata"]) == {"continue"}
    assert [i["metadata"]["name"] for i in answer.json["items"]][-1] == "zz-late"
    assert len(answer.json["items"]) == 5


async def test_an_exact_list_of_a_forgotten_revision_is_410_without_token() -> None:
    async with calling(pods=3) as caller:
        then = caller.cluster.store.revision
        put_pod(caller.cluster, "later")
        caller.cluster.store.compact()
        answer = await caller.get(f"/api/v1/pods?resourceVersionMatch=Exact&resourceVersion={then}")
        newer = await caller.get(
            f"/api/v1/pods?resourceVersionMatch=NotOlderThan&resourceVersion={then}"
        )
    assert (answer.status, answer.json["reason"], answer.json["metadata"]) == (410, "Expired", {})
    assert newer.status == 200


async def test_a_missing_group_is_plain_text_and_a_missing_namespace_empty() -> None:
    async with calling(pods=1) as caller:
        group = await caller.get("/apis/nosuch.example.com/v1/things")
        version = await caller.get("/apis/ray.io/v9/rayclusters")
        built_in = await caller.get("/apis/apps/v9/deployments")
        namespace = await caller.get("/api/v1/namespaces/nowhere/pods")
    assert (group.status, group.body) == (404, b"404 page not found\n")
    assert (version.status, version.body) == (404, b"404 page not found\n")
    assert (built_in.status, built_in.json["kind"]) == (404, "Status")
    assert (namespace.status, namespace.json["items"]) == (200, [])


async def test_rights_are_refused_as_recorded() -> None:
    exchanges = [
        exchange
        for exchange in recorded("1.36", "errors")
        if exchange.status == 403 and exchange.method == "GET" and '"nobody\\"' in exchange.body
    ]
    assert len(exchanges) >= 4
    async with calling() as caller:
        caller.cluster.users["theirs"] = "nobody"
        for exchange in exchanges:
            answer = await caller.get(exchange.path, token="theirs")
            assert answer.status == 403
            assert answer.json == json.loads(exchange.body)


async def test_a_wrong_token_is_401_everywhere_and_none_is_anonymous() -> None:
    async with calling() as caller:
        wrong = [await caller.get(p, token="no") for p in ("/api/v1/pods", "/version")]
        none = await caller.get("/api/v1/pods", token=None)
        path = await caller.get("/apis", token=None)
        public = await caller.get("/version", token=None)
    assert [answer.status for answer in wrong] == [401, 401]
    assert wrong[0].json["reason"] == "Unauthorized"
    assert (none.status, "system:anonymous" in none.json["message"]) == (403, True)
    assert (path.status, path.json["message"]) == (
        403,
        'forbidden: User "system:anonymous" cannot get path "/apis"',
    )
    assert public.status == 200


async def test_metadata_comes_alone_where_asked() -> None:
    async with calling(pods=2) as caller:
        result = await caller.get("/api/v1/pods", Accept=PARTIAL_LIST)
        single = await caller.get("/api/v1/namespaces/ns0/pods/p000", Accept=PARTIAL)
        fallback = await caller.get(
            "/api/v1/pods", Accept=PARTIAL_LIST.replace("v=v1", "v=v9") + ",application/json"
        )
    assert result.json["kind"] == "PartialObjectMetadataList"
    item = result.json["items"][0]
    assert (item["kind"], set(item)) == (
        "PartialObjectMetadata",
        {"kind", "apiVersion", "metadata"},
    )
    assert single.json["metadata"]["name"] == "p000"
    assert "spec" not in single.json
    assert fallback.json["kind"] == "PodList"


@pytest.mark.parametrize(
    "accept", [PARTIAL, PARTIAL_LIST.replace("v=v1", "v=v9"), "application/xml"]
)
async def test_forms_that_are_not_offered_are_406(accept: str) -> None:
    async with calling(pods=1) as caller:
        answer = await caller.get("/api/v1/pods", Accept=accept)
    assert (answer.status, answer.json["reason"]) == (406, "NotAcceptable")


async def test_large_answers_are_compressed_and_chunked_small_ones_neither() -> None:
    async with calling(pods=600) as caller:
        large = await caller.get("/api/v1/pods", Accept_Encoding="gzip")
        plain = await caller.get("/api/v1/pods", Accept_Encoding="identity")
        small = await caller.get("/api/v1/namespaces/nowhere/pods", Accept_Encoding="gzip")
    assert large.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(large.body) == plain.body
    assert large.headers["Transfer-Encoding"] == "chunked"
    assert int(small.headers["Content-Length"]) == len(small.body)
    assert "Content-Encoding" not in small.headers


async def test_discovery_answers_plain_and_aggregated_alike() -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    theirs = next(
        e
        for e in recorded("1.36", "discovery")
        if e.path == "/apis" and "as=APIGroupDiscoveryList" in e.headers.get("Content-Type", "")
    )
    async with calling() as caller:
        groups = (await caller.get("/apis")).json["groups"]
        aggregated = await caller.get("/apis", Accept=accept)
        again = await caller.get("/apis", Accept=accept, If_None_Match=aggregated.headers["Etag"])
        plain = await _plain_kinds(caller, groups)
    assert aggregated.headers["Content-Type"] == theirs.headers["Content-Type"]
    assert (again.status, again.body) == (304, b"")
    combined = {
        (item["metadata"]["name"], version["version"], entry["responseKind"]["kind"])
        for item in aggregated.json["items"]
        for version in item["versions"]
        for entry in version["resources"]
    }
    assert combined == plain
    assert ("scheduling.run.ai", "v2alpha2", "PodGroup") in combined
    recorded_items = {i["metadata"]["name"]: i for i in json.loads(theirs.body)["items"]}
    ours = {i["metadata"]["name"]: i for i in aggregated.json["items"]}
    assert _shape(ours["ray.io"]) == _shape(recorded_items["ray.io"])


async def _plain_kinds(caller: Caller, groups: Any) -> set[tuple[str, str, str]]:
    collected = set()
    for group in groups:
        for version in group["versions"]:
            document = (await caller.get(f"/apis/{version['groupVersion']}")).json
            collected |= {
                (group["name"], version["version"], entry["kind"])
                for entry in document["resources"]
                if "/" not in entry["name"]
            }
    return collected


def _shape(value: Any) -> Any:
    """Keys and types, without values; lists by the shape of what they hold, once each."""
    if isinstance(value, dict):
        return {key: _shape(entry) for key, entry in sorted(value.items()) if key != "shortNames"}
    if isinstance(value, list):
        return sorted({json.dumps(_shape(entry)) for entry in value})
    return type(value).__name__


async def test_old_servers_know_no_aggregated_discovery() -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    async with calling(version=V1_20) as caller:
        answer = await caller.get("/apis", Accept=accept)
        version = await caller.get("/version")
    assert answer.json["kind"] == "APIGroupList"
    assert version.json["minor"] == "20"


async def test_writing_is_not_allowed_to_the_agent() -> None:
    async with calling(pods=1) as caller:
        url = f"{caller.cluster.url}/api/v1/namespaces/ns0/pods/p000"
        headers = {"Authorization": f"Bearer {caller.cluster.token}"}
        async with caller.session.delete(url, headers=headers) as response:
            body = await response.json()
    assert response.status == 403
    assert 'cannot delete resource "pods"' in body["message"]


async def test_a_varied_server_says_the_same_in_ever_other_ways() -> None:
    async with calling(pods=40) as plain, calling(seed=3, pods=40) as varied:
        expected = (await plain.get("/api/v1/pods")).json
        answers = [await varied.get("/api/v1/pods") for _ in range(20)]
    assert len({answer.body for answer in answers}) > 5
    for answer in answers:
        assert answer.json["kind"] == expected["kind"]
        assert answer.json["items"] == expected["items"]


async def test_one_object_is_whole_and_knows_its_kind() -> None:
    async with calling() as caller:
        document = {
            "metadata": {"name": "d", "namespace": "a", "uid": "u"},
            "spec": {"replicas": 1},
            "status": {},
        }
        stored = caller.cluster.store.put(DEPLOYMENTS, document)
        answer = await caller.get("/apis/apps/v1/namespaces/a/deployments/d")
        sub = await caller.get("/apis/apps/v1/namespaces/a/deployments/d/scale")
    assert (answer.json["kind"], answer.json["apiVersion"]) == ("Deployment", "apps/v1")
    assert answer.json["metadata"]["resourceVersion"] == str(stored.revision)
    assert answer.json["metadata"]["generation"] == 1
    assert answer.json["spec"] == {"replicas": 1}
    assert sub.status == 404
