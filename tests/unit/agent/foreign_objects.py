"""Workloads of a namespace, and whatever objects somebody may create in another one."""

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.fixtures.kubernetes.agent_objects import made, pod
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.unit.agent.test_cache import DEFINITIONS, Filled
from watchbill.kinds.derive import derive
from watchbill.protocol import Record, canonical_bytes

Json = dict[str, Any]
OWN = ("vision", "a", "z-team")
FOREIGN = ("speech", "0", "zz", "vision-2")

_GPUS = {"resources": {"requests": {"nvidia.com/gpu": "1"}}}
_TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main"}]}}


def _victims(own: str) -> list[Json]:
    """Workloads of several kinds with the objects related to them, in one namespace."""
    deployment = made(
        "Deployment",
        "web",
        group="apps",
        namespace=own,
        spec={"replicas": 1, "template": _TEMPLATE},
    )
    replica_set = made("ReplicaSet", "web-1", deployment, group="apps", namespace=own, spec={})
    served = pod("web-1-a", replica_set, namespace=own)
    served["metadata"] |= {"labels": {"app": "web"}, "annotations": {"pod-group-name": "web"}}
    job = made(
        "Job", "train", group="batch", namespace=own, spec={"suspend": True, "template": _TEMPLATE}
    )
    waiting = pod("train-a", job, namespace=own)
    del waiting["spec"]["nodeName"]
    waiting["status"] = {"phase": "Pending"}
    waiting["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "gpu"}]
    bare = pod("alone", namespace=own)
    served["spec"]["containers"][0] |= {"image": "x/vllm:1", **_GPUS}
    served["status"]["podIP"] = "192.0.2.1"
    gang = made(
        "Job", "gang", group="batch.volcano.sh/v1alpha1", namespace=own, spec={"queue": "q"}
    )
    member = pod("gang-a", gang, namespace=own)
    member["metadata"]["annotations"] = {"scheduling.k8s.io/group-name": "gang"}
    member["metadata"]["labels"] = {"runai-gpu-group": "shared"}
    member["spec"]["containers"][0] |= _GPUS
    rollout = made("Rollout", "new", group="argoproj.io/v1alpha1", namespace=own)
    return [
        deployment,
        replica_set,
        served,
        job,
        waiting,
        bare,
        gang,
        member,
        rollout,
        pod("new-a", rollout, namespace=own),
        *_related(deployment, job, waiting, own),
    ]


def _related(deployment: Json, job: Json, waiting: Json, own: str) -> list[Json]:
    claim = made(
        "ResourceClaim", "gpu", waiting, group="resource.k8s.io/v1", namespace=own, spec={}
    )
    claim["spec"] = {
        "devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]}
    }
    allocated = {"request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-0"}
    claim["status"] = {
        "reservedFor": [{"uid": waiting["metadata"]["uid"]}],
        "allocation": {"devices": {"results": [allocated]}},
    }
    accepted = [{"type": "Accepted", "status": "True"}]
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "own.example.com"}
    return [
        made(
            "PodGroup",
            "web",
            deployment,
            group="scheduling.run.ai/v2alpha2",
            namespace=own,
            spec={"queue": own},
        ),
        made(
            "Workload",
            "train",
            job,
            group="kueue.x-k8s.io/v1beta1",
            namespace=own,
            spec={"queueName": "q"},
            status={},
        ),
        made(
            "Service",
            "web",
            namespace=own,
            spec={"selector": {"app": "web"}, "ports": [{"port": 80}]},
        ),
        claim,
        made(
            "PodGroup",
            "gang",
            group="scheduling.volcano.sh/v1beta1",
            namespace=own,
            spec={"queue": "q", "minMember": 1},
        ),
        made(
            "LocalQueue",
            "q",
            group="kueue.x-k8s.io/v1beta1",
            namespace=own,
            spec={"clusterQueue": "cq"},
        ),
        made(
            "Gateway",
            "gw",
            group="gateway.networking.k8s.io/v1",
            namespace=own,
            spec={"listeners": [listener]},
        ),
        made(
            "HTTPRoute",
            "web",
            group="gateway.networking.k8s.io/v1",
            namespace=own,
            spec={"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "web"}]}]},
            status={"parents": [{"parentRef": {"name": "gw"}, "conditions": accepted}]},
        ),
        *(
            made("ClusterQueue", name, group="kueue.x-k8s.io/v1beta1", namespace="", spec={})
            for name in ("cq", "other")
        ),
        made("Queue", "q", group="scheduling.volcano.sh/v1beta1", namespace="", spec={}),
        made(
            "Event",
            "e",
            namespace=own,
            type="Warning",
            reason="FailedScheduling",
            message="0/3 nodes are available: 3 Insufficient cpu.",
            involvedObject={"uid": waiting["metadata"]["uid"]},
            eventTime="2026-11-23T12:00:05.000000Z",
        ),
        *(
            made("Queue", name, group="scheduling.run.ai/v2", namespace="", spec={})
            for name in (*OWN, *FOREIGN)
        ),
    ]


VICTIMS = {own: _victims(own) for own in OWN}
UIDS = [obj["metadata"]["uid"] for objs in VICTIMS.values() for obj in objs]
NAMES = sorted({obj["metadata"]["name"] for objs in VICTIMS.values() for obj in objs})
KINDS = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Event"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch.volcano.sh/v1alpha1", "Job"),
    ("argoproj.io/v1alpha1", "Rollout"),
    ("scheduling.run.ai/v2alpha2", "PodGroup"),
    ("scheduling.volcano.sh/v1beta1", "PodGroup"),
    ("scheduling.k8s.io/v1alpha2", "PodGroup"),
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
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ("inference.networking.k8s.io/v1", "InferencePool"),
    ("inference.networking.x-k8s.io/v1alpha2", "InferencePool"),
    ("route.openshift.io/v1", "Route"),
    ("networking.istio.io/v1", "Gateway"),
    ("apps/v1", "StatefulSet"),
    ("jobset.x-k8s.io/v1alpha2", "JobSet"),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ("kubeflow.org/v1", "PyTorchJob"),
    ("ray.io/v1", "RayCluster"),
    ("serving.kserve.io/v1beta1", "InferenceService"),
    ("serving.knative.dev/v1", "Service"),
    ("argoproj.io/v1alpha1", "Workflow"),
]

