"""However deep an object is nested, it is read to a bounded depth and is there; so are the others."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.kubernetes.agent_objects import chain, made, pod
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.unit.agent.test_cache import DEFINITIONS, Filled, root_uid
from watchbill.agent.kubernetes.bounded_json import (
    MAX_DEPTH,
    MAX_ITEMS,
    decode_object,
    without_deep_text,
)
from watchbill.agent.kubernetes.client import _decoded_page
from watchbill.agent.kubernetes.errors import ErrorKind, failure_of_response
from watchbill.agent.kubernetes.watch_stream import read_event, read_head
from watchbill.kinds.derive import derive

DEPTHS = (MAX_DEPTH + 1, 900, 20_000)
KINDS = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Event"),
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("apps/v1", "Deployment"),
    ("batch/v1", "Job"),
    ("kubeflow.org/v1", "PyTorchJob"),
    ("ray.io/v1", "RayCluster"),
    ("argoproj.io/v1alpha1", "Rollout"),
    ("scheduling.run.ai/v2alpha2", "PodGroup"),
    ("scheduling.volcano.sh/v1beta1", "Queue"),
    ("kueue.x-k8s.io/v1beta1", "Workload"),
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
    ("resource.k8s.io/v1", "ResourceClaim"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    ("keda.sh/v1alpha1", "ScaledObject"),
]


def deep(levels: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * levels + b"1" + closing * levels


def with_depth(obj: dict[str, Any], levels: int) -> bytes:
    """The object, deep in its specification, its status, an unknown member and its managed fields."""
    marked = obj | {
        "spec": obj.get("spec", {}) | {"deep": "@"},
        "status": obj.get("status", {}) | {"deep": "@"},
        "deep": "@",
        "metadata": obj["metadata"] | {"managedFields": [{"fieldsV1": "@"}]},
    }
    parts = json.dumps(marked).encode().split(b'"@"')
    nested = (deep(levels), deep(levels, b"[", b"]"), deep(levels), deep(levels))
    return b"".join(part + each for part, each in zip(parts, (*nested, b""), strict=True))


def depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return depth


@pytest.mark.parametrize("levels", DEPTHS)
@pytest.mark.parametrize(("api_version", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_a_deep_object_of_any_kind_is_taken_and_others_stay(
    api_version: str, kind: str, levels: int
) -> None:
    filled = Filled()
    filled.put(*chain())
    obj = made(kind, "deep", group=api_version, namespace="team")
    body = with_depth(obj | {"apiVersion": api_version}, levels)
    filled.sink(obj | {"apiVersion": api_version}).put(read_head(body), body)
    for root in tuple(filled.cache.owner_tree.groups):
        assert derive(filled.cache.gather(root), DEFINITIONS, SETTINGS).record


@pytest.mark.parametrize("levels", DEPTHS)
def test_a_deep_pod_is_a_workload_like_any_other(levels: int) -> None:
    plain, nested = Filled(), Filled()
    single = pod("single")
    plain.put(single)
    body = with_depth(single, levels)
    nested.sink(single).put(read_head(body), body)
    records = [
        derive(each.cache.gather(root_uid(single)), DEFINITIONS, SETTINGS).record
        for each in (plain, nested)
    ]
    assert records[0] == records[1]


def test_a_page_and_a_watch_bring_deep_objects_beside_others() -> None:
    first, second = with_depth(pod("a"), 20_000), json.dumps(pod("b")).encode()
    page = _decoded_page(b'{"metadata":{"resourceVersion":"7"},"items":[%b,%b]}' % (first, second))
    assert page.metadata.resource_version == "7"
    assert [read_head(item).name for item in page.items or ()] == ["a", "b"]
    event = read_event(b'{"type":"ADDED","object":%b}' % first)
    assert (event.type, event.meta.name) == ("ADDED", "a")


def test_a_pod_s_own_error_may_be_deep() -> None:
    failure = failure_of_response(500, {}, deep(60_000, b"[", b"]"))
    assert failure.kind is ErrorKind.BUSY
    assert (
        failure_of_response(404, {}, b'{"message":"gone","a":%b}' % deep(9_000)).message == "gone"
    )


json_values = st.recursive(
    st.none() | st.integers(-9, 9) | st.text('a"\\[]{}', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('a"\\[{', max_size=2), inner, max_size=3)
    ),
    max_leaves=30,
)


@given(json_values, st.integers(1, 6))
def test_text_and_object_are_cut_alike(value: Any, levels: int) -> None:
    body = msgspec.json.encode({"x": value})
    cut = msgspec.json.decode(without_deep_text(body, levels))
    assert depth_of(cut) == min(levels, depth_of({"x": value}))
    if depth_of({"x": value}) < levels:
        assert cut == {"x": value}


def test_what_is_kept_has_the_published_depth() -> None:
    for levels in DEPTHS:
        assert depth_of(decode_object(deep(levels))) == MAX_DEPTH
    fitting = deep(MAX_DEPTH - 1)
    assert decode_object(fitting) == json.loads(fitting)


def test_a_list_has_so_many_items() -> None:
    body = json.dumps({"a": list(range(MAX_ITEMS + 5)), "b": {"c": [[0] * (MAX_ITEMS + 1)]}})
    cut = decode_object(body.encode())
    assert cut == {"a": list(range(MAX_ITEMS)), "b": {"c": [[0] * MAX_ITEMS]}}
