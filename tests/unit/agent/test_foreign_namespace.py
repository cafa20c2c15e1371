"""Somebody who may create any objects in one namespace changes nothing about the workloads of another."""

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.lives import SETTINGS
from tests.sync.test_agent_faults import made, pod
from tests.unit.agent.test_cache import DEFINITIONS, Filled
from watchbill.kinds.derive import derive
from watchbill.protocol import Record, canonical_bytes

Json = dict[str, Any]
OWN, FOREIGN = "vision", "speech"

_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main"}]}}


def _victims() -> list[Json]:
    """Workloads of several kinds with all that stands beside them, in the namespace `vision`."""
    deployment = made(
        "Deployment",
        "web",
        group="apps",
        namespace=OWN,
        spec={"replicas": 1, "template": _TEMPLATE},
    )
    replica_set = made("ReplicaSet", "web-1", deployment, group="apps", namespace=OWN, spec={})
    served = pod("web-1-a", replica_set, namespace=OWN)
    served["metadata"] |= {"labels": {"app": "web"}, "annotations": {"pod-group-name": "web"}}
    job = made(
        "Job", "train", group="batch", namespace=OWN, spec={"suspend": True, "template": _TEMPLATE}
    )
    waiting = pod("train-a", job, namespace=OWN)
    del waiting["spec"]["nodeName"]
    waiting["status"] = {"phase": "Pending"}
    waiting["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "gpu"}]
    bare = pod("alone", namespace=OWN)
    rollout = made("Rollout", "new", group="argoproj.io/v1alpha1", namespace=OWN)
    return [
        deployment,
        replica_set,
        served,
        job,
        waiting,
        bare,
        rollout,
        pod("new-a", rollout, namespace=OWN),
        *_beside(deployment, job, waiting),
    ]


def _beside(deployment: Json, job: Json, waiting: Json) -> list[Json]:
    claim = made(
        "ResourceClaim", "gpu", waiting, group="resource.k8s.io/v1", namespace=OWN, spec={}
    )
    claim["status"] = {"reservedFor": [{"uid": waiting["metadata"]["uid"]}]}
    return [
        made(
            "PodGroup",
            "web",
            deployment,
            group="scheduling.run.ai/v2alpha2",
            namespace=OWN,
            spec={"queue": "vision"},
        ),
        made(
            "Workload",
            "train",
            job,
            group="kueue.x-k8s.io/v1beta1",
            namespace=OWN,
            spec={"queueName": "q"},
            status={},
        ),
        made(
            "Service",
            "web",
            namespace=OWN,
            spec={"selector": {"app": "web"}, "ports": [{"port": 80}]},
        ),
        claim,
        made(
            "Event",
            "e",
            namespace=OWN,
            type="Warning",
            reason="FailedScheduling",
            message="0/3 nodes are available: 3 Insufficient cpu.",
            involvedObject={"uid": waiting["metadata"]["uid"]},
            eventTime="2026-11-23T12:00:05.000000Z",
        ),
        *(
            made("Queue", name, group="scheduling.run.ai/v2", namespace="", spec={})
            for name in (OWN, FOREIGN)
        ),
    ]


VICTIMS = _victims()
UIDS = [obj["metadata"]["uid"] for obj in VICTIMS]
NAMES = sorted({obj["metadata"]["name"] for obj in VICTIMS})
KINDS = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Event"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("argoproj.io/v1alpha1", "Rollout"),
    ("scheduling.run.ai/v2alpha2", "PodGroup"),
    ("scheduling.volcano.sh/v1beta1", "PodGroup"),
    ("kueue.x-k8s.io/v1beta1", "Workload"),
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
    ("resource.k8s.io/v1", "ResourceClaim"),
    ("resource.k8s.io/v1", "ResourceClaimTemplate"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.k8s.io/v1", "Ingress"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("keda.sh/v1alpha1", "ScaledObject"),
]

names = st.sampled_from(NAMES)
uids = st.sampled_from(UIDS)
texts = names | uids | st.sampled_from(["", OWN, FOREIGN, "true", "q", "4", "2199-01-01T00:00:00Z"])
KEYS = [
    "app",
    "kai.scheduler/queue",
    "kueue.x-k8s.io/queue-name",
    "project",
    "user",
    "runai-gpu-group",
    "pod-group-name",
    "scheduling.k8s.io/group-name",
    "run.ai/reserve_for_gpu_index",
    "run.ai/top-owner-uid",
    "gpu-fraction",
]
maps = st.dictionaries(st.sampled_from(KEYS), texts, max_size=4)


@st.composite
def metadata(draw: st.DrawFn, number: int) -> Json:
    references = st.builds(
        lambda kind, name, uid, is_controller: {
            "apiVersion": kind[0],
            "kind": kind[1],
            "name": name,
            "uid": uid,
            "controller": is_controller,
        },
        st.sampled_from(KINDS),
        names,
        uids,
        st.booleans(),
    )
    return {
        "name": draw(names | st.just(f"own-{number}")),
        "namespace": FOREIGN,
        "uid": f"00000000-0000-4000-8000-{number:012d}",
        "creationTimestamp": draw(
            st.sampled_from(["1970-01-01T00:00:00Z", "2026-11-23T12:00:00Z"])
        ),
        "labels": draw(maps),
        "annotations": draw(maps),
        "ownerReferences": draw(st.lists(references, max_size=2)),
    }


def _spec(draw: st.DrawFn) -> Json:
    """Every member by which one object leads to another."""
    backend = {"name": draw(names), "namespace": OWN, "kind": "Service"}
    return {
        "queue": draw(texts),
        "queueName": draw(texts),
        "clusterQueue": draw(texts),
        "nodeName": draw(texts),
        "schedulerName": "kai-scheduler",
        "suspend": draw(st.booleans()),
        "selector": draw(maps),
        "scaleTargetRef": {"kind": "Deployment", "name": draw(names)},
        "minReplicaCount": 0,
        "maxReplicas": 1_000_000,
        "resourceClaims": [{"name": "gpu", "resourceClaimName": draw(names)}],
        "containers": [
            {
                "name": "main",
                "image": "x/vllm:1",
                "resources": {"requests": {"nvidia.com/gpu": draw(st.sampled_from(["8", "1e50"]))}},
            }
        ],
        "hostnames": ["evil.example.com"],
        "gateways": ["mesh", "gw"],
        "hosts": ["evil.example.com"],
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": FOREIGN}],
        "to": [{"group": "", "kind": "Service"}],
        "rules": [{"backendRefs": [backend]}],
        "http": [{"route": [{"destination": {"host": f"web.{OWN}.svc.cluster.local"}}]}],
    }


def _status(draw: st.DrawFn) -> Json:
    accepted = {"type": "Accepted", "status": "True"}
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": "2199-01-01T00:00:00Z"}
        for kind in ("Ready", "Failed", "Complete", "Finished", "Admitted", "ResolvedRefs")
    ]
    return {
        "phase": draw(st.sampled_from(["Running", "Failed", "Succeeded", "Pending"])),
        "conditions": draw(st.sampled_from([[], conditions])),
        "reservedFor": [{"uid": draw(uids)}],
        "parents": [{"parentRef": {"name": "gw"}, "conditions": [accepted]}],
    }