names = st.sampled_from(NAMES)
uids = st.sampled_from(UIDS)
texts = (
    names
    | uids
    | st.sampled_from(["", *OWN, *FOREIGN, "true", "q", "4", "2199-01-01T00:00:00Z"])
    | st.sampled_from(["nvidia-dcgm-exporter", "shared", "gang"])
)
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
def metadata(draw: st.DrawFn, number: int, foreign: str) -> Json:
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
        "namespace": foreign,
        "uid": f"00000000-0000-4000-8000-{number:012d}",
        "creationTimestamp": draw(
            st.sampled_from(["1970-01-01T00:00:00Z", "2026-11-23T12:00:00Z"])
        ),
        "labels": draw(maps),
        "annotations": draw(maps),
        "ownerReferences": draw(st.lists(references, max_size=2)),
    }


def _spec(draw: st.DrawFn, own: str, foreign: str) -> Json:
    """Every member by which one object leads to another."""
    backend = {"name": draw(names), "namespace": own, "kind": "Service"}
    return {
        "queue": draw(texts),
        "queueName": draw(texts),
        "clusterQueue": draw(texts),
        "nodeName": draw(texts),
        "schedulerName": "kai-scheduler",
        "suspend": draw(st.booleans()),
        "selector": draw(maps),
        "schedulingGroup": {"podGroupName": draw(texts)},
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
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": foreign}],
        "to": draw(
            st.sampled_from(
                [
                    [{"group": "", "kind": "Service"}],
                    {"kind": "Service", "name": "web", "namespace": own},
                ]
            )
        ),
        "host": "evil.example.com",
        "servers": [{"port": {"number": 80}, "hosts": ["*"]}],
        "targetPorts": [{"number": 8000}],
        "rules": [{"backendRefs": [backend]}],
        "parentRefs": [{"name": "gw", "namespace": draw(st.sampled_from([own, foreign]))}],
        "listeners": [{"name": "http", "port": 6666, "protocol": "HTTP"}],
        "minMember": 1_000_000,
        "priorityClassName": draw(texts),
        "devices": {"requests": [{"name": draw(names), "exactly": {"count": 1_000_000}}]},
        "http": [{"route": [{"destination": {"host": f"web.{own}.svc.cluster.local"}}]}],
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
        "podIP": draw(st.sampled_from(["", "192.0.2.1", "127.0.0.1"])),
        "allocation": {
            "devices": {"results": [{"request": "gpu", "pool": "node-1", "device": "gpu-0"}]}
        },
        "admission": {"clusterQueue": draw(texts), "podSetAssignments": []},
        "parents": [{"parentRef": {"name": "gw"}, "conditions": [accepted]}],
    }


@st.composite
def attacks(draw: st.DrawFn) -> tuple[str, list[Json]]:
    """A namespace, and what somebody makes in another one."""
    own, foreign = draw(st.sampled_from(OWN)), draw(st.sampled_from(FOREIGN))
    objects = []
    for number in range(draw(st.integers(1, 6))):
        api_version, kind = draw(st.sampled_from(KINDS))
        objects.append(
            {
                "apiVersion": api_version,
                "kind": kind,
                "metadata": draw(metadata(number, foreign)),
                "spec": _spec(draw, own, foreign),
                "status": _status(draw),
                "reason": "FailedScheduling",
                "message": "a claim",
                "involvedObject": {"uid": draw(uids), "namespace": own},
                "eventTime": "2199-01-01T00:00:00.000000Z",
            }
        )
    return own, objects


def records(filled: Filled, own: str) -> dict[str, bytes]:
    """The records of a namespace, as they are sent."""
    cache = filled.cache
    collected: dict[str, Record] = {}
    for root in cache.owner_tree.in_namespace(own):
        if cache.is_alive(root):
            collected[root] = derive(cache.gather(root), DEFINITIONS, SETTINGS).record
    return {root: canonical_bytes(record) for root, record in collected.items()}


def filled_with(objects: Sequence[Json]) -> Filled:
    filled = Filled()
    filled.put(*copy.deepcopy(list(objects)))
    return filled
