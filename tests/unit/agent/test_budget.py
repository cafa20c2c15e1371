"""Whatever somebody keeps in one namespace, a bounded part of it is kept, and of the others everything."""

import json
import random
import string
from typing import Any

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.sync.test_agent_faults import chain, made, pod
from tests.unit.agent.test_cache import DEFINITIONS, Filled, root_uid
from watchbill.agent.cache.stored_objects import NamespaceBudget, decoded_size
from watchbill.kinds.derive import derive
from watchbill.kinds.objects import pod as pod_module
from watchbill.kinds.objects import resources
from watchbill.kinds.objects.pod import read_pod

Json = dict[str, Any]
_DRAW = random.Random(20261129)
LIMIT = 200_000


def noise(length: int) -> str:
    """Text that does not compress."""
    return "".join(_DRAW.choices(string.ascii_letters + string.digits, k=length))


@pytest.fixture
def filled() -> Filled:
    filled = Filled()
    filled.cache.budgets.compressed.most_bytes = LIMIT
    filled.cache.budgets.decoded.most_bytes = LIMIT
    filled.put(*chain())
    return filled


def kept_bytes(filled: Filled) -> int:
    """Of all that is kept compressed."""
    cache = filled.cache
    payloads = [entry.payload for entry in cache.owner_tree.entries.values()]
    return sum(map(len, cache._bare.values())) + sum(
        len(payload) for payload in payloads if isinstance(payload, bytes)
    )


def large(kind: str, number: int, group: str = "", **more: Any) -> Json:
    return made(kind, f"large-{number}", group=group, namespace="other", **more) | {
        "spec": {"note": noise(20_000), "containers": [{"name": "main", "image": "i"}]}
    }


@pytest.mark.parametrize(
    ("kind", "group"),
    [("Pod", ""), ("Deployment", "apps"), ("PyTorchJob", "kubeflow.org/v1"), ("Job", "batch")],
)
def test_workloads_beyond_a_namespace_s_bytes_are_there_without_their_details(
    filled: Filled, kind: str, group: str
) -> None:
    before = kept_bytes(filled)
    objects = [large(kind, number, group) for number in range(50)]
    filled.put(*objects)
    assert kept_bytes(filled) - before < LIMIT + 50 * 1_000
    for obj in objects:
        record = derive(filled.cache.gather(root_uid(obj)), DEFINITIONS, SETTINGS).record
        assert record.workload.name == obj["metadata"]["name"]
    message = filled.cache.shed_objects() or ""
    assert "in 1 namespaces" in message
    assert message.endswith(": other")
    for obj in objects:
        filled.remove(obj)
    assert filled.cache.shed_objects() is None
    assert kept_bytes(filled) == before
    assert not filled.cache.budgets.compressed._kept.keys() - filled.cache.owner_tree.entries.keys()


def test_there_is_room_again_for_what_comes_after(filled: Filled) -> None:
    objects = [large("Deployment", number, "apps") for number in range(50)]
    filled.put(*objects)
    for obj in objects[:-1]:
        filled.remove(obj)
    filled.put(objects[-1])
    assert filled.cache.shed_objects() is None
    assert filled.cache.gather(root_uid(objects[-1])).root["spec"] == objects[-1]["spec"]


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        ("Service", ""),
        ("HTTPRoute", "gateway.networking.k8s.io/v1"),
        ("HorizontalPodAutoscaler", "autoscaling/v2"),
        ("PodGroup", "scheduling.run.ai/v2alpha2"),
        ("ResourceClaim", "resource.k8s.io/v1"),
        ("Workload", "kueue.x-k8s.io/v1beta1"),
        ("LocalQueue", "kueue.x-k8s.io/v1beta1"),
        ("ResourceClaimTemplate", "resource.k8s.io/v1"),
        ("Gateway", "gateway.networking.k8s.io/v1"),
        ("ReferenceGrant", "gateway.networking.k8s.io/v1beta1"),
    ],
)
def test_what_stands_beside_workloads_is_bounded_too(filled: Filled, kind: str, group: str) -> None:
    own = made(kind, "own", group=group, namespace="team")
    filled.put(own)
    objects = [large(kind, number, group) for number in range(50)]
    filled.put(*objects)
    shed = filled.cache.budgets.shed()
    assert set(shed) == {"other"}
    assert shed["other"] >= 15
    for obj in (*objects, own):
        filled.remove(obj)
    assert not filled.cache.budgets.shed()
    assert not filled.cache.budgets.decoded._kept


def test_a_budget_counts_each_object_once() -> None:
    budget = NamespaceBudget(10)
    assert budget.admit("a", "n", 6)
    assert budget.admit("a", "n", 9), "in place of what was kept of it"
    assert not budget.admit("b", "n", 2)
    assert budget.admit("b", "m", 2), "another namespace has its own"
    assert not budget.admit("a", "n", 11)
    assert budget.shed == {"n": {"a"}}
    budget.release("a")
    budget.release("b")
    assert (budget.shed, budget._bytes, budget._kept) == ({}, {}, {})


def test_many_small_values_count_for_what_they_take() -> None:
    values = b"[" + b"[]," * 10_000 + b"[]]"
    assert decoded_size(values) > 2_000_000
    assert decoded_size(json.dumps({"note": "x" * 30_000}).encode()) < 31_000


def test_a_pod_is_small_whatever_it_holds() -> None:
    huge = pod("huge")
    text = noise(300_000)
    huge["metadata"] |= {
        "labels": {f"k{number}": text[:2_000] for number in range(500)},
        "annotations": {"user": text, "pod-group-name": text},
        "ownerReferences": [
            {
                "apiVersion": text,
                "kind": text,
                "name": text,
                "uid": text,
                "controller": number == 999,
            }
            for number in range(1_000)
        ],
    }
    containers = [
        {
            "name": f"c{n}",
            "image": f"{n}{text}",
            "resources": {"requests": {f"x.y/{n}{text}": text}},
        }
        for n in range(200)
    ]
    huge["spec"] |= {
        "containers": containers,
        "nodeSelector": {text: text},
        "schedulerName": text,
        "resourceClaims": [
            {"name": f"c{n}", "resourceClaimName": f"{n}{text}"} for n in range(300)
        ],
    }
    huge["status"] |= {"message": text, "reason": text}
    read = read_pod(huge)
    assert len(msgspec.json.encode(read)) < 200_000
    assert any(owner.is_controller for owner in read.owners)


def test_what_is_shared_among_pods_has_no_large_keys() -> None:
    pod_module._owner.cache_clear()
    resources._shared_sums.cache_clear()
    requests = {f"x.y/r{number}": "1" for number in range(90)}
    spec = {"containers": [{"resources": {"requests": requests}} for _ in range(50)]}
    assert len(resources.pod_resources(spec).extended) == 90
    assert resources._shared_sums.cache_info().currsize == 0
    resources.pod_resources({"containers": [{"resources": {"requests": {"cpu": "1"}}}]})
    assert resources._shared_sums.cache_info().currsize == 1