@st.composite
def foreign_objects(draw: st.DrawFn) -> list[Json]:
    objects = []
    for number in range(draw(st.integers(1, 6))):
        api_version, kind = draw(st.sampled_from(KINDS))
        objects.append(
            {
                "apiVersion": api_version,
                "kind": kind,
                "metadata": draw(metadata(number)),
                "spec": _spec(draw),
                "status": _status(draw),
                "reason": "FailedScheduling",
                "message": "a claim",
                "involvedObject": {"uid": draw(uids), "namespace": OWN},
                "eventTime": "2199-01-01T00:00:00.000000Z",
            }
        )
    return objects


def records(filled: Filled) -> dict[str, bytes]:
    """The records of the namespace `vision`, as they are sent."""
    cache = filled.cache
    found: dict[str, Record] = {}
    for root in cache.owner_tree.in_namespace(OWN):
        if cache.is_alive(root):
            found[root] = derive(cache.gather(root), DEFINITIONS, SETTINGS).record
    return {root: canonical_bytes(record) for root, record in found.items()}


def filled_with(objects: Sequence[Json]) -> Filled:
    filled = Filled()
    filled.put(*copy.deepcopy(list(objects)))
    return filled


ALONE = records(filled_with(VICTIMS))


def test_the_victims_are_all_there() -> None:
    assert len(ALONE) == 4


@given(foreign_objects(), st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_change_no_record(objects: list[Json], are_first: bool) -> None:
    filled = filled_with([*objects, *VICTIMS] if are_first else VICTIMS)
    if not are_first:
        filled.put(*copy.deepcopy(objects))
    assert records(filled) == ALONE
    for obj in objects:
        filled.remove(obj)
    assert records(filled) == ALONE
    assert not set(filled.listener.deleted) & set(UIDS)


@given(foreign_objects())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_foreign_objects_keep_nothing_alive(objects: list[Json]) -> None:
    filled = filled_with([*VICTIMS, *objects])
    for obj in VICTIMS:
        filled.remove(obj)
    assert not records(filled)
    assert set(ALONE) <= set(filled.listener.deleted)
